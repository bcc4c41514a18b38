//! A flow's record on this CPU: whose slot it is, what it counts, what it settles.

use crate::abi::{Action, Connection, FlowKey, FlowRecord, FlowSlot, Packet, Settled, Side};
use crate::hello;
use crate::limits;
use crate::policy::{Judgement, Moment};
use crate::tables::Table;
use crate::track::{self, history};
use crate::weight::Weight;
use crate::wire::icmp;

/// What has to be settled of the sender's side for a packet to need nothing but counting.
#[inline(always)]
pub(crate) fn kinds(packet: &Packet) -> u16 {
    if packet.has(Packet::HAS_SCTP) {
        if packet.sctp(Packet::SCTP_CONTROL) {
            Settled::CONTROL
        } else if packet.sctp(Packet::SCTP_DATA) {
            Settled::DATA
        } else {
            Settled::ACK
        }
    } else if !packet.has(Packet::HAS_TCP) {
        Settled::DATA
    } else if packet.flag(Packet::SYN | Packet::FIN | Packet::RST) || !packet.flag(Packet::ACK) {
        Settled::CONTROL
    } else if packet.payload_bytes != 0 {
        Settled::DATA
    } else {
        Settled::ACK
    }
}

/// Whether the packet opens a TCP connection.
#[inline(always)]
pub(crate) fn opens(packet: &Packet) -> bool {
    packet.has(Packet::HAS_TCP) && packet.flag(Packet::SYN) && !packet.flag(Packet::ACK)
}

/// Counts a frame.
#[inline(always)]
pub(crate) fn count(record: &mut FlowRecord, side: Side, weight: Weight, now_ns: u64) {
    let (packets, bytes) = (u64::from(weight.packets), u64::from(weight.ip_bytes));
    match side {
        Side::A => {
            record.packets[0] += packets;
            record.bytes[0] += bytes;
        }
        Side::B => {
            record.packets[1] += packets;
            record.bytes[1] += bytes;
        }
    }
    record.last_ns = now_ns;
}

/// How long after its last packet a flow that passes keeps its slot against those that nobody has answered.
const LIVING_NS: u64 = 1_000_000_000;

#[inline(always)]
pub(crate) fn is_living(slot: &FlowSlot, now_ns: u64) -> bool {
    let record = &slot.record;
    slot.key.family != 0
        && record.settled != 0
        && record.action != Action::Dropped as u8
        && now_ns.wrapping_sub(record.last_ns) < LIVING_NS
}

/// Takes a slot for a flow: what was there is spilled, what was spilled of this flow comes back. What was dropped is not
/// kept: its verdict is made again, and it was counted by its reason.
#[inline(always)]
pub(crate) fn claim<S: Table<FlowKey, FlowRecord>>(
    slot: &mut FlowSlot,
    spill: &mut S,
    key: &FlowKey,
    now_ns: u64,
) {
    give_up(slot, spill);
    slot.key = *key;
    reset(&mut slot.record, 0, now_ns);
    if let Some(spilled) = spill.get(key) {
        slot.record = *spilled;
        spilled.packets = [0, 0];
        spilled.bytes = [0, 0];
    }
}

/// Spills what a slot holds.
#[inline(always)]
fn give_up<S: Table<FlowKey, FlowRecord>>(slot: &FlowSlot, spill: &mut S) {
    if slot.key.family == 0 || slot.record.action == Action::Dropped as u8 {
        return;
    }
    match spill.get(&slot.key) {
        Some(spilled) => merge(spilled, &slot.record),
        None => {
            spill.insert(&slot.key, &slot.record);
        }
    }
}

/// Remembers a flow that is dropped. None was spilled, so none is looked for.
#[inline(always)]
pub(crate) fn remember<S: Table<FlowKey, FlowRecord>>(
    slot: &mut FlowSlot,
    spill: &mut S,
    key: &FlowKey,
    record: &FlowRecord,
) {
    give_up(slot, spill);
    slot.key = *key;
    slot.record = *record;
}

/// Gives the record of an attempt a slot; the attempt goes on with counts of zero.
#[inline(always)]
pub(crate) fn settle_down<S: Table<FlowKey, FlowRecord>>(
    slot: &mut FlowSlot,
    spill: &mut S,
    key: &FlowKey,
    record: &mut FlowRecord,
) {
    if slot.key == *key && slot.record.incarnation == record.incarnation && slot.record.epoch != 0 {
        add(&mut slot.record, record);
    } else {
        if slot.key != *key {
            claim(slot, spill, key, record.last_ns);
        }
        let before = slot.record;
        slot.record = *record;
        if before.incarnation == record.incarnation {
            add(&mut slot.record, &before);
        }
    }
    record.packets = [0, 0];
    record.bytes = [0, 0];
}

/// Adds a slot's counts to what was spilled of the same flow before.
#[inline(always)]
fn merge(spilled: &mut FlowRecord, record: &FlowRecord) {
    let before = *spilled;
    *spilled = *record;
    if before.incarnation == record.incarnation {
        add(spilled, &before);
    }
}

/// Adds the counts of an earlier record of the same connection.
#[inline(always)]
fn add(record: &mut FlowRecord, before: &FlowRecord) {
    for i in 0..2 {
        record.packets[i] += before.packets[i];
        record.bytes[i] += before.bytes[i];
    }
    if before.first_ns < record.first_ns {
        record.first_ns = before.first_ns;
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

/// Identity of a side.
#[inline(always)]
pub(crate) fn sender(record: &FlowRecord, side: Side) -> u32 {
    match side {
        Side::A => record.identity[0],
        Side::B => record.identity[1],
    }
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
    if packet.has(Packet::HAS_SCTP) {
        if track::sctp::is_settled(conn, is_orig) {
            kinds = Settled::ACK;
            kinds |= if history::has(conn, history::DATA, is_orig) { Settled::DATA } else { 0 };
        }
    } else if !packet.has(Packet::HAS_TCP) {
        // Every query is read: who asks again on the same socket asks for another name.
        if track::quic::is_settled(conn) && !hello::is_query(conn, packet) {
            kinds = Settled::ACK | Settled::DATA;
        }
        // The next packet of the originator has something to tell: whether it goes on after the answer.
        if !is_orig && !track::is_wanted(conn) {
            record.settled &= !Settled::bit(Settled::ALL, side.other());
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
