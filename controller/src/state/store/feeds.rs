//! What stood in feeds when a revision was made: a gateway that starts enforces it before any file is there again.

use super::{Store, damaged, failed};
use crate::exit_code::Result;
use crate::policy::Documents;
use crate::policy::feed::Entries;
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The tables.
pub(super) const SCHEMA: &str = include_str!("feeds.sql");
/// The first form that has them.
const FIRST_FORM: i32 = 5;

/// Saves what a revision's feeds say. What is saved already is not written again.
pub(super) fn save(db: &Connection, revision: u64, documents: &Documents) -> rusqlite::Result<()> {
    for feed in documents.feeds() {
        let Some(written_at) = feed.entries.written_at() else { continue };
        let digest = feed.entries.digest();
        let is_there = "SELECT 1 FROM feed_content WHERE digest = ?";
        if db.query_row(is_there, [digest], |_| Ok(())).optional()?.is_none() {
            let sql = "INSERT INTO feed_content (digest, entries) VALUES (?, ?)";
            db.execute(sql, params![digest, feed.entries.encoded()])?;
        }
        db.execute(
            "INSERT OR IGNORE INTO revision_feed (revision, path, format, written_at, content) VALUES (?, ?, ?, ?, ?)",
            params![revision, feed.path, feed.format.name(), written_at.to_string(), digest],
        )?;
    }
    Ok(())
}

/// Forgets what the feeds of all other revisions said: their files say what counts if one of them is to count again.
pub(super) fn keep(db: &Connection, [one, other]: [u64; 2]) -> rusqlite::Result<()> {
    let gone = db.execute("DELETE FROM revision_feed WHERE revision NOT IN (?, ?)", [one, other])?;
    if gone > 0 {
        db.execute("DELETE FROM feed_content WHERE digest NOT IN (SELECT content FROM revision_feed)", [])?;
    }
    Ok(())
}

impl Store {
    /// Puts back what stood in the feeds of documents when `revision` was made, or else when they were read last. Of which
    /// nothing is kept has no entries.
    pub(super) fn fill_feeds(&self, documents: &mut Documents, revision: u64) -> Result<()> {
        if self.form < FIRST_FORM {
            return Ok(());
        }
        let mut known: BTreeMap<(String, String), Arc<Entries>> = BTreeMap::new();
        for feed in documents.feeds_mut() {
            let sql = "SELECT content, written_at FROM revision_feed WHERE path = ? AND format = ?
                ORDER BY revision = ? DESC, revision DESC LIMIT 1";
            let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, super::read::time(row, 1)?));
            let of = params![feed.path, feed.format.name(), revision];
            let found = self.db.query_row(sql, of, read).optional().map_err(|e| failed(&self.path, e))?;
            let Some((digest, written_at)) = found else { continue };
            let key = (digest.clone(), written_at.to_string());
            if let Some(entries) = known.get(&key) {
                feed.entries = entries.clone();
                continue;
            }
            let sql = "SELECT entries FROM feed_content WHERE digest = ?";
            let decode = |row: &Row<'_>| {
                let bytes = row.get_ref(0)?.as_blob()?;
                Ok(Entries::decoded(bytes, written_at, digest.clone()))
            };
            let entries = self.db.query_row(sql, [&digest], decode).map_err(|e| failed(&self.path, e))?;
            let entries = entries.ok_or_else(|| damaged(&self.path, "feed", &feed.path))?;
            feed.entries = Arc::new(entries);
            known.insert(key, feed.entries.clone());
        }
        Ok(())
    }
}
