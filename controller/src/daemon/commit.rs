//! Commits: what the kernel is to hold, changed so that no packet sees a part of it.

use super::crash::{Step, may_end};
use super::mark::Mask;
use crate::exit_code::{Code, Failure, Result};
use crate::policy::gateway::{Gateway, configure};
use crate::policy::kinds::Kinds;
use crate::policy::{Clock, Compiled, MapDelete, MapWrite, Prefix, compile, diff, sweep};
use crate::state::{Author, InKernel, State, Store};
use datapath::abi::{Config, Interface};
use jiff::Timestamp;
use loader::Maps;
use std::collections::{BTreeMap, HashSet};

/// Rules, identities and interfaces are looked up by their whole number.
const RULE_BITS: u32 = 32;

/// What the maps hold, and what it means.
#[derive(Debug)]
pub struct Committed {
    /// What counts.
    pub state: State,
    /// Where it is saved.
    pub store: Store,
    /// The answers that count now, as they lie in the maps.
    pub(super) live: Compiled,
    /// What the last commit left to be done.
    pub(super) rest: Option<Rest>,
    /// What a candidate policy wrote for an epoch that has not come.
    pub(super) shadow: Vec<MapWrite>,
    /// What bindings can be made of without a compile; made when it is asked for.
    pub(super) kinds: Option<Kinds>,
    /// The state before the one that counts, where the store could not yet be told.
    pub(super) unmarked: Option<State>,
    /// Bits that have to have room for every identity.
    pub(super) mark: Mask,
}

/// What a commit leaves to be done: packets may still be judged by the epoch before it.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// Entries that nobody asks for any more, once those packets are gone.
    pub(super) gone: Vec<MapDelete>,
    /// The bindings that were written; `None` for more than these.
    pub(super) written: Option<HashSet<Prefix>>,
}

impl Committed {
    /// Does what the last commit left to be done. Waits for packets that are being judged: about 10 ms, once a commit.
    ///
    /// Two versions are enough for two epochs: before a third is written, no packet may be left that reads the first.
    pub fn settle(&mut self, maps: &Maps) -> Result<()> {
        self.mark_late()?;
        let Some(rest) = &self.rest else {
            return Ok(());
        };
        loader::wait_for_programs()?;
        for delete in &rest.gone {
            remove(maps, delete)?;
        }
        self.rest = None;
        may_end(Step::Swept { revision: self.state.revision });
        Ok(())
    }

    /// Makes what `change` makes of the state what counts. On failure nothing has changed. Returns the revision.
    pub fn commit(&mut self, maps: &Maps, by: &Author, change: impl FnOnce(&mut State)) -> Result<u64> {
        self.settle(maps)?;
        self.end_shadow(maps)?;
        let done = self.flip(maps, by, change);
        // Whether it was or was not: a candidate that is left goes on.
        if let Err(e) = self.begin_shadow(maps) {
            tracing::error!("the candidate policy is not judged by any more: {e}");
        }
        done
    }

    fn flip(&mut self, maps: &Maps, by: &Author, change: impl FnOnce(&mut State)) -> Result<u64> {
        let now = Timestamp::now();
        let config = maps.config.get()?;
        let next = config.epoch.wrapping_add(1);
        let revision = self.store.next_revision()?;
        let mut state = State { revision, epoch: next, applied_at: Some(now), ..self.state.clone() };
        change(&mut state);
        state.blocks.retain(|block| block.not_after.is_none_or(|end| end > now));
        state.quarantines.retain(|quarantine| quarantine.not_after.is_none_or(|end| end > now));
        state.grants.retain(|grant| grant.not_after > now);
        let clock = Clock { wall_now: now, boot_now_ns: loader::boot_ns() };
        let mut compiled = compile(&state.effective(now), &state.numbering, &clock);
        self.mark.check(&compiled.numbering)?;
        compiled.interfaces = interfaces(compiled.gateway.as_ref(), &compiled.named_interfaces);
        // Numbers are many, and the state has them.
        state.numbering = std::mem::take(&mut compiled.numbering);
        let kernel = InKernel { epoch: next, ..InKernel::of(&config) };
        self.store.begin(&state, &kernel, by, &self.state)?;
        // Given is given: what becomes of the revision does not take a number back.
        self.state.numbering = state.numbering.clone();
        may_end(Step::Recorded);
        if let Err(e) = self.write_and_turn(maps, &compiled, next) {
            if let Err(also) = self.store.refuse(revision, &e.message) {
                tracing::error!("{also}");
            }
            return Err(Failure::new(e.code, format!("{e}; nothing was changed")));
        }
        may_end(Step::Flipped);
        state.rules.extend(compiled.rules.clone());
        self.rest = Some(Rest { gone: sweep(&self.live, &compiled), written: None });
        self.kinds = None;
        self.live = compiled;
        self.unmarked = Some(std::mem::replace(&mut self.state, state));
        // The kernel judges by it, so it counts; on a full disk that is written as soon as there is room.
        if let Err(e) = self.mark_late() {
            tracing::error!("revision {revision} counts, and is not marked so: {e}");
        }
        may_end(Step::Marked);
        Ok(revision)
    }

