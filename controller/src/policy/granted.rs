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
            settings.insert(
                number,
                RuleSettings { lifetime_ns, timed: RuleSettings::GRANT, ..RuleSettings::NONE },
            );
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

/// What rules in order of precedence decide, and what `grants` let pass beyond that: of several the first. An end stands only where
/// the rules that have none drop: what is let pass anyhow is not cut.
pub fn beyond(rules: &[Speaks<'_>], grants: &[Said<'_>]) -> Vec<Entry> {
    let of_rules = rules.iter().flat_map(|rule| rule.said.1);
    let ports: Vec<PortMatch> =
        of_rules.chain(grants.iter().flat_map(|(_, ports)| *ports)).copied().collect();
    resolve(&ports, Decision::NONE, |service| {
        let by_rule = first(rules.iter(), service);
        let decision = by_rule.map_or(Decision::NONE, |rule| rule.said.0);
        if by_rule.is_some_and(|rule| rule.ends) {
            let behind = first(rules.iter().filter(|rule| !rule.ends), service);
            let goes_on = behind.is_some_and(|rule| lets_pass(&rule.said.0));
            let end = if goes_on { Bits::LIFETIME as u8 } else { 0 };
            return Decision { limits: decision.limits & !end, ..decision };
        }
        if lets_pass(&decision) {
            return decision;
        }
        let grant = grants.iter().find(|(_, ports)| is_about(ports, service));
        grant.map_or(decision, |(decision, _)| *decision)
    })
}

/// The rule that decides on a service: the first, unless one before it passes its tier by.
fn first<'r, 'd>(
    rules: impl Iterator<Item = &'r Speaks<'d>>,
    service: Option<(u8, u16)>,
) -> Option<&'r Speaks<'d>>
where
    'd: 'r,
{
    let mut passed = None;
    for rule in rules.filter(|rule| is_about(rule.said.1, service)) {
        if passed == Some(rule.tier) {
            continue;
        }
        if !rule.passes {
            return Some(rule);
        }
        passed = Some(rule.tier);
    }
    None
}

/// What a rule says, and whether it ends by itself.
#[derive(Clone, Copy)]
pub struct Speaks<'d> {
    /// What it says.
    pub said: Said<'d>,
    /// Whether the kernel ends what it lets pass.
    pub ends: bool,
    /// Its tier.
    pub tier: u32,
    /// Whether it leaves what it is about to the next tier.
    pub passes: bool,
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
        priority: None,
        action: RuleAction::Allow,
        mode: RuleMode::Enforce,
        limits: Limits::default(),
        place: grant.place.clone(),
    }
}
