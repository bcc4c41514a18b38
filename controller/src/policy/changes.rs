//! What files would change of what counts, document by document.

use super::compile::{precedence, rule_text};
use super::document::{Documents, Lease, Policy, Workload};
use super::middle::Middle;
use super::place::Place;
use super::selector::selectors_text;
use super::time::duration_text;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// A Workload, a rule of a Policy, and so on.
    pub what: What,
    /// Its name; `POLICY/RULE` of a rule, `BLOCKLIST/TARGET` of a block.
    pub name: String,
    /// What it says now; absent where it is not there.
    pub before: Option<String>,
    /// What it would say; absent where it would not be there.
    pub after: Option<String>,
    /// Where that stands.
    pub place: Option<Place>,
}

/// What can differ, in the order in which differences are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// `kind: Gateway`, or what holds without any Policy.
    Gateway,
    /// `kind: Workload`.
    Workload,
    /// A rule of a Policy.
    Rule,
    /// The order in which the rules are asked that both have.
    Order,
    /// An entry of a Blocklist.
    Block,
    /// A feed of a Blocklist.
    Feed,
    /// `kind: Quarantine`.
    Quarantine,
    /// `kind: Grant`.
    Grant,
    /// `kind: Limit`.
    Limit,
    /// `kind: Intent`.
    Intent,
}

impl What {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Gateway,
        Self::Workload,
        Self::Rule,
        Self::Order,
        Self::Block,
        Self::Feed,
        Self::Quarantine,
        Self::Grant,
        Self::Limit,
        Self::Intent,
    ];

    /// In lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Workload => "workload",
            Self::Rule => "rule",
            Self::Order => "order",
            Self::Block => "block",
            Self::Feed => "feed",
            Self::Quarantine => "quarantine",
            Self::Grant => "grant",
            Self::Limit => "limit",
            Self::Intent => "intent",
        }
    }
}

type Said<'d> = BTreeMap<(What, String), (String, Option<&'d Place>)>;

/// Everything in which two sets of documents differ.
pub fn changes(before: &Documents, after: &Documents) -> Vec<Change> {
    // What both share need not be looked at: it can be very much.
    let middle = Middle::of(&before.policies, &after.policies);
    let shared = Arc::ptr_eq(&before.workloads, &after.workloads);
    let workloads = |all: &'_ Documents| if shared { Arc::default() } else { all.workloads.clone() };
    let (left, right) = (workloads(before), workloads(after));
    let alike = Alike::of((&left, &right), &middle);
    let mut was = said(before, &left, middle.before, &alike);
    let will = said(after, &right, middle.after, &alike);
    let mut changes = Vec::new();
    for ((what, name), (text, place)) in will {
        let old = was.remove(&(what, name.clone())).map(|(text, _)| text);
        if old.as_ref() != Some(&text) {
            changes.push(Change { what, name, before: old, after: Some(text), place: place.cloned() });
        }
    }
    for ((what, name), (text, place)) in was {
        changes.push(Change { what, name, before: Some(text), after: None, place: place.cloned() });
    }
    if !is_in_order(&middle) {
        changes.extend(order(before, after));
    }
    changes.sort_by(|a, b| (a.what, &a.name).cmp(&(b.what, &b.name)));
    changes
}

/// Names of what is the same in both: there can be very many, and few that differ.
struct Alike<'d> {
    workloads: HashSet<&'d str>,
    policies: HashSet<&'d str>,
}

impl<'d> Alike<'d> {
    fn of((before, after): (&'d [Workload], &[Workload]), middle: &Middle<'d>) -> Self {
        let policies: HashMap<&str, &Policy> =
            middle.before.iter().map(|p| (p.name.as_str(), &**p)).collect();
        let same = |will: &&Arc<Policy>| policies.get(will.name.as_str()).is_some_and(|was| **was == ***will);
        let policies = middle.after.iter().filter(same).map(|policy| policy.name.as_str()).collect();
        Self { workloads: workloads(before, after), policies }
    }
}

fn workloads<'d>(before: &'d [Workload], after: &[Workload]) -> HashSet<&'d str> {
    let was: HashMap<&str, &Workload> = before.iter().map(|w| (w.name.as_str(), w)).collect();
    let same = |will: &Workload| {
        let was = was.get(will.name.as_str()).copied()?;
        let is_same = was.spiffe_id == will.spiffe_id
            && was.addresses == will.addresses
            && was.scope == will.scope
            && was.labels == will.labels
            && was.lease == will.lease;
        is_same.then_some(was.name.as_str())
    };
    after.iter().filter_map(same).collect()
}

