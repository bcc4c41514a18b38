//! Commits: what the kernel is to hold, changed so that no packet sees a part of it.

use crate::exit_code::{Code, Failure, Result};
use crate::policy::gateway::{Gateway, configure};
use crate::policy::{
    Clock, Compiled, Documents, MapDelete, MapWrite, PolicyPrefix, Prefix, compile, diff, sweep,
};
use crate::state::{Shadow, State};
use datapath::abi::{
    Addr, BindingVersions, BlockVersions, Config, DecisionVersions, Interface, InterfaceVersions,
    RuleVersions,
};
use jiff::Timestamp;
use loader::Maps;
use std::collections::BTreeMap;
use std::path::Path;

/// Rules and interfaces are looked up by their whole number.
const RULE_BITS: u32 = 32;

/// What the maps hold, and what it means.
#[derive(Debug, Default)]
pub struct Committed {
    /// The saved state.
    pub state: State,
    /// The answers that count now, as they lie in the maps.
    live: Compiled,
    /// What the last commit left to be done.
    rest: Option<Rest>,
    /// What a candidate policy wrote for an epoch that has not come.
    shadow: Vec<MapWrite>,
}

/// What a commit leaves to be done: packets may still be judged by the epoch before it.
#[derive(Debug, Default)]
struct Rest {
    /// Entries that nobody asks for any more, once those packets are gone.
    gone: Vec<MapDelete>,
}

impl Committed {
    /// Reads what counts from the maps, not from the file, and takes back what a daemon that died in a commit had
    /// written for an epoch that never came.
    pub fn recover(state: State, maps: &Maps) -> Result<Self> {
        maps.config.update(|config| config.flags &= !Config::SHADOW)?;
        loader::wait_for_programs()?;
        let epoch = maps.config.get()?.epoch;
        let pending = |since: u32| (since.wrapping_sub(epoch) as i32) > 0;
        let mut live = Compiled { numbering: state.numbering.clone(), ..Compiled::default() };
        for ((addr, bits), v) in maps.bindings.entries()? {
            let now = *v.at(epoch);
            if pending(v.since) {
                maps.bindings.insert(&addr, bits, &BindingVersions { old: now, new: now, ..v })?;
            }
            live.bindings.insert(prefix(addr, bits), now);
        }
        for ((addr, bits), v) in maps.blocklist.entries()? {
            let now = *v.at(epoch);
            if pending(v.since) {
                maps.blocklist.insert(&addr, bits, &BlockVersions { old: now, new: now, ..v })?;
            }
            live.blocklist.insert(prefix(addr, bits), now);
        }
        for ((key, bits), v) in maps.guards.entries()? {
            let now = *v.at(epoch);
            if pending(v.since) {
                maps.guards.insert(&key, bits, &BlockVersions { old: now, new: now, ..v })?;
            }
            live.guards.insert(PolicyPrefix::new(key, bits), now);
        }
        for ((key, bits), v) in maps.policy.entries()? {
            let now = *v.at(epoch);
            if pending(v.since) {
                maps.policy.insert(&key, bits, &DecisionVersions { old: now, new: now, ..v })?;
            }
            live.policy.insert(PolicyPrefix::new(key, bits), now);
        }
        for ((ifindex, bits), v) in maps.interfaces.entries()? {
            let now = *v.at(epoch);
            if pending(v.since) {
                maps.interfaces.insert(&ifindex, bits, &InterfaceVersions { old: now, new: now, ..v })?;
            }
            live.interfaces.insert(ifindex, now);
        }
        for ((number, bits), v) in maps.rules.entries()? {
            let now = *v.at(epoch);
            if pending(v.since) {
                maps.rules.insert(&number, bits, &RuleVersions { old: now, new: now, ..v })?;
            }
            live.settings.insert(number, now);
        }
        Ok(Self { state, live, rest: Some(Rest::default()), shadow: Vec::new() })
    }

    /// Does what the last commit left to be done. Waits for packets that are being judged: about 10 ms, once a commit.
    ///
    /// Two versions are enough for two epochs: before a third is written, no packet may be left that reads the first.
    pub fn settle(&mut self, maps: &Maps) -> Result<()> {
        let Some(rest) = &self.rest else {
            return Ok(());
        };
        loader::wait_for_programs()?;
        for delete in &rest.gone {
            remove(maps, delete)?;
        }
        self.rest = None;
        Ok(())
    }

