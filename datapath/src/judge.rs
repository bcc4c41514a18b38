//! Packet to verdict: the whole path on one page.
//!
//! Read the frame; find the flow's record; if it is settled and fresh, count and return. Everything else goes through
//! [`unsettled`]: [`crate::admit`] judges the connection, [`crate::follow`] tracks it, and they leave a record that the
//! next packet finds.

use crate::abi::packet::Trace;
use crate::abi::{Action, Config, Direction, Limits, Packet, Reason};
use crate::admit;
use crate::blocked::{self, Sender};
use crate::event;
use crate::fragment;
use crate::frame::Frame;
use crate::lane::Lane;
use crate::policy::{self, Judgement, Moment};
use crate::record;
use crate::reset;
use crate::settled;
use crate::stage::Stages;
use crate::tables::{Plane, Rules, Sink, Slots, Tables};
use crate::weight::Weight;
use crate::wire::{self, eth, tcp, tunnel};

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
    let action = settled::fast(frame, direction, plane);
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
/// A function of its own in BPF, as [`settled::fast`] is.
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
        settled::traced(frame, direction, plane, trace, &lane);
    }
}

/// Stands for no [`Action`].
pub(crate) const UNSETTLED: u8 = 0;

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

/// Turns to what a tunnel carries, one level deep. The ends of the tunnel itself are judged by blocklists and quarantines
/// alone; a verdict on them is left in `trace`.
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
    if is_later && !fragment::find_first(plane, packet) {
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
        fragment::remember_first(plane, &trace.packet);
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
