//! The chain in SQLite. The caller brings the transaction: that of the change that is recorded.

use super::record::{self, Entry, Head, Kind};
use super::{Key, signed};
use crate::state::Author;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::json;

/// So many records wait for no checkpoint.
const UNSIGNED: u64 = 64;
/// And none so long.
const UNSIGNED_FOR: SignedDuration = SignedDuration::from_secs(60);

/// Whether there is a record at all: older versions had none.
fn is_there(db: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) FROM sqlite_master WHERE name = 'audit'";
    db.query_row(sql, [], |row| row.get::<_, u32>(0)).map(|tables| tables > 0)
}

/// The last record's place.
pub fn head(db: &Connection) -> rusqlite::Result<Head> {
    if !is_there(db)? {
        return Ok(Head::default());
    }
    let sql = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1";
    let read = |row: &rusqlite::Row<'_>| Ok(Head { seq: row.get(0)?, hash: row.get(1)? });
    Ok(db.query_row(sql, [], read).optional()?.unwrap_or_default())
}

/// The kind of the last record that is of one of these.
pub fn last_of(db: &Connection, kinds: &[Kind]) -> rusqlite::Result<Option<Kind>> {
    let mut select = db.prepare("SELECT json_extract(record, '$.kind') FROM audit ORDER BY seq DESC")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        if let Some(kind) = kinds.iter().find(|kind| kind.name() == name) {
            return Ok(Some(*kind));
        }
    }
    Ok(None)
}

/// Adds a record.
pub fn append(db: &Connection, entry: &Entry) -> rusqlite::Result<Head> {
    let (text, place) = record::next(&head(db)?, Timestamp::now(), entry);
    let sql = "INSERT INTO audit (seq, record, hash) VALUES (?, ?, ?)";
    db.execute(sql, params![place.seq, text, place.hash])?;
    Ok(place)
}

/// Signs what no checkpoint has signed yet, where that is enough or old enough; all of it where it is `due` anyhow.
pub fn checkpoint(db: &Connection, key: &Key, due: bool) -> rusqlite::Result<()> {
    let of = head(db)?;
    let sql =
        "SELECT coalesce(max(seq), 0) FROM audit WHERE seq > ? AND record LIKE '%\"kind\":\"checkpoint\"%'";
    let signed_to: u64 = db.query_row(sql, [of.seq.saturating_sub(UNSIGNED)], |row| row.get(0))?;
    if of.seq == signed_to {
        return Ok(());
    }
    let sql = "SELECT json_extract(record, '$.at') FROM audit WHERE seq > ? ORDER BY seq LIMIT 1";
    let oldest: String = db.query_row(sql, [signed_to], |row| row.get(0))?;
    let age = oldest.parse::<Timestamp>().map(|at| Timestamp::now().duration_since(at));
    // Set back, the clock says nothing: rather one too many.
    let is_old = age.is_ok_and(|age| age.is_negative() || age >= UNSIGNED_FOR);
    if due || is_old || of.seq - signed_to >= UNSIGNED {
        let signature = key.sign(signed(&of).as_bytes());
        let what = json!({"seq": of.seq, "hash": of.hash, "key": key.public().hex(), "signature": signature});
        append(db, &Entry::new(Kind::Checkpoint, &Author::daemon("run"), what))?;
    }
    Ok(())
}

/// Every record's number, text and hash, in their order, from the one after `after`.
pub fn read<E>(
    db: &Connection,
    after: u64,
    mut each: impl FnMut(u64, String, String) -> Result<(), E>,
) -> rusqlite::Result<Result<(), E>> {
    if !is_there(db)? {
        return Ok(Ok(()));
    }
    let mut select = db.prepare("SELECT seq, record, hash FROM audit WHERE seq > ? ORDER BY seq")?;
    let mut rows = select.query([after])?;
    while let Some(row) = rows.next()? {
        if let Err(e) = each(row.get(0)?, row.get(1)?, row.get(2)?) {
            return Ok(Err(e));
        }
    }
    Ok(Ok(()))
}
