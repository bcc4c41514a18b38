//! Hash maps and longest-prefix tries.

use super::batch;
use crate::error::{Error, Result};
use crate::pod::P;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData, MapError, PerCpuHashMap};
use aya::sys::SyscallError;
use bytemuck::Pod;
use std::collections::{BTreeMap, HashMap as Entries};
use std::hash::Hash;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A map behind a lock that a panicking reader does not poison: the kernel's map has no state of ours to break.
#[derive(Debug)]
pub(super) struct Shared<M> {
    pub(super) name: &'static str,
    map: RwLock<M>,
}

impl<M> Shared<M> {
    pub(super) fn new(name: &'static str, map: M) -> Self {
        Self { name, map: RwLock::new(map) }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, M> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, M> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn error(&self, source: MapError) -> Error {
        Error::Map { map: self.name, source }
    }
}

pub(super) fn max_entries(name: &'static str, map: &Map) -> Result<u32> {
    let data = match map {
        Map::HashMap(data) | Map::LruHashMap(data) | Map::PerCpuHashMap(data) => data,
        Map::PerCpuLruHashMap(data) | Map::LpmTrie(data) | Map::DevMapHash(data) => data,
        _ => return Err(Error::Missing { what: format!("hash map or trie {name}") }),
    };
    Ok(data.info().map_err(|source| Error::Map { map: name, source })?.max_entries())
}

/// Says which map is full and how large it is, where that is what the kernel means.
pub(super) fn write_error(name: &'static str, max_entries: u32, source: MapError) -> Error {
    const E2BIG: i32 = 7;
    const ENOMEM: i32 = 12;
    const ENOSPC: i32 = 28;
    match crate::error::os_error(&source) {
        Some(E2BIG | ENOSPC | ENOMEM) => Error::MapFull { map: name, max_entries },
        _ => Error::Map { map: name, source },
    }
}

fn absent_is_none<T>(result: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether the kernel says that there is nothing to remove.
const ENOENT: i32 = 2;

fn is_absent(error: &MapError) -> bool {
    matches!(error, MapError::KeyNotFound) || crate::error::os_error(error) == Some(ENOENT)
}

/// A hash map, LRU or not.
pub struct Table<K: Pod, V: Pod> {
    map: Shared<HashMap<MapData, P<K>, P<V>>>,
    max_entries: u32,
}

impl<K: Pod + Eq + Hash, V: Pod> Table<K, V> {
    pub(crate) fn new((name, map): (&'static str, Map)) -> Result<Self> {
        let max_entries = max_entries(name, &map)?;
        let map = HashMap::try_from(map).map_err(|source| Error::Map { map: name, source })?;
        Ok(Self { map: Shared::new(name, map), max_entries })
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Result<Option<V>> {
        let value = absent_is_none(self.map.read().get(&P(*key), 0)).map_err(|e| self.map.error(e))?;
        Ok(value.map(|P(v)| v))
    }

    /// Writes a value.
    pub fn insert(&self, key: &K, value: &V) -> Result<()> {
        let written = self.map.write().insert(P(*key), P(*value), 0);
        written.map_err(|e| write_error(self.map.name, self.max_entries, e))
    }

    /// Removes a key; returns whether it was there.
    pub fn remove(&self, key: &K) -> Result<bool> {
        match self.map.write().remove(&P(*key)) {
            Ok(()) => Ok(true),
            Err(e) if is_absent(&e) => Ok(false),
            Err(e) => Err(self.map.error(e)),
        }
    }

    /// All keys.
    pub fn keys(&self) -> Result<Vec<K>> {
        let map = self.map.read();
        let keys = map.keys().map(|key| key.map(|P(k)| k));
        keys.collect::<Result<_, _>>().map_err(|e| self.map.error(e))
    }

    /// All entries. While the kernel writes, one that comes or goes meanwhile may be missed; none comes twice.
    pub fn entries(&self) -> Result<Entries<K, V>> {
        let map = self.map.read();
        let entries = map.iter().map(|entry| entry.map(|(P(k), P(v))| (k, v)));
        entries.collect::<Result<_, _>>().map_err(|e| self.map.error(e))
    }

    /// How many entries there are; walks the map.
    pub fn len(&self) -> Result<usize> {
        count(self.map.read().keys(), self.max_entries).map_err(|e| self.map.error(e))
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// How many entries fit.
    pub fn max_entries(&self) -> u32 {
        self.max_entries
    }
}

/// A walk starts over where its key is removed under it, so what it counts is bounded by the capacity.
fn count<K>(keys: impl Iterator<Item = Result<K, MapError>>, max_entries: u32) -> Result<usize, MapError> {
    keys.take(max_entries as usize).try_fold(0, |n, key| key.map(|_| n + 1))
}

/// A hash map with a value for each CPU.
pub struct PerCpuTable<K: Pod, V: Pod> {
    map: Shared<PerCpuHashMap<MapData, P<K>, P<V>>>,
    max_entries: u32,
}

impl<K: Pod + Eq + Hash, V: Pod> PerCpuTable<K, V> {
    pub(crate) fn new((name, map): (&'static str, Map)) -> Result<Self> {
        let max_entries = max_entries(name, &map)?;
        let map = PerCpuHashMap::try_from(map).map_err(|source| Error::Map { map: name, source })?;
        Ok(Self { map: Shared::new(name, map), max_entries })
    }

    /// The values of a key, one a CPU.
    pub fn get(&self, key: &K) -> Result<Option<Vec<V>>> {
        let values = absent_is_none(self.map.read().get(&P(*key), 0)).map_err(|e| self.map.error(e))?;
        Ok(values.map(|values| values.iter().map(|P(v)| *v).collect()))
    }

    /// Writes a value for each CPU.
    pub fn insert(&self, key: &K, values: Vec<V>) -> Result<()> {
        let values: Vec<_> = values.into_iter().map(P).collect();
        let written = values
            .try_into()
            .map_err(MapError::IoError)
            .and_then(|values| self.map.write().insert(P(*key), values, 0));
        written.map_err(|e| write_error(self.map.name, self.max_entries, e))
    }

    /// Removes a key; returns whether it was there.
    pub fn remove(&self, key: &K) -> Result<bool> {
        match self.map.write().remove(&P(*key)) {
            Ok(()) => Ok(true),
            Err(e) if is_absent(&e) => Ok(false),
            Err(e) => Err(self.map.error(e)),
        }
    }

    /// All entries, one value a CPU.
    pub fn entries(&self) -> Result<Entries<K, Vec<V>>> {
        let map = self.map.read();
        let entries = map.iter().map(|e| e.map(|(P(k), values)| (k, values.iter().map(|P(v)| *v).collect())));
        entries.collect::<Result<_, _>>().map_err(|e| self.map.error(e))
    }

    /// How many entries there are; walks the map.
    pub fn len(&self) -> Result<usize> {
        count(self.map.read().keys(), self.max_entries).map_err(|e| self.map.error(e))
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// How many entries fit.
    pub fn max_entries(&self) -> u32 {
        self.max_entries
    }
}

/// Entries that are written or removed by one system call.
const BATCH: usize = 4096;

/// A longest-prefix trie.
pub struct Trie<K: Pod, V: Pod> {
    map: Shared<LpmTrie<MapData, P<K>, P<V>>>,
    /// The same map, for what aya has no call for.
    fd: OwnedFd,
    max_entries: u32,
}

impl<K: Pod + Ord, V: Pod> Trie<K, V> {
    pub(crate) fn new((name, map): (&'static str, Map)) -> Result<Self> {
        let max_entries = max_entries(name, &map)?;
        let Map::LpmTrie(data) = &map else {
            return Err(Error::Missing { what: format!("trie {name}") });
        };
        let fd = data.fd().as_fd().try_clone_to_owned();
        let fd = fd.map_err(|e| Error::Map { map: name, source: MapError::IoError(e) })?;
        let map = LpmTrie::try_from(map).map_err(|source| Error::Map { map: name, source })?;
        Ok(Self { map: Shared::new(name, map), fd, max_entries })
    }

    /// The value of the longest prefix of `key` with at most `prefix_bits` bits: what a program that looks it up sees.
    pub fn longest(&self, key: &K, prefix_bits: u32) -> Result<Option<V>> {
        let found = self.map.read().get(&Key::new(prefix_bits, P(*key)), 0);
        Ok(absent_is_none(found).map_err(|e| self.map.error(e))?.map(|P(v)| v))
    }

    /// Writes the value of a prefix.
    pub fn insert(&self, key: &K, prefix_bits: u32, value: &V) -> Result<()> {
        let written = self.map.write().insert(&Key::new(prefix_bits, P(*key)), P(*value), 0);
        written.map_err(|e| write_error(self.map.name, self.max_entries, e))
    }

    /// Writes the values of many prefixes, in their order, in few system calls.
    ///
    /// # Errors
    /// How many were written before the one that could not be, and why it could not.
    pub fn insert_all(
        &self,
        entries: impl IntoIterator<Item = (K, u32, V)>,
    ) -> std::result::Result<(), (usize, Error)> {
        let mut entries = entries.into_iter().peekable();
        let _only_writer = self.map.write();
        let (mut keys, mut values, mut before) = (Vec::new(), Vec::new(), 0);
        while entries.peek().is_some() {
            keys.clear();
            values.clear();
            let mut count = 0;
            for (key, bits, value) in entries.by_ref().take(BATCH) {
                keys.extend_from_slice(&bits.to_ne_bytes());
                keys.extend_from_slice(bytemuck::bytes_of(&key));
                values.extend_from_slice(bytemuck::bytes_of(&value));
                count += 1;
            }
            batch::update(&self.fd, &keys, &values, count).map_err(|(written, source)| {
                let source = SyscallError { call: "bpf_map_update_batch", io_error: source }.into();
                (before + written, write_error(self.map.name, self.max_entries, source))
            })?;
            before += count as usize;
        }
        Ok(())
    }

    /// Removes a prefix; returns whether it was there.
    pub fn remove(&self, key: &K, prefix_bits: u32) -> Result<bool> {
        match self.map.write().remove(&Key::new(prefix_bits, P(*key))) {
            Ok(()) => Ok(true),
            Err(e) if is_absent(&e) => Ok(false),
            Err(e) => Err(self.map.error(e)),
        }
    }

    /// Removes many prefixes, in few system calls. Those that are not there are none to remove.
    pub fn remove_all(&self, prefixes: impl IntoIterator<Item = (K, u32)>) -> Result<()> {
        let mut prefixes = prefixes.into_iter().peekable();
        let _only_writer = self.map.write();
        let mut keys = Vec::new();
        while prefixes.peek().is_some() {
            keys.clear();
            let mut count = 0;
            for (key, bits) in prefixes.by_ref().take(BATCH) {
                keys.extend_from_slice(&bits.to_ne_bytes());
                keys.extend_from_slice(bytemuck::bytes_of(&key));
                count += 1;
            }
            let (size, mut done) = (keys.len() / count, 0);
            while let Err((removed, source)) =
                batch::delete(&self.fd, &keys[done * size..], (count - done) as u32)
            {
                if source.raw_os_error() != Some(ENOENT) {
                    let source = SyscallError { call: "bpf_map_delete_batch", io_error: source }.into();
                    return Err(self.map.error(source));
                }
                done += removed + 1;
                if done >= count {
                    break;
                }
            }
        }
        Ok(())
    }

    /// All prefixes with their lengths.
    pub fn entries(&self) -> Result<BTreeMap<(K, u32), V>> {
        let map = self.map.read();
        let entries = map.iter().map(|e| e.map(|(key, P(v))| ((key.data().0, key.prefix_len()), v)));
        entries.collect::<Result<_, _>>().map_err(|e| self.map.error(e))
    }

    /// How many prefixes there are; walks the trie.
    pub fn len(&self) -> Result<usize> {
        count(self.map.read().keys(), self.max_entries).map_err(|e| self.map.error(e))
    }

    /// Whether there is no prefix.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// How many prefixes fit.
    pub fn max_entries(&self) -> u32 {
        self.max_entries
    }
}
