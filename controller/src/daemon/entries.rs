//! Entries of the kernel's maps, one by one and many at once.

use crate::policy::{MapDelete, MapWrite};
use loader::Maps;

/// Rules, identities and interfaces are looked up by their whole number.
const RULE_BITS: u32 = 32;

/// Writes entries in their order, those that lie behind each other and go to one large table at once. On failure it says how many
/// were written.
pub(super) fn write_many(maps: &Maps, mut writes: &[MapWrite]) -> Result<(), (usize, loader::Error)> {
    let mut before = 0;
    while let Some(first) = writes.first() {
        let same = |write: &&MapWrite| std::mem::discriminant(*write) == std::mem::discriminant(first);
        let (now, rest) = writes.split_at(writes.iter().take_while(same).count());
        let done = match first {
            MapWrite::Binding(..) => maps.bindings.insert_all(now.iter().filter_map(|write| match write {
                MapWrite::Binding(key, v) => Some((key.addr(), key.bits(), *v)),
                _ => None,
            })),
            MapWrite::Block(..) => maps.blocklist.insert_all(now.iter().filter_map(|write| match write {
                MapWrite::Block(key, v) => Some((key.addr(), key.bits(), *v)),
                _ => None,
            })),
            MapWrite::Guard(..) => maps.guards.insert_all(now.iter().filter_map(|write| match write {
                MapWrite::Guard(key, v) => Some((key.key, key.bits, *v)),
                _ => None,
            })),
            MapWrite::Decision(..) => maps.policy.insert_all(now.iter().filter_map(|write| match write {
                MapWrite::Decision(key, v) => Some((key.key, key.bits, *v)),
                _ => None,
            })),
            _ => now.iter().enumerate().try_for_each(|(n, one)| write(maps, one).map_err(|e| (n, e))),
        };
        done.map_err(|(n, e)| (before + n, e))?;
        before += now.len();
        writes = rest;
    }
    Ok(())
}

/// Writes one entry of a commit.
pub fn write(maps: &Maps, write: &MapWrite) -> loader::Result<()> {
    match write {
        MapWrite::Binding(key, v) => maps.bindings.insert(&key.addr(), key.bits(), v),
        MapWrite::Scoped(key, v) => maps.scoped.insert(&key.key, key.bits, v),
        MapWrite::Block(key, v) => maps.blocklist.insert(&key.addr(), key.bits(), v),
        MapWrite::Guard(key, v) => maps.guards.insert(&key.key, key.bits, v),
        MapWrite::Decision(key, v) => maps.policy.insert(&key.key, key.bits, v),
        MapWrite::Interface(key, v) => maps.interfaces.insert(key, RULE_BITS, v),
        MapWrite::Rule(key, v) => maps.rules.insert(key, RULE_BITS, v),
        MapWrite::Limit(key, v) => maps.limits.insert(key, RULE_BITS, v),
    }
}

/// Removes an entry that no epoch needs any more. Returns whether it was there.
pub fn remove(maps: &Maps, delete: &MapDelete) -> loader::Result<bool> {
    match delete {
        MapDelete::Binding(key) => maps.bindings.remove(&key.addr(), key.bits()),
        MapDelete::Scoped(key) => maps.scoped.remove(&key.key, key.bits),
        MapDelete::Block(key) => maps.blocklist.remove(&key.addr(), key.bits()),
        MapDelete::Guard(key) => maps.guards.remove(&key.key, key.bits),
        MapDelete::Decision(key) => maps.policy.remove(&key.key, key.bits),
        MapDelete::Interface(key) => maps.interfaces.remove(key, RULE_BITS),
        MapDelete::Rule(key) => maps.rules.remove(key, RULE_BITS),
        MapDelete::Limit(key) => maps.limits.remove(key, RULE_BITS),
    }
}

/// Removes entries that no epoch needs any more, those that lie behind each other and are of one large table at once.
pub(super) fn remove_many(maps: &Maps, mut deletes: &[MapDelete]) -> loader::Result<()> {
    while let Some(first) = deletes.first() {
        let same = |delete: &&MapDelete| std::mem::discriminant(*delete) == std::mem::discriminant(first);
        let (now, rest) = deletes.split_at(deletes.iter().take_while(same).count());
        match first {
            MapDelete::Binding(_) => {
                maps.bindings.remove_all(now.iter().filter_map(|delete| match delete {
                    MapDelete::Binding(key) => Some((key.addr(), key.bits())),
                    _ => None,
                }))?
            }
            MapDelete::Block(_) => {
                maps.blocklist.remove_all(now.iter().filter_map(|delete| match delete {
                    MapDelete::Block(key) => Some((key.addr(), key.bits())),
                    _ => None,
                }))?
            }
            MapDelete::Guard(_) => maps.guards.remove_all(now.iter().filter_map(|delete| match delete {
                MapDelete::Guard(key) => Some((key.key, key.bits)),
                _ => None,
            }))?,
            MapDelete::Decision(_) => {
                maps.policy.remove_all(now.iter().filter_map(|delete| match delete {
                    MapDelete::Decision(key) => Some((key.key, key.bits)),
                    _ => None,
                }))?
            }
            _ => now.iter().try_for_each(|one| remove(maps, one).map(drop))?,
        }
        deletes = rest;
    }
    Ok(())
}
