//! Files of SQLite that hold documents by number: an older form is taken over, a newer one is refused.

use crate::exit_code::{Code, Failure, Result};
use rusqlite::types::Type;
use rusqlite::{Connection, Error, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// What is in such a file.
pub(super) struct Form {
    /// For people.
    pub what: &'static str,
    /// The table of the documents: `id`, `document`.
    pub table: &'static str,
    /// The form that this version writes; those before it differ in nothing that has to be written anew.
    pub version: i32,
    /// What makes a new one.
    pub schema: &'static str,
    /// How sure a write is kept: NORMAL or FULL.
    pub synchronous: &'static str,
}

impl Form {
    /// Opens a file, or makes it.
    pub fn open(&self, path: &Path) -> Result<Connection> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|e| Failure::io(format!("make {}", folder.display()), &e))?;
        }
        let failed = |e: Error| self.failed(path, &e);
        let db = Connection::open(path).map_err(failed)?;
        let synchronous = self.synchronous;
        db.execute_batch(&format!("PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous};"))
            .map_err(failed)?;
        let version: i32 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
        let known = self.version;
        match version {
            0 => db.execute_batch(&format!("BEGIN;\n{}\nCOMMIT;", self.schema)).map_err(failed)?,
            version if version == known => {}
            older if (1..known).contains(&older) => {
                db.pragma_update(None, "user_version", known).map_err(failed)?;
            }
            newer => {
                let message = format!(
                    "{} has form {newer}, this tidegate knows {known}: install the version that wrote it, or move the file away",
                    path.display()
                );
                return Err(Failure::new(Code::Failure, message));
            }
        }
        Ok(db)
    }

    /// All documents.
    pub fn read<T: DeserializeOwned>(&self, db: &Connection) -> rusqlite::Result<Vec<T>> {
        let mut rows = db.prepare(&format!("SELECT document FROM {}", self.table))?;
        let rows = rows.query_map([], |row| {
            let document: String = row.get(0)?;
            serde_json::from_str(&document)
                .map_err(|e| Error::FromSqlConversionFailure(0, Type::Text, e.into()))
        })?;
        rows.collect()
    }

    /// Writes a document, over the one that has its number.
    pub fn write(&self, db: &Connection, id: u64, document: &impl Serialize) -> rusqlite::Result<()> {
        let document =
            serde_json::to_string(document).map_err(|e| Error::ToSqlConversionFailure(e.into()))?;
        let sql = format!(
            "INSERT INTO {} VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET document = excluded.document",
            self.table
        );
        db.execute(&sql, params![id as i64, document]).map(drop)
    }

    /// Removes one.
    pub fn remove(&self, db: &Connection, id: u64) -> rusqlite::Result<()> {
        db.execute(&format!("DELETE FROM {} WHERE id = ?1", self.table), params![id as i64]).map(drop)
    }

    /// What went wrong with a file, and what to do about it.
    pub fn failed(&self, path: &Path, error: &Error) -> Failure {
        let advice = "what is enforced does not depend on it; to begin anew, move the file and its -wal away";
        let message = format!("the {} in {}: {error}", self.what, path.display());
        Failure::new(Code::Failure, message).hint(advice)
    }
}
