//! What the governance loop knows, decides and does: findings, containments, the brake.

use super::inlet::Inlet;
use super::{Shared, lock};
use crate::audit::Kind;
use crate::exit_code::Result;
use crate::governance::{Book, Brake, Contain, Containment, Finding, FindingState, Noted, Observed, Pairs};
use crate::policy::act::ActName;
use crate::policy::intent::Intent;
use crate::policy::spiffe::SpiffePattern;
use crate::state::Author;
use crate::view::event;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What the loop knows and decides by.
pub struct Governance {
    /// Where events come in.
    pub inlet: Arc<Inlet>,
    pub(super) desk: Mutex<Desk>,
    pub(super) pairs: Mutex<Pairs>,
    /// What was forgotten of what is counted, for want of room.
    pub(super) forgotten: AtomicU64,
}

pub(super) struct Desk {
    pub(super) book: Book,
    brake: Brake,
    intents: usize,
    contained: [u64; ActName::ALL.len()],
    held_back: u64,
}

/// What the loop found and did since the daemon began.
pub struct Tally {
    /// Open findings of low, medium and high severity.
    pub open: [usize; 3],
    /// What was done, by [`ActName`].
    pub contained: [u64; ActName::ALL.len()],
    /// Containments that were held back.
    pub held_back: u64,
    /// What was not compared, or made no finding.
    pub shed: u64,
    /// Identities whose counts were forgotten.
    pub forgotten: u64,
    /// Whether nothing is contained.
    pub paused: bool,
}

impl Governance {
    /// Opens the findings. `per_hour` is how many containments an hour may have.
    pub fn open(path: &Path, observed: &Path, inlet: Arc<Inlet>, per_hour: usize) -> Result<Self> {
        let book = Book::open(path)?;
        let brake = Brake::new(per_hour, book.paused()?);
        let desk = Mutex::new(Desk { book, brake, intents: 0, contained: Default::default(), held_back: 0 });
        let pairs = Mutex::new(Pairs::open(observed, Timestamp::now())?);
        Ok(Self { inlet, desk, pairs, forgotten: AtomicU64::new(0) })
    }

    /// Says what is declared from now on.
    pub fn declare(&self, intents: &[Intent]) {
        lock(&self.desk).intents = intents.len();
    }

    /// Every finding.
    pub fn findings(&self) -> Vec<Finding> {
        lock(&self.desk).book.all().cloned().collect()
    }

    /// One of them.
    pub fn finding(&self, id: u64) -> Result<Finding> {
        lock(&self.desk).book.get(id).cloned()
    }

    /// Has somebody decide what becomes of a finding.
    fn set_state(&self, id: u64, state: FindingState) -> Result<Finding> {
        lock(&self.desk).book.set_state(id, state)
    }

    /// Pauses containment, or lets it go on.
    fn pause(&self, why: Option<String>) -> Result<GovernanceStatus> {
        let mut desk = lock(&self.desk);
        desk.book.pause(why.as_deref())?;
        desk.brake.paused = why;
        drop(desk);
        Ok(self.status())
    }

    /// Who was seen with whom.
    pub fn observed(&self, identities: &SpiffePattern) -> Observed {
        lock(&self.pairs).of_identities(identities)
    }

    /// How the loop stands.
    pub fn status(&self) -> GovernanceStatus {
        let Tally { open, shed, forgotten, .. } = self.tally();
        let desk = lock(&self.desk);
        GovernanceStatus {
            paused: desk.brake.paused.clone(),
            intents: desk.intents,
            open_findings: open.iter().sum(),
            contained_last_hour: desk.brake.recent(Timestamp::now()),
            per_hour: desk.brake.per_hour,
            shed,
            forgotten,
        }
    }

    /// What it found and did.
    pub fn tally(&self) -> Tally {
        let (desk, now) = (lock(&self.desk), Timestamp::now());
        let mut open = [0; 3];
        for finding in desk.book.all().filter(|f| f.state.is_open(now)) {
            open[finding.severity as usize] += 1;
        }
        let shed = self.inlet.shed.load(Ordering::Relaxed) + desk.book.turned_away;
        let forgotten = self.forgotten.load(Ordering::Relaxed);
        let (contained, held_back) = (desk.contained, desk.held_back);
        Tally { open, contained, held_back, shed, forgotten, paused: desk.brake.paused.is_some() }
    }

    /// Writes what has changed. What cannot be written is tried again.
    pub(super) fn flush(&self) {
        if let Err(e) = lock(&self.desk).book.flush() {
            tracing::error!("{e}");
        }
    }

