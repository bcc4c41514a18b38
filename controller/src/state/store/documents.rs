//! What was applied together, by difference: what a file says is kept once for all sets that have it.

use super::{Store, failed};
use crate::exit_code::Result;
use crate::policy::{Documents, SourceFile};
use crate::state::PolicySet;
use crate::state::said::Said;
use crate::state::set::{Known, digest_of, hex};
use rusqlite::{Connection, OptionalExtension, Row, params};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// The first form that keeps what each file says by itself.
pub(super) const FIRST_FORM: i32 = 7;

/// The row of a set of documents, which is made now if there is none.
pub(super) fn row(db: &Connection, set: &PolicySet) -> rusqlite::Result<i64> {
    let is_there = "SELECT id FROM documents WHERE id = ?";
    if let Some(row) = set.row.get()
        && let Some(row) = db.prepare(is_there)?.query_row([row], |row| row.get(0)).optional()?
    {
        return Ok(row);
    }
    let (said, rest) = said(db, set)?;
    let mut same = db.prepare("SELECT id FROM documents WHERE digest = ? AND parsed = ?")?;
    let candidates = same.query_map(params![set.digest, rest], |row| row.get(0))?;
    for candidate in candidates.collect::<rusqlite::Result<Vec<i64>>>()? {
        let mut rows = db.prepare("SELECT said FROM file WHERE documents = ? ORDER BY place")?;
        let rows = rows.query_map([candidate], |row| row.get::<_, Option<i64>>(0))?;
        if rows.collect::<rusqlite::Result<Vec<_>>>()?.iter().copied().eq(said.iter().map(|row| Some(*row))) {
            return Ok(candidate);
        }
    }
    db.execute("INSERT INTO documents (digest, parsed) VALUES (?, ?)", params![set.digest, rest])?;
    let row = db.last_insert_rowid();
    let mut is_there = db.prepare("SELECT 1 FROM body WHERE digest = ?")?;
    let mut body = db.prepare("INSERT INTO body (digest, text) VALUES (?, ?)")?;
    let mut insert =
        db.prepare("INSERT INTO file (documents, place, name, body, said) VALUES (?, ?, ?, ?, ?)")?;
    for (place, (file, (known, said))) in set.files.iter().zip(set.known.iter().zip(said)).enumerate() {
        if !is_there.exists([&known.digest])? {
            body.execute(params![known.digest, file.text])?;
        }
        insert.execute(params![row, place as i64, file.name, known.digest, said])?;
    }
    Ok(row)
}

/// The rows of what the files of a set say, and what none of them says. What has a row already is not written out again.
fn said(db: &Connection, set: &PolicySet) -> rusqlite::Result<(Vec<i64>, String)> {
    let mut is_there = db.prepare("SELECT 1 FROM said WHERE id = ?")?;
    let mut rows = Vec::with_capacity(set.known.len());
    for known in &set.known {
        let row = known.row.get().copied();
        rows.push(match (row, &known.said) {
            (Some(row), _) if is_there.exists([row])? => Some(row),
            (_, Some(said)) => Some(row_of(db, said)?),
            _ => None,
        });
    }
    let json = |said: &Said<'_>| {
        serde_json::to_string(said).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))
    };
    let mut rest = Said::default();
    if rows.is_empty() || rows.contains(&None) {
        let mut apart = Said::apart(&set.documents, set.files.iter().map(|file| file.name.as_str()));
        rest = apart.pop().unwrap_or_default();
        for (row, said) in rows.iter_mut().zip(&apart) {
            if row.is_none() {
                *row = Some(row_of(db, &json(said)?)?);
            }
        }
    }
    Ok((rows.into_iter().flatten().collect(), json(&rest)?))
}

fn row_of(db: &Connection, said: &str) -> rusqlite::Result<i64> {
    let digest = hex(&Sha256::digest(said.as_bytes()));
    let same = "SELECT id FROM said WHERE digest = ?";
    if let Some(row) = db.prepare(same)?.query_row([&digest], |row| row.get(0)).optional()? {
        return Ok(row);
    }
    db.prepare("INSERT INTO said (digest, parsed) VALUES (?, ?)")?.execute(params![digest, said])?;
    Ok(db.last_insert_rowid())
}

