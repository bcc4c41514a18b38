//! Bindings that change without a compile.
//!
//! As a commit, but of bindings alone: recorded first, then written as the versions of the next epoch, then the epoch is flipped.
//! What changes a policy, or whose kind is not known, is a commit (docs/adr/0017-bindings-of-sources.md).

use super::bind::Ambiguity;
use super::commit::{Committed, Rest, Written};
use crate::bindings::{Change, Slot, SourceName};
use crate::exit_code::{Code, Failure, Result};
use crate::policy::classes::Holder;
use crate::policy::kinds::Kinds;
use crate::policy::scope::Scope;
use crate::policy::spiffe::SpiffeId;
use crate::policy::trie::{TrieKey, lookup};
use crate::policy::{Clock, MapDelete, MapWrite, Prefix, ScopedPrefix};
use crate::state::Author;
use datapath::abi::{Binding, BindingVersions};
use datapath::scope::segment;
use jiff::Timestamp;
use loader::Maps;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// More than so many addresses at once are compiled: that finds selectors faster.
const FEW: usize = 1000;

/// What became of changes.
#[derive(Debug)]
pub struct Rebound {
    /// Those that changed something.
    pub changes: Vec<Change>,
    /// Numbers that identities were given.
    pub given: Vec<(SpiffeId, u32)>,
    /// Whether it took a compile.
    pub compiled: bool,
    /// When they were recorded: from then on they outlive the daemon.
    pub accepted: Instant,
}

/// What is to be written where no compile is needed.
#[derive(Debug, Default)]
struct Plan {
    writes: Vec<MapWrite>,
    /// Leases that only grow longer.
    renewals: Vec<(Prefix, Binding)>,
    /// What bindings are afterwards.
    after: Vec<(Prefix, Option<Binding>)>,
    given: Vec<(SpiffeId, u32)>,
}

impl Committed {
    /// Has a source say something else than before. Afterwards packets are judged by it; on failure nothing has changed.
    pub fn rebind(&mut self, maps: &Maps, source: &SourceName, changes: Vec<Change>) -> Result<Rebound> {
        self.mark_late()?;
        let changes = self.state.bindings.news(source, changes);
        let before: Vec<Change> = changes.iter().map(|change| self.as_it_is(source, change.slot())).collect();
        Arc::make_mut(&mut self.state.bindings).apply(source, changes.iter().cloned());
        let (plan, given) = self.plan(&changes);
        // Before anything is bound to them.
        self.names.learn(given.iter().map(|(id, number)| (id.as_str(), *number)));
        let done = self.record_and_write(maps, source, &changes, plan, &given);
        match done {
            Ok((compiled, accepted)) => Ok(Rebound { changes, given, compiled, accepted }),
            Err(e) => {
                Arc::make_mut(&mut self.state.bindings).apply(source, before.iter().cloned());
                let back: Vec<_> = before.into_iter().map(|change| (source.clone(), change)).collect();
                if let Err(also) = self.store.bind(&back, &[]) {
                    tracing::error!("{also}");
                }
                Err(Failure::new(e.code, format!("{e}; nothing was changed")))
            }
        }
    }

    /// Whether the wall clock was set since deadlines were computed: what ends by it ends too late or too early, until a commit.
    pub fn is_clock_set(&self) -> bool {
        let clock = Clock { wall_now: Timestamp::now(), boot_now_ns: loader::boot_ns() };
        !self.state.numbering.keeps_deadlines(&clock)
    }

    /// What makes a slot what it is now.
    fn as_it_is(&self, source: &SourceName, slot: Slot) -> Change {
        self.state.bindings.get(source, &slot).cloned().map_or(Change::Withdraw(slot), Change::Set)
    }

    fn record_and_write(
        &mut self,
        maps: &Maps,
        source: &SourceName,
        changes: &[Change],
        plan: Option<Plan>,
        given: &[(SpiffeId, u32)],
    ) -> Result<(bool, Instant)> {
        let recorded: Vec<_> = changes.iter().map(|change| (source.clone(), change.clone())).collect();
        if changes.is_empty() {
            return Ok((false, Instant::now()));
        }
        let recorded =
            self.mark.check(&self.state.numbering).and_then(|()| self.store.bind(&recorded, given));
        if let Err(e) = recorded {
            self.state.numbering.forget(given);
            return Err(e);
        }
        let accepted = Instant::now();
        match plan {
            Some(plan) => self.carry_out(maps, plan).map(|()| (false, accepted)),
            None => {
                let by = Author::daemon(format!("bindings of {source}"));
                self.commit(maps, &by, |_| {}).map(|_| (true, accepted))
            }
        }
    }

