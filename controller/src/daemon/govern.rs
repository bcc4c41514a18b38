//! What the governance loop knows, decides and does: findings, containments, the brake.

use super::inlet::Inlet;
use super::{Shared, lock};
use crate::audit::Kind;
use crate::exit_code::Result;
use crate::governance::{
    Baselines, Book, BookFile, Brake, Changes, Contain, Containment, Deeds, Evidence, FailingRule, Finding,
    FindingState, Kept, Noted, Observed, ObservedFile, Pairs, Sample,
};
use crate::policy::act::ActName;
use crate::policy::intent::Intent;
use crate::policy::spiffe::{SpiffeId, SpiffePattern};
use crate::state::{Author, manual_act};
use crate::view::event;
use crate::view::flow::Moment;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

/// What the loop knows and decides by.
pub struct Governance {
    /// Where events come in.
    pub inlet: Arc<Inlet>,
    pub(super) desk: Mutex<Desk>,
    pub(super) pairs: Mutex<Pairs>,
    pub(super) deeds: Mutex<Deeds>,
    /// What is usual, as far as it is still to be written.
    baselines: Mutex<Vec<Sample>>,
    /// Since when it is kept who was seen with whom.
    since: Timestamp,
    findings_file: Arc<Mutex<BookFile>>,
    observed_file: Mutex<ObservedFile>,
    /// What is still to be recorded.
    records: Mutex<VecDeque<Record>>,
    /// Held while that is done.
    recording: Mutex<()>,
    /// Has findings be written soon.
    written: SyncSender<()>,
    /// What was forgotten of what is counted, for want of room.
    pub(super) forgotten: AtomicU64,
    /// Rules that failed on events, and how often any did.
    rules: Mutex<(u64, Vec<FailingRule>)>,
}

/// Of what has changed so much is taken at once: who notes more waits for no longer than that takes.
const PIECE: usize = 256;
/// So many pieces are all that can have changed.
const PIECES: usize = 2 * 65_536 / PIECE;

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
    /// How often a rule of an intent failed on an event.
    pub rules_failed: u64,
    /// Whether nothing is contained.
    pub paused: bool,
}

impl Governance {
    /// Opens the files. `per_hour` is how many containments an hour may have. What goes to the threads of the loop and of its files comes
    /// back beside it.
    pub fn open(
        path: &Path,
        observed: &Path,
        inlet: Arc<Inlet>,
        per_hour: usize,
    ) -> Result<(Self, Baselines, Receiver<()>)> {
        let book = Book::open(path)?;
        let brake = Brake::new(per_hour, book.paused()?, book.done());
        let findings_file = book.file();
        let (observed_file, kept) = ObservedFile::open(observed, Timestamp::now())?;
        let Kept { since, pairs, deeds, baselines } = kept;
        let (written, writes) = sync_channel(1);
        let governance = Self {
            inlet,
            desk: Mutex::new(Desk { book, brake, intents: 0, contained: Default::default(), held_back: 0 }),
            pairs: Mutex::new(pairs),
            deeds: Mutex::new(deeds),
            baselines: Mutex::default(),
            since,
            findings_file,
            observed_file: Mutex::new(observed_file),
            records: Mutex::default(),
            recording: Mutex::default(),
            written,
            forgotten: AtomicU64::new(0),
            rules: Mutex::default(),
        };
        Ok((governance, baselines, writes))
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
        let (pairs, not_kept) = lock(&self.pairs).of_identities(identities);
        let (deeds, deeds_not_kept) = lock(&self.deeds).of_identities(identities);
        Observed { since: self.since, not_kept, pairs, deeds, deeds_not_kept }
    }