/// Remembers the rows of a set that was saved.
pub(super) fn remember(db: &Connection, set: &PolicySet, row: i64) -> rusqlite::Result<()> {
    let _ = set.row.set(row); // of a set that is known already it is the same
    if set.known.iter().all(|known| known.row.get().is_some()) {
        return Ok(());
    }
    let mut rows = db.prepare("SELECT said FROM file WHERE documents = ? ORDER BY place")?;
    let rows = rows.query_map([row], |row| row.get::<_, Option<i64>>(0))?;
    for (known, row) in set.known.iter().zip(rows) {
        let _ = row?.map(|row| known.row.set(row)); // as above
    }
    Ok(())
}

/// Removes documents that no revision has any more, and what no documents have.
pub(super) fn sweep(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(
        "DELETE FROM documents WHERE id NOT IN (
            SELECT documents FROM revision UNION SELECT documents FROM candidate
            UNION SELECT confirm_before FROM revision WHERE confirm_before IS NOT NULL);
         DELETE FROM body WHERE digest NOT IN (SELECT body FROM file);
         DELETE FROM said WHERE id NOT IN (SELECT said FROM file WHERE said IS NOT NULL);",
    )
}

/// How much is kept of documents: their lengths, without reading them.
pub(super) fn bytes(db: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT (SELECT coalesce(sum(octet_length(text)), 0) FROM body) +
        (SELECT coalesce(sum(octet_length(parsed)), 0) FROM said) +
        (SELECT coalesce(sum(octet_length(parsed)), 0) FROM documents)";
    db.query_row(sql, [], |row| row.get(0))
}

/// Brings digests to the form in which they are of the digests of texts.
pub(super) fn redigest(db: &Connection) -> rusqlite::Result<()> {
    let mut all = db.prepare("SELECT id FROM documents")?;
    let mut files = db.prepare("SELECT name, body FROM file WHERE documents = ? ORDER BY place")?;
    let mut update = db.prepare("UPDATE documents SET digest = ? WHERE id = ?")?;
    for id in all.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()? {
        let of = files.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let of: Vec<(String, String)> = of.collect::<rusqlite::Result<_>>()?;
        update.execute(params![digest_of(of.iter().map(|(name, body)| (&**name, &**body))), id])?;
    }
    Ok(())
}

impl Store {
    /// The documents of a row, with what stood in their feeds when this revision was made, or else when it was seen last.
    pub(super) fn policy_set(&self, row: i64, revision: u64) -> Result<PolicySet> {
        let sql = "SELECT digest, parsed FROM documents WHERE id = ?";
        let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
        let (digest, parsed) = self.db.query_row(sql, [row], read).map_err(|e| failed(&self.path, e))?;
        let said = if self.form < FIRST_FORM {
            "NULL, NULL FROM file JOIN body ON body.digest = body"
        } else {
            "said, parsed FROM file JOIN body ON body.digest = body LEFT JOIN said ON said.id = said"
        };
        let sql = format!("SELECT name, text, body.digest, {said} WHERE documents = ? ORDER BY place");
        let files = || -> rusqlite::Result<Vec<_>> {
            let mut files = self.db.prepare(&sql)?;
            let file = |row: &Row<'_>| {
                let file = SourceFile { name: row.get(0)?, text: row.get::<_, Arc<str>>(1)? };
                Ok((file, row.get(2)?, row.get::<_, Option<i64>>(3)?, row.get::<_, Option<String>>(4)?))
            };
            files.query_map(params![row], file)?.collect()
        };
        let found = files().map_err(|e| failed(&self.path, e))?;
        let mut documents: Documents = self.json("documents", &parsed)?;
        let mut files = Vec::with_capacity(found.len());
        for (file, digest, row, said) in found {
            if let Some(said) = said {
                documents.append(self.json(&file.name, &said)?);
            }
            let row = row.map(Into::into).unwrap_or_default();
            files.push((file, Known { digest, said: None, row }));
        }
        self.fill_feeds(&mut documents, revision)?;
        Ok(PolicySet::kept(files, documents, digest, row))
    }
}
