//! What is read: the state that counts, and the revisions before it.

use super::{InKernel, Store, damaged, failed, import};
use crate::bindings::{Bindings, Change, SourceName};
use crate::exit_code::{Code, Failure, Result};
use crate::instance::Instance;
use crate::policy::Numbering;
use crate::policy::compile::rules_of_policies;
use crate::policy::numbering::Numbered;
use crate::policy::spiffe::SpiffeId;
use crate::state::{Confirmation, PolicySet, Shadow, State, Who};
use jiff::Timestamp;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::sync::Arc;

/// The setting that holds the wall-clock time of boot by which deadlines were computed.
pub(super) const WALL_OF_BOOT: &str = "wall_of_boot_ns";

/// What became of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is being made.
    Pending,
    /// It counted, or counts.
    Committed,
    /// It could not be made.
    Refused,
    /// The daemon ended while it made it.
    Abandoned,
    /// It counted, was not confirmed, and gave way to the one before.
    TakenBack,
}

impl Outcome {
    const ALL: [Self; 5] = [Self::Pending, Self::Committed, Self::Refused, Self::Abandoned, Self::TakenBack];

    /// In the file and for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Committed => "committed",
            Self::Refused => "refused",
            Self::Abandoned => "abandoned",
            Self::TakenBack => "taken_back",
        }
    }
}

impl FromSql for Outcome {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        Self::ALL.into_iter().find(|outcome| outcome.name() == text).ok_or(FromSqlError::InvalidType)
    }
}

/// A revision, without what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Revision {
    /// Its number.
    pub number: u64,
    /// Its epoch in the kernel.
    pub epoch: u32,
    /// When it was made.
    pub at: Timestamp,
    /// Who asked on the socket; absent for the daemon itself.
    pub uid: Option<u32>,
    /// Who asked over mTLS.
    pub spiffe_id: Option<SpiffeId>,
    /// By which command.
    pub how: String,
    /// SHA-256 of its files, in hexadecimal; empty where there are none.
    pub digest: String,
    /// Names of its files.
    pub files: Vec<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it does not count, where it never did or does no longer.
    pub why: Option<String>,
    /// Until when it has to be confirmed.
    pub confirm_by: Option<Timestamp>,
    /// Whether it counts now.
    pub in_force: bool,
}

impl Revision {
    /// Who asked.
    pub fn who(&self) -> Who {
        match (&self.spiffe_id, self.uid) {
            (Some(id), _) => Who::Workload(id.clone()),
            (None, Some(uid)) => Who::User(uid),
            (None, None) => Who::Daemon,
        }
    }
}

impl State {
    /// Reads what counts; an empty state where there is none. Without the `kernel` a revision is not seen that counts and
    /// whose daemon died before it could say so.
    pub fn load(path: &Path, kernel: Option<&InKernel>) -> Result<Self> {
        match Store::read(path)? {
            Some(store) => store.load(kernel),
            None => Ok(import::read(&path.with_file_name("state.json"))?.unwrap_or_default()),
        }
    }
}

impl State {
    /// The same of an instance that somebody asks for: one that never was is a failure.
    pub fn of(instance: &Instance) -> Result<Self> {
        let path = instance.state_file();
        if !path.exists() && !path.with_file_name("state.json").exists() {
            let message = format!(
                "there is no instance `{}`: {} is not there; start `tidegate run`, or see --name and --state-dir",
                instance.name,
                path.display()
            );
            return Err(Failure::new(Code::NoDaemon, message));
        }
        Self::load(&path, None)
    }
}