    /// How the loop stands.
    pub fn status(&self) -> GovernanceStatus {
        let Tally { open, shed, forgotten, .. } = self.tally();
        let failing_rules = lock(&self.rules).1.clone();
        let desk = lock(&self.desk);
        GovernanceStatus {
            paused: desk.brake.paused.clone(),
            intents: desk.intents,
            open_findings: open.iter().sum(),
            contained_last_hour: desk.brake.recent(Timestamp::now()),
            per_hour: desk.brake.per_hour,
            shed,
            forgotten,
            failing_rules,
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
        let rules_failed = lock(&self.rules).0;
        let paused = desk.brake.paused.is_some();
        Tally { open, contained, held_back, shed, forgotten, rules_failed, paused }
    }

    /// Writes findings that have changed. What cannot be written is tried again.
    pub(super) fn flush(&self) {
        loop {
            let mut desk = lock(&self.desk);
            // Taken before the desk is let go: what somebody decides meanwhile is written after this.
            let mut file = lock(&self.findings_file);
            let changes = desk.book.changes(PIECE);
            drop(desk);
            if changes.is_empty() {
                return;
            }
            if let Err(e) = file.write(&changes) {
                drop(file);
                lock(&self.desk).book.again(&changes);
                return tracing::error!("{e}");
            }
        }
    }

    /// Has findings be written soon, by another thread.
    fn flush_soon(&self) {
        // One that was asked for and has not begun is enough.
        let _ = self.written.try_send(());
    }

    /// Writes who was seen with whom, what was done beside, and what is usual. What cannot be written is tried again.
    pub(super) fn keep(&self) {
        let mut file = lock(&self.observed_file);
        // Where more changes than is written meanwhile, the rest has its turn later.
        for _ in 0..PIECES {
            let mut changes = Changes { pairs: lock(&self.pairs).changes(PIECE), ..Changes::default() };
            changes.deeds = lock(&self.deeds).changes(PIECE);
            changes.baselines = std::mem::take(&mut *lock(&self.baselines));
            if changes.is_empty() {
                return;
            }
            if let Err(e) = file.write(&changes) {
                lock(&self.pairs).again(changes.pairs);
                lock(&self.deeds).again(changes.deeds);
                let mut baselines = lock(&self.baselines);
                // What came since is newer.
                let since = std::mem::replace(&mut *baselines, changes.baselines);
                baselines.extend(since);
                return tracing::error!("{e}");
            }
        }
    }

    /// Notes which rules failed on events, and how often any did.
    pub(super) fn note_rules(&self, failed: u64, failing: Vec<FailingRule>) {
        *lock(&self.rules) = (failed, failing);
    }

    /// Takes what is usual, to be written.
    pub(super) fn keep_baselines(&self, changes: Vec<Sample>) {
        if !changes.is_empty() {
            lock(&self.baselines).extend(changes);
        }
    }

    /// Notes what was done for a finding.
    pub(super) fn contained(&self, finding: u64, containment: Containment) {
        let mut desk = lock(&self.desk);
        desk.contained[containment.act as usize] += 1;
        if !containment.by_people {
            desk.brake.count(containment.at);
        }
        desk.book.contained(finding, containment);
        drop(desk);
        // The next daemon counts it too.
        self.flush_soon();
    }

    /// Whether somebody has resolved or muted a finding.
    pub(super) fn is_decided(&self, finding: u64, now: Timestamp) -> bool {
        lock(&self.desk).book.get(finding).is_ok_and(|finding| !finding.state.is_open(now))
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
    /// Rules of the intents in force that failed on events: what they look for may happen unseen.
    #[serde(default)]
    pub failing_rules: Vec<FailingRule>,
}

/// What came of a decision.
enum Outcome {
    /// There was nothing to do.
    Nothing,
    /// It was done.
    Contained,
    /// It was not done, and why.
    HeldBack(String),
}

/// That something was found and nothing is done about it, as it is to be recorded.
pub(super) struct Record {
    finding: u64,
    about: BTreeSet<String>,
    what: serde_json::Value,
}

fn record_of(finding: &Finding, outcome: &Outcome, noted: &Noted) -> Record {
    let decision = if matches!(outcome, Outcome::HeldBack(_)) { "held back" } else { "flag" };
    let what = json!({
        "finding": finding.id, "decision": decision, "intent": finding.key.intent, "signal": finding.key.signal,
        "why": finding.why, "held_back": finding.held_back,
    });
    let about = noted.contain.as_ref().map(|contain| &contain.identity).or(finding.identities.back());
    Record { finding: finding.id, about: about.map(ToString::to_string).into_iter().collect(), what }
}

impl Shared {
    /// Every finding, with what of its containments was undone before its time.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut findings = self.governance.findings();
        self.mark_undone(&mut findings);
        findings
    }

    /// One of them.
    pub(super) fn finding(&self, id: u64) -> Result<Finding> {
        let mut finding = self.governance.finding(id)?;
        self.mark_undone(std::slice::from_mut(&mut finding));
        Ok(finding)
    }

    fn mark_undone(&self, findings: &mut [Finding]) {
        let now = Timestamp::now();
        let holds: BTreeSet<String> =
            self.with_state(|state| state.quarantines.iter().map(|q| q.name.clone()).collect());
        let all = findings.iter_mut().flat_map(|finding| &mut finding.containments);
        for done in all.filter(|done| done.until > now) {
            done.undone = !holds.contains(&manual_act(done.act, done.identity.as_str()));
        }
    }

    /// Has somebody decide what becomes of a finding, which is recorded first.
    pub(super) fn decide_finding(&self, id: u64, state: FindingState, by: &Author) -> Result<Finding> {
        let finding = self.governance.finding(id)?;
        finding.may_become(&state)?;
        let about = finding.identities.iter().map(ToString::to_string).collect();
        let what = json!({"finding": id, "intent": finding.key.intent, "why": finding.why, "state": state});
        self.record_findings();
        self.record_about(Kind::Finding, by, about, what)?;
        let finding = self.governance.set_state(id, state)?;
        if !finding.state.is_open(Timestamp::now()) {
            self.withdraw_requests(id, by)?;
        }
        Ok(finding)
    }

    /// Pauses containment, or lets it go on, which is recorded first.
    pub(super) fn brake(&self, why: Option<String>, by: &Author) -> Result<GovernanceStatus> {
        self.record(Kind::Brake, by, json!({"paused": why}))?;
        self.governance.pause(why)
    }

    /// Does what was decided, and tells of it.
    pub(super) fn act(&self, noted: &Noted) {
        let outcome = match &noted.contain {
            None => Outcome::Nothing,
            Some(contain) => self.contain(noted.id, contain).unwrap_or_else(|e| {
                tracing::error!("finding {}: {} is not contained: {e}", noted.id, contain.identity);
                Outcome::HeldBack(e.to_string())
            }),
        };
        let is_news = match &outcome {
            Outcome::Nothing => noted.is_new,
            Outcome::Contained => true,
            Outcome::HeldBack(why) => self.governance.hold_back(noted.id, why.clone()) || noted.is_new,
        };
        if !is_news {
            return;
        }
        let Ok(finding) = self.governance.finding(noted.id) else { return };
        tracing::warn!("finding {}: {}", finding.id, finding.why);
        let now = Moment::now();
        let lease =
            |seen: &Evidence, id: &SpiffeId, at: IpAddr| self.lease_then(id, at.into(), seen.epoch, &now);
        self.hub.send(event::finding_json(&finding, lease));
        // What was done was recorded before it was. Nobody waits for the record of what was not.
        if !matches!(outcome, Outcome::Contained) {
            lock(&self.governance.records).push_back(record_of(&finding, &outcome, noted));
        }
        self.governance.flush_soon();
    }

    /// Records what was found and nothing is done about. Whoever is about to record something of a finding has this written first.
    pub(super) fn record_findings(&self) {
        // One at a time: who comes next finds all of them there. Whoever leaves another waits for none.
        let _alone = lock(&self.governance.recording);
        loop {
            let next = lock(&self.governance.records).pop_front();
            let Some(Record { finding, about, what }) = next else { return };
            let by = Author::daemon(format!("finding {finding}"));
            if let Err(e) = self.record_about(Kind::Finding, &by, about, what) {
                tracing::error!("finding {finding}: {e}");
            }
        }
    }

    /// Takes the next step about an identity.
    fn contain(&self, finding: u64, contain: &Contain) -> Result<Outcome> {
        let now = Timestamp::now();
        let Contain { identity: id, step, number } = contain;
        let known = lock(&self.governance.desk).book.get(finding)?.clone();
        if self.is_undone(&known, id, now) {
            return Ok(Outcome::Nothing);
        }
        let held = lock(&self.governance.desk).brake.holds(now);
        if let Some(why) = held {
            return Ok(Outcome::HeldBack(why));
        }
        if let Some(why) = self.awaits(finding, contain, &known.why)? {
            return Ok(Outcome::HeldBack(why));
        }
        let until = now + SignedDuration::from_secs(i64::try_from(step.seconds).unwrap_or(i64::MAX));
        let author = Author::daemon(format!("finding {finding}"));
        let what = json!({
            "finding": finding, "decision": "contain", "act": step.act.to_string(), "step": number + 1,
            "until": until.to_string(), "why": known.why,
        });
        self.record_findings();
        self.record_about(Kind::Finding, &author, BTreeSet::from([id.to_string()]), what)?;
        let revision = self.act_until(id, &step.act, &format!("finding {finding}"), (now, until), &author)?;
        let (identity, act, at) = (id.clone(), step.act.name(), Timestamp::now());
        let (by_people, undone) = (false, false);
        let done = Containment { identity, act, step: *number, at, until, revision, by_people, undone };
        self.governance.contained(finding, done);
        Ok(Outcome::Contained)
    }
}
