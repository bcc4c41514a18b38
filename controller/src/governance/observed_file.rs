//! The file of what was observed: pairs, deeds and baselines. Who counts hands over what has changed, and waits for no disk.
//!
//! An aid, as what is in it: where it cannot be read, all is kept in memory.

use super::baselines::{Baselines, Sample};
use super::deeds::{DeedOf, DeedSeen, Deeds, Times};
use super::observed::{Pair, PairSeen, Pairs, Sight};
use crate::exit_code::{Code, Failure, Result};
use jiff::Timestamp;
use rusqlite::{Connection, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// The form that this version writes.
const VERSION: i32 = 1;
/// What was added to it since; a version before leaves it alone.
const ADDED: &str = "
    CREATE TABLE IF NOT EXISTS deeds (deed TEXT PRIMARY KEY, times TEXT NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS baselines (class TEXT, measure INTEGER, hour INTEGER, most INTEGER, PRIMARY KEY (class, measure, hour));
    CREATE TABLE IF NOT EXISTS baselines_of_leases
        (class TEXT, seconds INTEGER, measure INTEGER, slot INTEGER, most INTEGER, PRIMARY KEY (class, seconds, measure, slot));";
/// A class once was an intent: whose tenant's that was, nobody knows any more.
const OF_ALL_TENANTS: &str = "
    DELETE FROM baselines WHERE instr(class, ' ') = 0;
    DELETE FROM baselines_of_leases WHERE instr(class, ' ') = 0;";

/// The file.
#[derive(Debug)]
pub struct ObservedFile {
    db: Connection,
}

/// What was in it.
#[derive(Debug)]
pub struct Kept {
    /// Since when.
    pub since: Timestamp,
    /// Who was seen with whom.
    pub pairs: Pairs,
    /// What was done beside.
    pub deeds: Deeds,
    /// What is usual.
    pub baselines: Baselines,
}

/// What is to be written.
#[derive(Debug, Default)]
pub struct Changes {
    /// Pairs; nothing beside one that is not kept any more.
    pub pairs: Vec<(Pair, Option<Sight>)>,
    /// Deeds, likewise.
    pub deeds: Vec<(DeedOf, Option<Times>)>,
    /// What was usual, likewise.
    pub baselines: Vec<Sample>,
}

impl Changes {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty() && self.deeds.is_empty() && self.baselines.is_empty()
    }
}

impl ObservedFile {
    /// Opens the file, or makes it. Where that cannot be done, what is seen is kept in memory alone.
    pub fn open(path: &Path, now: Timestamp) -> Result<(Self, Kept)> {
        let of_file = || Self::of(Connection::open(path)?, now);
        let opened = of_file().or_else(|e| {
            tracing::error!("{}: {e}; what is seen is kept until the daemon ends", path.display());
            Self::of(Connection::open_in_memory()?, now)
        });
        opened.map_err(|e: rusqlite::Error| Failure::new(Code::Failure, format!("SQLite: {e}")))
    }

    fn of(db: Connection, now: Timestamp) -> rusqlite::Result<(Self, Kept)> {
        db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
        let version: i32 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version == 0 {
            db.execute_batch(include_str!("observed.sql"))?;
            db.execute("INSERT INTO since VALUES (?1)", params![now.to_string()])?;
        } else if version != VERSION {
            return Err(rusqlite::Error::IntegralValueOutOfRange(0, version.into()));
        }
        db.execute_batch(ADDED)?;
        db.execute_batch(OF_ALL_TENANTS)?;
        let since: String = db.query_row("SELECT at FROM since", [], |row| row.get(0))?;
        let pairs = rows(&db, "SELECT pair, sight FROM pairs", |pair, sight| PairSeen { pair, sight })?;
        let deeds = rows(&db, "SELECT deed, times FROM deeds", |of, times| DeedSeen { of, times })?;
        let kept = Kept {
            since: since.parse().unwrap_or(now),
            pairs: Pairs::of(pairs),
            deeds: Deeds::of(deeds),
            baselines: Baselines::of(samples(&db)?),
        };
        Ok((Self { db }, kept))
    }

    /// Writes what has changed, all or nothing.
    pub fn write(&mut self, changes: &Changes) -> Result<()> {
        let failed =
            |e: rusqlite::Error| Failure::new(Code::Failure, format!("write what was observed: {e}"));
        let transaction = self.db.transaction().map_err(failed)?;
        for (pair, sight) in &changes.pairs {
            put(&transaction, ("pairs", "pair", "sight"), pair, sight.as_ref())?;
        }
        for (deed, times) in &changes.deeds {
            put(&transaction, ("deeds", "deed", "times"), deed, times.as_ref())?;
        }
        for sample in &changes.baselines {
            put_sample(&transaction, sample).map_err(failed)?;
        }
        transaction.commit().map_err(failed)
    }
}

/// Rows of two documents. What another version wrote otherwise is seen anew.
fn rows<K: DeserializeOwned, V: DeserializeOwned, T>(
    db: &Connection,
    sql: &str,
    of: impl Fn(K, V) -> T,
) -> rusqlite::Result<Vec<T>> {
    let mut statement = db.prepare(sql)?;
    let read = statement.query_map([], |row| {
        let (key, value): (String, String) = (row.get(0)?, row.get(1)?);
        let one = || Some(of(serde_json::from_str(&key).ok()?, serde_json::from_str(&value).ok()?));
        Ok(one())
    })?;
    read.filter_map(Result::transpose).collect()
}

fn put<K: Serialize, V: Serialize>(
    transaction: &Transaction<'_>,
    (table, key_column, column): (&str, &str, &str),
    key: &K,
    value: Option<&V>,
) -> Result<()> {
    let key = json(key)?;
    let done = match value {
        Some(value) => {
            let sql = format!(
                "INSERT INTO {table} VALUES (?1, ?2) ON CONFLICT ({key_column}) DO UPDATE SET {column} = excluded.{column}"
            );
            json_text(value).and_then(|value| transaction.execute(&sql, params![key, value]))
        }
        None => transaction.execute(&format!("DELETE FROM {table} WHERE {key_column} = ?1"), params![key]),
    };
    let failed = |e: rusqlite::Error| Failure::new(Code::Failure, format!("write what was observed: {e}"));
    done.map(drop).map_err(failed)
}

fn samples(db: &Connection) -> rusqlite::Result<Vec<Sample>> {
    let sql = "SELECT class, 3600, measure, hour, most FROM baselines UNION ALL SELECT class, seconds, measure, slot, most FROM baselines_of_leases";
    let mut statement = db.prepare(sql)?;
    let read = statement.query_map([], |row| {
        Ok(Sample {
            class: row.get(0)?,
            seconds: row.get(1)?,
            measure: row.get(2)?,
            slot: row.get(3)?,
            most: Some(row.get(4)?),
        })
    })?;
    read.collect()
}

fn put_sample(transaction: &Transaction<'_>, sample: &Sample) -> rusqlite::Result<()> {
    let Sample { class, seconds, measure, slot, most } = sample;
    let done = match (*seconds, most) {
        (super::terms::USUAL_S, Some(most)) => {
            let sql = "INSERT OR REPLACE INTO baselines VALUES (?1, ?2, ?3, ?4)";
            transaction.execute(sql, params![class, measure, slot, most])
        }
        (super::terms::USUAL_S, None) => {
            let sql = "DELETE FROM baselines WHERE class = ?1 AND measure = ?2 AND hour = ?3";
            transaction.execute(sql, params![class, measure, slot])
        }
        (_, Some(most)) => {
            let sql = "INSERT OR REPLACE INTO baselines_of_leases VALUES (?1, ?2, ?3, ?4, ?5)";
            transaction.execute(sql, params![class, seconds, measure, slot, most])
        }
        (_, None) => {
            let sql = "DELETE FROM baselines_of_leases WHERE class = ?1 AND seconds = ?2 AND measure = ?3 AND slot = ?4";
            transaction.execute(sql, params![class, seconds, measure, slot])
        }
    };
    done.map(drop)
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Failure::failed("encode JSON", e))
}