    /// Makes `documents` and the manual blocks what counts. On failure nothing has changed.
    pub fn commit(&mut self, maps: &Maps, state_file: &Path, change: impl FnOnce(&mut State)) -> Result<u64> {
        self.settle(maps)?;
        self.end_shadow(maps)?;
        let done = self.flip(maps, state_file, change);
        // Whether it was or was not: a candidate that is left goes on.
        if let Err(e) = self.begin_shadow(maps, state_file) {
            tracing::error!("the candidate policy is not judged by any more: {e}");
        }
        done
    }

    fn flip(&mut self, maps: &Maps, state_file: &Path, change: impl FnOnce(&mut State)) -> Result<u64> {
        let mut state = self.state.clone();
        change(&mut state);
        let now = Timestamp::now();
        state.blocks.retain(|block| block.not_after.is_none_or(|end| end > now));
        state.quarantines.retain(|quarantine| quarantine.not_after.is_none_or(|end| end > now));
        let clock = Clock { wall_now: now, boot_now_ns: loader::boot_ns() };
        let mut compiled = compile(&state.effective(now), &state.numbering, &clock);
        compiled.interfaces = interfaces(compiled.gateway.as_ref());
        let config = maps.config.get()?;
        let next = config.epoch.wrapping_add(1);
        let writes = diff(&self.live, &compiled, next);
        self.write_all(maps, &writes)?;
        state.revision += 1;
        state.epoch = next;
        state.applied_at = Some(now);
        state.numbering = compiled.numbering.clone();
        state.rules.extend(compiled.rules.clone());
        state.classes = compiled.classes.clone();
        if let Err(e) = state.save(state_file) {
            self.give_up(maps, &writes);
            return Err(e);
        }
        if !compiled.interfaces.is_empty() {
            // Ahead of the epoch: no packet of the new one may miss it.
            maps.config.update(|config| config.flags |= Config::BY_INTERFACE)?;
        }
        maps.config.update(|config| {
            config.epoch = next;
            configure(compiled.gateway.as_ref(), config);
            config.flags &= !Config::DEFAULT_ALLOW;
            if compiled.default_allow {
                config.flags |= Config::DEFAULT_ALLOW;
            }
        })?;
        let gone = sweep(&self.live, &compiled);
        self.state = state;
        self.live = compiled;
        self.rest = Some(Rest { gone });
        Ok(self.state.revision)
    }

    /// Has the candidate of the state judged beside what counts: its versions of all that would change are written for
    /// the next epoch, which does not come.
    fn begin_shadow(&mut self, maps: &Maps, state_file: &Path) -> Result<()> {
        let Some(shadow) = self.state.shadow.clone() else {
            return Ok(());
        };
        self.settle(maps)?;
        let now = Timestamp::now();
        let clock = Clock { wall_now: now, boot_now_ns: loader::boot_ns() };
        let candidate = State { documents: shadow.documents, ..self.state.clone() };
        let compiled = compile(&candidate.effective(now), &self.state.numbering, &clock);
        let config = maps.config.get()?;
        let writes = diff(&self.live, &compiled, config.epoch.wrapping_add(1));
        // Interfaces are not judged by: what holds for them says what is done with a verdict.
        let writes: Vec<_> = writes.into_iter().filter(|w| !matches!(w, MapWrite::Interface(..))).collect();
        self.write_all(maps, &writes)?;
        self.shadow = writes;
        let mut state = self.state.clone();
        state.numbering = compiled.numbering.clone();
        state.rules.extend(compiled.rules.clone());
        state.save(state_file)?;
        self.state = state;
        let mut judged_by = config;
        configure(compiled.gateway.as_ref(), &mut judged_by);
        judged_by.flags &= !(Config::DEFAULT_ALLOW | Config::SHADOW);
        if compiled.default_allow {
            judged_by.flags |= Config::DEFAULT_ALLOW;
        }
        maps.config.update(|config| {
            config.shadow_flags = judged_by.flags;
            config.shadow_threshold = u32::MAX / shadow.sample.max(1);
            config.flags |= Config::SHADOW;
        })?;
        Ok(())
    }

    /// Takes back what a candidate wrote, once no packet asks for it any more.
    fn end_shadow(&mut self, maps: &Maps) -> Result<()> {
        let writes = std::mem::take(&mut self.shadow);
        if maps.config.get()?.has(Config::SHADOW) {
            maps.config.update(|config| config.flags &= !Config::SHADOW)?;
            loader::wait_for_programs()?;
        }
        self.give_up(maps, &writes);
        Ok(())
    }

