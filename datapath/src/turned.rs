//! Who is turned away on the fast lane: what the policy drops in a flow that nothing is known of, once no event tells of it any more.
//!
//! It leaves no record and no event behind. The whole way would come to the same verdict, and count the same
//! (docs/adr/0037-tags-of-slots.md).

use crate::abi::{Config, FlowKey, Lost, Reason, Settled, Side};
use crate::blocked::{self, Sender};
use crate::event;
use crate::lane::Lane;
use crate::policy::{self, Ends, Judgement, Moment};
use crate::tables::{Attempts, Plane, Rules, Sink, Tables};
use crate::wire::proto;

/// Stands for no [`Reason`]: the packet is to be judged.
pub const GOES_ON: u32 = u8::MAX as u32;

/// Whether this CPU remembers of who sent the packet that it is blocked, or that it is nobody where nobody may talk. Of those who may
/// this is asked, and no more.
#[inline(always)]
pub(crate) fn may_be<T: Tables>(plane: &Plane<T>, lane: &Lane) -> bool {
    let Some(config) = plane.rules.config() else {
        return false;
    };
    let is_closed = config.flags & (Config::ENFORCE | Config::DEFAULT_ALLOW) == Config::ENFORCE;
    let from = lane.key.end(lane.side).0;
    let memo = plane.rules.remembered(&from, config);
    memo.is_some_and(|memo| memo.block_rule != 0 || memo.class == 0 && is_closed)
}

/// The reason for which a packet is dropped whose flow has no slot, counted as an event that was not sent; or [`GOES_ON`]. `kinds` is
/// the [`Lane`]'s.
#[inline(always)]
pub fn turned<T: Tables>(plane: &mut Plane<T>, key: &FlowKey, side: Side, kinds: u16) -> u32 {
    let Some(config) = plane.rules.config() else {
        return GOES_ON;
    };
    // What a tunnel carries is judged, and its ends are told of otherwise.
    if key.proto == proto::UDP && config.flags & Config::INSPECT != 0 {
        return GOES_ON;
    }
    let reason = match sender(plane, key, side) {
        Sender::Told => Reason::Blocklisted as u32,
        Sender::Blocked => GOES_ON,
        Sender::Unknown if kinds == Settled::CONTROL || key.proto == proto::UDP => denied(plane, key, side),
        Sender::Unknown => GOES_ON,
    };
    if reason != GOES_ON {
        plane.sink.lost(Lost::Limited);
    }
    reason
}

/// What is remembered of who sends.
///
/// A function of its own in BPF, as [`denied`] is: what the one keeps on the stack is not under the other.
#[inline(never)]
fn sender<T: Tables>(plane: &mut Plane<T>, key: &FlowKey, side: Side) -> Sender {
    let Some(config) = plane.rules.config() else {
        return Sender::Unknown;
    };
    let (from, to) = (key.end(side), key.end(side.other()));
    blocked::ask(&plane.rules, &mut plane.sink, config, &from, &to, key.proto).0
}

/// The same by policy, for what opens a connection: of all else it has to be asked who opened what it belongs to.
#[inline(never)]
fn denied<T: Tables>(plane: &mut Plane<T>, key: &FlowKey, side: Side) -> u32 {
    let Some(config) = plane.rules.config() else {
        return GOES_ON;
    };
    // As for newcomers: where interfaces differ, where it matters who has an address here, or where a candidate is asked too,
    // it takes the whole way.
    let special = Config::BY_INTERFACE | Config::SCOPED | Config::SHADOW;
    if config.flags & (special | Config::ENFORCE) != Config::ENFORCE || plane.half_open.whereabouts(key) != 0
    {
        return GOES_ON;
    }
    let moment = Moment::at(config, plane.rules.coarse_ns(config));
    let mut j = Judgement::nothing();
    if !policy::decide_anywhere(&plane.rules, &moment, &Ends::new(key, side), &mut j)
        || j.passes()
        || j.limits != 0
        || !event::is_used_up(&mut plane.sink, moment.now_ns, config.event_limit, j.reason, j.identity[0])
    {
        return GOES_ON;
    }
    j.reason as u32
}
