//! What rules do to each other: those that are never reached, those that contradict each other, and those that change nothing.
//!
//! A rule is judged by the ends that Workload files and CIDRs name, and by ends that could be ([`super::witness`]), for identities enrol: what is
//! said of it holds whoever comes, or says that it is of the named alone. Where they name nobody for it, or there are none, nothing is said but what
//! holds whoever comes.

use super::super::classes::Classes;
use super::super::compile::precedence;
use super::super::document::{Documents, Policy, Rule, RuleAction, RuleMode};
use super::super::hashing::Map;
use super::super::identity_limits::IdentityLimits;
use super::super::numbering::Numbering;
use super::super::place::Place;
use super::super::ports::PortMatch;
use super::super::selector::{Selector, added, taken};
use super::witness::{self, End, Splits, Witnesses};
use super::{NOBODY_NAMED, OF_THE_NAMED, Warning, WarningKind};
use jiff::Timestamp;
use std::collections::{BTreeSet, HashSet};

/// Looks at each rule. `decisive` is where what decides stands, of the ends that Workload files name.
pub(super) fn check(documents: &Documents, decisive: &HashSet<&Place>, warnings: &mut Vec<Warning>) {
    let (guards, limits) = (Map::default(), IdentityLimits::default());
    let classes =
        Classes::of(documents, &mut Numbering::default(), (0, Timestamp::UNIX_EPOCH), &guards, &limits);
    let ordered = precedence(documents);
    let witnesses = Witnesses::of(documents);
    let is_named = !documents.workloads.is_empty();
    let mut splits = [Splits::default(), Splits::default()];
    let mut warn =
        |kind, rule: &Rule, text| warnings.push(Warning { kind, place: Some(rule.place.clone()), text });
    for (n, (policy, rule)) in ordered.iter().enumerate() {
        let name = label(policy, rule);
        if rule.action == RuleAction::Allow && rule.mode == RuleMode::Audit && rule.limits.is_none() {
            let text =
                format!("rule {name}: `mode: audit` changes nothing for an allow, which drops nothing");
            warn(WarningKind::NoEffect, rule, text);
        }
        for (end, selectors) in [("from", &rule.from), ("to", &rule.to)] {
            for (kind, what, whose) in of_nobody(selectors, &classes, &witnesses, is_named) {
                warn(kind, rule, format!("rule {name}: {what} in `{end}`{whose}"));
            }
        }
        let before = &ordered[..n];
        let sure = rule.hours.is_none() || before.iter().all(|(_, earlier)| earlier.hours.is_none());
        if sure {
            let place = (&ordered[..], n);
            let judge = |ends: &Ends<'_, '_>| match rule.action {
                RuleAction::Pass => {
                    let is_open = matches!(ends, Ends::Possible { .. });
                    let may_pass_by = |later: &Rule| is_open && witnesses.may_meet(rule, later);
                    idle_pass(&name, place, ends, may_pass_by)
                }
                _ if ends.decides(decisive, before, (policy, rule)) => None,
                _ => Some(unreachable(&name, (policy, rule), before, ends)),
            };
            let possible = || witnesses.ends_of(rule, &splits).filter(|ends| ends.has_both(rule));
            let named = Ends::Named(&classes);
            let found = if !is_named || !named.has_both(rule) {
                possible().and_then(|ends| judge(&ends))
            } else {
                // Whoever is named does not reach it; others may come.
                judge(&named).map(|(kind, text)| match possible() {
                    Some(ends) if judge(&ends).is_some() => (kind, text),
                    _ => (kind, text + OF_THE_NAMED),
                })
            };
            if let Some((kind, text)) = found {
                warn(kind, rule, text);
            }
        }
        splits.iter_mut().zip([&rule.from, &rule.to]).for_each(|(splits, end)| splits.note(rule, end));
    }
}

/// Selectors of an end that match nobody, or take nothing away, and those that take everything; and for whom it is so. Where no workload is named,
/// only what holds whoever comes is said.
fn of_nobody(
    selectors: &[Selector],
    classes: &Classes<'_>,
    witnesses: &Witnesses,
    is_named: bool,
) -> Vec<(WarningKind, String, &'static str)> {
    let of = |selector: &Selector| classes.matching(std::slice::from_ref(selector));
    // What is so of who is named, and perhaps of everybody.
    let whose = |is_so_of_all: bool| if is_so_of_all { Some("") } else { is_named.then_some(OF_THE_NAMED) };
    let all: HashSet<u32> = added(selectors).flat_map(of).collect();
    let nobody = added(selectors).filter(|s| is_named && **s != Selector::Any && of(s).is_empty());
    let mut found: Vec<_> =
        nobody.map(|s| (WarningKind::MatchesNobody, format!("{NOBODY_NAMED} matches `{s}`"), "")).collect();
    if !all.is_empty()
        && classes.matching(selectors).is_empty()
        && let Some(whose) = whose(witnesses.takes_all(selectors))
    {
        let text = "`not` takes away all that the others match".to_owned();
        found.push((WarningKind::MatchesNobody, text, whose));
    }
    for selector in taken(selectors) {
        let gone = of(selector);
        if gone.is_empty() {
            if is_named {
                let text = format!("{NOBODY_NAMED} matches `not {selector}`");
                found.push((WarningKind::MatchesNobody, text, ""));
            }
        } else if !gone.iter().any(|class| all.contains(class))
            && let Some(whose) = whose(witnesses.takes_nothing(selector, selectors))
        {
            let text = format!("`not {selector}` takes nothing away: the others match none of it");
            found.push((WarningKind::NoEffect, text, whose));
        }
    }
    found
}

/// What a rule speaks of.
struct Reach<'r> {
    from: BTreeSet<usize>,
    to: BTreeSet<usize>,
    ports: &'r [PortMatch],
}

