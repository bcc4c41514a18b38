//! What it comes to that identities are cut off, or not any more, worked out from what is kept of what counts: the cost follows how many
//! they are, not the size of the policy.
//!
//! What is said of an identity stands in guard lists, which its bindings name. So other bindings of the same prefixes, and the entries of
//! a list or two, are all that changes. Where that is not certain, it is a compile. A property test holds the one to the other.

use super::compile::Compiled;
use super::difference::{Difference, FEW, Kept};
use super::document::Documents;
use super::guards::{Guards, Peers};
use super::numbering::{Numbered, Numbering};
use super::quarantine::Quarantine;
use super::selector::Selector;
use super::spiffe::SpiffeId;
use super::trie::{PolicyPrefix, TrieKey};
use datapath::abi::{Binding, Block, GuardKey};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Quarantines that come, go, or say something else.
#[derive(Debug)]
pub struct Changed<'d> {
    gone: Vec<&'d Quarantine>,
    new: Vec<&'d Quarantine>,
}

impl<'d> Changed<'d> {
    /// Between two lists of them. Nothing where one of those that stay has another place among the others, and where one does less than
    /// to cut off: its limits stand in other tables.
    pub fn between(before: &'d [Quarantine], after: &'d [Quarantine]) -> Option<Self> {
        let named = |all: &'d [Quarantine]| -> HashMap<&'d str, &'d Quarantine> {
            all.iter().map(|quarantine| (quarantine.name.as_str(), quarantine)).collect()
        };
        let (was, will) = (named(before), named(after));
        let differs = |one: &Quarantine, others: &HashMap<&str, &Quarantine>| {
            others.get(one.name.as_str()).is_none_or(|other| *other != one)
        };
        let (gone, stay): (Vec<_>, Vec<_>) = before.iter().partition(|one| differs(one, &will));
        let (new, stays): (Vec<_>, Vec<_>) = after.iter().partition(|one| differs(one, &was));
        let are_cuts = gone.iter().chain(&new).all(|quarantine| quarantine.act.cuts_off());
        (stay == stays && are_cuts).then_some(Self { gone, new })
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &'d Quarantine> {
        self.gone.iter().chain(&self.new).copied()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    /// Whether one of them is about a workload of this identity and these labels.
    pub fn fit(&self, id: &SpiffeId, labels: &BTreeMap<String, String>) -> bool {
        self.all().flat_map(|quarantine| &quarantine.identities).any(|s| s.matches_workload(id, labels))
    }
}

impl Kept {
    /// What `changed` comes to, and takes it for what counts. Of `after` are the blocklists and quarantines that will count, and all workloads
    /// of each identity that is concerned, in their order. Nothing where that takes a compile; then this is of no more use.
    pub fn contain(
        &mut self,
        changed: &Changed<'_>,
        after: &Documents,
        compiled: &Compiled,
        (numbering, now): (&mut Numbering, Timestamp),
    ) -> Option<Difference> {
        if self.holds_until.is_some_and(|end| end <= now) || !self.keeps_classes(changed) {
            return None;
        }
        let wall_of_boot_ns = i128::from(numbering.kept_wall_of_boot_ns()?);
        let mut found = Difference::default();
        for quarantine in &changed.gone {
            let number = numbering.number_of(Numbered::Rule, &format!("quarantine/{}", quarantine.name))?;
            found.old.rules.insert(number, compiled.rules.get(&number)?.clone());
        }
        let mut rules = BTreeMap::new();
        let mut guards = Guards::of(after, numbering, &mut rules, wall_of_boot_ns);
        for quarantine in &changed.new {
            let number = numbering.number_of(Numbered::Rule, &format!("quarantine/{}", quarantine.name))?;
            found.new.rules.insert(number, rules.get(&number)?.clone());
        }
        let lists = guards.of_workloads(&after.workloads, numbering);
        let own = after.workloads.iter().map(|workload| {
            let list = lists.get(&(&workload.spiffe_id, &workload.labels));
            (&workload.spiffe_id, list.copied().unwrap_or(0))
        });
        let own = one_each(own, numbering)?;
        let touched = rebind(&own, compiled, &mut found)?;
        let still = still_named(&touched, &own, compiled);
        let matching = |selector: &Selector| {
            let classes = self.matching(std::slice::from_ref(selector), compiled);
            classes.into_iter().collect()
        };
        let peers = Peers { all: &mut compiled.classes.keys().copied(), matching: &matching };
        found.new.guards = guards.entries_of(|list| still.contains(&list), peers);
        // What others name too, and these no more, says what it said.
        let anew: HashSet<u32> = own.values().copied().collect();
        let otherwise = touched.iter().filter(|list| anew.contains(list) || !still.contains(list));
        found.old.guards = otherwise.flat_map(|list| entries(&compiled.guards, *list)).collect();
        Some(found)
    }

