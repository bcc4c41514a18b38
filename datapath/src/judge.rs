//! Packet to verdict: the whole path on one page.
//!
//! Read the frame; find the flow's record; if it is settled and fresh, count and return. Everything else goes through
//! [`unsettled`]: [`crate::admit`] judges the connection, [`crate::follow`] tracks it, and they leave a record that the
//! next packet finds.

use crate::abi::packet::Trace;
use crate::abi::{
    Action, Config, Direction, FlowKey, FlowRecord, FlowSlot, FragmentKey, FragmentPorts, Limits, Packet,
    Reason, Settled, Side,
};
use crate::admit;
use crate::blocked::{self, Sender};
use crate::event;
use crate::frame::Frame;
use crate::lane::{self, Lane};
use crate::policy::{self, Judgement, Moment};
use crate::record;
use crate::reset;
use crate::stage::Stages;
use crate::tables::{Plane, Rules, Sink, Slots, Table, Tables};
use crate::turned::{self, Known};
use crate::weight::Weight;
use crate::wire::{self, eth, proto, tcp, tunnel};

/// What becomes of a packet, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The rule that decided, 0 for none.
    pub rule: u32,
    /// The verdict.
    pub action: Action,
    /// The reason.
    pub reason: Reason,
    /// What the rule asks beyond the verdict: the [`crate::abi::Limits`] bits. A word, or LLVM writes two bytes
    /// at an odd place ("misaligned stack access", 6.18).
    pub limits: u32,
}

impl Verdict {
    /// A verdict that no rule gave.
    #[inline(always)]
    pub(crate) fn plain(action: Action, reason: Reason) -> Self {
        Self { rule: 0, action, reason, limits: 0 }
    }
}

/// Judges one frame and counts it.
///
/// `trace` says where a packet is kept that the fast lane does not settle: the kernel's stack has no room for it. With
/// [`Config::TRACE`] every packet and its verdict are found there afterwards.
#[inline(always)]
pub fn judge<'a, F: Stages<T>, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    trace: impl FnOnce() -> Option<&'a mut Trace>,
) -> Action {
    let action = fast(frame, direction, plane);
    if action != UNSETTLED {
        return Action::from_u8(action);
    }
    let Some(trace) = trace() else {
        return Action::Dropped;
    };
    if frame.newcomer(direction, plane, trace) == UNSETTLED {
        let is_new = trace.reason == UNREAD;
        read(frame, direction, plane, trace);
        if trace.settled == 0 {
            if trace.action == UNSETTLED
                && (trace.reason != PARSED
                    || !is_new
                    || blocked::of(plane, trace) as u8 != Sender::Told as u8)
            {
                frame.unsettled(direction, plane, trace);
            }
            leave(frame, direction, plane, trace);
        }
    }
    if let Some(config) = plane.rules.config() {
        frame.note_sender(config.mark_mask, trace.source);
    }
    trace.action()
}

/// Every frame that is not read yet: into `trace`, and counted if its flow's record settles it.
///
/// A function of its own in BPF, as [`fast`] is.
#[inline(never)]
fn read<F: Stages<T>, T: Tables>(frame: &F, direction: Direction, plane: &mut Plane<T>, trace: &mut Trace) {
    if trace.reason == UNREAD {
        frame.network(trace);
        if trace.reason == PARSED {
            frame.transport(trace);
        }
    }
    if trace.reason == PARSED && is_tunnel(plane, &trace.packet) && !trace.packet.has(Packet::IS_FRAGMENT) {
        frame.tunnel(direction, plane, trace);
        if trace.reason == PARSED && trace.packet.has(Packet::IS_CARRIED) {
            frame.carried(trace);
            if trace.reason == PARSED {
                frame.transport(trace);
            }
        }
    }
    let packet = &trace.packet;
    if trace.reason == PARSED
        && packet.has & (Packet::HAS_IP | Packet::IS_FRAGMENT) == Packet::HAS_IP
        && !record::opens(packet)
    {
        let lane = Lane {
            key: packet.key,
            side: packet.side(),
            kinds: record::kinds(packet),
            weight: Weight::of(packet),
            l3_offset: packet.l3_offset,
        };
        traced(frame, direction, plane, trace, &lane);
    }
}

/// Stands for no [`Action`].
pub(crate) const UNSETTLED: u8 = 0;

