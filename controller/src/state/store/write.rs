//! What the daemon writes, each in one transaction.

use super::{InKernel, KEPT_BYTES, KEPT_REVISIONS, Outcome, Store, documents, failed, feeds};
use crate::audit::{self, Entry, Kind};
use crate::bindings::{Change, SourceName};
use crate::exit_code::Result;
use crate::policy::Numbering;
use crate::policy::RuleInfo;
use crate::policy::numbering::{Counted, Numbered};
use crate::policy::spiffe::SpiffeId;
use crate::state::{Author, How, State, Who};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::json;
use std::cell::LazyCell;

/// Numbers that a revision gives.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Of what kind, to what.
    pub numbers: Vec<(Numbered, String, u32)>,
    /// The wall-clock time of boot by which deadlines are computed, where that is another.
    pub wall_of_boot_ns: Option<i64>,
}

impl Given {
    /// What a numbering has that it had not when it was counted.
    pub fn since(before: &Counted, numbering: &Numbering) -> Self {
        let wall = numbering.kept_wall_of_boot_ns();
        Self {
            numbers: numbering.given_since(before),
            wall_of_boot_ns: wall.filter(|ns| before.wall_of_boot_ns != Some(*ns)),
        }
    }
}

impl Store {
    /// Records a revision that is about to be made, with its documents and the numbers that it gives. `given` is asked for when all else
    /// is written; where it gives none, nothing was recorded.
    pub fn begin(
        &mut self,
        state: &State,
        kernel: &InKernel,
        by: &Author,
        before: &State,
        given: impl FnOnce() -> Option<Given>,
    ) -> Result<()> {
        let record = audit::commit(before, state, by);
        // What counts is on the disk when it is marked, and all before it. Until then the kernel alone has it, which a power cut ends too.
        self.synchronous("NORMAL")?;
        // A disk that was full has it begun once more; the numbers are asked for once.
        let given = LazyCell::new(given);
        let begun = self.transact(room_for(state, before, by), |db| {
            // One that is pending yet was refused when there was no room to say so.
            settle_pending(db, Outcome::Refused, "another revision was begun")?;
            insert(db, state, kernel, by, Outcome::Pending)?;
            feeds::save(db, state.revision, &state.set.documents)?;
            audit::append(db, &record)?;
            numbers(db, given.as_ref().ok_or_else(given_up)?)
        });
        self.synchronous("FULL")?;
        begun?;
        let sql = "SELECT documents FROM revision WHERE number = ?";
        let row = self.db.query_row(sql, [state.revision], |row| row.get(0));
        let remembered = row.and_then(|row| documents::remember(&self.db, &state.set, row));
        remembered.map_err(|e| failed(&self.path, e))
    }

    /// Says that a revision counts: the kernel judges by it; and what its rules mean that are `changed`. What is too old to be kept goes.
    pub fn mark(&mut self, state: &State, before: u64, changed: &[(u32, RuleInfo)]) -> Result<()> {
        self.transact(Room::Reserved, |db| {
            settle(db, state.revision, Outcome::Committed, None)?;
            enforce(db, state.revision)?;
            candidate(db, state)?;
            rules(db, changed.iter().map(|(number, rule)| (*number, rule)))?;
            feeds::keep(db, [before, state.revision])?;
            prune(db)
        })
    }

    /// Says that a revision does not count, and why.
    pub fn refuse(&mut self, revision: u64, why: &str) -> Result<()> {
        self.transact(Room::Reserved, |db| settle(db, revision, Outcome::Refused, Some(why)))
    }

    /// Settles what a daemon that died has left: a pending revision counts if the kernel judges by its epoch.
    pub fn resolve(&mut self, kernel: &InKernel) -> Result<()> {
        self.transact(Room::Reserved, |db| {
            if let Some(revision) = super::read::flipped(db, kernel)? {
                settle(db, revision, Outcome::Committed, None)?;
                enforce(db, revision)?;
            }
            settle_pending(db, Outcome::Abandoned, "the daemon ended before it counted")
        })
    }

