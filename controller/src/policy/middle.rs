//! Two lists of policies of which most are the same ones: what lies between those at the beginning and at the end that are.

use super::document::{Policy, Rule};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Policies in which two lists may differ.
#[derive(Clone, Copy)]
pub struct Middle<'d> {
    /// Those of the one.
    pub before: &'d [Arc<Policy>],
    /// Those of the other.
    pub after: &'d [Arc<Policy>],
}

impl<'d> Middle<'d> {
    /// Of two lists.
    pub fn of(mut before: &'d [Arc<Policy>], mut after: &'d [Arc<Policy>]) -> Self {
        while let ([a, rest @ ..], [b, other @ ..]) = (before, after)
            && Arc::ptr_eq(a, b)
        {
            (before, after) = (rest, other);
        }
        while let ([rest @ .., a], [other @ .., b]) = (before, after)
            && Arc::ptr_eq(a, b)
        {
            (before, after) = (rest, other);
        }
        Self { before, after }
    }

    /// Rules that both have, and that are asked in the same order among each other and among all others: policy by policy, before and
    /// after. Nothing where the policies that both have stand in another order.
    pub fn in_order(&self) -> Option<Vec<Vec<(&'d Rule, &'d Rule)>>> {
        let was: HashMap<&str, &Policy> = self.before.iter().map(|p| (p.name.as_str(), &**p)).collect();
        let will: HashSet<&str> = self.after.iter().map(|p| p.name.as_str()).collect();
        let names = |all: &'d [Arc<Policy>]| all.iter().map(|policy| policy.name.as_str());
        let before = names(self.before).filter(|name| will.contains(name));
        if !before.eq(names(self.after).filter(|name| was.contains_key(name))) {
            return None;
        }
        let both = self.after.iter().map(|will| match was.get(will.name.as_str()) {
            Some(was) if was.rank() == will.rank() => rules(was, will),
            _ => Vec::new(),
        });
        Some(both.collect())
    }
}

/// Rules that two policies have in the same order.
fn rules<'d>(was: &'d Policy, will: &'d Policy) -> Vec<(&'d Rule, &'d Rule)> {
    let old: HashMap<&str, &Rule> = was.rules.iter().map(|rule| (rule.name.as_str(), rule)).collect();
    let new: HashSet<&str> = will.rules.iter().map(|rule| rule.name.as_str()).collect();
    let kept = was.rules.iter().filter(|rule| new.contains(rule.name.as_str()));
    let both: Vec<_> =
        will.rules.iter().filter_map(|rule| Some((*old.get(rule.name.as_str())?, rule))).collect();
    let same = kept.map(|rule| &rule.name).eq(both.iter().map(|(_, rule)| &rule.name))
        && both.iter().all(|(was, will)| was.action == will.action);
    if same { both } else { Vec::new() }
}