/// The fast lane. Returns an [`Action`] or [`UNSETTLED`].
///
/// A function of its own in BPF, so that what the verifier knows of its many ends is forgotten, and its stack is free
/// again for what follows.
#[inline(never)]
fn fast<F: Stages<T>, T: Tables>(frame: &F, direction: Direction, plane: &mut Plane<T>) -> u8 {
    // Each family has the rest of the way to itself: merged, their fields would not fit into registers.
    let action = match lane::link(frame) {
        Some((eth::IPV4, at)) => {
            lane::ipv4(frame, at).and_then(|lane| settled(frame, direction, plane, &lane))
        }
        Some((eth::IPV6, at)) => {
            lane::ipv6(frame, at).and_then(|lane| settled(frame, direction, plane, &lane))
        }
        _ => None,
    };
    match action {
        Some(action) => action as u8,
        None => UNSETTLED,
    }
}

/// The hot path: one look-up, compares, counters. `None` if the flow's record does not settle the packet, or if the
/// packet is to be traced.
#[inline(always)]
fn settled<F: Stages<T>, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    lane: &Lane,
) -> Option<Action> {
    let config = plane.rules.config()?;
    if config.has(Config::TRACE) {
        return None;
    }
    let hash = lane.key.hash(&config.hash_keys);
    let index = hash & config.flow_mask;
    if lane.kinds == Settled::CONTROL || !plane.slots.may_be_of(hash, index) {
        return unknown(frame, direction, plane, lane);
    }
    let slot = plane.slots.slot(index)?;
    if slot.key != lane.key {
        return unknown(frame, direction, plane, lane);
    }
    let record = hit(slot, &plane.rules, config, lane)?;
    frame.note_sender(config.mark_mask, record::sender(record, lane.side));
    Some(pass(frame, direction, &mut plane.sink, lane, record))
}

/// A packet whose flow has no slot: a flood is made of these.
#[inline(always)]
fn unknown<F: Stages<T>, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    lane: &Lane,
) -> Option<Action> {
    let reason = match turned::known(plane, lane) {
        Known::Nothing => return None,
        Known::Blocked if frame.is_blocked(plane, &lane.key, lane.side) => Reason::Blocklisted as u32,
        Known::Blocked => return None,
        Known::Nobody => frame.denied(plane, &lane.key, lane.side),
    };
    if reason == turned::GOES_ON {
        return None;
    }
    let bytes = lane.weight.frame_bytes(u32::from(lane.l3_offset) + frame.bytes_beside());
    plane.sink.count(frame.ifindex(), direction, reason as u8, false, lane.weight.packets, bytes);
    Some(Action::Dropped)
}

/// The same for a packet that the parser read.
#[inline(always)]
fn traced<F: Frame, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    trace: &mut Trace,
    lane: &Lane,
) -> Option<()> {
    let config = plane.rules.config()?;
    let slot = plane.slots.slot(lane.key.hash(&config.hash_keys) & config.flow_mask)?;
    // What carries it was judged by one epoch, and so is what it carries.
    let begun = trace.moment.epoch;
    if slot.key != lane.key || begun != 0 && begun != slot.record.epoch {
        return None;
    }
    let record = hit(slot, &plane.rules, config, lane)?;
    trace.rule = record.rule;
    trace.action = record.action;
    trace.reason = record.reason;
    trace.settled = 1;
    trace.source = record::sender(record, lane.side);
    pass(frame, direction, &mut plane.sink, lane, record);
    Some(())
}

/// The record of the flow that has the slot, if it is settled and fresh; it has counted the packet.
#[inline(always)]
fn hit<'a, R: Rules>(
    slot: &'a mut FlowSlot,
    rules: &R,
    config: &Config,
    lane: &Lane,
) -> Option<&'a FlowRecord> {
    let record = &mut slot.record;
    if record.epoch != config.epoch || record.settled & Settled::bit(lane.kinds, lane.side) == 0 {
        return None;
    }
    let now_ns = rules.coarse_ns(config);
    if now_ns >= record.fresh_until_ns {
        return None;
    }
    record::count(record, lane.side, lane.weight, now_ns);
    Some(record)
}

#[inline(always)]
fn pass<F: Frame, S: Sink>(
    frame: &F,
    direction: Direction,
    sink: &mut S,
    lane: &Lane,
    record: &FlowRecord,
) -> Action {
    let action = Action::from_u8(record.action);
    let audited = action == Action::Audit;
    let bytes = lane.weight.frame_bytes(u32::from(lane.l3_offset) + frame.bytes_beside());
    sink.count(frame.ifindex(), direction, record.reason, audited, lane.weight.packets, bytes);
    action
}

/// Stands in the trace for "no reason to refuse it" until it is judged: no reason has this number.
pub(crate) const PARSED: u8 = u8::MAX;
/// Stands in the trace for "not read yet": nor has this.
pub(crate) const UNREAD: u8 = u8::MAX - 1;

