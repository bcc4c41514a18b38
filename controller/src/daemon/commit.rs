//! Commits: what the kernel is to hold, changed so that no packet sees a part of it.

use crate::exit_code::{Code, Failure, Result};
use crate::policy::gateway::configure;
use crate::policy::{
    Clock, Compiled, Documents, MapDelete, MapWrite, PolicyPrefix, Prefix, compile, diff, sweep,
};
use crate::state::State;
use datapath::abi::{Addr, BindingVersions, BlockVersions, Config, DecisionVersions, RuleVersions};
use jiff::Timestamp;
use loader::Maps;
use std::path::Path;

/// Rules are looked up by their whole number.
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
        for ((number, bits), v) in maps.rules.entries()? {
            let now = *v.at(epoch);
            if pending(v.since) {
                maps.rules.insert(&number, bits, &RuleVersions { old: now, new: now, ..v })?;
            }
            live.settings.insert(number, now);
        }
        Ok(Self { state, live, rest: Some(Rest::default()) })
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
        let mut state = self.state.clone();
        change(&mut state);
        let now = Timestamp::now();
        state.blocks.retain(|block| block.not_after.is_none_or(|end| end > now));
        state.quarantines.retain(|quarantine| quarantine.not_after.is_none_or(|end| end > now));
        let clock = Clock { wall_now: now, boot_now_ns: loader::boot_ns() };
        let compiled = compile(&state.effective(now), &state.numbering, &clock);
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
        MapDelete::Rule(key) => maps.rules.remove(key, RULE_BITS),
    }
}