impl Store {
    /// The state that counts.
    pub fn load(&self, kernel: Option<&InKernel>) -> Result<State> {
        let fail = |e| failed(&self.path, e);
        let pending = kernel.map(|kernel| flipped(&self.db, kernel)).transpose().map_err(fail)?.flatten();
        let revision = match pending {
            Some(revision) => Some(revision),
            None => self.in_force()?,
        };
        let mut state = match revision {
            Some(revision) => self.revision_state(revision)?,
            None => State::default(),
        };
        state.shadow = self.candidate()?;
        state.bindings = Arc::new(self.bindings()?);
        state.numbering = self.numbering()?;
        let sql = "SELECT number, info FROM rule";
        state.rules = self
            .rows(sql, |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?
            .into_iter()
            .map(|(number, info)| Ok((number, self.json(&format!("rule {number}"), &info)?)))
            .collect::<Result<_>>()?;
        if pending.is_some() {
            // Nobody has saved yet what its rules say.
            let current = rules_of_policies(&state.set.documents, &mut state.numbering);
            state.rules.extend(current);
        }
        Ok(state)
    }

    /// The number of the revision that counts.
    pub fn in_force(&self) -> Result<Option<u64>> {
        let sql = "SELECT revision FROM in_force";
        self.db.query_row(sql, [], |row| row.get(0)).optional().map_err(|e| failed(&self.path, e))
    }

    /// The number of the next revision.
    pub fn next_revision(&self) -> Result<u64> {
        let sql = "SELECT coalesce(max(number), 0) + 1 FROM revision";
        self.db.query_row(sql, [], |row| row.get(0)).map_err(|e| failed(&self.path, e))
    }

    /// Every revision that is kept, the latest first.
    pub fn history(&self) -> Result<Vec<Revision>> {
        let spiffe_id = if self.form < 3 { "NULL" } else { "spiffe_id" };
        let sql = format!(
            "SELECT number, epoch, at, uid, how, d.digest, documents, outcome, why, confirm_deadline_at,
                number IN (SELECT revision FROM in_force), {spiffe_id}
            FROM revision JOIN documents d ON d.id = documents ORDER BY number DESC"
        );
        let rows = self.rows(&sql, |row| {
            let revision = Revision {
                number: row.get(0)?,
                epoch: row.get(1)?,
                at: time(row, 2)?,
                uid: row.get(3)?,
                spiffe_id: row.get::<_, Option<String>>(11)?.and_then(|id| id.parse().ok()),
                how: row.get(4)?,
                digest: row.get(5)?,
                files: Vec::new(),
                outcome: row.get(7)?,
                why: row.get(8)?,
                confirm_by: optional_time(row, 9)?,
                in_force: row.get(10)?,
            };
            Ok((revision, row.get::<_, i64>(6)?))
        })?;
        let mut names = self
            .db
            .prepare("SELECT name FROM file WHERE documents = ? ORDER BY place")
            .map_err(|e| failed(&self.path, e))?;
        let mut with_names = |(revision, documents): (Revision, i64)| {
            let files = names.query_map([documents], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            Ok(Revision { files, ..revision })
        };
        rows.into_iter()
            .map(&mut with_names)
            .collect::<rusqlite::Result<_>>()
            .map_err(|e| failed(&self.path, e))
    }

    /// The same as the kernel has it: what it judges by counts, also where the daemon died before it could say so.
    pub fn history_by(&self, kernel: &InKernel) -> Result<Vec<Revision>> {
        let mut history = self.history()?;
        let flipped = flipped(&self.db, kernel).map_err(|e| failed(&self.path, e))?;
        if let Some(number) = flipped {
            for revision in &mut history {
                revision.in_force = revision.number == number;
                if revision.in_force {
                    revision.outcome = Outcome::Committed;
                }
            }
        }
        Ok(history)
    }

    /// The latest revision before this one that counted and had other documents.
    pub fn before(&self, revision: u64) -> Result<Option<u64>> {
        let sql = "SELECT max(number) FROM revision WHERE number < ?1 AND outcome = 'committed'
            AND documents <> (SELECT documents FROM revision WHERE number = ?1)";
        self.db.query_row(sql, [revision], |row| row.get(0)).map_err(|e| failed(&self.path, e))
    }

    /// The revision that had these files last, if it was taken back.
    pub fn taken_back(&self, digest: &str) -> Result<Option<u64>> {
        let sql = "SELECT number, outcome FROM revision JOIN documents ON id = documents
            WHERE digest = ? AND outcome IN ('committed', 'taken_back') ORDER BY number DESC LIMIT 1";
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, Outcome>(1)?));
        let last = self.db.query_row(sql, [digest], read).optional().map_err(|e| failed(&self.path, e))?;
        Ok(last.filter(|(_, outcome)| *outcome == Outcome::TakenBack).map(|(number, _)| number))
    }

    /// What a revision said.
    pub fn set_of(&self, revision: u64) -> Result<PolicySet> {
        let sql = "SELECT documents FROM revision WHERE number = ?";
        let row = self.db.query_row(sql, [revision], |row| row.get(0)).optional();
        let Some(row) = row.map_err(|e| failed(&self.path, e))? else {
            let message =
                format!("no revision {revision} is kept; `tidegate policy history` lists those that are");
            return Err(Failure::new(Code::Usage, message));
        };
        self.policy_set(row, revision)
    }

    /// What counted while a revision did; nothing where it is not kept any more.
    pub fn state_of(&self, revision: u64) -> Result<Option<State>> {
        let sql = "SELECT 1 FROM revision WHERE number = ?";
        let kept = self.db.query_row(sql, [revision], |_| Ok(())).optional();
        let kept = kept.map_err(|e| failed(&self.path, e))?;
        kept.map(|()| self.revision_state(revision)).transpose()
    }

    /// A saved setting.
    pub fn setting(&self, name: &str) -> Result<Option<String>> {
        let sql = "SELECT value FROM setting WHERE name = ?";
        self.db.query_row(sql, [name], |row| row.get(0)).optional().map_err(|e| failed(&self.path, e))
    }

