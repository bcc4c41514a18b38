//! What a commit has to write, and what may be deleted behind it.
//!
//! Packets read the maps while a commit writes them. Each write therefore holds both answers, and each answer is
//! what a lookup of exactly that prefix gives in its epoch: a longest-prefix lookup never looks past the longest
//! entry, so an entry that is absent in one epoch repeats there what the next shorter prefix says.

use super::compile::Compiled;
use super::prefix::Prefix;
use super::trie::{PolicyPrefix, ScopedPrefix, TrieKey, Walk};
use datapath::abi::{
    Binding, BindingVersions, Block, BlockVersions, Decision, DecisionVersions, Interface, InterfaceVersions,
    LimitOf, LimitVersions, MapName, RuleSettings, RuleVersions,
};
use std::collections::BTreeMap;

/// One entry to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapWrite {
    /// Into the bindings.
    Binding(Prefix, BindingVersions),
    /// Into those that do not hold everywhere.
    Scoped(ScopedPrefix, BindingVersions),
    /// Into the blocklist.
    Block(Prefix, BlockVersions),
    /// Into the guard lists.
    Guard(PolicyPrefix, BlockVersions),
    /// Into the policy.
    Decision(PolicyPrefix, DecisionVersions),
    /// Into the settings of interfaces.
    Interface(u32, InterfaceVersions),
    /// Into the limits of rules.
    Rule(u32, RuleVersions),
    /// Into the limits of identities.
    Limit(u32, LimitVersions),
}

/// One key to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapDelete {
    /// From the bindings.
    Binding(Prefix),
    /// From those that do not hold everywhere.
    Scoped(ScopedPrefix),
    /// From the blocklist.
    Block(Prefix),
    /// From the guard lists.
    Guard(PolicyPrefix),
    /// From the policy.
    Decision(PolicyPrefix),
    /// From the settings of interfaces.
    Interface(u32),
    /// From the limits of rules.
    Rule(u32),
    /// From the limits of identities.
    Limit(u32),
}

impl MapWrite {
    /// The map it goes to.
    pub fn map(&self) -> &'static str {
        match self {
            Self::Binding(..) => MapName::BINDINGS,
            Self::Scoped(..) => MapName::SCOPED,
            Self::Block(..) => MapName::BLOCKLIST,
            Self::Guard(..) => MapName::GUARDS,
            Self::Decision(..) => MapName::POLICY,
            Self::Interface(..) => MapName::INTERFACES,
            Self::Rule(..) => MapName::RULES,
            Self::Limit(..) => MapName::LIMITS,
        }
    }

    /// What to write if the commit is given up before the epoch is flipped: the old answer in both epochs. Without
    /// it, an answer that never counted would count in the epoch of the next commit.
    pub fn given_up(self) -> Self {
        match self {
            Self::Binding(key, v) => Self::Binding(key, BindingVersions { new: v.old, ..v }),
            Self::Scoped(key, v) => Self::Scoped(key, BindingVersions { new: v.old, ..v }),
            Self::Block(key, v) => Self::Block(key, BlockVersions { new: v.old, ..v }),
            Self::Guard(key, v) => Self::Guard(key, BlockVersions { new: v.old, ..v }),
            Self::Decision(key, v) => Self::Decision(key, DecisionVersions { new: v.old, ..v }),
            Self::Interface(key, v) => Self::Interface(key, InterfaceVersions { new: v.old, ..v }),
            Self::Rule(key, v) => Self::Rule(key, RuleVersions { new: v.old, ..v }),
            Self::Limit(key, v) => Self::Limit(key, LimitVersions { new: v.old, ..v }),
        }
    }

    /// How to take it away again where the key was not there before.
    pub fn delete(&self) -> MapDelete {
        match self {
            Self::Binding(key, _) => MapDelete::Binding(*key),
            Self::Scoped(key, _) => MapDelete::Scoped(*key),
            Self::Block(key, _) => MapDelete::Block(*key),
            Self::Guard(key, _) => MapDelete::Guard(*key),
            Self::Decision(key, _) => MapDelete::Decision(*key),
            Self::Interface(key, _) => MapDelete::Interface(*key),
            Self::Rule(key, _) => MapDelete::Rule(*key),
            Self::Limit(key, _) => MapDelete::Limit(*key),
        }
    }
}

impl MapDelete {
    /// The map it concerns.
    pub fn map(&self) -> &'static str {
        match self {
            Self::Binding(_) => MapName::BINDINGS,
            Self::Scoped(_) => MapName::SCOPED,
            Self::Block(_) => MapName::BLOCKLIST,
            Self::Guard(_) => MapName::GUARDS,
            Self::Decision(_) => MapName::POLICY,
            Self::Interface(_) => MapName::INTERFACES,
            Self::Rule(_) => MapName::RULES,
            Self::Limit(_) => MapName::LIMITS,
        }
    }
}

