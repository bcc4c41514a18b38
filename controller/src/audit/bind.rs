//! What a source binds, in words.

use super::{Entry, Kind};
use crate::bindings::{Change, Claim, Slot, SourceName};
use crate::state::Author;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Claims that a record tells one by one; what is more is counted.
const TOLD: usize = 500;

/// The record of claims that a source is about to make or to take back. `before` knows what it said until now.
pub fn bind(changes: &[(SourceName, Change)], before: impl Fn(&SourceName, &Slot) -> Option<Claim>) -> Entry {
    let mut about = BTreeSet::new();
    let told = changes.iter().take(TOLD).map(|(source, change)| {
        let slot = change.slot();
        let old = before(source, &slot);
        about.extend(old.iter().map(|claim| claim.spiffe_id.to_string()));
        let mut told =
            json!({"source": source, "address": slot.to_string(), "before": old.as_ref().map(said)});
        if let Change::Set(claim) = change {
            about.insert(claim.spiffe_id.to_string());
            told["after"] = said(claim);
        }
        told
    });
    let mut what = json!({"claims": told.collect::<Vec<_>>()});
    if changes.len() > TOLD {
        what["claims_left_out"] = (changes.len() - TOLD).into();
    }
    let source = changes.first().map(|(source, _)| source.to_string()).unwrap_or_default();
    let by = Author::daemon(format!("bindings of {source}"));
    Entry { kind: Kind::Bind, by, about, what }
}

fn said(claim: &Claim) -> Value {
    json!({
        "spiffe_id": claim.spiffe_id,
        "labels": claim.labels,
        "until": claim.lease.map(|lease| lease.not_after.to_string()),
        "evidence": claim.evidence,
    })
}