    /// Has an older revision count again, after one that was made in vain.
    pub fn go_back(&mut self, to: u64, why: &str) -> Result<()> {
        self.transact(Room::Reserved, |db| {
            let made = "number > ? AND outcome IN ('pending', 'committed')";
            settle_all(db, made, to, Outcome::Refused, why)?;
            db.execute("UPDATE in_force SET revision = ?", [to]).map(drop)
        })
    }

    /// The revision that waits for it is confirmed, and whatever was made since.
    pub fn confirm(&mut self, revision: u64, by: &Author) -> Result<()> {
        let record = Entry::new(Kind::Confirm, by, json!({"revision": revision}));
        self.transact(Room::Reserved, |db| {
            audit::append(db, &record)?;
            let sql =
                "UPDATE revision SET confirm_revision = NULL, confirm_before = NULL, confirm_boot_id = NULL,
                confirm_deadline_ns = NULL, confirm_deadline_at = NULL WHERE confirm_revision IS NOT NULL";
            db.execute(sql, []).map(drop)
        })
    }

    /// Saves the candidate of the state, the numbers that it needs and the rules that only it has.
    pub fn save_candidate(&mut self, state: &State, before: &State) -> Result<()> {
        self.transact(Room::Free, |db| {
            candidate(db, state)?;
            numbers(db, &Given::since(&before.numbering.counted(), &state.numbering))?;
            let is_new = |(number, rule): &(&u32, &RuleInfo)| before.rules.get(number) != Some(rule);
            rules(db, state.rules.iter().filter(is_new).map(|(number, rule)| (*number, rule)))
        })
    }

    /// Saves what sources of bindings say now, and the numbers that it needs.
    pub fn bind(&mut self, changes: &[(SourceName, Change)], given: &[(SpiffeId, u32)]) -> Result<()> {
        let record = audit::bind(changes, |source, slot| self.claim(source, slot));
        let room = if changes.len() <= FEW { Room::Reserved } else { Room::Free };
        self.transact(room, |db| {
            audit::append(db, &record)?;
            let json = |value: serde_json::Result<String>| {
                value.map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))
            };
            let mut set =
                db.prepare("INSERT OR REPLACE INTO binding (source, slot, claim) VALUES (?, ?, ?)")?;
            let mut withdraw = db.prepare("DELETE FROM binding WHERE source = ? AND slot = ?")?;
            for (source, change) in changes {
                let slot = json(serde_json::to_string(&change.slot()))?;
                match change {
                    Change::Set(claim) => {
                        set.execute(params![source.as_str(), slot, json(serde_json::to_string(claim))?])?
                    }
                    Change::Withdraw(_) => withdraw.execute(params![source.as_str(), slot])?,
                };
            }
            let mut number = db.prepare("INSERT INTO number (kind, key, number) VALUES (?, ?, ?)")?;
            given.iter().try_for_each(|(id, n)| {
                number.execute(params![Numbered::Identity.name(), id.as_str(), n]).map(drop)
            })
        })
    }

    /// Saves settings; `None` removes one.
    pub fn set(&mut self, settings: &[(&str, Option<String>)], by: &Author) -> Result<()> {
        let mut changed = serde_json::Map::new();
        for (name, after) in settings {
            let before = self.setting(name)?;
            if before != *after {
                changed.insert((*name).into(), json!({"before": before, "after": after}));
            }
        }
        self.transact(Room::Reserved, |db| {
            if !changed.is_empty() {
                audit::append(db, &Entry::new(Kind::Settings, by, changed.clone().into()))?;
            }
            settings.iter().try_for_each(|(name, value)| match value {
                Some(value) => set_setting(db, name, value),
                None => db.execute("DELETE FROM setting WHERE name = ?", [name]).map(drop),
            })
        })
    }

    fn synchronous(&self, how: &str) -> Result<()> {
        self.db.pragma_update(None, "synchronous", how).map_err(|e| failed(&self.path, e))
    }

    /// Writes at once or not at all. On a full disk what is `Reserved` has the reserve given up for it.
    pub(super) fn transact(
        &mut self,
        room: Room,
        work: impl Fn(&Connection) -> rusqlite::Result<()>,
    ) -> Result<()> {
        loop {
            let done = self.db.transaction().and_then(|tx| {
                work(&tx)?;
                tx.commit()
            });
            match done {
                Err(e) if room == Room::Reserved && super::is_no_room(&e) && self.reserve.give() => {}
                done => return done.map_err(|e| failed(&self.path, e)),
            }
        }
    }
}

