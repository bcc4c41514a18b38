//! Packets that are not settled, first half: whose connection is it, and may it go on?

use crate::abi::packet::Trace;
use crate::abi::{
    Action, Config, Connection, Direction, FlowKey, FlowRecord, Limits, Packet, Reason, Settled, Side, Tally,
};
use crate::event;
use crate::judge::Verdict;
use crate::limits;
use crate::policy::{Judgement, Moment};
use crate::record;
use crate::stage::Stages;
use crate::tables::{Draft, Plane, Rules, Sink, Slots, Table, Tables};
use crate::track;
use crate::wire::{icmp, tcp};

/// Judges a packet whose record does not settle it, and leaves verdict and reason in `trace`. A connection that may
/// open is in its table afterwards.
#[inline(always)]
pub fn admit<F: Stages<T>, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    trace: &mut Trace,
    index: u32,
) {
    trace.set(admitted(frame, direction, plane, &trace.packet, index));
}

#[inline(always)]
fn admitted<F: Stages<T>, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    packet: &Packet,
    index: u32,
) -> Verdict {
    let related = frame.related(plane, packet);
    let (Some(config), Some(slot)) = (plane.rules.config(), plane.slots.slot(index)) else {
        return Verdict::plain(Action::Dropped, Reason::NoConfiguration);
    };
    let moment = Moment::on(&plane.rules, config, frame.ifindex());
    let connections = &mut plane.connections;
    let is_answered = || connections.get(&packet.key).is_some();
    let Some(record) = record::of(slot, &mut plane.spill, packet, is_answered, moment.now_ns) else {
        return Verdict::plain(Action::Dropped, Reason::CtMapFull);
    };

    let mut incarnation = record.incarnation;
    if let Some(conn) = find(&mut plane.connections, &mut plane.half_open, &packet.key) {
        incarnation = conn.incarnation;
        // A record that was never judged by is as young as this packet and knows nothing of those before it.
        let knows = record.incarnation == incarnation && record.epoch != 0;
        let last_ns = if knows { record.last_ns } else { 0 };
        if !track::is_over(conn, packet, last_ns, moment.now_ns, config) {
            if record.incarnation != incarnation {
                record::reset(record, incarnation, moment.now_ns);
            }
            let (changed, j) = known(frame, &plane.rules, packet, conn, record, &moment, related);
            if changed {
                event::verdict(
                    &mut plane.sink,
                    frame,
                    direction,
                    packet,
                    &moment,
                    &j,
                    conn.originator_side(),
                );
            }
            record::count(record, packet.side(), packet.ip_bytes, moment.now_ns);
            return verdict_of(record, u32::from(conn.limits) | j.limits & Limits::SHADOW);
        }
        event::closed(&mut plane.sink, frame, direction, packet, moment.now_ns, conn, record);
        incarnation = incarnation.wrapping_add(1);
        plane.connections.remove(&packet.key);
        plane.half_open.remove(&packet.key);
    } else if record::begins_anew(record, packet) {
        incarnation = track::incarnation(moment.now_ns);
    }
    if record.incarnation != incarnation {
        record::reset(record, incarnation, moment.now_ns);
    }

    let mut originator = track::originator(packet);
    let mut j = if related {
        related_now(&moment)
    } else {
        either(frame, &plane.rules, packet, &moment, &mut originator)
    };
    limits::midstream(packet, &moment, &mut j);
    if j.limits & Limits::AT_OPEN != 0 {
        frame.opening(&plane.rules, &mut plane.buckets, &moment, &mut j);
    }
    monitored(&mut j, &moment);
    let changed = record.epoch == 0 || record.action != j.action as u8 || record.rule != j.rule;
    record::judged(record, &j, &moment, originator);
    record::count(record, packet.side(), packet.ip_bytes, moment.now_ns);
    if changed {
        event::verdict(&mut plane.sink, frame, direction, packet, &moment, &j, originator);
    }
    if icmp::is_error(packet) {
        // It opens no connection, and settles nothing: the next one of its kind may quote another flow.
    } else if !j.passes() {
        // This side only: the other may be allowed to open what this one may not.
        record.settled = Settled::bit(limits::settled_drops(&j), packet.side());
    } else if packet.fragment_offset == 0 && !is_dropped_for_flags(packet, &moment) {
        let Some(conn) = plane.draft.connection() else {
            return Verdict::plain(Action::Dropped, Reason::NoConfiguration);
        };
        track::open(conn, packet, originator, incarnation, moment.now_ns);
        conn.rule = j.rule;
        conn.limits = j.limits as u8;
        conn.identity = j.identity;
        if !plane.half_open.insert(&packet.key, conn) {
            return Verdict::plain(Action::Dropped, Reason::CtMapFull);
        }
        plane.sink.tally(Tally::Opened);
    }
    let verdict =
        Verdict { rule: j.rule, action: j.action, reason: j.reason, limits: j.limits | shadowed(&moment) };
    if j.reason == Reason::Forwarded {
        record.reason = Reason::Established as u8; // for the packets that follow
    }
    verdict
}

