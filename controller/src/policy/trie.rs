//! Longest-prefix tables as sorted maps: a prefix comes right before all that lie in it.

use super::prefix::Prefix;
use bytemuck::Pod;
use datapath::abi::{Addr, PolicyKey, ScopedKey};
use datapath::scope::service;
use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;

/// A prefix of a trie's key. Its order has to be that of a walk: a prefix before all that it holds.
pub trait TrieKey: Copy + Ord {
    /// Whether a lookup of `other` comes past `self`.
    fn holds(&self, other: &Self) -> bool;
    /// Its length.
    fn length(&self) -> u32;
    /// Its first `bits` bits.
    fn truncated(&self, bits: u32) -> Self;
}

impl TrieKey for Prefix {
    fn holds(&self, other: &Self) -> bool {
        Prefix::holds(self, other)
    }

    fn length(&self) -> u32 {
        self.bits()
    }

    fn truncated(&self, bits: u32) -> Self {
        Self::new(self.addr(), bits as u8)
    }
}

/// A prefix of a key that is compared byte by byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPrefix<K> {
    /// The key; bits beyond the length are zero.
    pub key: K,
    /// Its length.
    pub bits: u32,
}

/// A prefix of a policy key.
pub type PolicyPrefix = KeyPrefix<PolicyKey>;

/// A prefix of the key of bindings that do not hold everywhere.
pub type ScopedPrefix = KeyPrefix<ScopedKey>;

impl<K: Pod> KeyPrefix<K> {
    /// The first `bits` bits of a key.
    pub fn new(mut key: K, bits: u32) -> Self {
        for (n, byte) in bytemuck::bytes_of_mut(&mut key).iter_mut().enumerate() {
            let keep = bits.saturating_sub(n as u32 * 8).min(8);
            *byte &= !(0xff_u16 >> keep) as u8;
        }
        Self { key, bits }
    }
}

impl<K: Pod + Ord> TrieKey for KeyPrefix<K> {
    fn holds(&self, other: &Self) -> bool {
        self.bits <= other.bits && Self::new(other.key, self.bits).key == self.key
    }

    fn length(&self) -> u32 {
        self.bits
    }

    fn truncated(&self, bits: u32) -> Self {
        Self::new(self.key, bits)
    }
}

impl PolicyPrefix {
    /// A service below a pair of classes or a guard list; every protocol where none is named.
    pub fn of_service(pair: PolicyKey, proto: Option<u8>, port: u16, port_bits: u32) -> Self {
        let mut key = pair;
        let Some(proto) = proto else {
            return Self::new(key, PolicyKey::CLASSES_BITS);
        };
        key.bytes[8] = proto;
        key.bytes[10..].copy_from_slice(&port.to_be_bytes());
        Self::new(key, PolicyKey::PROTOCOL_BITS + port_bits)
    }

    /// What a packet looks up.
    pub fn full(src_class: u32, dst_class: u32, proto: u8, port: u16) -> Self {
        Self::new(PolicyKey::new(src_class, dst_class, proto, port), PolicyKey::FULL_BITS)
    }
}

impl ScopedPrefix {
    /// A prefix of addresses on a segment, whatever the port.
    pub fn of(segment: u32, prefix: &Prefix) -> Self {
        Self::new(ScopedKey::new(segment, &prefix.addr(), 0), ScopedKey::SEGMENT_BITS + prefix.bits())
    }

    /// Ports of a single address on a segment.
    pub fn of_ports(segment: u32, addr: &Addr, proto: u8, port: u16, port_bits: u32) -> Self {
        let key = ScopedKey::new(segment, addr, service(proto, port));
        Self::new(key, ScopedKey::PROTOCOL_BITS + port_bits)
    }
}

/// What a lookup of one key answers: the longest prefix that holds it.
pub fn lookup<'m, K: TrieKey, V>(map: &'m BTreeMap<K, V>, key: &K) -> Option<(K, &'m V)> {
    (0..=key.length()).rev().find_map(|bits| map.get_key_value(&key.truncated(bits)).map(|(k, v)| (*k, v)))
}

/// Lookups of keys that come in order, in one walk.
pub struct Walk<'m, K, V> {
    entries: Peekable<btree_map::Iter<'m, K, V>>,
    /// The entries that hold the last key, the shortest first.
    path: Vec<(K, V)>,
}

impl<'m, K: TrieKey, V: Copy> Walk<'m, K, V> {
    /// Of a map, from its beginning.
    pub fn of(map: &'m BTreeMap<K, V>) -> Self {
        Self { entries: map.iter().peekable(), path: Vec::new() }
    }

    /// The next entry that no key has come past.
    pub fn next_key(&mut self) -> Option<K> {
        self.entries.peek().map(|(key, _)| **key)
    }

    /// What a lookup of a key answers, no lesser one than the last.
    pub fn lookup(&mut self, key: &K) -> Option<V> {
        let path = &mut self.path;
        while let Some((entry, value)) = self.entries.next_if(|(entry, _)| *entry <= key) {
            path.truncate(path.iter().rposition(|(k, _)| k.holds(entry)).map_or(0, |n| n + 1));
            path.push((*entry, *value));
        }
        path.truncate(path.iter().rposition(|(k, _)| k.holds(key)).map_or(0, |n| n + 1));
        path.last().map(|(_, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_prefixes_drop_the_bits_beyond_their_length() {
        let prefix = PolicyPrefix::new(PolicyKey::new(1, 2, 6, 0xffff), PolicyKey::PROTOCOL_BITS + 3);
        assert_eq!(prefix.key, PolicyKey::new(1, 2, 6, 0xe000));
        assert!(prefix.holds(&PolicyPrefix::full(1, 2, 6, 0xe123)));
        assert!(!prefix.holds(&PolicyPrefix::full(1, 2, 6, 0xc123)));
    }

    #[test]
    fn one_walk_answers_what_single_lookups_answer() {
        let prefix = |text: &str| text.parse::<Prefix>().expect(text);
        let map: BTreeMap<Prefix, u32> =
            [("::/0", 1), ("10.0.0.0/8", 2), ("10.1.0.0/16", 3), ("10.1.2.3/32", 4), ("fd00::/8", 5)]
                .map(|(text, n)| (prefix(text), n))
                .into();
        let mut keys: Vec<Prefix> =
            ["9.9.9.9", "10.1.2.3", "10.1.2.4", "10.2.0.0/16", "fd00::1", "2001::", "::/0"]
                .map(prefix)
                .to_vec();
        keys.sort();
        let mut walk = Walk::of(&map);
        let walked: Vec<_> = keys.iter().map(|key| walk.lookup(key)).collect();
        let single: Vec<_> = keys.iter().map(|k| lookup(&map, k).map(|(_, v)| *v)).collect();
        assert_eq!(walked, single);
        assert_eq!(walked, [Some(1), Some(1), Some(4), Some(3), Some(2), Some(1), Some(5)]);
    }
}