    /// Judges by a candidate too, from now on; `None` ends that. What was counted before is forgotten when one begins.
    pub fn shadow(&mut self, maps: &Maps, state_file: &Path, candidate: Option<Shadow>) -> Result<()> {
        self.settle(maps)?;
        self.end_shadow(maps)?;
        if candidate.is_some() {
            for key in maps.shadow.entries()?.into_keys() {
                maps.shadow.remove(&key)?;
            }
        }
        self.keep(state_file, candidate)?;
        let begun = self.begin_shadow(maps, state_file);
        if begun.is_err() {
            self.keep(state_file, None)?;
        }
        begun
    }

    fn keep(&mut self, state_file: &Path, candidate: Option<Shadow>) -> Result<()> {
        let state = State { shadow: candidate, ..self.state.clone() };
        state.save(state_file)?;
        self.state = state;
        Ok(())
    }

    /// Whether interfaces that have settings came or went.
    pub fn interfaces_changed(&self) -> bool {
        interfaces(self.state.documents.gateway.as_ref()) != self.live.interfaces
    }

    fn write_all(&self, maps: &Maps, writes: &[MapWrite]) -> Result<()> {
        for (n, one) in writes.iter().enumerate() {
            if let Err(e) = write(maps, one) {
                self.give_up(maps, &writes[..n]);
                return Err(Failure::new(Code::Failure, format!("{e}; nothing was changed")));
            }
        }
        Ok(())
    }

    /// Takes back writes whose epoch never comes. What cannot be taken back is taken back by the next daemon.
    fn give_up(&self, maps: &Maps, writes: &[MapWrite]) {
        for one in writes {
            let was_there = match one {
                MapWrite::Binding(key, _) => self.live.bindings.contains_key(key),
                MapWrite::Block(key, _) => self.live.blocklist.contains_key(key),
                MapWrite::Guard(key, _) => self.live.guards.contains_key(key),
                MapWrite::Decision(key, _) => self.live.policy.contains_key(key),
                MapWrite::Interface(key, _) => self.live.interfaces.contains_key(key),
                MapWrite::Rule(key, _) => self.live.settings.contains_key(key),
            };
            let done =
                if was_there { write(maps, &one.given_up()) } else { remove(maps, &one.delete()).map(drop) };
            if let Err(e) = done {
                tracing::error!("take back a write to {}: {e}", one.map());
            }
        }
    }
}

/// Settings of the interfaces that are there.
fn interfaces(gateway: Option<&Gateway>) -> BTreeMap<u32, Interface> {
    let named = gateway.map_or(&[][..], |gateway| &gateway.interfaces);
    named.iter().filter_map(|one| Some((loader::netdev::index(&one.name).ok()?, one.settings()))).collect()
}

/// The documents of files; none where there are no paths.
pub fn load_documents(paths: &[std::path::PathBuf]) -> Result<Documents> {
    if paths.is_empty() {
        return Ok(Documents::default());
    }
    Ok(Documents::load(paths, Timestamp::now())?)
}

fn prefix(addr: Addr, bits: u32) -> Prefix {
    Prefix::new(addr, bits as u8)
}

/// Writes one entry of a commit.
pub fn write(maps: &Maps, write: &MapWrite) -> loader::Result<()> {
    match write {
        MapWrite::Binding(key, v) => maps.bindings.insert(&key.addr(), key.bits(), v),
        MapWrite::Block(key, v) => maps.blocklist.insert(&key.addr(), key.bits(), v),
        MapWrite::Guard(key, v) => maps.guards.insert(&key.key, key.bits, v),
        MapWrite::Decision(key, v) => maps.policy.insert(&key.key, key.bits, v),
        MapWrite::Interface(key, v) => maps.interfaces.insert(key, RULE_BITS, v),
        MapWrite::Rule(key, v) => maps.rules.insert(key, RULE_BITS, v),
    }
}

/// Removes an entry that no epoch needs any more. Returns whether it was there.
pub fn remove(maps: &Maps, delete: &MapDelete) -> loader::Result<bool> {
    match delete {
        MapDelete::Binding(key) => maps.bindings.remove(&key.addr(), key.bits()),
        MapDelete::Block(key) => maps.blocklist.remove(&key.addr(), key.bits()),
        MapDelete::Guard(key) => maps.guards.remove(&key.key, key.bits),
        MapDelete::Decision(key) => maps.policy.remove(&key.key, key.bits),
        MapDelete::Interface(key) => maps.interfaces.remove(key, RULE_BITS),
        MapDelete::Rule(key) => maps.rules.remove(key, RULE_BITS),
    }
}
