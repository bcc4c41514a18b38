//! Grants beside the rules of policies: what they let pass that no rule does, until they end.
//!
//! An entry of a grant stands only where the rules drop. So what its end leaves is what the rules say there, a drop, and no
//! daemon has to be there to put anything back.

use super::compile::{RuleInfo, RuleKind};
use super::document::{Documents, RuleAction, RuleMode};
use super::flatten::{Entry, resolve};
use super::grant::Grant;
use super::limits::Limits;
use super::numbering::Numbering;
use super::ports::PortMatch;
use super::time::boot_time_ns;
use datapath::abi::{Decision, Limits as Bits, RuleSettings};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// The grants that are not over, the one that ends last first.
pub struct Granted<'d>(Vec<(&'d Grant, Decision)>);

/// What is decided, and for which services.
pub type Said<'d> = (Decision, &'d [PortMatch]);

impl<'d> Granted<'d> {
    /// Gives each grant a number, a line in `rules`, and, unless it is over, its end in `settings`.
    pub fn of(
        documents: &'d Documents,
        numbering: &mut Numbering,
        (rules, settings): (&mut BTreeMap<u32, RuleInfo>, &mut BTreeMap<u32, RuleSettings>),
        (wall_of_boot_ns, now): (i128, Timestamp),
    ) -> Self {
        let mut grants: Vec<_> = documents.grants.iter().collect();
        grants.sort_by_key(|grant| std::cmp::Reverse(grant.not_after));
        let mut numbered = |grant: &'d Grant| {
            let info = info(numbering, grant);
            let number = info.number;
            rules.insert(number, info);
            (grant.not_after > now).then_some((grant, number))
        };
        let grants = grants.into_iter().filter_map(&mut numbered).map(|(grant, number)| {
            let lifetime_ns = boot_time_ns(grant.not_after, wall_of_boot_ns);
            settings.insert(number, RuleSettings { lifetime_ns, timed: 1, ..RuleSettings::NONE });
            (grant, decision(number))
        });
        Self(grants.collect())
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = (&'d Grant, Said<'d>)> {
        self.0.iter().map(|(grant, decision)| (*grant, (*decision, grant.ports.as_slice())))
    }
}

/// What a grant of this number decides while it lasts.
pub(super) fn decision(number: u32) -> Decision {
    let limits = Bits::LIFETIME as u8;
    Decision { rule: number, action: Decision::ALLOW, limits, ..Decision::NONE }
}

/// What rules in order of precedence decide, and what `grants` let pass beyond that: of several the first.
pub fn beyond(rules: &[Said<'_>], grants: &[Said<'_>]) -> Vec<Entry> {
    let ports: Vec<PortMatch> = rules.iter().chain(grants).flat_map(|(_, ports)| *ports).copied().collect();
    resolve(&ports, Decision::NONE, |service| {
        let first =
            |said: &[Said<'_>]| said.iter().find(|(_, ports)| is_about(ports, service)).map(|(d, _)| *d);
        let by_rule = first(rules).unwrap_or(Decision::NONE);
        if lets_pass(&by_rule) { by_rule } else { first(grants).unwrap_or(by_rule) }
    })
}

/// Whether ports list a service; `None` stands for protocols that nobody names.
fn is_about(ports: &[PortMatch], service: Option<(u8, u16)>) -> bool {
    match service {
        Some((proto, port)) => ports.iter().any(|listed| listed.matches(proto, port)),
        None => ports.contains(&PortMatch::Any),
    }
}

/// Whether packets go on, audited or not.
fn lets_pass(decision: &Decision) -> bool {
    match decision.action {
        Decision::ALLOW => true,
        Decision::DENY => decision.audit != 0,
        _ => false,
    }
}

fn info(numbering: &mut Numbering, grant: &Grant) -> RuleInfo {
    RuleInfo {
        number: numbering.grant(&grant.name),
        kind: RuleKind::Grant,
        policy: "grant".into(),
        text: format!("grant {grant}"),
        name: grant.name.clone(),
        tier: 0,
        action: RuleAction::Allow,
        mode: RuleMode::Enforce,
        limits: Limits::default(),
        place: grant.place.clone(),
    }
}