    /// What changed claims come to, nothing where that takes a compile; and numbers that identities were given for it.
    fn plan(&mut self, changes: &[Change]) -> (Option<Plan>, Vec<(SpiffeId, u32)>) {
        let touched: BTreeSet<Prefix> = changes.iter().map(|change| change.slot().address).collect();
        if touched.len() > FEW || !self.shadow.is_empty() || self.state.shadow.is_some() {
            return (None, Vec::new());
        }
        // Ends are computed by the wall clock as it was: where it was set since, all of them are others.
        if self.is_clock_set() {
            return (None, Vec::new());
        }
        let kinds = self.kinds.take().unwrap_or_else(|| self.kinds_now());
        let mut plan = Plan::default();
        let is_quick = touched.iter().all(|prefix| self.plan_one(&kinds, *prefix, &mut plan).is_some());
        self.kinds = Some(kinds);
        let given = std::mem::take(&mut plan.given);
        (is_quick.then_some(plan), given)
    }

    fn kinds_now(&self) -> Kinds {
        let documents = self.state.effective(Timestamp::now());
        Kinds::of(&documents, &self.state.documents().workloads, &self.state.numbering)
    }

    /// Works out what the next binding needs, so that it need not wait for that, where sources bind.
    pub fn prepare_kinds(&mut self) {
        if self.kinds.is_none() && self.state.bindings.iter().next().is_some() {
            self.kinds = Some(self.kinds_now());
        }
    }

    fn plan_one(&mut self, kinds: &Kinds, prefix: Prefix, plan: &mut Plan) -> Option<()> {
        if prefix.bits() != 128 || kinds.is_contested(&prefix) {
            return None;
        }
        let now =
            |prefix: Prefix| lookup(&self.live.bindings, &prefix).map_or(Binding::NONE, |(_, own)| *own);
        if now(prefix).on_expiry & Binding::ASKS != 0 {
            return None;
        }
        let mut claims = self.state.bindings.at(prefix);
        let (first, second) = (claims.next(), claims.next());
        let current = self.live.bindings.get(&prefix).copied();
        let above = || now(prefix.truncated(prefix.bits() - 1));
        let versions = |old, new| MapWrite::Binding(prefix, BindingVersions { since: 0, _pad: 0, old, new });
        match (first, second) {
            (None, _) => {
                if let Some(current) = current {
                    plan.writes.push(versions(current, above()));
                    plan.after.push((prefix, None));
                }
            }
            (Some((source, claim)), None) if claim.scope.is_none() => {
                let workload = claim.workload(source, &claim.labels);
                let (old, numbering) = (current.unwrap_or_else(above), &mut self.state.numbering);
                let (new, given) = kinds.binding(&workload, &prefix, &self.live, numbering)?;
                plan.given.extend(given);
                if current == Some(new) {
                    return Some(());
                }
                if current.is_some_and(|current| is_renewal(&current, &new)) {
                    plan.renewals.push((prefix, new));
                } else {
                    plan.writes.push(versions(old, new));
                }
                plan.after.push((prefix, Some(new)));
            }
            _ => return None,
        }
        Some(())
    }

