//! What a daemon finds when it starts: maps that a predecessor wrote, perhaps in the middle of a commit.

use super::commit::{Committed, Renamed, Rest};
use super::feeds;
use super::mark::Mask;
use crate::exit_code::Result;
use crate::names::{Names, Published};
use crate::policy::{Compiled, PolicyPrefix, Prefix, ScopedPrefix};
use crate::state::{InKernel, Store};
use datapath::abi::{
    Addr, BindingVersions, BlockVersions, Config, DecisionVersions, InterfaceVersions, LimitVersions,
    RuleVersions,
};
use loader::Maps;
use std::sync::Arc;

impl Committed {
    /// Reads what the maps hold, and takes back what a daemon that died in a commit had
    /// written for an epoch that never came.
    pub fn recover(mut store: Store, maps: &Maps) -> Result<Self> {
        maps.config.update(|config| config.flags &= !Config::SHADOW)?;
        loader::wait_for_programs()?;
        let config = maps.config.get()?;
        store.resolve(&InKernel::of(&config))?;
        let mut state = store.load(None)?;
        feeds::fill(&mut state.set);
        state.shadow.iter_mut().for_each(|shadow| feeds::fill(&mut shadow.set));
        state.confirmation.iter_mut().for_each(|waits| feeds::fill(&mut waits.before));
        let epoch = config.epoch;
        let pending = |since: u32| (since.wrapping_sub(epoch) as i32) > 0;
        let mut live = Compiled { numbering: state.numbering.clone(), ..Compiled::default() };
        for ((addr, bits), v) in maps.bindings.entries()? {
            let now = *v.at(epoch);
            if pending(v.since) {
                maps.bindings.insert(&addr, bits, &BindingVersions { old: now, new: now, ..v })?;
            }
            live.bindings.insert(prefix(addr, bits), now);
        }
        for ((key, bits), v) in maps.scoped.entries()? {
            let now = *v.at(epoch);
            if pending(v.since) {
                maps.scoped.insert(&key, bits, &BindingVersions { old: now, new: now, ..v })?;
            }
            live.scoped.insert(ScopedPrefix::new(key, bits), now);
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
        for ((identity, bits), v) in maps.limits.entries()? {
            let now = *v.at(epoch);
            if pending(v.since) {
                maps.limits.insert(&identity, bits, &LimitVersions { old: now, new: now, ..v })?;
            }
            live.limits.insert(identity, now);
        }
        let rest = Some(Rest::default());
        let (mark, names) = (Mask::of(&config), Names::of(&state));
        Ok(Self {
            state,
            store,
            live,
            rest,
            shadow: Vec::new(),
            kinds: None,
            kept: None,
            unmarked: None,
            names: Arc::new(Published::new(names)),
            renamed: Renamed::All,
            unsaved: None,
            mark,
        })
    }
}

fn prefix(addr: Addr, bits: u32) -> Prefix {
    Prefix::new(addr, bits as u8)
}