    /// Whether the selectors of peers make the classes that there are, with those that come and without those that go; counts them.
    fn keeps_classes(&mut self, changed: &Changed<'_>) -> bool {
        let named = |all: &[&Quarantine]| -> Vec<String> {
            all.iter()
                .flat_map(|q| q.peers())
                .filter(|s| **s != Selector::Any)
                .map(Selector::to_string)
                .collect()
        };
        let (gone, new) = (named(&changed.gone), named(&changed.new));
        if new.iter().any(|text| !self.named.contains_key(text)) {
            return false;
        }
        new.iter().for_each(|text| *self.named.entry(text.clone()).or_default() += 1);
        gone.iter().for_each(|text| drop(self.named.entry(text.clone()).and_modify(|times| *times -= 1)));
        !gone.iter().any(|text| self.named.get(text) == Some(&0))
    }
}

/// The list of each identity, by its number. Nothing where workloads of one have several: then each prefix has to be asked whose it is.
fn one_each<'d>(
    lists: impl Iterator<Item = (&'d SpiffeId, u32)>,
    numbering: &Numbering,
) -> Option<HashMap<u32, u32>> {
    let mut each = HashMap::new();
    for (id, list) in lists {
        // Nobody knows it yet: it has no prefix for itself, as where others claim the same.
        let number = numbering.identity_number(id)?;
        if *each.entry(number).or_insert(list) != list {
            return None;
        }
    }
    Some(each)
}

/// Has the bindings of these identities name these lists. Returns the lists that are concerned; nothing where bindings of one identity named
/// several, or where there are many.
fn rebind(lists: &HashMap<u32, u32>, compiled: &Compiled, found: &mut Difference) -> Option<BTreeSet<u32>> {
    let mut named: HashMap<u32, u32> = HashMap::new();
    let mut is_one =
        |binding: &Binding| *named.entry(binding.identity).or_insert(binding.guards) == binding.guards;
    let of =
        |binding: &Binding| lists.get(&binding.identity).map(|list| Binding { guards: *list, ..*binding });
    for (prefix, binding) in &compiled.bindings {
        let Some(new) = of(binding) else { continue };
        if !is_one(binding) {
            return None;
        }
        found.old.bindings.insert(*prefix, *binding);
        found.new.bindings.insert(*prefix, new);
    }
    for (prefix, binding) in &compiled.scoped {
        let Some(new) = of(binding) else { continue };
        if !is_one(binding) {
            return None;
        }
        found.old.scoped.insert(*prefix, *binding);
        found.new.scoped.insert(*prefix, new);
    }
    let touched = named.into_values().chain(lists.values().copied()).filter(|list| *list != 0).collect();
    (found.new.bindings.len() + found.new.scoped.len() <= FEW).then_some(touched)
}

/// Which of these lists bindings name afterwards.
fn still_named(touched: &BTreeSet<u32>, lists: &HashMap<u32, u32>, compiled: &Compiled) -> HashSet<u32> {
    let all = compiled.bindings.values().chain(compiled.scoped.values());
    let after = all.map(|binding| lists.get(&binding.identity).copied().unwrap_or(binding.guards));
    after.filter(|list| touched.contains(list)).collect()
}

/// What a list says now.
fn entries(guards: &BTreeMap<PolicyPrefix, Block>, list: u32) -> impl Iterator<Item = (PolicyPrefix, Block)> {
    let layers = [GuardKey::block(list, 0, 0), GuardKey::quarantine(list, 0, 0, 0)];
    layers.into_iter().flat_map(|layer| {
        let first = PolicyPrefix::new(layer, GuardKey::LIST_BITS);
        let below = guards.range(first..).take_while(move |(key, _)| first.holds(key));
        below.map(|(key, block)| (*key, *block))
    })
}