fn json_text(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))
}

#[cfg(test)]
mod tests {
    use super::super::compare::{End, Seen};
    use super::super::deeds::Deed;
    use super::*;
    use datapath::abi::Addr;
    use std::collections::BTreeMap;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn seen() -> Seen {
        let id = "spiffe://a.example/web".parse().expect("a SPIFFE ID");
        let client = End::Identified {
            id,
            labels: BTreeMap::new(),
            address: Addr::v4([10, 1, 0, 2]),
            is_shared: false,
        };
        Seen { client, server: End::Unidentified(Addr::v4([10, 2, 0, 3])), proto: 6, port: 443 }
    }

    fn note(kept: &mut Kept) -> Changes {
        kept.pairs.note(&seen(), 3, false, at(10));
        let id = "spiffe://a.example/web".parse().expect("a SPIFFE ID");
        kept.deeds.note(&id, Deed::AsksFor("db.example".into()), at(11));
        Changes { pairs: kept.pairs.changes(99), deeds: kept.deeds.changes(99), baselines: Vec::new() }
    }

    #[test]
    fn what_was_seen_outlives_the_daemon_and_what_is_not_kept_any_more_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("observed.db");
        let (mut file, mut kept) = ObservedFile::open(&path, at(1)).expect("a file");
        let changes = note(&mut kept);
        file.write(&changes).expect("written");
        drop(file);
        let (mut file, kept) = ObservedFile::open(&path, at(99)).expect("the same");
        assert_eq!(kept.since, at(1));
        let all = "spiffe://a.example/*".parse().expect("a pattern");
        let (pairs, _) = kept.pairs.of_identities(&all);
        assert_eq!((pairs.len(), pairs[0].sight.count), (1, 3));
        let (deeds, _) = kept.deeds.of_identities(&all);
        assert_eq!((deeds.len(), deeds[0].times.last_seen), (1, at(11)));
        let gone = Changes {
            pairs: vec![(pairs[0].pair.clone(), None)],
            deeds: vec![(deeds[0].of.clone(), None)],
            baselines: Vec::new(),
        };
        file.write(&gone).expect("written");
        drop(file);
        let (_, kept) = ObservedFile::open(&path, at(99)).expect("the same");
        assert_eq!(kept.pairs.of_identities(&all).0, []);
        assert_eq!(kept.deeds.of_identities(&all).0, []);
    }

    #[test]
    fn a_file_that_cannot_be_read_keeps_nobody_from_starting() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("observed.db");
        std::fs::write(&path, "no database, and long enough to be taken for the header of one ".repeat(20))
            .expect("a file");
        let (mut file, mut kept) = ObservedFile::open(&path, at(1)).expect("in memory");
        let changes = note(&mut kept);
        assert_eq!((changes.pairs.len(), changes.deeds.len()), (1, 1));
        file.write(&changes).expect("kept in memory");
    }
}