/// What to write before the epoch becomes `next_epoch`, in any order. The maps hold `old` and nothing else: what
/// [`sweep`] named after the commit before is deleted.
pub fn diff(old: &Compiled, new: &Compiled, next_epoch: u32) -> Vec<MapWrite> {
    let mut writes = Vec::new();
    let since = next_epoch;
    changes(&old.bindings, &new.bindings, Binding::NONE, |key, old, new| {
        writes.push(MapWrite::Binding(key, BindingVersions { since, _pad: 0, old, new }));
    });
    // What is not there in an epoch is looked for in the next wider scope.
    changes(&old.scoped, &new.scoped, Binding::NOT_HERE, |key, old, new| {
        writes.push(MapWrite::Scoped(key, BindingVersions { since, _pad: 0, old, new }));
    });
    changes(&old.blocklist, &new.blocklist, Block::NONE, |key, old, new| {
        writes.push(MapWrite::Block(key, BlockVersions { since, _pad: 0, old, new }));
    });
    changes(&old.guards, &new.guards, Block::NONE, |key, old, new| {
        writes.push(MapWrite::Guard(key, BlockVersions { since, _pad: 0, old, new }));
    });
    changes(&old.policy, &new.policy, Decision::NONE, |key, old, new| {
        writes.push(MapWrite::Decision(key, DecisionVersions { since, _pad: 0, old, new }));
    });
    // Looked up in full: what has no entry in one epoch has no settings there.
    in_full(&old.settings, &new.settings, RuleSettings::NONE, |key, old, new| {
        writes.push(MapWrite::Rule(key, RuleVersions { since, _pad: 0, old, new }));
    });
    in_full(&old.limits, &new.limits, LimitOf::NONE, |key, old, new| {
        writes.push(MapWrite::Limit(key, LimitVersions { since, _pad: 0, old, new }));
    });
    in_full(&old.interfaces, &new.interfaces, Interface::NONE, |key, old, new| {
        writes.push(MapWrite::Interface(key, InterfaceVersions { since, _pad: 0, old, new }));
    });
    writes
}

/// What may be deleted once no packet is judged in the old epoch any more, in any order.
pub fn sweep(old: &Compiled, new: &Compiled) -> Vec<MapDelete> {
    let bindings = gone(&old.bindings, &new.bindings).map(MapDelete::Binding);
    let scoped = gone(&old.scoped, &new.scoped).map(MapDelete::Scoped);
    let blocks = gone(&old.blocklist, &new.blocklist).map(MapDelete::Block);
    let guards = gone(&old.guards, &new.guards).map(MapDelete::Guard);
    let decisions = gone(&old.policy, &new.policy).map(MapDelete::Decision);
    let rules = gone(&old.settings, &new.settings).map(MapDelete::Rule);
    let limits = gone(&old.limits, &new.limits).map(MapDelete::Limit);
    let interfaces = gone(&old.interfaces, &new.interfaces).map(MapDelete::Interface);
    let by_number = rules.chain(limits).chain(interfaces);
    bindings.chain(scoped).chain(blocks).chain(guards).chain(decisions).chain(by_number).collect()
}

fn in_full<V: Copy + PartialEq>(
    old: &BTreeMap<u32, V>,
    new: &BTreeMap<u32, V>,
    none: V,
    mut write: impl FnMut(u32, V, V),
) {
    let mut rest = (old.iter().peekable(), new.iter().peekable());
    while let Some(key) = least(rest.0.peek().map(|(key, _)| **key), rest.1.peek().map(|(key, _)| **key)) {
        let before = rest.0.next_if(|(k, _)| **k == key).map_or(none, |(_, value)| *value);
        let after = rest.1.next_if(|(k, _)| **k == key).map_or(none, |(_, value)| *value);
        if before != after {
            write(key, before, after);
        }
    }
}

fn changes<K: TrieKey, V: Copy + PartialEq>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    none: V,
    mut write: impl FnMut(K, V, V),
) {
    let (mut was, mut will) = (Walk::of(old), Walk::of(new));
    while let Some(key) = least(was.next_key(), will.next_key()) {
        let was_there = was.next_key() == Some(key);
        let (before, after) = (was.lookup(&key).unwrap_or(none), will.lookup(&key).unwrap_or(none));
        // A new key is written even where it changes no answer: the entry above it may change in a later commit.
        if before != after || !was_there {
            write(key, before, after);
        }
    }
}

/// The lesser of two keys, of which either may be missing.
fn least<K: Ord>(one: Option<K>, other: Option<K>) -> Option<K> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn gone<K: Copy + Ord, V>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> impl Iterator<Item = K> {
    let mut kept = new.keys().peekable();
    old.keys().copied().filter(move |key| {
        while kept.next_if(|k| *k < key).is_some() {}
        kept.peek() != Some(&key)
    })
}