    fn revision_state(&self, revision: u64) -> Result<State> {
        let grants = if self.form < 6 { "'[]'" } else { "grants" };
        let sql = format!(
            "SELECT epoch, at, documents, blocks, quarantines,
                confirm_revision, confirm_before, confirm_boot_id, confirm_deadline_ns, confirm_deadline_at, {grants}
            FROM revision WHERE number = ?"
        );
        type Confirm = Option<(u64, i64, String, i64, Timestamp)>;
        let read = |row: &Row<'_>| -> rusqlite::Result<(u32, Timestamp, i64, [String; 3], Confirm)> {
            let confirm = match row.get::<_, Option<u64>>(5)? {
                Some(asked) => Some((asked, row.get(6)?, row.get(7)?, row.get(8)?, time(row, 9)?)),
                None => None,
            };
            let by_hand = [row.get(3)?, row.get(4)?, row.get(10)?];
            Ok((row.get(0)?, time(row, 1)?, row.get(2)?, by_hand, confirm))
        };
        let found = self.db.query_row(&sql, [revision], read).map_err(|e| failed(&self.path, e))?;
        let (epoch, at, documents, [blocks, quarantines, grants], confirm) = found;
        let confirmation = match confirm {
            Some((revision, before, boot_id, deadline_ns, deadline_at)) => Some(Confirmation {
                revision,
                before: Arc::new(self.policy_set(before, revision)?),
                boot_id,
                deadline_ns: deadline_ns as u64,
                deadline_at,
            }),
            None => None,
        };
        Ok(State {
            revision,
            epoch,
            applied_at: Some(at),
            set: Arc::new(self.policy_set(documents, revision)?),
            blocks: self.json("blocks", &blocks)?,
            quarantines: self.json("quarantines", &quarantines)?,
            grants: self.json("grants", &grants)?,
            confirmation,
            ..State::default()
        })
    }

    fn candidate(&self) -> Result<Option<Shadow>> {
        let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get(1)?, time(row, 2)?));
        let found = self.db.query_row("SELECT documents, sample, since FROM candidate", [], read).optional();
        let Some((row, sample, since)) = found.map_err(|e| failed(&self.path, e))? else { return Ok(None) };
        Ok(Some(Shadow { set: Arc::new(self.policy_set(row, 0)?), sample, since }))
    }

    /// What sources of bindings say. A file that no daemon of this version has opened has none.
    fn bindings(&self) -> Result<Bindings> {
        let mut bindings = Bindings::default();
        let there = self.rows("SELECT 1 FROM sqlite_schema WHERE name = 'binding'", |_| Ok(()))?;
        if there.is_empty() {
            return Ok(bindings);
        }
        let rows = self.rows("SELECT source, claim FROM binding", |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?;
        for (source, claim) in rows {
            let by: SourceName = source.parse().map_err(|e| damaged(&self.path, "binding", e))?;
            bindings.apply(&by, [Change::Set(self.json("binding", &claim)?)]);
        }
        Ok(bindings)
    }

    fn numbering(&self) -> Result<Numbering> {
        let mut numbering = Numbering::default();
        let rows = self.rows("SELECT kind, key, number FROM number", |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, u32>(2)?))
        })?;
        for (kind, key, number) in rows {
            let put = Numbered::named(&kind).is_some_and(|kind| numbering.put(kind, &key, number));
            if !put {
                return Err(damaged(&self.path, "number", format!("{kind} {key} {number}")));
            }
        }
        let wall = self.setting(WALL_OF_BOOT)?;
        numbering.keep_wall_of_boot_ns(wall.and_then(|ns| ns.parse().ok()));
        Ok(numbering)
    }

    fn rows<T>(&self, sql: &str, read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>) -> Result<Vec<T>> {
        let rows = || self.db.prepare(sql)?.query_map([], read)?.collect::<rusqlite::Result<Vec<T>>>();
        rows().map_err(|e| failed(&self.path, e))
    }

    pub(super) fn json<T: DeserializeOwned>(&self, what: &str, text: &str) -> Result<T> {
        serde_json::from_str(text).map_err(|e| damaged(&self.path, what, e))
    }
}

/// The pending revision by whose epoch the kernel judges, if there is one.
pub(super) fn flipped(db: &Connection, kernel: &InKernel) -> rusqlite::Result<Option<u64>> {
    let sql = "SELECT max(number) FROM revision WHERE outcome = 'pending' AND epoch = ? AND generation = ?";
    db.query_row(sql, params![kernel.epoch, kernel.generation], |row| row.get(0))
}

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    optional_time(row, column)?.ok_or(rusqlite::Error::InvalidQuery)
}

fn optional_time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    let Some(text) = row.get::<_, Option<String>>(column)? else { return Ok(None) };
    let kind = rusqlite::types::Type::Text;
    let time = text.parse().map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(e)));
    time.map(Some)
}
