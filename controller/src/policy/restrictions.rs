//! What is done about identities and is no cut: limits for a while, TLS, an end to connections, leases that are revoked.
//!
//! It stands beside the identity's own limit in the same table, with its end, so that the kernel ends it. Of several of a kind the
//! one that ends last holds.

use super::act::Act;
use super::compile::RuleInfo;
use super::document::{Documents, RuleMode};
use super::guards::quarantine_info;
use super::identity_limits::{IdentityLimit, IdentityLimits};
use super::limits::{RateLimit, rates};
use super::numbering::Numbering;
use super::quarantine::Quarantine;
use super::spiffe::SpiffeId;
use super::time::boot_time_ns;
use datapath::abi::{Binding, NEVER, Rate, Restriction, RuleSettings};
use std::collections::BTreeMap;

/// The tables of a compile that restrictions add to.
pub(super) struct Tables<'a> {
    pub numbering: &'a mut Numbering,
    pub rules: &'a mut BTreeMap<u32, RuleInfo>,
    pub settings: &'a mut BTreeMap<u32, RuleSettings>,
    pub wall_of_boot_ns: i128,
}

/// Adds what is done about identities to the limits that they have.
pub(super) fn restrict<'d>(
    documents: &'d Documents,
    limits: &mut IdentityLimits<'d>,
    tables: &mut Tables<'_>,
) {
    for quarantine in documents.quarantines.iter().filter(|quarantine| !quarantine.act.cuts_off()) {
        let fits =
            |id: &SpiffeId, labels| quarantine.identities.iter().any(|s| s.matches_workload(id, labels));
        for workload in documents.workloads.iter().filter(|w| fits(&w.spiffe_id, &w.labels)) {
            one(documents, limits, tables, quarantine, &workload.spiffe_id);
        }
    }
}

fn one<'d>(
    documents: &'d Documents,
    limits: &mut IdentityLimits<'d>,
    tables: &mut Tables<'_>,
    quarantine: &Quarantine,
    id: &'d SpiffeId,
) {
    let boot_ns = |at| boot_time_ns(at, tables.wall_of_boot_ns);
    let (end_ns, since_ns) =
        (quarantine.not_after.map_or(NEVER, boot_ns), quarantine.since.map_or(0, boot_ns));
    if quarantine.act == Act::RevokeLease {
        let rule = quarantine_info(tables.numbering, quarantine);
        tables.rules.insert(rule.number, rule);
        let since = limits.revoked.entry(id).or_insert(since_ns);
        *since = since_ns.min(*since);
        return;
    }
    let own = limits.get(id).unwrap_or_default();
    let last_ns =
        |restriction: &Restriction| if restriction.rule == 0 { 0 } else { restriction.not_after_ns };
    let place = match quarantine.act {
        Act::Limit(_) => own.limit.rate,
        Act::RequireTls => own.limit.tls,
        _ => own.limit.cut,
    };
    if last_ns(&place) >= end_ns {
        return;
    }
    let mut info = quarantine_info(tables.numbering, quarantine);
    let mut changed = own;
    match &quarantine.act {
        Act::Limit(rate) => {
            let base = documents
                .limits
                .iter()
                .find(|limit| tables.rules.get(&own.limit.rule).is_some_and(|rule| rule.name == limit.name));
            if let Some(base) = base {
                // Its numbers depend on what they stand in the place of.
                info.number =
                    tables.numbering.quarantine(&format!("{} beside {}", quarantine.name, base.name));
            }
            tables.settings.insert(info.number, beside(rate, base));
            changed.limit.rate = Restriction::new(info.number, end_ns);
            changed.bits |= bits(rate);
        }
        Act::RequireTls => {
            changed.limit.tls = Restriction::new(info.number, end_ns);
            changed.bits |= Binding::RESTRICTED;
        }
        _ => {
            changed.limit.cut = Restriction::new(info.number, end_ns);
            changed.limit.opened_before_ns = since_ns;
            changed.bits |= Binding::RESTRICTED;
        }
    }
    tables.rules.insert(info.number, info);
    limits.set(id, changed);
}

fn bits(rate: &RateLimit) -> u8 {
    IdentityLimit::bits_of(false, Some(rate))
}

/// A limit for a while in the place of one that holds: what either says, and of what both say the tighter.
fn beside(rate: &RateLimit, base: Option<&IdentityLimit>) -> RuleSettings {
    let mut settings = RuleSettings { per_identity: 1, rates: rates(Some(rate)), ..RuleSettings::NONE };
    let Some(base) = base.filter(|base| base.mode == RuleMode::Enforce) else { return settings };
    settings.max_attempts = base.max_attempts.unwrap_or(0);
    settings.max_connections = base.max_connections.unwrap_or(0);
    for (rate, own) in settings.rates.iter_mut().zip(rates(base.rate.as_ref())) {
        *rate = tighter(*rate, own);
    }
    settings
}

fn tighter(one: Rate, other: Rate) -> Rate {
    let crossed = |a: Rate, b: Rate| u128::from(a.units) * u128::from(b.period_ns);
    match (one.units, other.units) {
        (_, 0) => one,
        (0, _) => other,
        _ if crossed(one, other) <= crossed(other, one) => one,
        _ => other,
    }
}
