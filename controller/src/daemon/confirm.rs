//! Policies that have to be confirmed in time, and the way back to an older one.

use super::commit::Committed;
use super::{Shared, feeds, lock};
use crate::exit_code::{Code, Failure, Result};
use crate::names::Names;
use crate::state::{Author, Confirmation, How, PolicySet, Who};
use jiff::SignedDuration;
use loader::Maps;
use std::sync::Arc;

impl Shared {
    /// Applies files. With `within` what counted before counts again unless they are confirmed in time.
    pub(super) fn apply(
        &self,
        by: &Author,
        set: Arc<PolicySet>,
        within: Option<SignedDuration>,
    ) -> Result<u64> {
        self.apply_locked(&mut lock(&self.committed), by, set, within)
    }

    /// The same where `last` counts; else nothing is done, and nothing returned.
    pub(super) fn apply_after(
        &self,
        last: &Arc<PolicySet>,
        by: &Author,
        set: Arc<PolicySet>,
        within: Option<SignedDuration>,
    ) -> Result<Option<u64>> {
        let mut committed = lock(&self.committed);
        let still = Arc::ptr_eq(last, &committed.state.set);
        still.then(|| self.apply_locked(&mut committed, by, set, within)).transpose()
    }

    fn apply_locked(
        &self,
        committed: &mut Committed,
        by: &Author,
        set: Arc<PolicySet>,
        within: Option<SignedDuration>,
    ) -> Result<u64> {
        if let Some(waits) = &committed.state.confirmation {
            let message = format!(
                "revision {} waits to be confirmed until {:.0}: `tidegate policy confirm` or `tidegate policy rollback` first",
                waits.revision, waits.deadline_at
            );
            return Err(Failure::new(Code::Conflict, message));
        }
        self.commit_locked(committed, by, |state| {
            let before = state.set.clone();
            state.apply(set);
            state.confirmation = within.map(|within| Confirmation::begin(state.revision, before, within));
        })
    }

    /// Confirms what waits for it. Returns the revision that waited.
    pub(super) fn confirm(&self, by: &Author) -> Result<u64> {
        let mut committed = lock(&self.committed);
        let Some(waits) = committed.state.confirmation.clone() else {
            return Err(Failure::new(Code::Conflict, "nothing waits to be confirmed"));
        };
        if waits.is_over() {
            return Err(Failure::new(
                Code::Conflict,
                format!("it is too late: revision {} is being taken back", waits.revision),
            ));
        }
        committed.store.confirm(waits.revision, by)?;
        committed.state.confirmation = None;
        Ok(waits.revision)
    }

    /// Has the policy of an older revision count again; of the one before without a number. Blocks and quarantines that
    /// were set by hand stay. Returns the revision that this makes and the one that it returns to.
    pub(super) fn rollback(&self, who: Who, to: Option<u64>) -> Result<(u64, u64)> {
        let mut committed = lock(&self.committed);
        let to = match to {
            Some(to) => to,
            None => committed.store.before(committed.state.revision)?.ok_or_else(|| {
                Failure::new(
                    Code::Conflict,
                    "no revision with another policy is kept: `tidegate policy history`",
                )
            })?,
        };
        let mut set = Arc::new(committed.store.set_of(to)?);
        feeds::fill(&mut set);
        let by = Author { who, how: How::Rollback(to) };
        let revision = self.commit_locked(&mut committed, &by, |state| state.apply(set))?;
        Ok((revision, to))
    }

    /// Takes back what was not confirmed in time.
    pub(super) fn take_back_late(&self) -> Result<()> {
        let mut committed = lock(&self.committed);
        if let Some(late) = committed.state.confirmation.clone().filter(Confirmation::is_over) {
            committed.take_back(&self.maps, &late, false)?;
            self.hub.rename(Names::of(&committed.state));
        }
        Ok(())
    }
}

impl Committed {
    /// What the daemon begins with: the files that it was given, or what counted last, or what counted before a
    /// revision that nobody has confirmed.
    pub(super) fn begin(&mut self, maps: &Maps, given: Option<PolicySet>) -> Result<()> {
        let waits = self.state.confirmation.clone();
        let given = given.filter(|set| !self.is_on_probation(set));
        match (given, waits.filter(Confirmation::is_over)) {
            (Some(set), _) => {
                self.commit(maps, &Author::daemon("run"), |state| state.apply(Arc::new(set))).map(drop)
            }
            (None, Some(late)) => self.take_back(maps, &late, true),
            (None, None) => self.commit(maps, &Author::daemon("run"), |_| {}).map(drop),
        }
    }

    /// Whether files are those of a revision that waits to be confirmed, or that was not: a service manager that starts
    /// the daemon with them must not confirm them.
    fn is_on_probation(&self, set: &PolicySet) -> bool {
        if let Some(waits) = &self.state.confirmation
            && self.state.set.digest == set.digest
        {
            tracing::warn!(
                "the files of --policy are those of revision {}, which is not confirmed",
                waits.revision
            );
            return true;
        }
        match self.store.taken_back(&set.digest) {
            Ok(Some(revision)) => {
                tracing::warn!(
                    "the files of --policy are those of revision {revision}, which was taken back: what counted then counts; \
                     `tidegate policy apply` applies them"
                );
                true
            }
            Ok(None) => false,
            Err(e) => {
                tracing::error!("{e}");
                false
            }
        }
    }

    fn take_back(&mut self, maps: &Maps, late: &Confirmation, at_start: bool) -> Result<()> {
        let (of, before) = (late.revision, late.before.clone());
        let how = How::TakeBack { of, at_start };
        self.commit(maps, &Author::daemon(how), |state| state.apply(before))?;
        tracing::warn!("revision {of} was not confirmed in time: what counted before it counts again");
        Ok(())
    }
}