    /// Tells the store that the revision counts by which the kernel judges.
    pub(super) fn mark_late(&mut self) -> Result<()> {
        if let Some(before) = &self.unmarked {
            self.store.mark(&self.state, before)?;
            self.unmarked = None;
        }
        Ok(())
    }

    /// Writes the second versions and flips the epoch.
    fn write_and_turn(&self, maps: &Maps, compiled: &Compiled, next: u32) -> Result<()> {
        let writes = diff(&self.live, compiled, next);
        self.write_all(maps, &writes)?;
        may_end(Step::Written);
        let turned = turn(maps, compiled, next);
        if turned.is_err() {
            self.give_up(maps, &writes);
        }
        turned
    }

    /// Whether interfaces that have settings came or went.
    pub fn interfaces_changed(&self) -> bool {
        interfaces(self.live.gateway.as_ref(), &self.live.named_interfaces) != self.live.interfaces
    }

    pub(super) fn write_all(&self, maps: &Maps, writes: &[MapWrite]) -> Result<()> {
        for (n, one) in writes.iter().enumerate() {
            if let Err(e) = write(maps, one) {
                self.give_up(maps, &writes[..n]);
                return Err(Failure::new(Code::Failure, e.to_string()));
            }
            if n == writes.len() / 2 {
                may_end(Step::HalfWritten);
            }
        }
        Ok(())
    }

    /// Takes back writes whose epoch never comes. What cannot be taken back is taken back by the next daemon.
    pub(super) fn give_up(&self, maps: &Maps, writes: &[MapWrite]) {
        for one in writes {
            let was_there = match one {
                MapWrite::Binding(key, _) => self.live.bindings.contains_key(key),
                MapWrite::Scoped(key, _) => self.live.scoped.contains_key(key),
                MapWrite::Block(key, _) => self.live.blocklist.contains_key(key),
                MapWrite::Guard(key, _) => self.live.guards.contains_key(key),
                MapWrite::Decision(key, _) => self.live.policy.contains_key(key),
                MapWrite::Interface(key, _) => self.live.interfaces.contains_key(key),
                MapWrite::Rule(key, _) => self.live.settings.contains_key(key),
                MapWrite::Limit(key, _) => self.live.limits.contains_key(key),
            };
            let done =
                if was_there { write(maps, &one.given_up()) } else { remove(maps, &one.delete()).map(drop) };
            if let Err(e) = done {
                tracing::error!("take back a write to {}: {e}", one.map());
            }
        }
    }
}

/// Flips the epoch, and with it what holds for the gateway as a whole.
fn turn(maps: &Maps, compiled: &Compiled, next: u32) -> Result<()> {
    // Ahead of the epoch: no packet of the new one may miss these.
    let mut ahead = 0;
    if compiled.interfaces.values().any(|interface| interface.mask != 0) {
        ahead |= Config::BY_INTERFACE;
    }
    if !compiled.scoped.is_empty() {
        ahead |= Config::SCOPED;
    }
    if ahead != 0 {
        maps.config.update(|config| config.flags |= ahead)?;
    }
    maps.config.update(|config| {
        config.epoch = next;
        configure(compiled.gateway.as_ref(), config);
        config.flags &= !(Config::DEFAULT_ALLOW | Config::SCOPED);
        config.flags |= ahead & Config::SCOPED;
        if compiled.default_allow {
            config.flags |= Config::DEFAULT_ALLOW;
        }
    })?;
    Ok(())
}

/// Settings of the interfaces that are there, and the numbers by which bindings name them.
fn interfaces(gateway: Option<&Gateway>, named: &BTreeMap<String, u32>) -> BTreeMap<u32, Interface> {
    let settings = gateway.map_or(&[][..], |gateway| &gateway.interfaces);
    let mut by_name: BTreeMap<&str, Interface> =
        settings.iter().map(|one| (one.name.as_str(), one.settings())).collect();
    for (name, number) in named {
        by_name.entry(name).or_insert(Interface::NONE).number = *number;
    }
    by_name.into_iter().filter_map(|(name, one)| Some((loader::netdev::index(name).ok()?, one))).collect()
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
