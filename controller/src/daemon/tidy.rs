//! What is done behind a commit, when whoever asked for it has the answer, and commits that the time of day asks for.

use super::{Shared, lock};
use crate::exit_code::Result;
use crate::policy::Documents;
use crate::policy::document::Rule;
use crate::state::Author;
use jiff::Timestamp;
use std::sync::Arc;

/// Tidies up after each commit.
pub(super) async fn behind_commits(shared: Arc<Shared>) {
    loop {
        shared.untidy.notified().await;
        let shared = shared.clone();
        match tokio::task::spawn_blocking(move || shared.tidy()).await {
            Ok(Err(e)) => tracing::warn!("{e}"),
            Err(e) => tracing::error!("{e}"),
            Ok(Ok(())) => {}
        }
    }
}

impl Shared {
    /// Does what commits left to be done, and works out what the next one needs. Nobody is kept waiting while packets are waited for.
    pub(super) fn tidy(&self) -> Result<()> {
        lock(&self.committed).mark_late()?;
        loop {
            // The lock is given back here.
            let unsettled = lock(&self.committed).unsettled();
            let Some(epoch) = unsettled else { break };
            loader::wait_for_programs()?;
            let mut committed = lock(&self.committed);
            if committed.unsettled() == Some(epoch) {
                committed.sweep(&self.maps)?;
            }
        }
        let mut committed = lock(&self.committed);
        committed.prepare();
        committed.prepare_kinds();
        Ok(())
    }

    /// Has rules begin and end with their hours. What they let pass, the kernel ends by itself.
    pub(super) fn let_hours_change(&self) -> Result<()> {
        let now = Timestamp::now();
        let changed = self.with_state(|state| {
            let since = state.applied_at.unwrap_or(now);
            let others = state.documents().policies.iter().flat_map(|policy| {
                let is_other = |rule: &&Rule| rule.hours.is_some() && rule.open(since) != rule.open(now);
                policy.rules.iter().filter(is_other).map(|rule| Documents::rule_key(&policy.name, &rule.name))
            });
            others.collect::<Vec<_>>()
        });
        if !changed.is_empty() {
            self.commit(&Author::daemon(format!("hours: {}", changed.join(", "))), |_| {})?;
        }
        Ok(())
    }
}
