//! What other rules come to, worked out from what is kept of those that count: the cost follows the change, not the size.
//!
//! That is enough where no selector comes or goes: then the classes are what they were, and only pairs of classes of which a changed rule
//! speaks are decided anew. Everything else is a compile. A property test holds the one to the other.

use super::compile::{Compiled, Ordered, Reach, entries_of};
use super::document::{Documents, Policy, Rule};
use super::grant::Grant;
use super::granted::{self, Said, Speaks};
use super::middle::Middle;
use super::numbering::Numbering;
use super::selector::{Selector, added, taken};
use super::trie::{PolicyPrefix, TrieKey};
use datapath::abi::PolicyKey;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// More pairs of classes than these are compiled with all others: that finds rules faster.
pub(super) const FEW: usize = 4096;
/// The selector of rules that speak of every class.
const ANY: &str = "any";

/// What is kept of rules and classes that count.
#[derive(Debug)]
pub struct Kept {
    /// By its number, the policy of a rule and its place there.
    rules: HashMap<u32, (Arc<Policy>, usize)>,
    /// Rules by each selector that they name and that does not take away.
    from: HashMap<String, BTreeSet<u32>>,
    to: HashMap<String, BTreeSet<u32>>,
    /// How often each selector is named, by rules and by all else.
    pub(super) named: HashMap<String, usize>,
    /// The classes that a selector matches.
    members: HashMap<String, Vec<u32>>,
    /// When the hours of a rule begin or end next: what was compiled holds until then.
    pub(super) holds_until: Option<Timestamp>,
}

/// A difference between two compiles: what of the one is not in the other, and the other way round.
#[derive(Debug, Default)]
pub struct Difference {
    /// What counts no more.
    pub old: Compiled,
    /// What counts instead. All else stays.
    pub new: Compiled,
}

/// A grant, with the classes that it is for.
struct Held<'g> {
    from: BTreeSet<u32>,
    to: BTreeSet<u32>,
    said: Said<'g>,
}

impl Difference {
    /// Makes it of what is compiled.
    pub fn apply(&self, compiled: &mut Compiled) {
        let Self { old, new } = self;
        replace(&mut compiled.bindings, &old.bindings, &new.bindings);
        replace(&mut compiled.scoped, &old.scoped, &new.scoped);
        replace(&mut compiled.guards, &old.guards, &new.guards);
        replace(&mut compiled.policy, &old.policy, &new.policy);
        replace(&mut compiled.settings, &old.settings, &new.settings);
        replace(&mut compiled.rules, &old.rules, &new.rules);
    }
}

fn replace<K: Copy + Ord, V: Clone>(all: &mut BTreeMap<K, V>, old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) {
    old.keys().for_each(|key| drop(all.remove(key)));
    all.extend(new.iter().map(|(key, value)| (*key, value.clone())));
}

/// Names of rules that decide as they did, and in the same order among each other.
fn untouched<'d>(middle: &Middle<'d>) -> HashSet<(&'d str, &'d str)> {
    let both = middle.in_order().unwrap_or_default();
    let named = middle.after.iter().zip(both).flat_map(|(policy, rules)| {
        let alike = rules.into_iter().filter(|(was, will)| decides_alike(was, will));
        alike.map(|(_, rule)| (policy.name.as_str(), rule.name.as_str()))
    });
    named.collect()
}

/// The selectors of a rule that classes are made by.
fn asked(rule: &Rule) -> impl Iterator<Item = String> {
    let named = rule.from.iter().chain(&rule.to).map(Selector::subject);
    named.filter(|selector| **selector != Selector::Any).map(Selector::to_string)
}

/// Whether rules of one name differ in their places alone.
fn decides_alike(one: &Rule, other: &Rule) -> bool {
    let Rule { name: _, action, from, to, ports, mode, limits, hours, place: _ } = one;
    (action, from, to, ports) == (&other.action, &other.from, &other.to, &other.ports)
        && (mode, limits, hours) == (&other.mode, &other.limits, &other.hours)
}

