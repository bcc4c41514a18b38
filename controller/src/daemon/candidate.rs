//! A candidate policy that is judged beside the one that counts.

use super::commit::Committed;
use crate::exit_code::Result;
use crate::policy::gateway::configure;
use crate::policy::{Clock, MapWrite, compile, diff};
use crate::state::{Shadow, State};
use datapath::abi::Config;
use jiff::Timestamp;
use loader::Maps;

impl Committed {
    /// Has the candidate of the state judged beside what counts: its versions of all that would change are written for
    /// the next epoch, which does not come.
    pub(super) fn begin_shadow(&mut self, maps: &Maps) -> Result<()> {
        let Some(shadow) = self.state.shadow.clone() else {
            return Ok(());
        };
        self.settle(maps)?;
        let now = Timestamp::now();
        let clock = Clock { wall_now: now, boot_now_ns: loader::boot_ns() };
        let mut candidate = self.state.clone();
        candidate.apply(shadow.set);
        let compiled = compile(&candidate.effective(now), &self.state.numbering, &clock);
        let (gateway, default_allow) = (compiled.gateway.clone(), compiled.default_allow);
        let config = maps.config.get()?;
        let writes = diff(&self.live, &compiled, config.epoch.wrapping_add(1));
        // Interfaces are not judged by: what holds for them says what is done with a verdict.
        let writes: Vec<_> = writes.into_iter().filter(|w| !matches!(w, MapWrite::Interface(..))).collect();
        self.write_all(maps, &writes)?;
        self.shadow = writes;
        let mut state = self.state.clone();
        state.numbering = compiled.numbering.clone();
        for (number, rule) in compiled.rules {
            // What counts says what a rule means that both have.
            state.rules.entry(number).or_insert(rule);
        }
        self.save_candidate(state)?;
        let mut judged_by = config;
        configure(gateway.as_ref(), &mut judged_by);
        judged_by.flags &= !(Config::DEFAULT_ALLOW | Config::SHADOW | Config::NOBODY_NAMED);
        if default_allow {
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
    pub(super) fn end_shadow(&mut self, maps: &Maps) -> Result<()> {
        let writes = std::mem::take(&mut self.shadow);
        if maps.config.get()?.has(Config::SHADOW) {
            maps.config.update(|config| config.flags &= !Config::SHADOW)?;
            loader::wait_for_programs()?;
        }
        self.give_up(maps, &writes);
        Ok(())
    }

    /// Judges by a candidate too, from now on; `None` ends that. What was counted before is forgotten when one begins.
    pub fn shadow(&mut self, maps: &Maps, candidate: Option<Shadow>) -> Result<()> {
        self.settle(maps)?;
        self.end_shadow(maps)?;
        if candidate.is_some() {
            for key in maps.shadow.entries()?.into_keys() {
                maps.shadow.remove(&key)?;
            }
        }
        self.keep(candidate)?;
        let begun = self.begin_shadow(maps);
        if begun.is_err() {
            self.keep(None)?;
        }
        begun
    }

    fn keep(&mut self, candidate: Option<Shadow>) -> Result<()> {
        self.save_candidate(State { shadow: candidate, ..self.state.clone() })
    }

    fn save_candidate(&mut self, state: State) -> Result<()> {
        self.store.save_candidate(&state, &self.state)?;
        self.state = state;
        Ok(())
    }
}
