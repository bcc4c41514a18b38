//! Who is turned away on the fast lane: what the policy drops in a flow that nothing is known of, once no event tells of it any more.
//!
//! It leaves no record and no event behind. The whole way would come to the same verdict, and count the same
//! (docs/adr/0037-tags-of-slots.md).

use crate::abi::{Config, FlowKey, Lost, Settled, Side};
use crate::blocked::{self, Sender};
use crate::event;
use crate::lane::Lane;
use crate::newcomer::ASKS_MORE;
use crate::policy::{self, Ends, Judgement, Moment};
use crate::tables::{Attempts, Plane, Rules, Sink, Tables};
use crate::wire::proto;

/// Stands for no [`crate::abi::Reason`]: the packet is to be judged.
pub const GOES_ON: u32 = u8::MAX as u32;

/// What this CPU remembers of who sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing by which it could be turned away. Those who may talk are asked this, and no more.
    Nothing,
    /// It is blocked, or was.
    Blocked,
    /// It is nobody, where nobody may talk.
    Nobody,
}

/// Asks the memory for who sent the packet.
#[inline(always)]
pub(crate) fn known<T: Tables>(plane: &Plane<T>, lane: &Lane) -> Known {
    let Some(config) = plane.rules.config() else {
        return Known::Nothing;
    };
    let from = lane.key.end(lane.side).0;
    let is_closed = config.flags & (Config::ENFORCE | Config::DEFAULT_ALLOW) == Config::ENFORCE;
    // Of all but what opens a connection it has to be asked who opened what it belongs to; a block cuts both ways.
    let opens = lane.kinds == Settled::CONTROL || lane.key.proto == proto::UDP;
    match plane.rules.remembered(&from, config) {
        Some(memo) if memo.block_rule != 0 => Known::Blocked,
        Some(memo) if memo.class == 0 && is_closed && opens => Known::Nobody,
        _ => Known::Nothing,
    }
}

/// Whether a packet is dropped whose flow has no slot, because its sender is blocked; it is then counted as an event that was not
/// sent.
#[inline(always)]
pub fn is_blocked<T: Tables>(plane: &mut Plane<T>, key: &FlowKey, side: Side) -> bool {
    let Some(config) = plane.rules.config() else {
        return false;
    };
    if is_looked_into(config, key) {
        return false;
    }
    let (from, to) = (key.end(side), key.end(side.other()));
    let (sender, _) = blocked::ask(&plane.rules, &mut plane.sink, config, &from, &to, key.proto);
    let is_told = sender as u8 == Sender::Told as u8;
    if is_told {
        plane.sink.lost(Lost::Limited);
    }
    is_told
}

/// The reason for which the policy drops what opens a connection, counted as an event that was not sent; or [`GOES_ON`].
#[inline(always)]
pub fn denied<T: Tables>(plane: &mut Plane<T>, key: &FlowKey, side: Side) -> u32 {
    let Some(config) = plane.rules.config() else {
        return GOES_ON;
    };
    if config.flags & ASKS_MORE != 0 || is_looked_into(config, key) || plane.half_open.whereabouts(key) != 0 {
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
    plane.sink.lost(Lost::Limited);
    j.reason as u32
}

/// What a tunnel carries is judged, and its ends are told of otherwise.
#[inline(always)]
fn is_looked_into(config: &Config, key: &FlowKey) -> bool {
    key.proto == proto::UDP && config.flags & Config::INSPECT != 0
}
