//! state.json, in which the state was before it was in SQLite.

use crate::exit_code::{Failure, Result};
use crate::policy::compile::RuleInfo;
use crate::policy::document::BlockEntry;
use crate::policy::quarantine::Quarantine;
use crate::policy::{Documents, Numbering};
use crate::state::{PolicySet, Shadow, State};
use jiff::Timestamp;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

#[derive(Deserialize)]
struct Saved {
    revision: u64,
    epoch: u32,
    applied_at: Option<Timestamp>,
    documents: Documents,
    blocks: Vec<BlockEntry>,
    #[serde(default)]
    quarantines: Vec<Quarantine>,
    #[serde(default)]
    shadow: Option<SavedShadow>,
    numbering: Numbering,
    rules: BTreeMap<u32, RuleInfo>,
}

#[derive(Deserialize)]
struct SavedShadow {
    documents: Documents,
    sample: u32,
    since: Timestamp,
}

/// Reads it; `None` where there is none.
pub fn read(path: &Path) -> Result<Option<State>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Failure::io(format!("read {}", path.display()), &e)),
    };
    let saved: Saved = serde_json::from_str(&text).map_err(|e| {
        Failure::failed(format!("{} is damaged; move it away to start anew", path.display()), e)
    })?;
    let shadow = saved.shadow.map(|shadow| Shadow {
        set: Arc::new(PolicySet::of_documents(shadow.documents)),
        sample: shadow.sample,
        since: shadow.since,
    });
    Ok(Some(State {
        revision: saved.revision,
        epoch: saved.epoch,
        applied_at: saved.applied_at,
        set: Arc::new(PolicySet::of_documents(saved.documents)),
        blocks: saved.blocks,
        quarantines: saved.quarantines,
        grants: Vec::new(),
        bindings: Arc::default(),
        confirmation: None,
        shadow,
        numbering: saved.numbering,
        rules: saved.rules,
    }))
}
