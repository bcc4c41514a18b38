//! Commits: what the kernel is to hold, changed so that no packet sees a part of it.

pub use super::entries::{remove, write};

use super::crash::{Step, may_end};
use super::entries::{remove_many, write_many};
use super::mark::Mask;
use crate::exit_code::{Code, Failure, Result};
use crate::names::{Published, Revoked};
use crate::policy::contain::Changed;
use crate::policy::difference::{Difference, Kept};
use crate::policy::gateway::{Gateway, configure};
use crate::policy::grant::Grant;
use crate::policy::kinds::Kinds;
use crate::policy::numbering::{Counted, Numbered};
use crate::policy::quarantine::Quarantine;
use crate::policy::{
    Clock, Compiled, Documents, MapDelete, MapWrite, Numbering, PolicyPrefix, Prefix, RuleInfo, compile_with,
    diff, sweep,
};
use crate::state::{Author, Given, InKernel, State, Store};
use datapath::abi::{Config, Interface};
use jiff::Timestamp;
use loader::Maps;
use std::collections::{BTreeMap, HashSet};
use std::mem::take;
use std::sync::{Arc, mpsc};
use std::thread;

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
    /// What rules and classes that count come from; nothing where that has to be worked out anew.
    pub(super) kept: Option<Kept>,
    /// What the store could not yet be told of the state that counts.
    pub(super) unmarked: Option<Unmarked>,
    /// The names by which events are told: what an epoch names otherwise is told before it comes.
    pub(super) names: Arc<Published>,
    /// What the last commit named otherwise.
    pub(super) renamed: Renamed,
    /// How many numbers the store has been told of, while some are given or it could not be told of them.
    pub(super) unsaved: Option<Counted>,
    /// Bits that have to have room for every identity.
    pub(super) mark: Mask,
}

/// What a commit leaves to be done: packets may still be judged by the epoch before it.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// Entries that nobody asks for any more, once those packets are gone.
    pub(super) gone: Vec<MapDelete>,
    /// What was written; `None` for more than these.
    pub(super) written: Option<Written>,
}

/// Entries that were written since packets were waited for.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) bindings: HashSet<Prefix>,
    decisions: HashSet<PolicyPrefix>,
    guards: HashSet<PolicyPrefix>,
    rules: HashSet<u32>,
}

impl Written {
    /// Whether one of these writes would be the second since.
    fn meets(&self, writes: &[MapWrite]) -> bool {
        writes.iter().any(|write| match write {
            MapWrite::Binding(key, _) => self.bindings.contains(key),
            MapWrite::Decision(key, _) => self.decisions.contains(key),
            MapWrite::Guard(key, _) => self.guards.contains(key),
            MapWrite::Rule(key, _) => self.rules.contains(key),
            _ => true,
        })
    }

    fn extend(&mut self, writes: &[MapWrite]) {
        for write in writes {
            match write {
                MapWrite::Binding(key, _) => drop(self.bindings.insert(*key)),
                MapWrite::Decision(key, _) => drop(self.decisions.insert(*key)),
                MapWrite::Guard(key, _) => drop(self.guards.insert(*key)),
                MapWrite::Rule(key, _) => drop(self.rules.insert(*key)),
                _ => {}
            }
        }
    }
}

/// What the store is to be told of a commit that counts.
#[derive(Debug)]
pub(super) struct Unmarked {
    before: u64,
    rules: Vec<(u32, RuleInfo)>,
}

/// What has another name than before.
#[derive(Debug, Default)]
pub(super) enum Renamed {
    /// Perhaps everything.
    #[default]
    All,
    /// Rules, and all of it was told ahead of the epoch.
    Rules,
}

impl Committed {
    /// Does what the last commit left to be done. Waits for packets that are being judged: about 10 ms, once a commit.
    ///
    /// Two versions are enough for two epochs: before a third is written, no packet may be left that reads the first.
    pub fn settle(&mut self, maps: &Maps) -> Result<()> {
        self.mark_late()?;
        if self.rest.is_some() {
            loader::wait_for_programs()?;
            self.sweep(maps)?;
        }
        Ok(())
    }

    /// The epoch whose commit left something to be done. Who waits for packets since then may [`Self::sweep`] while it is still this one.
    pub(super) fn unsettled(&self) -> Option<u32> {
        self.rest.as_ref().map(|_| self.state.epoch)
    }

