//! What the daemon records of itself.

use super::args::RunArgs;
use super::commit::Committed;
use super::settings::Settings;
use super::{Shared, lock};
use crate::audit::{Entry, Key, Kind};
use crate::exit_code::{Failure, Result};
use crate::state::{Author, Store};
use loader::Ingress;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

impl Shared {
    /// Records what is about to be done. Where that fails, it must not be done.
    pub(super) fn record(&self, kind: Kind, by: &Author, what: Value) -> Result<()> {
        self.record_about(kind, by, BTreeSet::new(), what)
    }

    /// The same, of what concerns these SPIFFE IDs.
    pub(super) fn record_about(
        &self,
        kind: Kind,
        by: &Author,
        about: BTreeSet<String>,
        what: Value,
    ) -> Result<()> {
        let mut committed = lock(&self.committed);
        committed.store.record(&Entry { kind, by: by.clone(), about, what })?;
        self.tell_of_records(&committed);
        Ok(())
    }

    /// Tells of what was recorded. That this fails undoes nothing.
    pub(super) fn tell_of_records(&self, committed: &Committed) {
        if let Err(e) = self.hub.tell_of_records(&committed.store) {
            tracing::error!("records are not told: {e}");
        }
    }

    /// Signs what was recorded, where that is due.
    pub(super) fn sign(&self, due: bool) -> Result<()> {
        lock(&self.committed).store.checkpoint(&self.audit_key, due)
    }

    /// Records that the daemon ends. What it attached goes on, whether that can be recorded or not.
    pub(super) fn record_stop(&self, failure: Option<&Failure>) {
        let why = failure.map_or_else(|| "it was asked to".into(), ToString::to_string);
        let done = self.record(Kind::Stop, &Author::daemon("run"), json!({"why": why}));
        if let Err(e) = done.and_then(|()| self.sign(true)) {
            tracing::error!("{e}");
        }
    }
}

/// Records that a daemon starts, before it does anything.
pub(super) fn record_start(
    store: &mut Store,
    key: &Key,
    args: &RunArgs,
    (interfaces, settings): (&[(String, Ingress)], &Settings),
    (reused, cut): (bool, Option<u64>),
) -> Result<()> {
    let interfaces: Vec<_> = interfaces.iter().map(|(name, _)| name).collect();
    let policy: Vec<_> = args.policy.iter().map(|path| path.display().to_string()).collect();
    let mut what = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "options": settings.told(),
        "interfaces": interfaces,
        "policy": policy,
        "maps": if reused { "taken over" } else { "new" },
        "boot_id": crate::state::boot_id(),
        "key": key.public().hex(),
        "unclean": store.last_daemon_did_not_end()?,
    });
    // For ever, so that who verifies it later sees it too.
    if let Some(told) = cut {
        what["told_of"] = told.into();
    }
    store.record(&Entry::new(Kind::Start, &Author::daemon("run"), what))
}

/// Records that it did not come to that.
pub(super) fn record_failed_start(path: &Path, failure: &Failure) {
    let what = json!({"why": format!("it could not start: {failure}")});
    let record = |mut store: Store| store.record(&Entry::new(Kind::Stop, &Author::daemon("run"), what));
    if path.exists()
        && let Err(e) = Store::open(path).and_then(record)
    {
        tracing::error!("{e}");
    }
}
