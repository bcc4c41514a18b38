//! Packets that are not settled, first half: whose connection is it, and may it go on?

use crate::abi::packet::Trace;
use crate::abi::{
    Action, Attempt, Config, Connection, Direction, FlowKey, FlowRecord, FlowSlot, Limits, Packet, Reason,
    Settled, Side, Tally,
};
use crate::event;
use crate::follow;
use crate::frame::Frame;
use crate::guard::Service;
use crate::judge::Verdict;
use crate::limits;
use crate::policy::{Judgement, Moment};
use crate::record;
use crate::stage::Stages;
use crate::tables::{Attempts, Draft, Plane, Rules, Sink, Slots, Table, Tables, whereabouts};
use crate::track;
use crate::weight::Weight;
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
    let Some(config) = plane.rules.config() else {
        return trace.set(Verdict::plain(Action::Dropped, Reason::NoConfiguration));
    };
    let Moment { segment, epoch, .. } = trace.moment;
    trace.moment = Moment { segment, ..Moment::on(&plane.rules, config, frame.ifindex(), epoch) };
    let source = &mut trace.source;
    let verdict = admitted(frame, direction, plane, &trace.packet, index, &mut trace.moment, source);
    trace.set(verdict);
}

#[inline(always)]
fn admitted<F: Stages<T>, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    packet: &Packet,
    index: u32,
    moment: &mut Moment,
    source: &mut u32,
) -> Verdict {
    let related = icmp::is_error(packet) && frame.related(plane, packet, moment);
    let Some(config) = plane.rules.config() else {
        return Verdict::plain(Action::Dropped, Reason::NoConfiguration);
    };
    let mut incarnation = track::incarnation(moment.now_ns);
    let slots = (&mut plane.slots, &mut plane.spill);
    let found = whose(&mut plane.connections, &mut plane.half_open, slots, packet, index, moment.now_ns);
    if let Some((conn, record)) = found {
        // A record that was never judged by is as young as this packet and knows nothing of those before it.
        let knows = record.incarnation == conn.incarnation && record.epoch != 0;
        let last_ns = if knows { record.last_ns } else { 0 };
        if !track::is_over(conn, packet, last_ns, moment.now_ns, config) {
            if record.incarnation != conn.incarnation {
                record::reset(record, conn.incarnation, moment.now_ns);
            }
            let (changed, j) = known(frame, &plane.rules, packet, conn, record, moment, related);
            if changed {
                let originator = conn.originator_side();
                event::verdict(&mut plane.sink, frame, direction, packet, moment, &j, originator);
            }
            record::count(record, packet.side(), Weight::of(packet), moment.now_ns);
            *source = record::sender(record, packet.side());
            return verdict_of(record, u32::from(conn.limits) | j.limits & Limits::SHADOW);
        }
        incarnation = conn.incarnation.wrapping_add(1);
        if let Some(over) = plane.draft.attempt() {
            // One by one: what is assigned together lies on the kernel's stack in between.
            over.connection = *conn;
            over.record = *record;
            frame.replaced(direction, plane, packet, moment, index);
        }
        plane.connections.remove(&packet.key);
        plane.half_open.remove(&packet.key);
    } else if let Some(slot) = owned(&mut plane.slots, packet, index)
        && !record::begins_anew(&slot.record, packet)
    {
        incarnation = slot.record.incarnation;
    }
    begin(frame, direction, plane, packet, index, moment, source, (incarnation, related))
}

/// The packet's connection, and its flow's record on this CPU. Who was answered has a slot, and takes it here; an attempt
/// carries its record with it.
#[inline(always)]
fn whose<'t, C, H, L, S>(
    connections: &'t mut C,
    half_open: &'t mut H,
    (slots, spill): (&'t mut L, &mut S),
    packet: &Packet,
    index: u32,
    now_ns: u64,
) -> Option<(&'t mut Connection, &'t mut FlowRecord)>
where
    C: Table<FlowKey, Connection>,
    H: Attempts,
    L: Slots,
    S: Table<FlowKey, FlowRecord>,
{
    // What opens a connection belongs to none as a rule, and its set of attempts knows that.
    let may_be =
        if record::opens(packet) { half_open.whereabouts(&packet.key) } else { whereabouts::ANYWHERE };
    if may_be & whereabouts::ANSWERED != 0
        && let Some(conn) = connections.get(&packet.key)
    {
        let slot = slots.slot(index)?;
        if slot.key != packet.key {
            record::claim(slot, spill, &packet.key, now_ns);
            slots.given_to(&packet.key);
        }
        let slot = slots.slot(index)?;
        return Some((conn, &mut slot.record));
    }
    if may_be & whereabouts::UNANSWERED == 0 {
        return None;
    }
    let attempt = half_open.get(&packet.key)?;
    match owned(slots, packet, index) {
        Some(slot) => Some((&mut attempt.connection, &mut slot.record)),
        None => Some((&mut attempt.connection, &mut attempt.record)),
    }
}