/// Whether rules that both have are asked in the same order, for certain.
fn is_in_order(middle: &Middle<'_>) -> bool {
    let of_both = |(will, both): (&Arc<Policy>, Vec<_>)| {
        let was = middle.before.iter().find(|was| was.name == will.name);
        let count = was.map_or(0, |was| {
            let names: HashSet<&str> = was.rules.iter().map(|rule| rule.name.as_str()).collect();
            will.rules.iter().filter(|rule| names.contains(rule.name.as_str())).count()
        });
        both.len() == count
    };
    middle.in_order().is_some_and(|both| middle.after.iter().zip(both).all(of_both))
}

fn said<'d>(
    documents: &'d Documents,
    workloads: &'d [Workload],
    policies: &'d [Arc<Policy>],
    alike: &Alike<'_>,
) -> Said<'d> {
    let mut said = Said::new();
    let default = if documents.policies.is_empty() { "allow" } else { "deny" };
    said.insert((What::Gateway, "default".into()), (default.into(), None));
    if let Some(gateway) = &documents.gateway {
        let mut fields = serde_json::to_value(gateway).unwrap_or_default();
        if let Some(fields) = fields.as_object_mut() {
            fields.remove("place");
            fields.remove("name");
        }
        said.insert((What::Gateway, gateway.name.clone()), (fields.to_string(), Some(&gateway.place)));
    }
    for workload in workloads.iter().filter(|workload| !alike.workloads.contains(workload.name.as_str())) {
        let text = workload_text(workload);
        said.insert((What::Workload, workload.name.clone()), (text, Some(&workload.place)));
    }
    for policy in policies.iter().filter(|policy| !alike.policies.contains(policy.name.as_str())) {
        for rule in &policy.rules {
            let name = Documents::rule_key(&policy.name, &rule.name);
            let text = format!("{}: {}", policy.rank_text(), rule_text(rule));
            said.insert((What::Rule, name), (text, Some(&rule.place)));
        }
    }
    for list in &documents.blocklists {
        for entry in &list.entries {
            let name = Documents::rule_key(&list.name, &entry.target.to_string());
            let text = format!("blocked{}", until(entry.not_after)) + &reason(entry.reason.as_deref());
            said.insert((What::Block, name), (text, Some(&entry.place)));
        }
        for feed in &list.feeds {
            let name = Documents::rule_key(&list.name, &feed.name);
            said.insert((What::Feed, name), (feed.to_string(), Some(&feed.place)));
        }
    }
    for quarantine in &documents.quarantines {
        let mut text = selectors_text(&quarantine.identities);
        if !quarantine.act.is_quarantine() {
            text = format!("{} {text}", quarantine.act);
        }
        let except: Vec<_> = quarantine.except.iter().map(ToString::to_string).collect();
        if !except.is_empty() {
            text.push_str(&format!(" except {}", except.join("; ")));
        }
        text += &(until(quarantine.not_after) + &reason(quarantine.reason.as_deref()));
        said.insert((What::Quarantine, quarantine.name.clone()), (text, Some(&quarantine.place)));
    }
    for grant in &documents.grants {
        said.insert((What::Grant, grant.name.clone()), (grant.to_string(), Some(&grant.place)));
    }
    for limit in &documents.limits {
        said.insert((What::Limit, limit.name.clone()), (limit.to_string(), Some(&limit.place)));
    }
    for intent in &documents.intents {
        said.insert((What::Intent, intent.name.clone()), (intent.to_string(), Some(&intent.place)));
    }
    said
}

fn workload_text(workload: &Workload) -> String {
    let addresses: Vec<_> = workload.addresses.iter().map(ToString::to_string).collect();
    let mut text = format!("{} at {}{}", workload.spiffe_id, addresses.join(", "), workload.scope);
    for (key, value) in &workload.labels {
        text.push_str(&format!(" {key}={value}"));
    }
    if let Some(Lease { not_after, on_expiry, grace_s }) = workload.lease {
        let mut then = format!("{on_expiry:?}").to_lowercase();
        if grace_s != 0 {
            then.push_str(&format!(" of {}", duration_text(u64::from(grace_s))));
        }
        text.push_str(&format!("{}, then {then}", until(Some(not_after))));
    }
    text
}

