//! Resets are held against the window, so that a blind one changes nothing (RFC 5961, section 3), and so are FINs; packets of SCTP
//! are held against the tags of their association (RFC 9260, section 8.5).

use crate::abi::{Connection, Direction, FlowKey, Packet, Reason, Side};
use crate::follow::tracked;
use crate::policy::Moment;
use crate::stage::Stages;
use crate::tables::{Plane, Rules, Slots, Spill, Tables};
use crate::track::sctp;
use crate::track::stream::{self, Reset};

/// CPUs that are asked for what they counted. On a machine with more, a reset that is not exact changes nothing.
pub(crate) const MAX_CPUS: u32 = 256;
/// Stands for "no such CPU"; what one counted has 32 bits.
pub(crate) const NO_CPU: u64 = u64::MAX;

/// [`Reset::Closes`].
pub(crate) const CLOSES: u32 = Reset::Closes as u32;
/// [`Reset::Asks`].
const PASSES: u32 = Reset::Asks as u32;
/// [`Reset::Invalid`].
pub(crate) const INVALID: u32 = Reset::Invalid as u32;

/// Whether the packet may end a connection of TCP, or is of SCTP.
#[inline(always)]
pub(crate) fn is_checked(packet: &Packet) -> bool {
    let may =
        packet.has(Packet::HAS_SCTP) || packet.has(Packet::HAS_TCP) && packet.flag(Packet::RST | Packet::FIN);
    may && packet.fragment_offset == 0
}

/// Why a packet that [`check`] finds invalid is dropped.
#[inline(always)]
pub(crate) fn invalid(packet: &Packet) -> Reason {
    if packet.has(Packet::HAS_SCTP) { Reason::SctpInvalidTag } else { Reason::TcpInvalidRst }
}

/// What a reset does that was admitted: a [`Reset`]. One that asks is noted here; it is not to be followed.
///
/// A FIN beyond the window is not to be followed either, and passes: its receiver takes no notice of it (RFC 9293, section
/// 3.10.7.4), and where it is ours that has lost its place, a true one must not be lost.
#[inline(always)]
pub fn check<F: Stages<T>, T: Tables>(
    direction: Direction,
    plane: &mut Plane<T>,
    packet: &Packet,
    index: u32,
) -> u32 {
    let Some(config) = plane.rules.config() else {
        return Reset::Closes as u32;
    };
    let now_ns = Moment::now(&plane.rules, config).now_ns;
    let slot = plane.slots.slot(index);
    let Some((conn, record)) = tracked(&mut plane.connections, &mut plane.half_open, slot, &packet.key)
    else {
        return Reset::Closes as u32; // it is of no connection, and closes none
    };
    if packet.has(Packet::HAS_SCTP) {
        let invalid = matches!(sctp::tag(conn, packet), sctp::Tag::Invalid);
        return if invalid { INVALID } else { CLOSES };
    }
    // It was counted when it was admitted.
    stream::pass_over(conn, record, packet);
    let is_fin = !packet.flag(Packet::RST);
    let mut reset = stream::reset(conn, packet);
    let mut is_doubtful = false;
    if matches!(reset, Reset::Invalid) && stream::may_have_moved(conn, packet) {
        let moved = F::moved(&mut plane.slots, &mut plane.spill, conn, &packet.key, index, packet.side());
        reset = if moved == NO_CPU { Reset::Asks } else { stream::moved(conn, packet, moved as u32) };
        is_doubtful = matches!(reset, Reset::Asks);
    } else if matches!(reset, Reset::Invalid) && is_fin && stream::is_only_opened(conn, packet) {
        reset = stream::moved(conn, packet, 0);
    }
    // Who is blind does not know what it has to acknowledge. A FIN may say it beyond our window too: the place is ours that was lost.
    is_doubtful = if is_fin { matches!(reset, Reset::Invalid) } else { is_doubtful };
    if is_doubtful && packet.flag(Packet::ACK) {
        let other = packet.side().other();
        let moved = F::moved(&mut plane.slots, &mut plane.spill, conn, &packet.key, index, other);
        if moved != NO_CPU && stream::knows_other(conn, packet, moved as u32) {
            reset = Reset::Closes;
        }
    }
    if is_fin {
        return if matches!(reset, Reset::Invalid) { PASSES } else { CLOSES };
    }
    // What the gateway itself sends comes from whoever it says.
    if matches!(reset, Reset::Invalid) && direction as u8 == Direction::Egress as u8 {
        reset = Reset::Asks;
    }
    if matches!(reset, Reset::Asks) {
        stream::ask(conn, packet, now_ns);
        // What follows is looked at, on this CPU at once.
        if let Some(slot) = plane.slots.slot(index).filter(|slot| slot.key == packet.key) {
            slot.record.settled = 0;
        }
    }
    reset as u32
}

/// What all CPUs have counted of a side's stream since each tracked a segment of it, or [`NO_CPU`] if there are too many.
#[inline(always)]
pub fn moved<F: Stages<T>, T: Tables>(
    slots: &mut T::Slots,
    spill: &mut T::Spill,
    conn: &Connection,
    key: &FlowKey,
    index: u32,
    side: Side,
) -> u64 {
    let mut moved = 0u32;
    for cpu in 0..MAX_CPUS {
        let counted = F::counted(slots, spill, conn, key, (index, cpu), side);
        if counted == NO_CPU {
            return u64::from(moved);
        }
        moved = moved.wrapping_add(counted as u32);
    }
    NO_CPU
}

/// The same of one CPU, or [`NO_CPU`].
#[inline(always)]
pub fn counted<S: Slots, P: Spill>(
    slots: &mut S,
    spill: &mut P,
    conn: &Connection,
    key: &FlowKey,
    (index, cpu): (u32, u32),
    side: Side,
) -> u64 {
    let Some(slot) = slots.slot_of(cpu, index) else {
        return NO_CPU;
    };
    if slot.key == *key {
        return u64::from(stream::since(conn, &slot.record, side));
    }
    match spill.of(cpu, key) {
        Some(record) => u64::from(stream::since(conn, record, side)),
        None => 0,
    }
}