/// Ends a transaction of which nothing is wanted any more.
fn given_up() -> rusqlite::Error {
    let abort = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT);
    rusqlite::Error::SqliteFailure(abort, Some("it was given up".into()))
}

/// Bindings that are few enough for the reserve.
const FEW: usize = 1000;

/// For what there is room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// What can wait until there is some.
    Free,
    /// What keeps access right, or tells of it, and is short.
    Reserved,
}

/// A revision that brings no documents may use the reserve: what is blocked, cut off, bound, over, or taken back.
fn room_for(state: &State, before: &State, by: &Author) -> Room {
    let brings = match by.how {
        How::TakeBack { .. } | How::Rollback(_) => false,
        How::Feeds(_) => true,
        How::By(_) => state.set.digest != before.set.digest,
    };
    if brings { Room::Free } else { Room::Reserved }
}

/// Fills empty tables with a state that counts.
pub fn import(db: &Connection, state: &State) -> rusqlite::Result<()> {
    if state.applied_at.is_some() {
        let kernel = InKernel { epoch: state.epoch, generation: String::new() };
        insert(db, state, &kernel, &Author::daemon("state.json of an older version"), Outcome::Committed)?;
        db.execute("INSERT INTO in_force (id, revision) VALUES (1, ?)", [state.revision])?;
    }
    candidate(db, state)?;
    numbers(db, &Given::since(&Counted::default(), &state.numbering))?;
    rules(db, state.rules.iter().map(|(number, rule)| (*number, rule)))
}

fn insert(
    db: &Connection,
    state: &State,
    kernel: &InKernel,
    by: &Author,
    outcome: Outcome,
) -> rusqlite::Result<()> {
    let row = documents::row(db, &state.set)?;
    let json = |value: serde_json::Result<String>| {
        value.map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))
    };
    let (uid, spiffe_id) = match &by.who {
        Who::Daemon => (None, None),
        Who::User(uid) => (Some(uid), None),
        Who::Workload(id) => (None, Some(id.as_str())),
    };
    let confirmation = state.confirmation.as_ref();
    let before = confirmation.map(|c| documents::row(db, &c.before)).transpose()?;
    db.execute(
        "INSERT INTO revision (number, epoch, generation, at, uid, spiffe_id, how, documents, blocks, quarantines, grants, outcome,
            confirm_revision, confirm_before, confirm_boot_id, confirm_deadline_ns, confirm_deadline_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            state.revision,
            kernel.epoch,
            kernel.generation,
            state.applied_at.unwrap_or(Timestamp::UNIX_EPOCH).to_string(),
            uid,
            spiffe_id,
            by.how.to_string(),
            row,
            json(serde_json::to_string(&state.blocks))?,
            json(serde_json::to_string(&state.quarantines))?,
            json(serde_json::to_string(&state.grants))?,
            outcome.name(),
            confirmation.map(|c| c.revision),
            before,
            confirmation.map(|c| &c.boot_id),
            confirmation.map(|c| c.deadline_ns as i64),
            confirmation.map(|c| c.deadline_at.to_string()),
        ],
    )
    .map(drop)
}

fn settle(db: &Connection, revision: u64, outcome: Outcome, why: Option<&str>) -> rusqlite::Result<()> {
    let sql = "UPDATE revision SET outcome = ?, why = ? WHERE number = ?";
    db.execute(sql, params![outcome.name(), why, revision])?;
    super::audit::outcome(db, revision, outcome, why)
}