impl Reach<'_> {
    fn covers(&self, other: &Self) -> bool {
        let ports = other.ports.iter().all(|b| self.ports.iter().any(|a| a.covers(b)));
        ports && self.from.is_superset(&other.from) && self.to.is_superset(&other.to)
    }

    fn meets(&self, other: &Self) -> bool {
        let ports = other.ports.iter().any(|b| self.ports.iter().any(|a| a.meets(b)));
        ports && !self.from.is_disjoint(&other.from) && !self.to.is_disjoint(&other.to)
    }
}

/// The ends by which a rule is judged.
pub(super) enum Ends<'e, 'd> {
    /// The classes of those that Workload files and CIDRs name.
    Named(&'e Classes<'d>),
    /// Ends that could be, where the files name nobody for the rule: all that rules before it can tell apart.
    Possible { from: Vec<End>, to: Vec<End> },
}

impl Ends<'_, '_> {
    fn reach<'r>(&self, rule: &'r Rule) -> Reach<'r> {
        let of = |ends: &[End], selectors: &[Selector]| {
            (0..ends.len()).filter(|n| ends[*n].fits(selectors)).collect::<BTreeSet<usize>>()
        };
        let (from, to) = match self {
            Self::Named(classes) => {
                let set = |selectors: &[Selector]| {
                    classes.matching(selectors).into_iter().map(|class| class as usize).collect()
                };
                (set(&rule.from), set(&rule.to))
            }
            Self::Possible { from, to } => (of(from, &rule.from), of(to, &rule.to)),
        };
        Reach { from, to, ports: &rule.ports }
    }

    fn has_both(&self, rule: &Rule) -> bool {
        let reach = self.reach(rule);
        !reach.from.is_empty() && !reach.to.is_empty()
    }

    /// Whether a rule decides something between them, after those before it.
    fn decides(
        &self,
        decisive: &HashSet<&Place>,
        before: &[(&Policy, &Rule)],
        (policy, rule): (&Policy, &Rule),
    ) -> bool {
        match self {
            Self::Named(_) => decisive.contains(&rule.place),
            Self::Possible { from, to } => from.iter().any(|source| {
                to.iter().any(|destination| witness::decides(before, (policy, rule), (source, destination)))
            }),
        }
    }
}

fn passes(rule: &Rule) -> bool {
    rule.action == RuleAction::Pass
}

/// Why a rule that passes on what is left of a tier changes nothing: one before it decides, or there is nothing left. It has something
/// to pass by too where it may pass by a later rule.
fn idle_pass(
    name: &str,
    (ordered, n): (&[(&Policy, &Rule)], usize),
    ends: &Ends<'_, '_>,
    may_pass_by: impl Fn(&Rule) -> bool,
) -> Option<(WarningKind, String)> {
    let own @ (policy, rule) = ordered[n];
    let reach = ends.reach(rule);
    let decides = |(p, r): &&(&Policy, &Rule)| {
        r.hours.is_none() && (!passes(r) || p.tier == policy.tier) && ends.reach(r).covers(&reach)
    };
    // What decides in another tier may itself be passed by for some of it.
    let is_passed = |(p, _): &&(&Policy, &Rule)| {
        let mut before = ordered[..n].iter().filter(|(q, r)| passes(r) && q.tier == p.tier);
        p.tier != policy.tier && before.any(|(_, r)| ends.reach(r).meets(&reach))
    };
    if ordered[..n].iter().any(|one| decides(&one) && !is_passed(&one)) {
        return Some(unreachable(name, own, &ordered[..n], ends));
    }
    let left =
        |(p, r): &&(&Policy, &Rule)| p.tier == policy.tier && (ends.reach(r).meets(&reach) || may_pass_by(r));
    let passed = ordered[n + 1..].iter().find(left);
    passed.is_none().then(|| {
        let text =
            format!("rule {name} changes nothing: no rule of its tier comes after it that it could pass by");
        (WarningKind::NoEffect, text)
    })
}

/// Names the rule that decides in its place, or those that do together.
fn unreachable(
    name: &str,
    (own_policy, own): (&Policy, &Rule),
    before: &[(&Policy, &Rule)],
    ends: &Ends<'_, '_>,
) -> (WarningKind, String) {
    let reach = ends.reach(own);
    let met: Vec<_> = before
        .iter()
        .filter(|(policy, rule)| rule.hours.is_none() && (!passes(rule) || policy.tier == own_policy.tier))
        .map(|(p, r)| (*p, *r, ends.reach(r)))
        .filter(|(.., r)| r.meets(&reach))
        .collect();
    if let Some((policy, rule, _)) = met.iter().find(|(.., earlier)| earlier.covers(&reach)) {
        let first = format!("{} ({})", label(policy, rule), rule.place);
        if passes(rule) {
            let text = format!("rule {name} is never reached: {first} passes its tier by");
            return (WarningKind::Unreachable, text);
        }
        if policy.tier == own_policy.tier && rule.action != own.action && !passes(own) {
            let why = if policy.rank() == own_policy.rank() {
                "a deny is asked before an allow"
            } else {
                "its priority puts that first"
            };
            let text = format!("rule {name} contradicts {first}: {why}, so it is never reached");
            return (WarningKind::Contradiction, text);
        }
        return (WarningKind::Unreachable, format!("rule {name} is never reached: {first} decides first"));
    }
    let names: Vec<String> = met.iter().map(|(policy, rule, _)| label(policy, rule)).collect();
    let text = format!("rule {name} is never reached: together, {} decide first", names.join(", "));
    (WarningKind::Unreachable, text)
}

fn label(policy: &Policy, rule: &Rule) -> String {
    Documents::rule_key(&policy.name, &rule.name)
}