/// Judges a connection that is tracked again, if its record does not hold any more. Returns whether the verdict changed.
#[inline(always)]
fn known<F: Stages<T>, T: Tables>(
    frame: &F,
    rules: &T::Rules,
    packet: &Packet,
    conn: &mut Connection,
    record: &mut FlowRecord,
    moment: &Moment,
    related: bool,
) -> (bool, Judgement) {
    let mut j = related_now(moment);
    if record.epoch == moment.epoch && moment.now_ns < record.fresh_until_ns {
        return (false, j);
    }
    let originator = conn.originator_side();
    if !related {
        j = Judgement::nothing();
        frame.decide(rules, &packet.key, originator, moment, &mut j);
    }
    frame.running(rules, conn, moment, &mut j);
    monitored(&mut j, moment);
    let changed = if record.epoch == 0 { !j.passes() } else { record.action != j.action as u8 };
    record::judged(record, &j, moment, originator);
    if j.reason == Reason::Forwarded {
        record.reason = Reason::Established as u8;
    }
    if !j.passes() {
        record.settled = Settled::both(limits::settled_drops(&j));
    }
    conn.rule = j.rule;
    conn.limits = j.limits as u8;
    conn.identity = j.identity;
    j.limits |= shadowed(moment);
    (changed, j)
}

#[inline(always)]
fn verdict_of(record: &FlowRecord, limits: u32) -> Verdict {
    Verdict {
        rule: record.rule,
        action: Action::from_u8(record.action),
        reason: Reason::from_u8(record.reason),
        limits,
    }
}

/// The connection of a key, established or not.
#[inline(always)]
pub(crate) fn find<'a, C, H>(
    connections: &'a mut C,
    half_open: &'a mut H,
    key: &FlowKey,
) -> Option<&'a mut Connection>
where
    C: Table<FlowKey, Connection>,
    H: Table<FlowKey, Connection>,
{
    match connections.get(key) {
        Some(conn) => Some(conn),
        None => half_open.get(key),
    }
}

/// Decides on a new connection. In mid-stream nobody was seen to open it: the direction that policy allows counts.
#[inline(always)]
fn either<F: Stages<T>, T: Tables>(
    frame: &F,
    rules: &T::Rules,
    packet: &Packet,
    moment: &Moment,
    originator: &mut Side,
) -> Judgement {
    let midstream = packet.has(Packet::HAS_TCP) && !packet.flag(Packet::SYN);
    let mut j = Judgement::nothing();
    frame.decide(rules, &packet.key, *originator, moment, &mut j);
    if !j.passes() && midstream {
        let (reason, rule) = (j.reason, j.rule);
        j = Judgement::nothing();
        frame.decide(rules, &packet.key, originator.other(), moment, &mut j);
        if j.passes() {
            *originator = originator.other();
        } else {
            // Neither may: say why the sender may not, and who is who by the sender's word.
            j.identity = [j.identity[1], j.identity[0]];
            (j.reason, j.rule) = (reason, rule);
        }
    }
    j
}

/// Good for this packet alone: the next error of the same kind may quote another flow.
#[inline(always)]
fn related_now(moment: &Moment) -> Judgement {
    Judgement {
        fresh_until_ns: moment.now_ns,
        identity: [0, 0],
        rule: 0,
        action: Action::Forwarded,
        reason: Reason::Related,
        limits: 0,
    }
}

/// What marks a packet whose flow was judged, where a candidate is judged by too.
#[inline(always)]
fn shadowed(moment: &Moment) -> u32 {
    if moment.flags & Config::SHADOW != 0 { Limits::SHADOW } else { 0 }
}

/// In monitor mode nothing is dropped. Where interfaces differ the next packet may enter by another one.
#[inline(always)]
fn monitored(j: &mut Judgement, moment: &Moment) {
    if j.action != Action::Dropped {
        return;
    }
    if moment.flags & Config::BY_INTERFACE != 0 {
        j.until(0);
    }
    if moment.flags & Config::ENFORCE == 0 {
        j.action = Action::Audit;
    }
}

#[inline(always)]
fn is_dropped_for_flags(packet: &Packet, moment: &Moment) -> bool {
    moment.flags & Config::ENFORCE != 0 && packet.has(Packet::HAS_TCP) && tcp::has_invalid_flags(packet)
}
