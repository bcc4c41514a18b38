//! Newcomers: plain packets that no flow's record settles, in one function from the frame to the verdict.
//!
//! What floods bring is here: SYNs that open a connection or may not, and packets of a sender who is blocked. It decides
//! nothing by itself; it calls what the stages of the slow path call, without the calls between them. All that needs more
//! goes there, and what was read goes with it (docs/adr/0016-newcomers.md).

use crate::abi::packet::Trace;
use crate::abi::{Config, Direction, Limits, Lost, Reason};
use crate::admit;
use crate::blocked::{self, Sender};
use crate::event;
use crate::judge::{PARSED, UNREAD, UNSETTLED, Verdict, count};
use crate::policy::{self, Ends, Judgement, Moment};
use crate::stage::Stages;
use crate::tables::{Attempts, Plane, Rules, Sink, Tables};
use crate::track;
use crate::wire::{plain, tcp, tunnel};

/// Reads a frame if it is plain, and judges it if that is soon done. Returns an action or [`UNSETTLED`]; the reason in
/// `trace` is then [`PARSED`] or [`UNREAD`].
#[inline(always)]
pub fn newcomer<F: Stages<T>, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    trace: &mut Trace,
) -> u8 {
    *trace = Trace::default();
    trace.reason = UNREAD;
    let Some(config) = plane.rules.config() else {
        return UNSETTLED;
    };
    let flags = config.flags;
    // A packet that is traced takes the whole way, so that the one can be held against the other.
    if flags & Config::TRACE != 0
        || !plain::read(frame, &mut trace.packet)
        || tunnel::is_asked(flags, &trace.packet)
        || tcp::announces(&trace.packet) && !frame.announced(&mut trace.packet)
    {
        return UNSETTLED;
    }
    trace.reason = PARSED;
    // Who is blocked is asked first: it costs others little, and a flood of SYNs most of what it would.
    let sender =
        if blocked::may_be(plane, &trace.packet) { blocked::of(plane, trace) } else { Sender::Unknown } as u8;
    let is_done = sender == Sender::Told as u8
        || (sender == Sender::Blocked as u8 || admit::is_plain_syn(&trace.packet))
            && opens(frame, direction, plane, trace);
    if !is_done {
        return UNSETTLED;
    }
    count(frame, direction, plane, trace);
    trace.action
}

/// Where interfaces differ, where it matters who has an address here, or where a candidate is asked too, a packet takes the whole way.
pub(crate) const ASKS_MORE: u32 = Config::BY_INTERFACE | Config::SCOPED | Config::SHADOW;

/// Judges a SYN, or what a blocked sender sends, of no connection that is tracked. `false` if there may be one, or if more has
/// to be asked than the policy.
#[inline(always)]
fn opens<F: Stages<T>, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    trace: &mut Trace,
) -> bool {
    let packet = &trace.packet;
    let Some(config) = plane.rules.config() else {
        return false;
    };
    if config.flags & ASKS_MORE != 0 || plane.half_open.whereabouts(&packet.key) != 0 {
        return false;
    }
    let originator = track::originator(packet);
    let moment = &mut trace.moment;
    // By the tick, as on the fast lane. Who is dropped needs no other clock, and the set of attempts, which is cold memory,
    // comes in meanwhile: to read the clock is to wait for it.
    *moment = Moment::at(config, plane.rules.coarse_ns(config));
    let mut j = Judgement::nothing();
    if !policy::decide_anywhere(&plane.rules, moment, &Ends::new(&packet.key, originator), &mut j)
        || j.limits & (Limits::AT_OPEN | Limits::BY_PACKET) != 0
    {
        return false;
    }
    // Of others it has to be asked who opened what they belong to; a block cuts both ways. Of a failsafe service, who says that it
    // comes from one.
    if j.reason as u8 != Reason::Blocklisted as u8 && !admit::is_plain_syn(packet)
        || j.reason as u8 == Reason::Failsafe as u8
    {
        return false;
    }
    admit::monitored(&mut j, moment);
    // What is dropped, and what no event may tell of, is counted and leaves nothing behind.
    if !j.passes()
        && event::is_used_up(&mut plane.sink, moment.now_ns, config.event_limit, j.reason, j.identity[0])
    {
        plane.sink.lost(Lost::Limited);
        trace.set(Verdict { rule: j.rule, action: j.action, reason: j.reason, limits: j.limits });
        return true;
    }
    moment.now_ns = plane.rules.now_ns(config);
    trace.source = j.identity[0];
    let index = packet.key.hash(&config.hash_keys) & config.flow_mask;
    let of = (track::incarnation(moment.now_ns), originator);
    let verdict = admit::enter(frame, direction, plane, packet, index, moment, &j, of);
    trace.set(verdict);
    true
}