impl Kept {
    /// Of what was compiled; `others` are the selectors that more than these documents name.
    pub fn of<'d>(
        documents: &'d Documents,
        others: impl Iterator<Item = &'d Selector>,
        compiled: &Compiled,
        (numbering, compiled_at): (&Numbering, Timestamp),
    ) -> Option<Self> {
        let mut kept = Self {
            rules: HashMap::new(),
            from: HashMap::new(),
            to: HashMap::new(),
            named: HashMap::new(),
            members: HashMap::new(),
            holds_until: None,
        };
        for (class, selectors) in &compiled.classes {
            for text in selectors {
                kept.members.entry(text.clone()).or_default().push(*class);
            }
        }
        for selector in documents.selectors_beside_rules().chain(others) {
            *kept.named.entry(selector.to_string()).or_default() += 1;
        }
        for policy in &documents.policies {
            for (at, rule) in policy.rules.iter().enumerate() {
                kept.add(numbering.known_rule(&policy.name, &rule.name)?, policy, at, compiled_at);
            }
        }
        Some(kept)
    }

    fn add(&mut self, number: u32, policy: &Arc<Policy>, at: usize, now: Timestamp) {
        let Some(rule) = policy.rules.get(at) else { return };
        let change = rule.hours.as_ref().and_then(|hours| hours.next_change(now));
        self.holds_until = self.holds_until.into_iter().chain(change).min();
        self.rules.insert(number, (policy.clone(), at));
        for (selectors, index) in [(&rule.from, &mut self.from), (&rule.to, &mut self.to)] {
            for selector in selectors.iter().map(Selector::subject) {
                *self.named.entry(selector.to_string()).or_default() += 1;
            }
            for selector in added(selectors) {
                index.entry(selector.to_string()).or_default().insert(number);
            }
        }
    }

    fn remove(&mut self, number: u32, rule: &Rule) {
        self.rules.remove(&number);
        for (selectors, index) in [(&rule.from, &mut self.from), (&rule.to, &mut self.to)] {
            for selector in selectors.iter().map(Selector::subject) {
                self.named.entry(selector.to_string()).and_modify(|times| *times -= 1);
            }
            for selector in added(selectors) {
                if let Some(rules) = index.get_mut(&selector.to_string()) {
                    rules.remove(&number);
                }
            }
        }
    }

    /// What `after` comes to, of which only policies differ from `before`, and takes it for what counts. Nothing where that takes a
    /// compile; then this is of no more use.
    pub fn advance(
        &mut self,
        (before, after): (&Documents, &Documents),
        grants: &[&Grant],
        compiled: &Compiled,
        (numbering, now): (&mut Numbering, Timestamp),
    ) -> Option<Difference> {
        if self.holds_until.is_some_and(|end| end <= now) {
            return None;
        }
        let wall_of_boot_ns = i128::from(numbering.kept_wall_of_boot_ns()?);
        let middle = Middle::of(&before.policies, &after.policies);
        if before.policies.is_empty() || after.policies.is_empty() {
            return None;
        }
        let untouched = untouched(&middle);
        let mut pairs = BTreeSet::new();
        let mut found = Difference::default();
        let mut gone: HashSet<String> = HashSet::new();
        for policy in middle.before {
            for rule in &policy.rules {
                let number = numbering.known_rule(&policy.name, &rule.name)?;
                found.old.rules.insert(number, compiled.rules.get(&number)?.clone());
                if !untouched.contains(&(policy.name.as_str(), rule.name.as_str())) {
                    self.pairs(rule, compiled, &mut pairs)?;
                    found
                        .old
                        .settings
                        .extend(compiled.settings.get_key_value(&number).map(|(n, s)| (*n, *s)));
                    self.remove(number, rule);
                    gone.extend(asked(rule));
                }
            }
        }
        for policy in middle.after {
            for rule in &policy.rules {
                if asked(rule).any(|text| !self.named.contains_key(&text)) {
                    return None;
                }
            }
        }
        let at: HashMap<*const Policy, usize> =
            after.policies.iter().enumerate().map(|(n, policy)| (Arc::as_ptr(policy), n)).collect();
        let mut ordered: Vec<(&Arc<Policy>, usize)> =
            middle.after.iter().flat_map(|p| (0..p.rules.len()).map(move |n| (p, n))).collect();
        ordered.sort_by_key(|(policy, n)| (policy.rank(), policy.rules[*n].action));
        for (policy, n) in ordered {
            let rule = &policy.rules[n];
            let number = numbering.rule(&policy.name, &rule.name);
            let ordered = Ordered::at(number, (policy, rule), now);
            found.new.rules.insert(number, ordered.info());
            if untouched.contains(&(policy.name.as_str(), rule.name.as_str())) {
                self.rules.insert(number, (policy.clone(), n));
            } else {
                self.pairs(rule, compiled, &mut pairs)?;
                found
                    .new
                    .settings
                    .extend(ordered.settings(wall_of_boot_ns).map(|settings| (number, settings)));
                self.add(number, policy, n, now);
            }
        }
        if gone.iter().any(|text| self.named.get(text) == Some(&0)) {
            return None;
        }
        let grants = self.granted(grants, (compiled, numbering))?;
        for (src, dst) in pairs {
            let pair = PolicyKey::new(src, dst, 0, 0);
            let first = PolicyPrefix::new(pair, PolicyKey::CLASSES_BITS);
            let was = compiled
                .policy
                .range(first..)
                .take_while(|(key, _)| key.truncated(PolicyKey::CLASSES_BITS) == first);
            found.old.policy.extend(was.map(|(key, decision)| (*key, *decision)));
            let speaking = self.speaking((src, dst), compiled, (&at, now))?;
            let granted = grants.iter().filter(|held| held.from.contains(&src) && held.to.contains(&dst));
            let granted: Vec<Said<'_>> = granted.map(|held| held.said).collect();
            for entry in entries_of(&speaking, &granted) {
                let prefix = PolicyPrefix::of_service(pair, entry.proto, entry.port, entry.port_bits);
                found.new.policy.insert(prefix, entry.decision);
            }
        }
        Some(found)
    }

    /// The pairs of classes of which a rule speaks; nothing where these are many.
    fn pairs(&self, rule: &Rule, compiled: &Compiled, pairs: &mut BTreeSet<(u32, u32)>) -> Option<()> {
        let (from, to) = (self.matching(&rule.from, compiled), self.matching(&rule.to, compiled));
        if from.len() * to.len() + pairs.len() > FEW {
            return None;
        }
        pairs.extend(from.iter().flat_map(|src| to.iter().map(move |dst| (*src, *dst))));
        Some(())
    }

    /// The classes that selectors are about.
    pub(super) fn matching(&self, selectors: &[Selector], compiled: &Compiled) -> BTreeSet<u32> {
        let of = |selector: &Selector| self.members.get(&selector.to_string()).into_iter().flatten().copied();
        let mut classes: BTreeSet<u32> = if added(selectors).any(|s| *s == Selector::Any) {
            compiled.classes.keys().copied().collect()
        } else {
            added(selectors).flat_map(of).collect()
        };
        for class in taken(selectors).flat_map(of) {
            classes.remove(&class);
        }
        classes
    }

    /// The rules that speak of a pair, the first that decides first.
    fn speaking(
        &self,
        (src, dst): (u32, u32),
        compiled: &Compiled,
        (at, now): (&HashMap<*const Policy, usize>, Timestamp),
    ) -> Option<Vec<Speaks<'_>>> {
        let by = |index: &HashMap<String, BTreeSet<u32>>, class: u32| -> Option<BTreeSet<u32>> {
            let selectors = compiled.classes.get(&class)?.iter().map(String::as_str).chain([ANY]);
            Some(selectors.filter_map(|text| index.get(text)).flatten().copied().collect())
        };
        let takes = |selectors: &[Selector], class: u32| {
            let texts = compiled.classes.get(&class).map_or(&[][..], Vec::as_slice);
            taken(selectors).any(|selector| texts.contains(&selector.to_string()))
        };
        let (from, to) = (by(&self.from, src)?, by(&self.to, dst)?);
        let mut rules = Vec::new();
        for number in from.intersection(&to) {
            let (policy, n) = self.rules.get(number)?;
            let rule = policy.rules.get(*n)?;
            if takes(&rule.from, src) || takes(&rule.to, dst) {
                continue;
            }
            let place = (policy.rank(), rule.action, *at.get(&Arc::as_ptr(policy))?, *n);
            rules.push((place, Ordered::at(*number, (policy, rule), now)));
        }
        rules.sort_by_key(|(place, _)| *place);
        let mut reach = Reach::default();
        let reached =
            rules.into_iter().map(|(_, ordered)| ordered).take_while(|ordered| reach.reaches(ordered));
        Some(reached.filter_map(|ordered| ordered.speaks()).collect())
    }

    /// Grants with the classes that they are for, in the order in which they are asked.
    fn granted<'g>(
        &self,
        grants: &[&'g Grant],
        (compiled, numbering): (&Compiled, &Numbering),
    ) -> Option<Vec<Held<'g>>> {
        let mut grants = grants.to_vec();
        grants.sort_by_key(|grant| std::cmp::Reverse(grant.not_after));
        let said = |grant: &'g Grant| {
            let number = numbering.known_grant(&grant.name)?;
            let said = (granted::decision(number), grant.ports.as_slice());
            let [from, to] = [&grant.from, &grant.to].map(|end| self.matching(end, compiled));
            Some(Held { from, to, said })
        };
        grants.into_iter().map(said).collect()
    }
}
