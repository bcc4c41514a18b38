//! Packets that their flow's record settles: one look-up, compares, counters. On the fast lane who has to be turned away is turned
//! away here too.

use crate::abi::packet::Trace;
use crate::abi::{Action, Config, Direction, FlowRecord, FlowSlot, Reason, Settled};
use crate::frame::Frame;
use crate::judge::UNSETTLED;
use crate::lane::{self, Lane};
use crate::record;
use crate::stage::Stages;
use crate::tables::{Plane, Rules, Sink, Slots, Tables};
use crate::turned::{self, Known};
use crate::wire::eth;

/// The fast lane. Returns an [`Action`] or [`UNSETTLED`].
///
/// A function of its own in BPF, so that what the verifier knows of its many ends is forgotten, and its stack is free
/// again for what follows.
#[inline(never)]
pub(crate) fn fast<F: Stages<T>, T: Tables>(frame: &F, direction: Direction, plane: &mut Plane<T>) -> u8 {
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
pub(crate) fn traced<F: Frame, T: Tables>(
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