/// Reads the link and network headers into `trace`.
#[inline(always)]
pub fn network<F: Frame>(frame: &F, trace: &mut Trace) {
    *trace = Trace::default();
    trace.reason = parsed(wire::network(frame, &mut trace.packet));
}

/// Reads the transport header into `trace`.
#[inline(always)]
pub fn transport<F: Frame>(frame: &F, trace: &mut Trace) {
    trace.reason = parsed(wire::transport(frame, &mut trace.packet));
}

#[inline(always)]
fn is_tunnel<T: Tables>(plane: &Plane<T>, packet: &Packet) -> bool {
    plane.rules.config().is_some_and(|config| tunnel::is_asked(config.flags, packet))
}

/// Turns to what a tunnel carries, one level deep. The ends of the tunnel itself are judged by blocklists alone; a verdict on them
/// is left in `trace`.
#[inline(always)]
pub fn tunnel<F: Frame, T: Tables>(frame: &F, direction: Direction, plane: &mut Plane<T>, trace: &mut Trace) {
    let Some(config) = plane.rules.config() else {
        return;
    };
    let moment = Moment::now(&plane.rules, config);
    trace.moment.epoch = moment.epoch;
    let mut j = Judgement::nothing();
    if policy::is_blocked(&plane.rules, &moment, &trace.packet, &mut j) {
        return cut_off(frame, direction, plane, trace, &mut j);
    }
    trace.reason = parsed(wire::turn_to_carried(frame, &mut trace.packet));
}

/// Leaves in `trace`, and tells, that a tunnel is cut.
///
/// A function of its own in BPF: inlined, LLVM takes a register for granted over a call ("R3 !read_ok", 6.18).
#[inline(never)]
fn cut_off<F: Frame, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    trace: &mut Trace,
    j: &mut Judgement,
) {
    let Some(config) = plane.rules.config() else {
        return;
    };
    let moment = Moment::on(&plane.rules, config, frame.ifindex(), trace.moment.epoch);
    admit::monitored(j, &moment);
    trace.source = j.identity[0];
    let packet = &trace.packet;
    event::verdict(&mut plane.sink, frame, direction, packet, &moment, j, packet.side());
    trace.set(Verdict { rule: j.rule, ..Verdict::plain(j.action, j.reason) });
}

/// Reads the network header of what a tunnel carries into `trace`.
#[inline(always)]
pub fn carried<F: Frame>(frame: &F, trace: &mut Trace) {
    trace.reason = parsed(wire::carried(frame, &mut trace.packet));
}

#[inline(always)]
fn parsed(result: Result<(), Reason>) -> u8 {
    match result {
        Ok(()) => PARSED,
        Err(reason) => reason as u8,
    }
}

/// A packet that its flow's record does not settle. Leaves the verdict in `trace`.
#[inline(always)]
pub fn unsettled<F: Stages<T>, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    trace: &mut Trace,
) {
    walk(frame, direction, plane, trace);
    if is_tunnel(plane, &trace.packet) {
        unsettle(plane, &trace.packet);
    }
}

/// A tunnel that was judged by itself (a fragment, or one in another) must not settle what the same tunnel carries next.
#[inline(always)]
fn unsettle<T: Tables>(plane: &mut Plane<T>, packet: &Packet) {
    let Some(config) = plane.rules.config() else {
        return;
    };
    let index = packet.key.hash(&config.hash_keys) & config.flow_mask;
    if let Some(slot) = plane.slots.slot(index).filter(|slot| slot.key == packet.key) {
        slot.record.settled = 0;
    }
}

