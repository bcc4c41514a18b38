//! What packets see while a commit is written, flipped and swept.

use super::super::compile::{Compiled, compile};
use super::super::diff::{MapDelete, MapWrite, diff, sweep};
use super::super::numbering::Numbering;
use super::super::prefix::Prefix;
use super::super::trie::{PolicyPrefix, TrieKey, lookup};
use super::{ADDRESSES, addr, clock, documents};
use datapath::abi::{
    Binding, BindingVersions, Block, BlockVersions, Decision, DecisionVersions, LimitOf, LimitVersions,
    PolicyKey, RuleSettings, RuleVersions,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The kernel's maps: entries in two versions.
#[derive(Default)]
struct Maps {
    bindings: BTreeMap<Prefix, BindingVersions>,
    blocklist: BTreeMap<Prefix, BlockVersions>,
    guards: BTreeMap<PolicyPrefix, BlockVersions>,
    policy: BTreeMap<PolicyPrefix, DecisionVersions>,
    rules: BTreeMap<u32, RuleVersions>,
    limits: BTreeMap<u32, LimitVersions>,
}

impl Maps {
    fn write(&mut self, write: &MapWrite) {
        match *write {
            MapWrite::Binding(key, value) => drop(self.bindings.insert(key, value)),
            MapWrite::Block(key, value) => drop(self.blocklist.insert(key, value)),
            MapWrite::Guard(key, value) => drop(self.guards.insert(key, value)),
            MapWrite::Decision(key, value) => drop(self.policy.insert(key, value)),
            MapWrite::Scoped(..) => unreachable!("no document names a place"),
            MapWrite::Interface(..) => unreachable!("no document names an interface"),
            MapWrite::Rule(key, value) => drop(self.rules.insert(key, value)),
            MapWrite::Limit(key, value) => drop(self.limits.insert(key, value)),
        }
    }

    fn delete(&mut self, delete: &MapDelete) {
        let there = match delete {
            MapDelete::Binding(key) => self.bindings.remove(key).is_some(),
            MapDelete::Block(key) => self.blocklist.remove(key).is_some(),
            MapDelete::Guard(key) => self.guards.remove(key).is_some(),
            MapDelete::Decision(key) => self.policy.remove(key).is_some(),
            MapDelete::Scoped(_) => unreachable!("no document names a place"),
            MapDelete::Interface(_) => unreachable!("no document names an interface"),
            MapDelete::Rule(key) => self.rules.remove(key).is_some(),
            MapDelete::Limit(key) => self.limits.remove(key).is_some(),
        };
        assert!(there, "{delete:?} was not there");
    }

    /// Every lookup answers in `epoch` what it answers in `wanted`.
    fn answer(&self, epoch: u32, wanted: &Compiled) -> Result<(), TestCaseError> {
        let same =
            |a: Option<Binding>, b: Option<Binding>| a.unwrap_or(Binding::NONE) == b.unwrap_or(Binding::NONE);
        for at in ADDRESSES.map(addr).map(Prefix::host) {
            let found = lookup(&self.bindings, &at).map(|(_, v)| *v.at(epoch));
            prop_assert!(same(found, value(&wanted.bindings, &at)), "binding of {}", at);
            let found = lookup(&self.blocklist, &at).map_or(Block::NONE, |(_, v)| *v.at(epoch));
            prop_assert_eq!(found, value(&wanted.blocklist, &at).unwrap_or(Block::NONE), "block of {}", at);
        }
        for entry in self.guards.keys().chain(wanted.guards.keys()) {
            for key in at_the_edges(entry) {
                let found = lookup(&self.guards, &key).map_or(Block::NONE, |(_, v)| *v.at(epoch));
                prop_assert_eq!(found, value(&wanted.guards, &key).unwrap_or(Block::NONE), "{:?}", key);
            }
        }
        for entry in self.policy.keys().chain(wanted.policy.keys()) {
            for key in at_the_edges(entry) {
                let found = lookup(&self.policy, &key).map_or(Decision::NONE, |(_, v)| *v.at(epoch));
                prop_assert_eq!(found, value(&wanted.policy, &key).unwrap_or(Decision::NONE), "{:?}", key);
            }
        }
        for key in self.rules.keys().chain(wanted.settings.keys()) {
            let found = self.rules.get(key).map_or(RuleSettings::NONE, |v| *v.at(epoch));
            let wanted = wanted.settings.get(key).copied().unwrap_or(RuleSettings::NONE);
            prop_assert_eq!(found, wanted, "limits of rule {}", key);
        }
        for key in self.limits.keys().chain(wanted.limits.keys()) {
            let found = self.limits.get(key).map_or(LimitOf::NONE, |v| *v.at(epoch));
            let wanted = wanted.limits.get(key).copied().unwrap_or(LimitOf::NONE);
            prop_assert_eq!(found, wanted, "limit of identity {}", key);
        }
        Ok(())
    }

    fn keys_are(&self, wanted: &Compiled) -> bool {
        self.rules.keys().eq(wanted.settings.keys())
            && self.limits.keys().eq(wanted.limits.keys())
            && self.bindings.keys().eq(wanted.bindings.keys())
            && self.blocklist.keys().eq(wanted.blocklist.keys())
            && self.guards.keys().eq(wanted.guards.keys())
            && self.policy.keys().eq(wanted.policy.keys())
    }
}

/// The first and the last full key below a prefix and their neighbours: between edges, answers do not change.
fn at_the_edges(prefix: &PolicyPrefix) -> [PolicyPrefix; 4] {
    let mut last = prefix.key;
    for (n, byte) in last.bytes.iter_mut().enumerate() {
        let keep = prefix.bits.saturating_sub(n as u32 * 8).min(8);
        *byte |= (0xff_u16 >> keep) as u8;
    }
    let full = |key| PolicyPrefix::new(key, PolicyKey::FULL_BITS);
    let moved = |mut key: PolicyKey, by: u16| {
        let port = u16::from_be_bytes([key.bytes[9], key.bytes[10]]).wrapping_add(by);
        key.bytes[9..11].copy_from_slice(&port.to_be_bytes());
        full(key)
    };
    [full(prefix.key), full(last), moved(prefix.key, u16::MAX), moved(last, 1)]
}

fn value<K: TrieKey, V: Copy>(map: &BTreeMap<K, V>, key: &K) -> Option<V> {
    lookup(map, key).map(|(_, v)| *v)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_packet_sees_half_a_commit(sets in vec(documents(), 2..5), start in any::<u32>(), order in any::<u64>()) {
        let mut maps = Maps::default();
        let mut old = Compiled::default();
        let mut epoch = start;
        for documents in sets {
            let new = compile(&documents, &old.numbering, &clock());
            let mut writes = diff(&old, &new, epoch.wrapping_add(1));
            if !writes.is_empty() {
                let by = order as usize % writes.len();
                writes.rotate_left(by);
            }
            let half = writes.len() / 2;
            writes[..half].iter().for_each(|write| maps.write(write));
            maps.answer(epoch, &old)?;
            writes[half..].iter().for_each(|write| maps.write(write));
            maps.answer(epoch, &old)?;
            epoch = epoch.wrapping_add(1);
            maps.answer(epoch, &new)?;
            let deletes = sweep(&old, &new);
            let half = deletes.len() / 2;
            deletes[..half].iter().for_each(|delete| maps.delete(delete));
            maps.answer(epoch, &new)?;
            deletes[half..].iter().for_each(|delete| maps.delete(delete));
            maps.answer(epoch, &new)?;
            prop_assert!(maps.keys_are(&new));
            old = new;
        }
    }

    #[test]
    fn a_commit_given_up_leaves_no_trace(first in documents(), second in documents(), third in documents()) {
        let mut maps = Maps::default();
        let old = compile(&first, &Numbering::default(), &clock());
        diff(&Compiled::default(), &old, 1).iter().for_each(|write| maps.write(write));
        let abandoned = compile(&second, &old.numbering, &clock());
        let writes = diff(&old, &abandoned, 2);
        writes.iter().for_each(|write| maps.write(write));
        writes.iter().for_each(|write| maps.write(&write.given_up()));
        maps.answer(1, &old)?;
        maps.answer(2, &old)?;
        sweep(&abandoned, &old).iter().for_each(|delete| maps.delete(delete));
        prop_assert!(maps.keys_are(&old));
        let new = compile(&third, &old.numbering, &clock());
        diff(&old, &new, 2).iter().for_each(|write| maps.write(write));
        maps.answer(1, &old)?;
        maps.answer(2, &new)?;
    }
}