    /// Writes who was seen with whom.
    pub(super) fn keep(&self) {
        if let Err(e) = lock(&self.pairs).flush() {
            tracing::error!("{e}");
        }
    }

    /// Notes what was done for a finding.
    pub(super) fn contained(&self, finding: u64, containment: Containment) {
        let mut desk = lock(&self.desk);
        desk.contained[containment.act as usize] += 1;
        desk.book.contained(finding, containment);
    }

    /// Whether the brake holds back what nobody decided.
    pub(super) fn is_held(&self, now: Timestamp) -> bool {
        lock(&self.desk).brake.holds(now).is_some()
    }

    /// Notes why a containment was held back. Returns whether that is news.
    pub(super) fn hold_back(&self, finding: u64, why: String) -> bool {
        let mut desk = lock(&self.desk);
        desk.held_back += 1;
        desk.book.held_back(finding, why)
    }
}

/// `GET /v1/governance`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GovernanceStatus {
    /// Why nothing is contained; absent where it is.
    pub paused: Option<String>,
    /// Intents that are in force.
    pub intents: usize,
    /// Findings that wait for somebody.
    pub open_findings: usize,
    /// Containments in the last hour.
    pub contained_last_hour: usize,
    /// The most in an hour.
    pub per_hour: usize,
    /// Events that were not compared, and departures without a finding: there was no room.
    pub shed: u64,
    /// Identities that were counted and forgotten: there was no room.
    pub forgotten: u64,
}

impl Shared {
    /// Has somebody decide what becomes of a finding, which is recorded first.
    pub(super) fn decide_finding(&self, id: u64, state: FindingState, by: &Author) -> Result<Finding> {
        let finding = self.governance.finding(id)?;
        finding.may_become(&state)?;
        let about = finding.identities.iter().map(ToString::to_string).collect();
        let what = json!({"finding": id, "intent": finding.key.intent, "why": finding.why, "state": state});
        self.record_about(Kind::Finding, by, about, what)?;
        self.governance.set_state(id, state)
    }

    /// Pauses containment, or lets it go on, which is recorded first.
    pub(super) fn brake(&self, why: Option<String>, by: &Author) -> Result<GovernanceStatus> {
        self.record(Kind::Brake, by, json!({"paused": why}))?;
        self.governance.pause(why)
    }

    /// Does what was decided, and tells of it.
    pub(super) fn act(&self, noted: &Noted) {
        let mut is_news = noted.is_new;
        if let Some(contain) = &noted.contain {
            match self.contain(noted.id, contain) {
                Ok(true) => is_news = true,
                Ok(false) => {}
                Err(e) => {
                    tracing::error!("finding {}: {} is not contained: {e}", noted.id, contain.identity);
                    is_news |= self.governance.hold_back(noted.id, e.to_string());
                }
            }
        }
        if is_news {
            let mut desk = lock(&self.governance.desk);
            if let Err(e) = desk.book.flush() {
                tracing::error!("{e}");
            }
            if let Ok(finding) = desk.book.get(noted.id) {
                tracing::warn!("finding {}: {}", finding.id, finding.why);
                self.hub.send(event::finding_json(finding));
            }
        }
    }

    /// Takes the next step about an identity. Returns whether there is something new to tell.
    fn contain(&self, finding: u64, contain: &Contain) -> Result<bool> {
        let now = Timestamp::now();
        let Contain { identity: id, step, number } = contain;
        let known = lock(&self.governance.desk).book.get(finding)?.clone();
        if self.is_undone(&known, id, now) {
            return Ok(false);
        }
        let held = lock(&self.governance.desk).brake.holds(now);
        if let Some(why) = held {
            return Ok(self.governance.hold_back(finding, why));
        }
        if let Some(why) = self.awaits(finding, contain, &known.why)? {
            return Ok(self.governance.hold_back(finding, why));
        }
        let until = now + SignedDuration::from_secs(i64::try_from(step.seconds).unwrap_or(i64::MAX));
        let author = Author::daemon(format!("finding {finding}"));
        let what = json!({
            "finding": finding, "decision": "contain", "act": step.act.to_string(), "step": number + 1,
            "until": until.to_string(), "why": known.why,
        });
        self.record_about(Kind::Finding, &author, BTreeSet::from([id.to_string()]), what)?;
        let revision = self.act_until(id, &step.act, &format!("finding {finding}"), (now, until), &author)?;
        lock(&self.governance.desk).brake.count(now);
        let (identity, act) = (id.clone(), step.act.name());
        let containment = Containment { identity, act, step: *number, at: Timestamp::now(), until, revision };
        self.governance.contained(finding, containment);
        Ok(true)
    }
}
