//! The audit record, which is in the same file: a change and its record are written at once or not at all.

use super::write::Room;
use super::{Outcome, Store, failed};
use crate::audit::{self, Entry, Head, Key, Kind};
use crate::bindings::{Claim, Slot, SourceName};
use crate::exit_code::Result;
use crate::state::Author;
use rusqlite::Connection;
use serde_json::json;

impl Store {
    /// Records what is about to be done. Where that fails, it must not be done.
    pub fn record(&mut self, entry: &Entry) -> Result<()> {
        self.transact(Room::Reserved, |db| audit::append(db, entry).map(drop))
    }

    /// What a source says of an address.
    pub(super) fn claim(&self, source: &SourceName, slot: &Slot) -> Option<Claim> {
        let slot = serde_json::to_string(slot).ok()?;
        let sql = "SELECT claim FROM binding WHERE source = ? AND slot = ?";
        let claim: String = self.db.query_row(sql, [source.as_str(), &slot], |row| row.get(0)).ok()?;
        serde_json::from_str(&claim).ok()
    }

    /// Signs what has been recorded, where that is due.
    pub fn checkpoint(&mut self, key: &Key, due: bool) -> Result<()> {
        self.transact(Room::Reserved, |db| audit::checkpoint(db, key, due))
    }

    /// Whether a daemon started of which no end is recorded.
    pub fn last_daemon_did_not_end(&self) -> Result<bool> {
        audit::last_of(&self.db, &[Kind::Start, Kind::Stop])
            .map(|last| last == Some(Kind::Start))
            .map_err(|e| failed(&self.path, e))
    }

    /// The last record.
    pub fn audit_head(&self) -> Result<Head> {
        audit::head(&self.db).map_err(|e| failed(&self.path, e))
    }

    /// Every record from the one after `after`: number, text, hash.
    pub fn audit(&self, after: u64, each: impl FnMut(u64, String, String) -> Result<()>) -> Result<()> {
        audit::read(&self.db, after, each).map_err(|e| failed(&self.path, e))?
    }
}

/// Records what became of a revision.
pub(super) fn outcome(
    db: &Connection,
    revision: u64,
    outcome: Outcome,
    why: Option<&str>,
) -> rusqlite::Result<()> {
    let mut what = json!({"revision": revision, "outcome": outcome.name()});
    if let Some(why) = why {
        what["why"] = why.into();
    }
    audit::append(db, &Entry::new(Kind::Outcome, &Author::daemon("commit"), what)).map(drop)
}
