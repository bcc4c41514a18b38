//! A record: what was done, when, by whom, and which record it follows.

use super::canonical;
use crate::state::{Author, Who};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// The form of the records.
const FORM: u64 = 1;
/// What the first record follows.
pub const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What a record tells of.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A daemon starts
    Start,
    /// A daemon ends, and said so
    Stop,
    /// A revision is about to be made
    Commit,
    /// What became of a revision
    Outcome,
    /// A revision was confirmed
    Confirm,
    /// A source binds addresses to identities, or takes that back
    Bind,
    /// Options of the daemon have changed
    Settings,
    /// A finding was contained, resolved or muted
    Finding,
    /// A containment was asked for, approved, rejected, or not answered
    Approval,
    /// Containment was paused, or goes on
    Brake,
    /// Programs were attached
    Attach,
    /// Programs were taken off
    Detach,
    /// All records before it, signed
    Checkpoint,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Start,
        Self::Stop,
        Self::Commit,
        Self::Outcome,
        Self::Confirm,
        Self::Bind,
        Self::Settings,
        Self::Finding,
        Self::Approval,
        Self::Brake,
        Self::Attach,
        Self::Detach,
        Self::Checkpoint,
    ];

    /// In records and for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Commit => "commit",
            Self::Outcome => "outcome",
            Self::Confirm => "confirm",
            Self::Bind => "bind",
            Self::Settings => "settings",
            Self::Finding => "finding",
            Self::Approval => "approval",
            Self::Brake => "brake",
            Self::Attach => "attach",
            Self::Detach => "detach",
            Self::Checkpoint => "checkpoint",
        }
    }
}

/// What is to be recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What it tells of.
    pub kind: Kind,
    /// Who did it.
    pub by: Author,
    /// SPIFFE IDs that it concerns, as they were then.
    pub about: BTreeSet<String>,
    /// The rest, by its kind.
    pub what: Value,
}

impl Entry {
    /// One that concerns no identity.
    pub fn new(kind: Kind, by: &Author, what: Value) -> Self {
        Self { kind, by: by.clone(), about: BTreeSet::new(), what }
    }
}

/// A place in the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Number of a record; 0 before the first.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
}

impl Default for Head {
    fn default() -> Self {
        Self { seq: 0, hash: NOTHING.into() }
    }
}

/// The hash of a record's text.
pub fn hash(record: &str) -> String {
    Sha256::digest(record.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text of the record that follows `last`, and its place.
pub fn next(last: &Head, at: Timestamp, entry: &Entry) -> (String, Head) {
    let mut record = json!({
        "v": FORM,
        "seq": last.seq + 1,
        "prev": last.hash,
        "at": at.to_string(),
        "kind": entry.kind.name(),
        "by": by(&entry.by),
        "what": entry.what,
    });
    if !entry.about.is_empty() {
        record["about"] = json!(entry.about);
    }
    let text = canonical::text(&record);
    let hash = hash(&text);
    (text, Head { seq: last.seq + 1, hash })
}

/// Who, by the name of today: names come and go, the record stays.
fn by(author: &Author) -> Value {
    let mut by = json!({"who": author.who.to_string(), "how": author.how.to_string()});
    match &author.who {
        Who::Daemon => {}
        Who::User(uid) => by["uid"] = (*uid).into(),
        Who::Workload(id) => by["spiffe_id"] = id.as_str().into(),
    }
    by
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Record {
    /// Its form.
    #[serde(rename = "v")]
    form: u64,
    /// Its number.
    pub seq: u64,
    /// The hash of the one before.
    pub prev: String,
    /// When.
    pub at: Timestamp,
    /// What it tells of; a word that a later version may have added.
    pub kind: String,
    /// Who, and how.
    pub by: Value,
    /// SPIFFE IDs that it concerns.
    #[serde(default)]
    pub about: BTreeSet<String>,
    /// The rest.
    pub what: Value,
}

impl Record {
    /// Reads the text of one.
    pub fn read(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|e| format!("it is no JSON: {e}"))?;
        let record: Self = Self::deserialize(&value).map_err(|e| format!("it is no record: {e}"))?;
        if record.form != FORM {
            return Err(format!("its form is {}, this tidegate knows {FORM}", record.form));
        }
        // A key that is there twice, for instance, is not.
        if canonical::text(&value) != text {
            return Err("it is not in the canonical form (RFC 8785)".into());
        }
        Ok(record)
    }
}
