//! The shadow epoch: what a candidate policy would make of the flows that are judged.
//!
//! The candidate lies in the tables as the versions of the next epoch, which is never flipped to. It is asked by the code
//! that judges.

use crate::abi::{Config, Packet, ShadowKey};
use crate::admit::find;
use crate::policy::{Judgement, Moment};
use crate::stage::Stages;
use crate::tables::{Plane, Rules, Sink, Tables};
use crate::track;

/// Judges the packet's flow by both epochs if it is of the sample, and counts what they say.
///
/// After the packet was judged, and not with it: the kernel's stack has no room for both.
#[inline(always)]
pub fn judge<F: Stages<T>, T: Tables>(frame: &F, plane: &mut Plane<T>, packet: &Packet) {
    let Some(config) = plane.rules.config() else {
        return;
    };
    if packet.key.hash(&config.hash_keys) > config.shadow_threshold {
        return;
    }
    let (next, flags) = (config.epoch.wrapping_add(1), config.shadow_flags | config.flags & Config::FAILSAFE);
    let mut moment = Moment::on(&plane.rules, config, frame.ifindex(), 0);
    let originator = match find(&mut plane.connections, &mut plane.half_open, &packet.key) {
        Some(conn) => conn.originator_side(),
        None => track::originator(packet),
    };
    let mut j = Judgement::nothing();
    frame.decide(&plane.rules, &packet.key, originator, &moment, &mut j);
    let mut counted = ShadowKey::SAME;
    counted.old_rule = j.rule;
    counted.old_action = j.action as u8;
    counted.old_reason = j.reason as u8;
    (moment.epoch, moment.flags) = (next, flags);
    j = Judgement::nothing();
    frame.decide(&plane.rules, &packet.key, originator, &moment, &mut j);
    counted.new_rule = j.rule;
    counted.new_action = j.action as u8;
    counted.new_reason = j.reason as u8;
    let is_same = counted.old_rule == counted.new_rule
        && counted.old_action == counted.new_action
        && counted.old_reason == counted.new_reason;
    plane.sink.shadow(if is_same { &ShadowKey::SAME } else { &counted });
}
