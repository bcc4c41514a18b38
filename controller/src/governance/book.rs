//! The findings: in memory to be asked, in a file of SQLite to outlive the daemon.
//!
//! The file is not the state's: what is enforced can be known without it, and it changes with traffic, not with commits.

use super::compare::{Departure, Seen};
use super::decide::{Confidence, Decision, decide};
use super::file::Form;
use super::finding::{Containment, Evidence, Finding, FindingState, Key};
use crate::exit_code::{Code, Failure, Result};
use crate::policy::act::Step;
use crate::policy::intent::Sensitivity;
use crate::policy::spiffe::SpiffeId;
use jiff::Timestamp;
use rusqlite::{Connection, params};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const FORM: Form = Form {
    what: "findings",
    table: "findings",
    version: 2,
    schema: include_str!("schema.sql"),
    synchronous: "NORMAL",
};
/// Findings that are kept. Beyond that the oldest goes that is resolved; where none is, one that matters less than the new one. Where
/// none does, no new one is made.
const MOST: usize = 10_000;

/// The file of the findings.
#[derive(Debug)]
pub struct BookFile {
    db: Connection,
    path: PathBuf,
}

/// Findings as they are now, by their numbers; nothing beside one that is not kept any more.
type Changes = Vec<(u64, Option<Finding>)>;

/// All findings.
#[derive(Debug)]
pub struct Book {
    /// Who writes holds it. Whoever holds the book may wait for it; who holds it never waits for the book.
    file: Arc<Mutex<BookFile>>,
    findings: BTreeMap<u64, Finding>,
    /// Those that are not resolved.
    current: HashMap<Key, u64>,
    /// Changed since they were last written.
    dirty: BTreeSet<u64>,
    /// Departures for whose finding there was no room, and findings that gave way before anybody resolved them.
    pub turned_away: u64,
}

/// What noting a departure came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Its finding.
    pub id: u64,
    /// Whether that is new.
    pub is_new: bool,
    /// What to do, and about whom.
    pub contain: Option<Contain>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contain {
    /// About whom.
    pub identity: SpiffeId,
    /// Which step of the response that is, from 0.
    pub number: usize,
    /// What, and for how long.
    pub step: Step,
}

impl Book {
    /// Opens the file, or makes it.
    pub fn open(path: &Path) -> Result<Self> {
        let db = FORM.open(path)?;
        let findings = FORM.read(&db).map_err(|e| FORM.failed(path, &e))?;
        let findings: BTreeMap<_, _> = findings.into_iter().map(|f: Finding| (f.id, f)).collect();
        let current = findings
            .values()
            .filter(|f| !matches!(f.state, FindingState::Resolved { .. }))
            .map(|f| (f.key.clone(), f.id))
            .collect();
        let file = Arc::new(Mutex::new(BookFile { db, path: path.to_owned() }));
        Ok(Self { file, findings, current, dirty: BTreeSet::new(), turned_away: 0 })
    }

    /// Its file.
    pub fn file(&self) -> Arc<Mutex<BookFile>> {
        self.file.clone()
    }

    fn lock(&self) -> MutexGuard<'_, BookFile> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a departure. What is to be done comes back; a muted finding and one whose identity is contained ask for nothing.
    pub fn note(&mut self, departure: &Departure<'_>, seen: &Seen, evidence: Evidence) -> Option<Noted> {
        let now = evidence.time;
        let (decision, confidence, why) = decide(departure, &seen.service());
        let key = Key {
            intent: departure.intent.name.clone(),
            role: departure.role,
            signal: departure.signal,
            peer: departure.with(),
            rule: departure.rule.map(|rule| rule.name.clone()),
        };
        let (id, is_new) = match self.current.get(&key).copied() {
            Some(id) => (id, false),
            None if !self.make_room((is_act(&decision), departure.severity())) => {
                self.turned_away += 1;
                return None;
            }
            None => (self.begin(key, departure, now), true),
        };
        let finding = self.findings.get_mut(&id)?;
        finding.add(evidence);
        finding.severity = departure.severity();
        finding.workload = Some(departure.intent.workload);
        finding.owner.clone_from(&departure.intent.owner);
        (finding.decision, finding.confidence, finding.why) = (decision, confidence, why);
        self.dirty.insert(id);
        let contain = match decision {
            Decision::Contain { .. } if !finding.is_muted(now) => {
                finding.next_step(departure.id, &departure.intent.response, now)
            }
            _ => None,
        };
        let contain = contain.map(|(number, step)| Contain { identity: departure.id.clone(), number, step });
        Some(Noted { id, is_new, contain })
    }

    fn begin(&mut self, key: Key, departure: &Departure<'_>, now: Timestamp) -> u64 {
        let id = self.findings.last_key_value().map_or(1, |(last, _)| last + 1);
        self.current.insert(key.clone(), id);
        let finding = Finding {
            id,
            key,
            workload: None,
            severity: departure.severity(),
            owner: None,
            confidence: Confidence::Low,
            decision: Decision::Flag,
            why: String::new(),
            held_back: None,
            count: 0,
            first_seen: now,
            last_seen: now,
            identities: VecDeque::new(),
            services: VecDeque::new(),
            evidence: VecDeque::new(),
            containments: VecDeque::new(),
            state: FindingState::Open,
        };
        self.findings.insert(id, finding);
        id
    }

