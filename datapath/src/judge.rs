//! Packet to verdict: the whole path on one page.
//!
//! Parse; find the flow's record; if it is settled and fresh, count and return. Otherwise [`crate::admit`] judges the
//! connection and [`crate::follow`] tracks it, and they leave a record that the next packet finds.

use crate::abi::packet::Trace;
use crate::abi::{Action, Config, Direction, FlowKey, FragmentKey, FragmentPorts, Packet, Reason, Side};
use crate::admit::admit;
use crate::event;
use crate::follow::follow;
use crate::frame::Frame;
use crate::policy::Moment;
use crate::record;
use crate::tables::{Plane, Rules, Sink, Slots, Table, Tables};
use crate::wire::{self, eth, proto, tcp};

/// What becomes of a packet, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The rule that decided, 0 for none.
    pub rule: u32,
    /// The verdict.
    pub action: Action,
    /// The reason.
    pub reason: Reason,
    /// Whether the flow's record said so and nothing else was looked at.
    pub settled: bool,
}

impl Verdict {
    /// A verdict that no rule gave.
    #[inline(always)]
    pub(crate) fn plain(action: Action, reason: Reason) -> Self {
        Self { rule: 0, action, reason, settled: false }
    }
}

/// Judges one frame and counts it. The parsed packet and its verdict are left in `trace`, also in the kernel, whose
/// stack has no room for them.
#[inline(always)]
pub fn judge<F: Frame, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    trace: &mut Trace,
) -> Action {
    *trace = Trace::default();
    let verdict = path(frame, direction, plane, trace);
    if let Some(verdict) = verdict {
        trace.set(verdict);
    }
    leave(frame, direction, plane, trace)
}

/// The verdict, or `None` where it is in the trace already.
#[inline(always)]
fn path<F: Frame, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    trace: &mut Trace,
) -> Option<Verdict> {
    let Some(config) = plane.rules.config() else {
        return Some(Verdict::plain(Action::Dropped, Reason::NoConfiguration));
    };
    let moment = Moment { epoch: config.epoch, flags: config.flags, now_ns: plane.rules.coarse_ns(config) };
    let (seed, mask) = (config.hash_seed, config.flow_mask);

    let packet = &mut trace.packet;
    if let Err(reason) = wire::parse(frame, packet) {
        return Some(refuse(frame, direction, plane, packet, &moment, reason));
    }
    if !packet.has(Packet::HAS_IP) {
        if eth::is_link_control(packet.eth_type) {
            return Some(Verdict::plain(Action::Forwarded, Reason::Infrastructure));
        }
        return Some(refuse(frame, direction, plane, packet, &moment, Reason::UnsupportedL2));
    }
    if packet.has(Packet::IS_FRAGMENT) && !follow_fragment(plane, packet) {
        return Some(refuse(frame, direction, plane, packet, &moment, Reason::FragmentOrphan));
    }

    let index = packet.key.hash(seed) & mask;
    if let Some(slot) = plane.slots.slot(index) {
        let record = &mut slot.record;
        if slot.key == packet.key
            && record.settled & record::kind(packet) != 0
            && record.epoch == moment.epoch
            && moment.now_ns < record.fresh_until_ns
        {
            record::count(record, packet, moment.now_ns);
            return Some(Verdict {
                rule: record.rule,
                action: Action::from_u8(record.action),
                reason: Reason::from_u8(record.reason),
                settled: true,
            });
        }
    }
    unsettled(frame, direction, plane, trace, &moment, index)
}

/// A packet that its flow's record does not settle.
#[inline(always)]
fn unsettled<F: Frame, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    trace: &mut Trace,
    moment: &Moment,
    index: u32,
) -> Option<Verdict> {
    admit(frame, direction, plane, trace, index);
    if trace.action() == Action::Dropped {
        return None;
    }
    let packet = &trace.packet;
    if packet.has(Packet::HAS_TCP) && tcp::has_invalid_flags(packet) {
        let verdict = refuse(frame, direction, plane, packet, moment, Reason::TcpInvalidFlags);
        if verdict.action == Action::Dropped {
            return Some(verdict);
        }
        trace.set(verdict);
    }
    // A later fragment tells nothing that the first did not.
    if trace.packet.fragment_offset == 0 {
        follow(frame, direction, plane, trace, index);
    }
    None
}

/// A packet that cannot be judged by its flow. Monitor mode lets it pass.
#[inline(always)]
fn refuse<F: Frame, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    packet: &Packet,
    moment: &Moment,
    reason: Reason,
) -> Verdict {
    let action = if moment.flags & Config::ENFORCE == 0 { Action::Audit } else { Action::Dropped };
    event::refused(&mut plane.sink, frame, direction, packet, moment, action, reason);
    Verdict::plain(action, reason)
}

/// Remembers the ports of a first fragment, and gives them to the later ones.
///
/// A function of its own in BPF, so that its key has room on the stack.
#[inline(never)]
fn follow_fragment<T: Tables>(plane: &mut Plane<T>, packet: &mut Packet) -> bool {
    let (src, dst) = (packet.src(), packet.dst());
    let protocol = packet.key.proto;
    let key = FragmentKey { src: src.0, dst: dst.0, id: packet.fragment_id, proto: u32::from(protocol) };
    if packet.fragment_offset == 0 {
        // A full table costs the datagram, not the packet path: its later fragments are orphans.
        plane.fragments.insert(&key, &FragmentPorts { src_port: src.1, dst_port: dst.1 });
        return true;
    }
    let Some(ports) = plane.fragments.get(&key) else {
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

/// The one exit: counts.
#[inline(always)]
fn leave<F: Frame, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    trace: &Trace,
) -> Action {
    let packet = &trace.packet;
    let bytes = if packet.ip_bytes != 0 {
        u64::from(packet.ip_bytes) + u64::from(packet.l3_offset)
    } else {
        frame.len() as u64
    };
    let action = trace.action();
    plane.sink.count(frame.ifindex(), direction, trace.reason, action == Action::Audit, bytes);
    action
}