    /// Removes what only epochs before this needed. No packet may be judged by one of them any more.
    pub(super) fn sweep(&mut self, maps: &Maps) -> Result<()> {
        let Some(rest) = &self.rest else { return Ok(()) };
        remove_many(maps, &rest.gone)?;
        if !self.live.names_nobody() {
            maps.config.update(|config| config.flags |= Config::NOBODY_NAMED)?;
        }
        self.rest = None;
        may_end(Step::Swept { revision: self.state.revision });
        Ok(())
    }

    /// Works out what the next change of a rule needs, so that it need not wait for that.
    pub fn prepare(&mut self) {
        if self.kept.is_none() && !self.live.classes.is_empty() {
            let by_hand = self.state.grants.iter().flat_map(Grant::selectors);
            let others = by_hand.chain(self.state.quarantines.iter().flat_map(Quarantine::peers));
            let at = self.state.applied_at.unwrap_or(Timestamp::UNIX_EPOCH);
            self.kept = Kept::of(self.state.documents(), others, &self.live, (&self.state.numbering, at));
            self.state.set.people();
        }
    }

    /// Whether the next change of a rule has all that it needs: after [`Self::prepare`], and until a commit takes a compile.
    pub fn is_prepared(&self) -> bool {
        self.kept.is_some()
    }

    /// Makes what `change` makes of the state what counts. On failure nothing has changed. Returns the revision.
    pub fn commit(&mut self, maps: &Maps, by: &Author, change: impl FnOnce(&mut State)) -> Result<u64> {
        self.mark_late()?;
        // Numbers and what they mean are many: they go through no copy of the state.
        let mut numbering = take(&mut self.state.numbering);
        let rules = take(&mut self.state.rules);
        let done = self.flip(maps, by, change, &mut numbering);
        // Given is given: what becomes of the revision does not take a number back.
        self.state.numbering = numbering;
        self.state.rules = rules;
        let (before, changed) = match done {
            Ok(done) => done,
            Err(e) => {
                self.go_on(maps);
                return Err(e);
            }
        };
        let is_new = |(number, rule): &(u32, RuleInfo)| self.state.rules.get(number) != Some(rule);
        let changed: Vec<_> = changed.into_iter().filter(is_new).collect();
        self.state.rules.extend(changed.iter().cloned());
        self.unmarked = Some(Unmarked { before, rules: changed });
        let revision = self.state.revision;
        // The kernel judges by it, so it counts; on a full disk that is written as soon as there is room.
        if let Err(e) = self.mark_late() {
            tracing::error!("revision {revision} counts, and is not marked so: {e}");
        }
        may_end(Step::Marked);
        self.go_on(maps);
        Ok(revision)
    }

    /// Whether it was or was not: a candidate that is left goes on.
    fn go_on(&mut self, maps: &Maps) {
        if self.shadow.is_empty()
            && let Err(e) = self.begin_shadow(maps)
        {
            tracing::error!("the candidate policy is not judged by any more: {e}");
        }
    }

    /// Returns the revision that counted before, and the rules that count now and may be others.
    fn flip(
        &mut self,
        maps: &Maps,
        by: &Author,
        change: impl FnOnce(&mut State),
        numbering: &mut Numbering,
    ) -> Result<(u64, Vec<(u32, RuleInfo)>)> {
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
        let counted = numbering.counted();
        self.unsaved.get_or_insert(counted);
        if let Some(difference) = self.by_difference(&state, numbering, &clock) {
            return self.flip_difference(maps, by, state, (difference, numbering, &counted));
        }
        self.settle(maps)?;
        self.end_shadow(maps)?;
        let kernel = InKernel { epoch: next, ..InKernel::of(&config) };
        let (compiled, writes) = self.compile_and_record((&state, by, &kernel), numbering, &clock)?;
        may_end(Step::Recorded);
        self.foretell(&state, compiled.rules.iter(), numbering.given_since(&counted));
        let before = self.turn_to(maps, state, &writes, |maps| turn(maps, &compiled, next))?;
        self.rest = Some(Rest { gone: sweep(&self.live, &compiled), written: None });
        (self.kinds, self.kept, self.renamed) = (None, None, Renamed::All);
        self.live = compiled;
        Ok((before, self.live.rules.clone().into_iter().collect()))
    }

