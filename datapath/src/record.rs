//! A flow's record on this CPU: whose slot it is, what it counts, what it settles.

use crate::abi::{Action, Connection, FlowKey, FlowRecord, FlowSlot, Packet, Settled, Side};
use crate::limits;
use crate::policy::{Judgement, Moment};
use crate::tables::Table;
use crate::track::{self, history};
use crate::wire::icmp;

/// What has to be settled of the sender's side for a packet to need nothing but counting.
#[inline(always)]
pub(crate) fn kinds(packet: &Packet) -> u16 {
    if !packet.has(Packet::HAS_TCP) {
        Settled::DATA
    } else if packet.flag(Packet::SYN | Packet::FIN | Packet::RST) || !packet.flag(Packet::ACK) {
        Settled::CONTROL
    } else if packet.payload_bytes != 0 {
        Settled::DATA
    } else {
        Settled::ACK
    }
}

/// Counts a packet.
#[inline(always)]
pub(crate) fn count(record: &mut FlowRecord, side: Side, ip_bytes: u32, now_ns: u64) {
    let bytes = u64::from(ip_bytes);
    match side {
        Side::A => {
            record.packets[0] += 1;
            record.bytes[0] += bytes;
        }
        Side::B => {
            record.packets[1] += 1;
            record.bytes[1] += bytes;
        }
    }
    record.last_ns = now_ns;
}

/// The record of the packet's flow: in its slot, which it claims, or where the slot is a living flow's and nobody has
/// answered this one yet, in the second level. So a flood takes no living flow off the fast lane.
#[inline(always)]
pub(crate) fn of<'a, S: Table<FlowKey, FlowRecord>>(
    slot: &'a mut FlowSlot,
    spill: &'a mut S,
    packet: &Packet,
    is_answered: impl FnOnce() -> bool,
    now_ns: u64,
) -> Option<&'a mut FlowRecord> {
    if slot.key == packet.key {
        return Some(&mut slot.record);
    }
    if !is_living(slot, now_ns) || is_answered() {
        claim(slot, spill, packet, now_ns);
        return Some(&mut slot.record);
    }
    if spill.get(&packet.key).is_none() {
        let mut fresh = bytemuck::Zeroable::zeroed();
        reset(&mut fresh, 0, now_ns);
        spill.insert(&packet.key, &fresh);
    }
    spill.get(&packet.key)
}

/// How long after its last packet a flow that passes keeps its slot against those that nobody has answered.
const LIVING_NS: u64 = 1_000_000_000;

#[inline(always)]
fn is_living(slot: &FlowSlot, now_ns: u64) -> bool {
    let record = &slot.record;
    slot.key.family != 0
        && record.settled != 0
        && record.action != Action::Dropped as u8
        && now_ns.wrapping_sub(record.last_ns) < LIVING_NS
}

/// Takes a slot for the packet's flow: what was there is spilled, what was spilled of this flow comes back.
#[inline(always)]
fn claim<S: Table<FlowKey, FlowRecord>>(slot: &mut FlowSlot, spill: &mut S, packet: &Packet, now_ns: u64) {
    if slot.key.family != 0 {
        match spill.get(&slot.key) {
            Some(spilled) => merge(spilled, &slot.record),
            None => {
                spill.insert(&slot.key, &slot.record);
            }
        }
    }
    slot.key = packet.key;
    reset(&mut slot.record, 0, now_ns);
    if let Some(spilled) = spill.get(&packet.key) {
        slot.record = *spilled;
        spilled.packets = [0, 0];
        spilled.bytes = [0, 0];
    }
}

/// Adds a slot's counts to what was spilled of the same flow before.
#[inline(always)]
fn merge(spilled: &mut FlowRecord, record: &FlowRecord) {
    let (packets, bytes, first_ns) = (spilled.packets, spilled.bytes, spilled.first_ns);
    let same = spilled.incarnation == record.incarnation;
    *spilled = *record;
    if same {
        for i in 0..2 {
            spilled.packets[i] += packets[i];
            spilled.bytes[i] += bytes[i];
        }
        if first_ns < spilled.first_ns {
            spilled.first_ns = first_ns;
        }
    }
}

/// Whether what a record counted is of a connection that is no more: it was swept or evicted. Records of what opens no
/// connection go on counting.
#[inline(always)]
pub(crate) fn begins_anew(record: &FlowRecord, packet: &Packet) -> bool {
    let opens = packet.fragment_offset == 0 && !icmp::is_error(packet);
    record.epoch == 0 || opens && record.action != Action::Dropped as u8
}

/// Begins a record anew.
#[inline(always)]
pub(crate) fn reset(record: &mut FlowRecord, incarnation: u32, now_ns: u64) {
    *record = bytemuck::Zeroable::zeroed();
    record.incarnation = incarnation;
    record.first_ns = now_ns;
    record.last_ns = now_ns;
}

/// Writes a judgement.
///
/// It holds no longer than [`Moment::refresh_ns`]: so a busy flow looks at its connection now and then, which keeps that
/// from being evicted and from being taken for idle.
#[inline(always)]
pub(crate) fn judged(record: &mut FlowRecord, j: &Judgement, moment: &Moment, originator: Side) {
    record.fresh_until_ns =
        if j.fresh_until_ns < moment.refresh_ns { j.fresh_until_ns } else { moment.refresh_ns };
    record.epoch = moment.epoch;
    record.rule = j.rule;
    record.action = j.action as u8;
    record.reason = j.reason as u8;
    record.settled = 0;
    record.identity = by_side(j.identity, originator);
}

/// Originator and responder as `a` and `b`.
#[inline(always)]
pub(crate) fn by_side(identity: [u32; 2], originator: Side) -> [u32; 2] {
    match originator {
        Side::A => identity,
        Side::B => [identity[1], identity[0]],
    }
}

/// Notes what of this side needs nothing but counting from now on.
#[inline(always)]
pub(crate) fn settle(record: &mut FlowRecord, conn: &Connection, packet: &Packet) {
    if conn.closed_ns != 0 || limits::looks_on(conn) {
        record.settled = 0;
        return;
    }
    let side = packet.side();
    let is_orig = conn.is_originator(side);
    let mut kinds = 0;
    if !packet.has(Packet::HAS_TCP) {
        if track::quic::is_settled(conn) {
            kinds = Settled::ACK | Settled::DATA;
        }
    } else {
        if history::has(conn, history::ACK, is_orig) {
            kinds |= Settled::ACK;
        }
        if history::has(conn, history::DATA, is_orig) && track::tls::is_settled(conn) {
            kinds |= Settled::DATA;
        }
    }
    record.settled |= Settled::bit(kinds, side);
}