    /// Whether one more finds room, that leads to an act or not, of that severity.
    fn make_room(&mut self, new: (bool, Sensitivity)) -> bool {
        if self.findings.len() < MOST {
            return true;
        }
        // The newest stays: the next one's number follows it, and records name findings by their numbers for ever.
        let newest = self.findings.last_key_value().map(|(id, _)| *id);
        let old = || self.findings.values().filter(|f| Some(f.id) != newest);
        let resolved = old().find(|f| matches!(f.state, FindingState::Resolved { .. }));
        // A flood of what is only flagged keeps nobody from being contained, and pushes nothing out that is like it.
        let rank = |f: &&Finding| (is_act(&f.decision) || !f.containments.is_empty(), f.severity);
        let lesser = || old().filter(|f| rank(f) < new).min_by_key(|f| (rank(f), f.last_seen));
        let Some(id) = resolved.or_else(lesser).map(|f| f.id) else { return false };
        self.forget(id);
        true
    }

    fn forget(&mut self, id: u64) {
        let Some(finding) = self.findings.remove(&id) else { return };
        if !matches!(finding.state, FindingState::Resolved { .. }) {
            self.current.remove(&finding.key);
            self.turned_away += 1;
        }
        self.dirty.insert(id);
    }

    /// Notes what was done for a finding.
    pub fn contained(&mut self, id: u64, containment: Containment) {
        if let Some(finding) = self.findings.get_mut(&id) {
            finding.contained(containment);
            finding.held_back = None;
            self.dirty.insert(id);
        }
    }

    /// Notes why it was not. Returns whether that is news.
    pub fn held_back(&mut self, id: u64, why: String) -> bool {
        let Some(finding) = self.findings.get_mut(&id) else { return false };
        let is_news = finding.held_back.as_ref() != Some(&why);
        finding.held_back = Some(why);
        self.dirty.insert(id);
        is_news
    }

    /// When something was done that nobody decided.
    pub fn done(&self) -> Vec<Timestamp> {
        let done = self.findings.values().flat_map(|finding| &finding.containments);
        done.filter(|done| !done.by_people).map(|done| done.at).collect()
    }

    /// All of them, oldest first.
    pub fn all(&self) -> impl Iterator<Item = &Finding> {
        self.findings.values()
    }

    /// One of them.
    pub fn get(&self, id: u64) -> Result<&Finding> {
        self.findings.get(&id).ok_or_else(|| {
            Failure::new(Code::NotFound, format!("there is no finding {id}"))
                .hint("`tidegate findings list --all` shows those that are kept")
        })
    }

    /// Has somebody decide what becomes of a finding. It is written before it counts.
    pub fn set_state(&mut self, id: u64, state: FindingState) -> Result<Finding> {
        let mut finding = self.get(id)?.clone();
        finding.may_become(&state)?;
        finding.state = state;
        self.lock().write(&[(id, Some(finding.clone()))])?;
        if let FindingState::Resolved { .. } = finding.state {
            self.current.remove(&finding.key);
        }
        self.findings.insert(id, finding.clone());
        Ok(finding)
    }

    /// Takes so many at most of those that have changed since they were taken last.
    pub fn changes(&mut self, most: usize) -> Changes {
        let ids: Vec<_> = self.dirty.iter().take(most).copied().collect();
        self.dirty.retain(|id| !ids.contains(id));
        ids.into_iter().map(|id| (id, self.findings.get(&id).cloned())).collect()
    }

    /// These could not be written.
    pub fn again(&mut self, changes: &[(u64, Option<Finding>)]) {
        self.dirty.extend(changes.iter().map(|(id, _)| *id));
    }

    /// Why containment is paused, as somebody said before the daemon was started anew.
    pub fn paused(&self) -> Result<Option<String>> {
        let file = self.lock();
        file.db
            .query_row("SELECT paused FROM brake", [], |row| row.get(0))
            .map_err(|e| FORM.failed(&file.path, &e))
    }

    /// Pauses containment, or lets it go on.
    pub fn pause(&mut self, why: Option<&str>) -> Result<()> {
        let file = self.lock();
        let done = file.db.execute("UPDATE brake SET paused = ?1", params![why]);
        done.map(drop).map_err(|e| FORM.failed(&file.path, &e))
    }
}

impl BookFile {
    /// Writes findings, all or none.
    pub fn write(&mut self, changes: &[(u64, Option<Finding>)]) -> Result<()> {
        let Self { db, path } = self;
        let failed = |e: rusqlite::Error| FORM.failed(path, &e);
        let transaction = db.transaction().map_err(failed)?;
        for (id, finding) in changes {
            match finding {
                Some(finding) => FORM.write(&transaction, *id, finding),
                None => FORM.remove(&transaction, *id),
            }
            .map_err(failed)?;
        }
        transaction.commit().map_err(failed)
    }
}

/// Whether something is done about it.
fn is_act(decision: &Decision) -> bool {
    matches!(decision, Decision::Contain { .. })
}