    /// Compiles a state, and records its revision beside that: what the files say is there already, and takes as long to save. What it
    /// comes to is written to the kernel only when both are done. Where there is something against it, neither has happened.
    fn compile_and_record(
        &mut self,
        (state, by, kernel): (&State, &Author, &InKernel),
        numbering: &mut Numbering,
        clock: &Clock,
    ) -> Result<(Compiled, Vec<MapWrite>)> {
        let Self { store, state: before, live, mark, unsaved, .. } = self;
        thread::scope(|scope| {
            let (give, given) = mpsc::channel();
            let record = move || store.begin(state, kernel, by, before, || given.recv().ok());
            let recorded = scope.spawn(record);
            let mut compiled = compile_with(&state.effective(clock.wall_now), take(numbering), clock);
            // Numbers are many, and the state has them.
            *numbering = take(&mut compiled.numbering);
            may_end(Step::Compiled);
            let checked = mark.check(numbering);
            if checked.is_ok() {
                let given = unsaved.as_ref().map(|counted| Given::since(counted, numbering));
                let _ = give.send(given.unwrap_or_default()); // to one that failed, who says so below
            }
            drop(give);
            compiled.interfaces = interfaces(compiled.gateway.as_ref(), &compiled.named_interfaces);
            let writes = diff(live, &compiled, kernel.epoch);
            let recorded = recorded.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            checked?;
            recorded?;
            *unsaved = None;
            Ok((compiled, writes))
        })
    }

    /// What a state comes to in which nothing is another but rules, or but who is cut off by hand; nothing where that takes a compile.
    fn by_difference(
        &mut self,
        state: &State,
        numbering: &mut Numbering,
        clock: &Clock,
    ) -> Option<Difference> {
        let (before, now) = (&self.state, clock.wall_now);
        let (was, will) = (before.documents(), state.documents());
        let alike = Arc::ptr_eq(&was.workloads, &will.workloads)
            && (&was.blocklists, &was.quarantines, &was.grants, &was.limits, &was.gateway)
                == (&will.blocklists, &will.quarantines, &will.grants, &will.limits, &will.gateway)
            && (&before.blocks, &before.grants) == (&state.blocks, &state.grants)
            && Arc::ptr_eq(&before.bindings, &state.bindings);
        let shadowed = !self.shadow.is_empty() || before.shadow.is_some() || state.shadow.is_some();
        let same_files = Arc::ptr_eq(&before.set, &state.set);
        let same_cuts = before.quarantines == state.quarantines;
        if !alike || shadowed || same_files == same_cuts || !numbering.keeps_deadlines(clock) {
            return None;
        }
        if before.grants_in_force().iter().any(|grant| grant.not_after <= now) {
            return None;
        }
        // Sooner done than a compile, where nobody had the time for it yet.
        self.prepare();
        let mut kept = self.kept.take()?;
        let before = &self.state;
        let found = if same_cuts {
            let documents = (before.documents(), state.documents());
            kept.advance(documents, &before.grants_in_force(), &self.live, (numbering, now))?
        } else {
            let changed = Changed::between(&before.quarantines, &state.quarantines)?;
            let concerned = state.concerned(&changed, now)?;
            let found = kept.contain(&changed, &concerned, &self.live, (numbering, now))?;
            // Newcomers of whom something is said now, or not any more.
            let limits = state.documents().limits.clone();
            if let Some(kinds) = &mut self.kinds {
                kinds.guard(&Documents { limits, ..concerned });
            }
            found
        };
        self.kept = Some(kept);
        Some(found)
    }