    fn carry_out(&mut self, maps: &Maps, plan: Plan) -> Result<()> {
        // Packets may still be judged by the epoch before: what it left must not be written over while they are.
        let is_touched =
            |written: &Written| plan.after.iter().any(|(prefix, _)| written.bindings.contains(prefix));
        if self.rest.as_ref().is_some_and(|rest| rest.written.as_ref().is_none_or(is_touched)) {
            self.settle(maps)?;
        }
        let failed = |e: loader::Error| Failure::new(Code::Failure, e.to_string());
        if !plan.writes.is_empty() {
            let next = maps.config.get()?.epoch.wrapping_add(1);
            let since = |write: &MapWrite| match *write {
                MapWrite::Binding(prefix, versions) => {
                    MapWrite::Binding(prefix, BindingVersions { since: next, ..versions })
                }
                other => other,
            };
            let writes: Vec<_> = plan.writes.iter().map(since).collect();
            self.write_all(maps, &writes)?;
            if let Err(e) = maps.config.update(|config| config.epoch = next) {
                self.give_up(maps, &writes);
                return Err(failed(e));
            }
            self.state.epoch = next;
            let rest = self
                .rest
                .get_or_insert_with(|| Rest { written: Some(Written::default()), ..Rest::default() });
            if let Some(written) = &mut rest.written {
                written.bindings.extend(plan.after.iter().map(|(prefix, _)| *prefix));
            }
            let gone = plan.after.iter().filter(|(_, binding)| binding.is_none());
            rest.gone.extend(gone.map(|(prefix, _)| MapDelete::Binding(*prefix)));
        }
        for (prefix, new) in &plan.renewals {
            // Both versions: whoever asks in which epoch ever is told of the longer lease.
            let versions = BindingVersions { since: 0, _pad: 0, old: *new, new: *new };
            maps.bindings.insert(&prefix.addr(), prefix.bits(), &versions).map_err(failed)?;
        }
        if !plan.renewals.is_empty() {
            maps.forget_lookups().map_err(failed)?;
        }
        for (prefix, binding) in plan.after {
            match binding {
                Some(binding) => self.live.bindings.insert(prefix, binding),
                None => self.live.bindings.remove(&prefix),
            };
        }
        Ok(())
    }

    /// What several identities claim.
    pub fn ambiguous(&self) -> impl Iterator<Item = Prefix> {
        let all = self.live.bindings.iter();
        all.filter(|(_, binding)| is_nobodys(binding)).map(|(prefix, _)| *prefix)
    }

    /// Whether an address that several identities claim is one's by now: the leases of the others are over.
    pub(super) fn is_settled_by_time(&self, now: Timestamp) -> bool {
        self.ambiguous().any(|prefix| {
            let files =
                self.state.documents().workloads.iter().filter(|w| w.addresses.contains(&prefix)).cloned();
            let claims =
                self.state.bindings.at(prefix).map(|(source, claim)| claim.workload(source, &claim.labels));
            let all: Vec<_> = files.chain(claims).collect();
            !all.is_empty() && Holder::of(&all.iter().collect::<Vec<_>>(), now) != Holder::Ambiguous
        })
    }

    /// The segment that a scope names; nothing where it is about ports.
    fn segment(&self, scope: &Scope) -> Option<u32> {
        let interface = match &scope.interface {
            Some(name) => *self.live.named_interfaces.get(name)?,
            None => 0,
        };
        scope.ports.is_empty().then(|| segment(interface, scope.vlan.unwrap_or(0)))
    }

    /// Which of these slots several identities claim, and who does.
    pub fn ambiguities(&self, slots: impl IntoIterator<Item = Slot>) -> Vec<Ambiguity> {
        let slots: BTreeSet<Slot> = slots.into_iter().collect();
        let is_ambiguous = |slot: &Slot| match self.segment(&slot.scope) {
            Some(0) => self.live.bindings.get(&slot.address).is_some_and(is_nobodys),
            Some(segment) => {
                self.live.scoped.get(&ScopedPrefix::of(segment, &slot.address)).is_some_and(is_nobodys)
            }
            None => false,
        };
        let files = &self.state.documents().workloads;
        let of = |slot: Slot| {
            let claimed =
                files.iter().filter(|w| w.scope == slot.scope && w.addresses.contains(&slot.address));
            let mut claimants: Vec<_> =
                claimed.map(|w| (w.spiffe_id.to_string(), w.place.to_string())).collect();
            let claims = self.state.bindings.at(slot.address).filter(|(_, claim)| claim.scope == slot.scope);
            claimants.extend(claims.map(|(source, claim)| (claim.spiffe_id.to_string(), source.to_string())));
            Ambiguity { slot, claimants }
        };
        slots.into_iter().filter(is_ambiguous).map(of).collect()
    }
}

fn is_nobodys(binding: &Binding) -> bool {
    binding.identity == Binding::AMBIGUOUS
}

/// Whether only the lease is another, and ends no earlier.
fn is_renewal(current: &Binding, new: &Binding) -> bool {
    let end = |b: &Binding| b.not_after_ns.saturating_add(u64::from(b.grace_s) * 1_000_000_000);
    let same = Binding { not_after_ns: new.not_after_ns, grace_s: new.grace_s, ..*current } == *new;
    same && new.not_after_ns >= current.not_after_ns && end(new) >= end(current)
}
