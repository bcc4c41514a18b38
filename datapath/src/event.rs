//! What goes up to user space about a packet.

use crate::abi::{
    Action, Connection, Direction, Event, EventBudget, EventKind, FlowRecord, HandshakeKey, HandshakeKind,
    HandshakeOutcome, HandshakeStage, Lost, Packet, Reason, Side, Tally,
};
use crate::frame::Frame;
use crate::policy::{Judgement, Moment};
use crate::record::by_side;
use crate::tables::Sink;

/// Whether there is budget for one more of this kind, reason and identity. An event storm costs its own kind alone; the
/// counters are exact whatever is sent.
///
/// A function of its own in BPF: its ways out would multiply.
#[inline(never)]
fn may_tell<S: Sink>(sink: &mut S, moment: &Moment, kind: EventKind, reason: Reason, identity: u32) -> bool {
    if moment.event_limit == 0 {
        return true;
    }
    let budget = sink.budget(EventBudget::index(kind, reason as u8, identity));
    let within = budget.is_some_and(|budget| budget.take(moment.now_ns, moment.event_limit));
    if !within {
        sink.lost(Lost::Limited);
    }
    within
}

/// Whether no verdict for this reason and identity is told any more in this second.
#[inline(always)]
pub(crate) fn is_used_up<S: Sink>(
    sink: &mut S,
    now_ns: u64,
    limit: u32,
    reason: Reason,
    identity: u32,
) -> bool {
    let index = EventBudget::index(EventKind::Verdict, reason as u8, identity);
    limit != 0 && sink.budget(index).is_some_and(|budget| budget.is_spent(now_ns, limit))
}

/// A flow was judged for the first time, or otherwise than before.
#[inline(always)]
pub(crate) fn verdict<F: Frame, S: Sink>(
    sink: &mut S,
    frame: &F,
    direction: Direction,
    packet: &Packet,
    moment: &Moment,
    j: &Judgement,
    originator: Side,
) {
    if !may_tell(sink, moment, EventKind::Verdict, j.reason, j.identity[0]) {
        return;
    }
    sink.event(|e| {
        describe(e, frame, direction, packet);
        e.time_ns = moment.now_ns;
        e.kind = EventKind::Verdict as u8;
        e.action = j.action as u8;
        e.reason = j.reason as u8;
        e.epoch = moment.epoch;
        e.rule = j.rule;
        e.originator = originator.index() as u8;
        e.identity = by_side(j.identity, originator);
    });
}

/// A packet has no flow that it could be judged by.
#[inline(always)]
pub(crate) fn refused<F: Frame, S: Sink>(
    sink: &mut S,
    frame: &F,
    direction: Direction,
    packet: &Packet,
    moment: &Moment,
    action: Action,
    reason: Reason,
) {
    if !may_tell(sink, moment, EventKind::Drop, reason, 0) {
        return;
    }
    sink.event(|e| {
        describe(e, frame, direction, packet);
        e.time_ns = moment.now_ns;
        // Without an IP header the frame alone tells.
        if packet.ip_bytes == 0 {
            e.frame_bytes = frame.len() as u32 + frame.bytes_beside();
        }
        e.kind = EventKind::Drop as u8;
        e.action = action as u8;
        e.reason = reason as u8;
        e.epoch = moment.epoch;
    });
}

/// A connection gives way to a new one of the same key.
#[inline(always)]
pub(crate) fn closed<F: Frame, S: Sink>(
    sink: &mut S,
    frame: &F,
    direction: Direction,
    packet: &Packet,
    now_ns: u64,
    conn: &Connection,
    record: &FlowRecord,
) {
    sink.tally(Tally::Replaced);
    sink.closed(|e| {
        describe(&mut e.event, frame, direction, packet);
        e.event.time_ns = now_ns;
        e.event.kind = EventKind::Closed as u8;
        e.event.originator = conn.originator;
        e.event.rule = conn.rule;
        e.event.identity = by_side(conn.identity, conn.originator_side());
        e.flow = *record;
        e.connection = *conn;
    });
}

/// A handshake ended: counted per pair of identities, and reported.
#[inline(always)]
pub(crate) fn handshake<F: Frame, S: Sink>(
    sink: &mut S,
    frame: &F,
    direction: Direction,
    packet: &Packet,
    moment: &Moment,
    conn: &Connection,
    (kind, outcome, [began_ns, answered_ns, ended_ns]): (HandshakeKind, HandshakeOutcome, [u64; 3]),
) {
    let duration_ns = ended_ns.saturating_sub(began_ns);
    let has_keys = kind as u8 != HandshakeKind::Tcp as u8;
    let inferred = u8::from(has_keys && conn.tls_flags & Connection::TLS_INFERRED != 0);
    let mut key = HandshakeKey {
        orig_identity: conn.identity[0],
        resp_identity: conn.identity[1],
        kind: kind as u8,
        outcome: outcome as u8,
        stage: HandshakeStage::Whole as u8,
        inferred,
    };
    sink.handshake(&key, duration_ns);
    if outcome as u8 == HandshakeOutcome::Completed as u8 && answered_ns != 0 {
        key.stage = HandshakeStage::Answer as u8;
        sink.handshake(&key, answered_ns.saturating_sub(began_ns));
        key.stage = HandshakeStage::Completion as u8;
        sink.handshake(&key, ended_ns.saturating_sub(answered_ns));
    }
    // A SYN that is sent again is counted and no more: an event each would double what a flood costs.
    if outcome as u8 == HandshakeOutcome::Retransmitted as u8 {
        return;
    }
    if !may_tell(sink, moment, EventKind::Handshake, Reason::Established, conn.identity[0]) {
        return;
    }
    sink.event(|e| {
        describe(e, frame, direction, packet);
        e.time_ns = moment.now_ns;
        e.duration_ns = duration_ns;
        e.kind = EventKind::Handshake as u8;
        e.action = Action::Forwarded as u8;
        e.reason = Reason::Established as u8;
        e.epoch = moment.epoch;
        e.rule = conn.rule;
        e.originator = conn.originator;
        e.identity = by_side(conn.identity, conn.originator_side());
        e.handshake = kind as u8;
        e.outcome = outcome as u8;
        e.inferred = inferred;
        if has_keys {
            e.alert_level = conn.alert_level;
            e.alert_description = conn.alert_description;
        }
    });
}

/// What every event says of its packet.
#[inline(always)]
fn describe<F: Frame>(e: &mut Event, frame: &F, direction: Direction, packet: &Packet) {
    e.key = packet.key;
    e.ifindex = frame.ifindex();
    e.direction = direction as u8;
    e.from_b = packet.from_b;
    e.tcp_flags = packet.tcp_flags;
    e.eth_type = packet.eth_type;
    e.frame_bytes = packet.ip_bytes + u32::from(packet.l3_offset) + frame.bytes_beside();
}