/// The slot that the packet's flow has on this CPU. What opens a connection leaves the flow table alone: a slot that nothing
/// has warmed costs as much as all the rest.
#[inline(always)]
fn owned<'a, L: Slots>(slots: &'a mut L, packet: &Packet, index: u32) -> Option<&'a mut FlowSlot> {
    if record::opens(packet) { None } else { slots.slot(index).filter(|slot| slot.key == packet.key) }
}

/// Judges a packet of no connection that is tracked. If it may pass, it opens one.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "a structure of them would lie on the kernel's stack")]
fn begin<F: Stages<T>, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    packet: &Packet,
    index: u32,
    moment: &mut Moment,
    source: &mut u32,
    (incarnation, related): (u32, bool),
) -> Verdict {
    let mut originator = track::originator(packet);
    if moment.flags & Config::FAILSAFE != 0 {
        unmask(direction, &plane.rules, packet, moment);
    }
    let mut j = either(frame, &plane.rules, packet, moment, &mut originator);
    if related && !is_cut_off(&j) {
        j = related_now(moment);
    }
    limits::midstream(&mut plane.half_open, packet, moment, &mut j);
    if j.limits & Limits::AT_OPEN != 0 {
        frame.opening(&plane.rules, &mut plane.buckets, packet, moment, &mut j);
    }
    monitored(&mut j, moment);
    *source = if packet.side() == originator { j.identity[0] } else { j.identity[1] };
    enter(frame, direction, plane, packet, index, moment, &j, (incarnation, originator))
}

/// Nobody else speaks for the gateway's own failsafe services: what enters and says that it comes from one is judged as if there
/// were none. For this packet alone, or what the gateway itself sends next would be taken for it.
///
/// A function of its own in BPF, so that its key has room on the stack.
#[inline(never)]
fn unmask<R: Rules>(direction: Direction, rules: &R, packet: &Packet, moment: &mut Moment) {
    let (addr, port) = packet.src();
    if direction as u8 == Direction::Ingress as u8
        && rules.is_failsafe(&addr, Service { proto: packet.key.proto, port })
    {
        moment.flags &= !Config::FAILSAFE;
        moment.refresh_ns = moment.now_ns;
    }
}