    fn flip_difference(
        &mut self,
        maps: &Maps,
        by: &Author,
        state: State,
        (difference, numbering, counted): (Difference, &Numbering, &Counted),
    ) -> Result<(u64, Vec<(u32, RuleInfo)>)> {
        let next = state.epoch;
        let writes = diff(&difference.old, &difference.new, next);
        let meets = |rest: &Rest| rest.written.as_ref().is_none_or(|written| written.meets(&writes));
        if self.rest.as_ref().is_some_and(meets) {
            self.settle(maps)?;
        }
        let kernel = InKernel { epoch: next, ..InKernel::of(&maps.config.get()?) };
        let given = self.unsaved.as_ref().map(|counted| Given::since(counted, numbering));
        let recorded = self.store.begin(&state, &kernel, by, &self.state, || Some(given.unwrap_or_default()));
        recorded.inspect_err(|_| (self.kept, self.kinds) = (None, None))?;
        self.unsaved = None;
        may_end(Step::Recorded);
        let turn = |maps: &Maps| Ok(maps.config.update(|config| config.epoch = next).map(drop)?);
        self.foretell(&state, difference.new.rules.iter(), numbering.given_since(counted));
        let turned = self.turn_to(maps, state, &writes, turn);
        let before = turned.inspect_err(|_| (self.kept, self.kinds) = (None, None))?;
        let rest =
            self.rest.get_or_insert_with(|| Rest { written: Some(Written::default()), ..Rest::default() });
        if let Some(written) = &mut rest.written {
            written.extend(&writes);
        }
        rest.gone.extend(sweep(&difference.old, &difference.new));
        difference.apply(&mut self.live);
        self.renamed = Renamed::Rules;
        Ok((before, difference.new.rules.into_iter().collect()))
    }

    /// Tells of the names of an epoch that comes. If it does not, nothing is told by them.
    fn foretell<'r>(
        &self,
        state: &State,
        rules: impl Iterator<Item = (&'r u32, &'r RuleInfo)>,
        given: Vec<(Numbered, String, u32)>,
    ) {
        let rules: Vec<_> = rules.map(|(number, rule)| (*number, rule.label())).collect();
        let identities = given.iter().filter(|(kind, ..)| *kind == Numbered::Identity);
        self.names.learn(identities.map(|(_, id, number)| (id.as_str(), *number)));
        self.names.revise(state.epoch, state.revision, &rules, Revoked::all(&state.quarantines));
    }

    /// Writes the second versions of a state whose revision is recorded, and flips the epoch. Returns the revision that counted before.
    fn turn_to(
        &mut self,
        maps: &Maps,
        state: State,
        writes: &[MapWrite],
        turn: impl FnOnce(&Maps) -> Result<()>,
    ) -> Result<u64> {
        let written =
            look_up_nobody(maps, writes).and_then(|()| self.write_all(maps, writes)).and_then(|()| {
                may_end(Step::Written);
                turn(maps).inspect_err(|_| self.give_up(maps, writes))
            });
        if let Err(e) = written {
            if let Err(also) = self.store.refuse(state.revision, &e.message) {
                tracing::error!("{also}");
            }
            return Err(Failure::new(e.code, format!("{e}; nothing was changed")));
        }
        may_end(Step::Flipped);
        Ok(std::mem::replace(&mut self.state, state).revision)
    }

    /// Tells the store that the revision counts by which the kernel judges.
    pub(super) fn mark_late(&mut self) -> Result<()> {
        if let Some(unmarked) = &self.unmarked {
            self.store.mark(&self.state, unmarked.before, &unmarked.rules)?;
            self.unmarked = None;
        }
        Ok(())
    }

    /// Whether interfaces that have settings came or went.
    pub fn interfaces_changed(&self) -> bool {
        interfaces(self.live.gateway.as_ref(), &self.live.named_interfaces) != self.live.interfaces
    }

    pub(super) fn write_all(&self, maps: &Maps, writes: &[MapWrite]) -> Result<()> {
        let (one, other) = writes.split_at(writes.len() / 2);
        let failed = |before: usize, (n, e): (usize, loader::Error)| {
            self.give_up(maps, &writes[..before + n]);
            Failure::new(Code::Failure, e.to_string())
        };
        write_many(maps, one).map_err(|e| failed(0, e))?;
        may_end(Step::HalfWritten);
        write_many(maps, other).map_err(|e| failed(one.len(), e))
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

/// Has the programs look up sources without an identity, if one of the writes is of them: ahead of the epoch that has such a rule, or a
/// packet of it could miss that.
fn look_up_nobody(maps: &Maps, writes: &[MapWrite]) -> Result<()> {
    let is_of_nobody =
        |one: &MapWrite| matches!(one, MapWrite::Decision(prefix, _) if prefix.key.is_of_nobody());
    if writes.iter().any(is_of_nobody) {
        maps.config.update(|config| config.flags &= !Config::NOBODY_NAMED)?;
    }
    Ok(())
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