#[inline(always)]
fn walk<F: Stages<T>, T: Tables>(frame: &F, direction: Direction, plane: &mut Plane<T>, trace: &mut Trace) {
    let packet = &mut trace.packet;
    if trace.reason != PARSED {
        return frame.refuse(direction, plane, trace, Reason::from_u8(trace.reason));
    }
    if !packet.has(Packet::HAS_IP) {
        if eth::is_link_control(packet.eth_type) {
            return trace.set(Verdict::plain(Action::Forwarded, Reason::Infrastructure));
        }
        return frame.refuse(direction, plane, trace, Reason::UnsupportedL2);
    }
    let is_later = packet.has(Packet::IS_FRAGMENT) && packet.fragment_offset != 0;
    if is_later && !find_first_fragment(plane, packet) {
        return frame.refuse(direction, plane, trace, Reason::FragmentOrphan);
    }
    let Some(config) = plane.rules.config() else {
        return trace.set(Verdict::plain(Action::Dropped, Reason::NoConfiguration));
    };
    if config.has(Config::SCOPED) {
        frame.place(direction, &plane.rules, trace);
    }
    let packet = &trace.packet;
    let index = packet.key.hash(&config.hash_keys) & config.flow_mask;
    frame.admit(direction, plane, trace, index);
    if u32::from(trace.limits) & Limits::SHADOW != 0 {
        frame.shadow(plane, &trace.packet);
    }
    if trace.action() == Action::Dropped {
        return;
    }
    if trace.packet.has(Packet::IS_FRAGMENT) && trace.packet.fragment_offset == 0 {
        remember_first_fragment(plane, &trace.packet);
    }
    if trace.packet.has(Packet::HAS_TCP) && tcp::has_invalid_flags(&trace.packet) {
        frame.refuse(direction, plane, trace, Reason::TcpInvalidFlags);
        if trace.action() == Action::Dropped {
            return;
        }
    }
    // A later fragment tells nothing that the first did not.
    let mut tells = trace.packet.fragment_offset == 0 && trace.followed == 0;
    if reset::is_checked(&trace.packet) {
        match F::reset(direction, plane, &trace.packet, index) {
            reset::CLOSES => {}
            reset::INVALID => {
                let reason = reset::invalid(&trace.packet);
                return frame.refuse(direction, plane, trace, reason);
            }
            _ => tells = false,
        }
    }
    if u32::from(trace.limits) & Limits::BY_PACKET != 0 {
        frame.by_packet(direction, plane, trace, index);
        if trace.action() == Action::Dropped {
            return;
        }
    }
    if tells {
        frame.follow(direction, plane, trace, index);
    }
}

/// A packet that cannot be judged by its flow. Monitor mode lets it pass.
#[inline(always)]
pub fn refuse<F: Frame, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    trace: &mut Trace,
    reason: Reason,
) {
    let Some(config) = plane.rules.config() else {
        return;
    };
    let moment = Moment::on(&plane.rules, config, frame.ifindex(), trace.moment.epoch);
    let action = if moment.flags & Config::ENFORCE != 0 { Action::Dropped } else { Action::Audit };
    event::refused(&mut plane.sink, frame, direction, &trace.packet, &moment, action, reason);
    trace.set(Verdict::plain(action, reason));
}

/// Remembers the ports of a first fragment that may pass: who is blocked or denied pushes nobody else's out.
///
/// A function of its own in BPF, so that its key has room on the stack.
#[inline(never)]
fn remember_first_fragment<T: Tables>(plane: &mut Plane<T>, packet: &Packet) {
    let (src, dst) = (packet.src(), packet.dst());
    // A full table costs the datagram, not the packet path: its later fragments are orphans.
    plane.fragments.insert(&fragment_key(packet), &FragmentPorts { src_port: src.1, dst_port: dst.1 });
}

/// Gives a later fragment the ports of the first. Returns whether that was seen.
///
/// A function of its own in BPF, for the same reason.
#[inline(never)]
fn find_first_fragment<T: Tables>(plane: &mut Plane<T>, packet: &mut Packet) -> bool {
    let (src, dst) = (packet.src(), packet.dst());
    let protocol = packet.key.proto;
    let Some(ports) = plane.fragments.get(&fragment_key(packet)) else {
        return false;
    };
    let (src, dst) = ((src.0, ports.src_port), (dst.0, ports.dst_port));
    let (key, side) = FlowKey::canonical(packet.ip_version, protocol, src, dst);
    packet.key = key;
    packet.from_b = u8::from(side == Side::B);
    if matches!(protocol, proto::TCP | proto::UDP | proto::SCTP) {
        packet.has |= Packet::HAS_PORTS;
    }
    true
}

#[inline(always)]
fn fragment_key(packet: &Packet) -> FragmentKey {
    let (src, dst) = (packet.src().0, packet.dst().0);
    FragmentKey { src, dst, id: packet.fragment_id, proto: u32::from(packet.key.proto) }
}

/// [`count`], a function of its own in BPF: what that keeps beside would lie on the kernel's stack under all the stages.
#[inline(never)]
fn leave<F: Frame, T: Tables>(frame: &F, direction: Direction, plane: &mut Plane<T>, trace: &Trace) {
    count(frame, direction, plane, trace);
}

/// Counts what was not settled.
#[inline(always)]
pub(crate) fn count<F: Frame, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    trace: &Trace,
) {
    let packet = &trace.packet;
    let beside = frame.bytes_beside();
    let (packets, bytes) = if packet.ip_bytes != 0 {
        let weight = Weight::of(packet);
        (weight.packets, weight.frame_bytes(u32::from(packet.l3_offset) + beside))
    } else {
        (1, frame.len() as u64 + u64::from(beside))
    };
    let audited = trace.action() == Action::Audit;
    plane.sink.count(frame.ifindex(), direction, trace.reason, audited, packets, bytes);
}