/// Makes of a judgement on a packet of no connection that is tracked what it has to be: a connection, or a record.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "a structure of them would lie on the kernel's stack")]
pub(crate) fn enter<F: Frame, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    packet: &Packet,
    index: u32,
    moment: &Moment,
    j: &Judgement,
    (incarnation, originator): (u32, Side),
) -> Verdict {
    let Some(attempt) = plane.draft.attempt() else {
        return Verdict::plain(Action::Dropped, Reason::NoConfiguration);
    };
    let opens = j.passes() && opens_one(packet, moment);
    // What opens none has one record, whatever CPU counts it and when.
    let incarnation = if opens { incarnation } else { 0 };
    record::reset(&mut attempt.record, incarnation, moment.now_ns);
    let slot = if record::opens(packet) && j.passes() { None } else { plane.slots.slot(index) };
    let slot = slot.filter(|slot| slot.key == packet.key);
    let has_slot = slot.is_some();
    let record = match slot {
        Some(slot) => {
            let is_older = slot.record.incarnation != incarnation;
            if is_older && (opens || record::begins_anew(&slot.record, packet)) {
                slot.record = attempt.record;
            }
            &mut slot.record
        }
        None => &mut attempt.record,
    };
    let changed = record.epoch == 0 || record.action != j.action as u8 || record.rule != j.rule;
    record::judged(record, j, moment, originator);
    record::count(record, packet.side(), Weight::of(packet), moment.now_ns);
    if changed {
        event::verdict(&mut plane.sink, frame, direction, packet, moment, j, originator);
    }
    if !j.passes() && !icmp::is_error(packet) {
        // This side only: the other may be allowed to open what this one may not.
        record.settled = Settled::bit(limits::settled_drops(j), packet.side());
    } else if j.reason == Reason::Forwarded {
        record.reason = Reason::Established as u8; // for the packets that follow
    }
    let mut followed = 0;
    if opens {
        let conn = &mut attempt.connection;
        track::open(conn, packet, originator, incarnation, moment.now_ns);
        conn.rule = j.rule;
        conn.limits = j.limits as u8;
        conn.identity = j.identity;
        conn.held = j.holding().0;
        // All that a SYN tells is told before a table has it, and nobody has to find it there again.
        if is_plain_syn(packet) && j.limits & Limits::BY_PACKET == 0 && !has_slot {
            follow::track_syn(packet, conn, &mut attempt.record);
            followed = Limits::FOLLOWED;
        }
        // Where other CPUs took its place it passes all the same, as one that gave way at once.
        let _is_kept = plane.half_open.insert(&packet.key, attempt);
        plane.sink.tally(Tally::Opened);
    } else if !has_slot
        && let Some(slot) = plane.slots.slot(index)
        && !record::is_living(slot, moment.now_ns)
    {
        if j.passes() {
            record::settle_down(slot, &mut plane.spill, &packet.key, &mut attempt.record);
        } else {
            record::remember(slot, &mut plane.spill, &packet.key, &attempt.record);
        }
        plane.slots.given_to(&packet.key);
    }
    Verdict {
        rule: j.rule,
        action: j.action,
        reason: j.reason,
        limits: j.limits | shadowed(moment) | followed,
    }
}

/// Whether the packet is a SYN that carries nothing and asks for nothing else.
#[inline(always)]
pub(crate) fn is_plain_syn(packet: &Packet) -> bool {
    let control = Packet::FIN | Packet::SYN | Packet::RST | Packet::ACK;
    packet.has(Packet::HAS_TCP) && packet.tcp_flags & control == Packet::SYN && packet.payload_bytes == 0
}

/// Whether a packet that may pass opens a connection. An ICMP error does not, nor does it settle anything: the next one of
/// its kind may quote another flow.
#[inline(always)]
fn opens_one(packet: &Packet, moment: &Moment) -> bool {
    !icmp::is_error(packet) && packet.fragment_offset == 0 && !is_dropped_for_flags(packet, moment)
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
    let mut j = Judgement::nothing();
    if record.epoch == moment.epoch && moment.now_ns < record.fresh_until_ns {
        return (false, j);
    }
    let originator = conn.originator_side();
    frame.decide(rules, &packet.key, originator, moment, &mut j);
    if related && !is_cut_off(&j) {
        j = related_now(moment);
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
    H: Table<FlowKey, Attempt>,
{
    match connections.get(key) {
        Some(conn) => Some(conn),
        None => half_open.get(key).map(|attempt| &mut attempt.connection),
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
    let midstream = packet.has(Packet::HAS_TCP) && !packet.flag(Packet::SYN)
        || packet.has(Packet::HAS_SCTP) && !packet.sctp(Packet::SCTP_INIT | Packet::SCTP_INIT_ACK);
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

/// Of an ICMP error about a connection that is tracked. Good for this packet alone: the next error of the same kind may quote
/// another flow.
#[inline(always)]
fn related_now(moment: &Moment) -> Judgement {
    Judgement { fresh_until_ns: moment.now_ns, reason: Reason::Related, ..Judgement::nothing() }
}

/// Whether a block or a quarantine speaks of an end. In what an error quotes, such an end could go on talking.
#[inline(always)]
fn is_cut_off(j: &Judgement) -> bool {
    j.reason as u8 == Reason::Blocklisted as u8 || j.reason as u8 == Reason::Quarantined as u8
}

/// What marks a packet whose flow was judged, where a candidate is judged by too.
#[inline(always)]
fn shadowed(moment: &Moment) -> u32 {
    if moment.flags & Config::SHADOW != 0 { Limits::SHADOW } else { 0 }
}

/// In monitor mode nothing is dropped. Where interfaces differ the next packet may enter by another one.
#[inline(always)]
pub(crate) fn monitored(j: &mut Judgement, moment: &Moment) {
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