fn until(end: Option<jiff::Timestamp>) -> String {
    end.map(|end| format!(" until {end:.0}")).unwrap_or_default()
}

fn reason(reason: Option<&str>) -> String {
    reason.map(|reason| format!(" ({reason})")).unwrap_or_default()
}

/// Rules that both have, asked in another order.
fn order(before: &Documents, after: &Documents) -> Option<Change> {
    let names = |documents: &Documents| -> Vec<String> {
        let rules = precedence(documents);
        rules.iter().map(|(policy, rule)| Documents::rule_key(&policy.name, &rule.name)).collect()
    };
    let (was, will) = (names(before), names(after));
    let both = |all: &[String], other: &[String]| -> Vec<String> {
        let other: HashSet<&String> = other.iter().collect();
        all.iter().filter(|name| other.contains(name)).cloned().collect()
    };
    let (was, will) = (both(&was, &will), both(&will, &was));
    let text = |names: &[String]| Some(names.join(", "));
    (was != will).then(|| Change {
        what: What::Order,
        name: "rules".into(),
        before: text(&was),
        after: text(&will),
        place: None,
    })
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, name, before, after, place } = self;
        let what = what.name();
        match (before, after) {
            (None, Some(after)) => write!(f, "+ {what} {name}: {after}")?,
            (Some(before), None) => return write!(f, "- {what} {name}: {before}"),
            (Some(before), Some(after)) => write!(f, "~ {what} {name}: {before}\n    now {after}")?,
            (None, None) => {}
        }
        match place {
            Some(place) => write!(f, "  [{place}]"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(rules: &str, rest: &str) -> Documents {
        let head = "apiVersion: tidegate.dev/v1\nkind: Policy\nmetadata: {name: shop}\nspec:\n  rules:\n";
        let now = "2026-11-01T00:00:00Z".parse().unwrap();
        Documents::parse("p.yaml", &format!("{head}{rules}{rest}"), now).unwrap()
    }

    fn rule(name: &str, port: u16) -> String {
        format!(
            "    - {{name: {name}, action: allow, from: [{{any: true}}], to: [{{any: true}}], ports: [tcp/{port}]}}\n"
        )
    }

    fn workload(id: &str) -> String {
        format!(
            "---\napiVersion: tidegate.dev/v1\nkind: Workload\nmetadata: {{name: one}}\n\
             spec: {{spiffeId: {id}, addresses: [10.0.0.1], lease: {{for: 1h}}}}\n"
        )
    }

    fn told(before: &Documents, after: &Documents) -> Vec<String> {
        changes(before, after).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_added_removed_and_changed_is_told_and_what_is_the_same_is_not() {
        let before = documents(&(rule("a", 1) + &rule("b", 2)), &workload("spiffe://td/x"));
        assert_eq!(told(&before, &before), [""; 0]);
        // A comment moves every place and changes nothing.
        let moved = format!("    # a comment\n{}{}", rule("a", 1), rule("b", 2));
        assert_eq!(told(&before, &documents(&moved, &workload("spiffe://td/x"))), [""; 0]);
        let after = documents(&(rule("b", 3) + &rule("c", 2)), &workload("spiffe://td/y"));
        let lease = "at 10.0.0.1/32 until 2026-11-01T01:00:00Z, then deny";
        assert_eq!(
            told(&before, &after),
            [
                format!("~ workload one: spiffe://td/x {lease}\n    now spiffe://td/y {lease}  [p.yaml:9:1]"),
                "- rule shop/a: tier 100: allow tcp/1 from any to any".into(),
                "~ rule shop/b: tier 100: allow tcp/2 from any to any\n    now tier 100: allow tcp/3 from any to any  [p.yaml:6:7]"
                    .into(),
                "+ rule shop/c: tier 100: allow tcp/2 from any to any  [p.yaml:7:7]".into(),
            ]
        );
        let nothing = Documents::default();
        let first = &told(&nothing, &documents(&rule("a", 1), ""))[0];
        assert_eq!(first, "~ gateway default: allow\n    now deny");
    }

    #[test]
    fn the_order_of_rules_is_a_difference() {
        let before = documents(&(rule("a", 1) + &rule("b", 2)), "");
        let after = documents(&(rule("b", 2) + &rule("a", 1)), "");
        assert_eq!(told(&before, &after), ["~ order rules: shop/a, shop/b\n    now shop/b, shop/a"]);
    }
}
