//! Limits of an identity, whatever rule lets its connections pass: rates, and how many connections it has at once.
//!
//! An identity is limited for the connections that it opens. What has no identity is limited together, as number 0.

use crate::abi::{Action, Connection, Holding, Limits, Packet, Reason, RuleSettings, Unit};
use crate::holdings;
use crate::limits::{has_token, settings};
use crate::policy::{Judgement, Moment};
use crate::tables::{Buckets, Rules};
use crate::track;
use crate::wire::{proto, tcp};

/// The number of an identity's limit in the rule table, and what it says.
#[inline(always)]
pub(crate) fn limit<'r, R: Rules>(
    rules: &'r R,
    identity: u32,
    moment: &Moment,
) -> Option<(u32, &'r RuleSettings)> {
    let rule = rules.limit(identity)?.at(moment.epoch).now(moment.now_ns);
    Some((rule, settings(rules, rule, moment)?))
}

/// Asks of a connection what holds for one of its identities for a while, whatever rule lets it pass. The judgement holds until
/// that is over.
#[inline(always)]
pub fn restrict<R: Rules>(rules: &R, protocol: u8, moment: &Moment, j: &mut Judgement) {
    for end in 0..2 {
        let Some(versions) = rules.limit(j.identity[end]) else { continue };
        let of = versions.at(moment.epoch);
        if protocol == proto::TCP && of.tls.holds(moment.now_ns) {
            j.until(of.tls.not_after_ns);
            if j.limits & Limits::AUDIT != 0 {
                // It is no matter of the rule's, and is not only audited. What the rule's own limits would say waits.
                j.limits &= !(Limits::AUDIT | Limits::RATE | Limits::LIFETIME);
            }
            j.limits |= Limits::TLS_REQUIRED;
        }
        if of.cut.holds(moment.now_ns) {
            j.until(of.cut.not_after_ns);
            j.limits |= Limits::CUT;
        }
    }
}

/// The number of what asks for TLS for a while, 0 where nothing but a rule does.
#[inline(always)]
pub(crate) fn asks_tls<R: Rules>(rules: &R, identity: [u32; 2], moment: &Moment) -> u32 {
    let asks = |number: u32| match rules.limit(number) {
        Some(versions) if versions.at(moment.epoch).tls.holds(moment.now_ns) => {
            versions.at(moment.epoch).tls.rule
        }
        _ => 0,
    };
    let [originator, responder] = identity;
    let rule = asks(originator);
    if rule != 0 { rule } else { asks(responder) }
}

/// Cuts a connection that was opened too early. Both ends are told.
#[inline(always)]
pub(crate) fn cut<R: Rules>(rules: &R, opened_ns: u64, moment: &Moment, j: &mut Judgement) {
    for end in 0..2 {
        let Some(versions) = rules.limit(j.identity[end]) else { continue };
        let of = versions.at(moment.epoch);
        if of.cut.holds(moment.now_ns) && opened_ns < of.opened_before_ns {
            j.decided(Action::Dropped, Reason::ConnectionCut, of.cut.rule);
            j.limits |= Limits::REJECT;
        }
    }
}

/// The limits of the identity that is about to open a connection. What it is counted as is left in `j`.
#[inline(always)]
pub fn opening<R: Rules, B: Buckets>(
    rules: &R,
    buckets: &mut B,
    packet: &Packet,
    moment: &Moment,
    j: &mut Judgement,
) {
    let (Some(config), Some((rule, settings))) = (rules.config(), limit(rules, j.identity[0], moment)) else {
        return;
    };
    let mut holding = Holding::NONE;
    let mut reason = Reason::Forwarded;
    if j.limits & Limits::IDENTITY_HELD != 0 && may_open(packet) {
        let end_ns = moment.now_ns.saturating_add(track::first_timeout_ns(packet.key.proto, config));
        holding = buckets.until(false, moment.now_ns, end_ns);
        reason = hold(buckets, settings, j.identity[0], holding, moment.now_ns);
    }
    let whose = (rule, j.identity[0]);
    if reason == Reason::Forwarded && !has_token(buckets, settings, whose, Unit::Connections, 1, moment) {
        reason = Reason::RateLimited;
        release(buckets, j.identity[0], holding, moment.now_ns);
    }
    if reason == Reason::Forwarded {
        j.limits |= u32::from(holding.0) << 16;
        return;
    }
    j.decided(if settings.audit != 0 { Action::Audit } else { Action::Dropped }, reason, rule);
    // Good for this packet alone: the next may find room.
    j.until(moment.now_ns);
}

/// Whether it opens a connection if it may pass: not one whose flags are refused.
#[inline(always)]
fn may_open(packet: &Packet) -> bool {
    packet.fragment_offset == 0 && !(packet.has(Packet::HAS_TCP) && tcp::has_invalid_flags(packet))
}

/// Counts a connection that is about to open, if there is room for it. Counted first and looked at then, so that CPUs that
/// do so at the same moment refuse one too many rather than let one too many in.
#[inline(always)]
fn hold<B: Buckets>(
    buckets: &mut B,
    settings: &RuleSettings,
    identity: u32,
    holding: Holding,
    now_ns: u64,
) -> Reason {
    let Some(wheel) = buckets.holdings(identity) else {
        return Reason::TooManyConnections; // no memory: a limit is not exceeded for want of it
    };
    if !holdings::add(&wheel, holding, now_ns) {
        return Reason::TooManyConnections;
    }
    let held = holdings::held(&wheel, now_ns);
    let is_over = |count, max: u32| max != 0 && count > u64::from(max);
    let reason = if is_over(held.attempts, settings.max_attempts) {
        Reason::TooManyAttempts
    } else if is_over(held.attempts + held.answered, settings.max_connections) {
        Reason::TooManyConnections
    } else {
        return Reason::Forwarded;
    };
    holdings::remove(&wheel, holding, now_ns);
    reason
}

#[inline(always)]
fn release<B: Buckets>(buckets: &mut B, identity: u32, holding: Holding, now_ns: u64) {
    if holding != Holding::NONE
        && let Some(wheel) = buckets.holdings(identity)
    {
        holdings::remove(&wheel, holding, now_ns);
    }
}

/// Counts a connection where it belongs now: until when it would be over if nothing more were heard of it, among the
/// unanswered or the answered; nowhere once it is closed, or where `ends` says that another takes its place.
#[inline(always)]
pub fn recount<R: Rules, B: Buckets>(
    rules: &R,
    buckets: &mut B,
    conn: &mut Connection,
    packet: &Packet,
    now_ns: u64,
    ends: bool,
) {
    let Some(config) = rules.config() else {
        return;
    };
    let before = Holding(conn.held);
    let mut after = Holding::NONE;
    if conn.closed_ns == 0 && !ends {
        let protocol = packet.key.proto;
        let end_ns = track::ends_ns(conn, protocol, now_ns, config);
        after = buckets.until(track::is_answered(conn, protocol), now_ns, end_ns);
    }
    if before == after {
        return;
    }
    let moment = Moment::at(config, now_ns);
    let counts = match limit(rules, conn.identity[0], &moment) {
        Some((_, settings)) => settings.max_attempts | settings.max_connections != 0,
        None => false,
    };
    let Some(wheel) = buckets.holdings(conn.identity[0]) else {
        return;
    };
    if !counts || after != Holding::NONE && !holdings::add(&wheel, after, now_ns) {
        after = Holding::NONE;
    }
    if before != Holding::NONE {
        holdings::remove(&wheel, before, now_ns);
    }
    conn.held = after.0;
}