/// Has a revision count. What waited to be confirmed, and does so no longer, is taken back by the same write: no daemon that dies
/// here leaves it as one that counted.
fn enforce(db: &Connection, revision: u64) -> rusqlite::Result<()> {
    db.execute("INSERT OR REPLACE INTO in_force (id, revision) VALUES (1, ?)", [revision])?;
    let sql = "SELECT how, confirm_revision IS NOT NULL FROM revision WHERE number = ?";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?));
    let Some((how, false)) = db.query_row(sql, [revision], read).optional()? else { return Ok(()) };
    let why = match How::kept(&how) {
        How::TakeBack { .. } => "not confirmed in time",
        How::Rollback(_) => "rolled back before it was confirmed",
        How::Feeds(_) | How::By(_) => "replaced before it was confirmed",
    };
    // Who is confirmed waits for nothing any more: `confirm` says so of all of them.
    let waited = "number < ? AND confirm_revision IS NOT NULL AND outcome = 'committed'";
    settle_all(db, waited, revision, Outcome::TakenBack, why)
}

fn settle_pending(db: &Connection, outcome: Outcome, why: &str) -> rusqlite::Result<()> {
    settle_all(db, "number > ? AND outcome = 'pending'", 0, outcome, why)
}

/// Settles those of which the condition is true.
fn settle_all(db: &Connection, which: &str, than: u64, outcome: Outcome, why: &str) -> rusqlite::Result<()> {
    let mut select = db.prepare(&format!("SELECT number FROM revision WHERE {which} ORDER BY number"))?;
    let revisions = select.query_map([than], |row| row.get(0))?.collect::<rusqlite::Result<Vec<u64>>>()?;
    revisions.into_iter().try_for_each(|revision| settle(db, revision, outcome, Some(why)))
}

fn candidate(db: &Connection, state: &State) -> rusqlite::Result<()> {
    let Some(shadow) = &state.shadow else {
        return db.execute("DELETE FROM candidate", []).map(drop);
    };
    let row = documents::row(db, &shadow.set)?;
    let sql = "INSERT OR REPLACE INTO candidate (id, documents, sample, since) VALUES (1, ?, ?, ?)";
    db.execute(sql, params![row, shadow.sample, shadow.since.to_string()]).map(drop)
}

fn numbers(db: &Connection, given: &Given) -> rusqlite::Result<()> {
    // What a source of bindings was given is saved with that already, where a commit before could not be.
    let sql = "INSERT INTO number (kind, key, number) VALUES (?, ?, ?) ON CONFLICT (kind, key) DO NOTHING";
    let mut insert = db.prepare(sql)?;
    for (kind, key, number) in &given.numbers {
        insert.execute(params![kind.name(), key, number])?;
    }
    match given.wall_of_boot_ns {
        Some(ns) => set_setting(db, super::read::WALL_OF_BOOT, &ns.to_string()),
        None => Ok(()),
    }
}

fn rules<'r>(db: &Connection, rules: impl Iterator<Item = (u32, &'r RuleInfo)>) -> rusqlite::Result<()> {
    let mut insert = db.prepare("INSERT OR REPLACE INTO rule (number, info) VALUES (?, ?)")?;
    for (number, rule) in rules {
        let info = serde_json::to_string(rule);
        let info = info.map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
        insert.execute(params![number, info])?;
    }
    Ok(())
}

fn set_setting(db: &Connection, name: &str, value: &str) -> rusqlite::Result<()> {
    db.execute("INSERT OR REPLACE INTO setting (name, value) VALUES (?, ?)", [name, value]).map(drop)
}

/// Forgets revisions that are too many, or whose documents are too big, the oldest first.
fn prune(db: &Connection) -> rusqlite::Result<()> {
    let oldest_kept = "SELECT number FROM revision ORDER BY number DESC LIMIT 1 OFFSET ?";
    let too_old: Option<u64> = db.query_row(oldest_kept, [KEPT_REVISIONS], |row| row.get(0)).optional()?;
    let mut gone = 0;
    if let Some(number) = too_old {
        let sql = "DELETE FROM revision WHERE number <= ? AND number NOT IN (SELECT revision FROM in_force)";
        gone += db.execute(sql, [number])?;
    }
    if gone > 0 {
        documents::sweep(db)?;
    }
    while documents::bytes(db)? > KEPT_BYTES {
        let sql = "DELETE FROM revision WHERE number = (SELECT min(number) FROM revision
            WHERE number NOT IN (SELECT revision FROM in_force))";
        if db.execute(sql, [])? == 0 {
            break;
        }
        documents::sweep(db)?;
    }
    Ok(())
}
