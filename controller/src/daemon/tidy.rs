//! What is done behind a commit, when whoever asked for it has the answer.

use super::{Shared, lock};
use crate::exit_code::Result;
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
        lock(&self.committed).prepare();
        Ok(())
    }
}
