//! The governance loop at work: events are compared with intents on a thread of its own, and what is decided is done.
//!
//! The reader of the ring buffer hands events over and never waits: what finds the queue full is counted and not compared.

use super::{Shared, lock};
use crate::audit::Kind;
use crate::exit_code::Result;
use crate::governance::{
    Book, Brake, Containment, End, Evidence, Finding, FindingState, Noted, Seen, compare,
};
use crate::names::Names;
use crate::policy::Place;
use crate::policy::intent::Intent;
use crate::policy::quarantine::Quarantine;
use crate::policy::selector::Selector;
use crate::policy::spiffe::SpiffeId;
use crate::state::{Author, PolicySet, State, manual_quarantine};
use crate::view::event;
use crate::view::flow::Moment;
use datapath::abi::{Addr, Binding, Event, EventKind, Reason, Side};
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Events that wait to be compared, about 8 MB.
const QUEUE: usize = 65_536;
/// Events that are compared between two looks at the policy.
const BATCH: usize = 1024;
/// Connections that are known to be expected, so that they are not compared again.
const EXPECTED: usize = 65_536;

/// A verdict, with the names that its numbers had then.
pub struct Judged {
    event: Event,
    names: Arc<Names>,
    time: Timestamp,
}

/// Where the reader of the ring buffer leaves events.
pub struct Inlet {
    queue: SyncSender<Judged>,
    wanted: AtomicBool,
    /// Events that were not compared, since the queue was full.
    pub shed: AtomicU64,
}

impl Inlet {
    /// An inlet, and where its events come out.
    pub fn new() -> (Self, Receiver<Judged>) {
        let (queue, outlet) = sync_channel(QUEUE);
        (Self { queue, wanted: AtomicBool::new(false), shed: AtomicU64::new(0) }, outlet)
    }

    /// Takes an event, where somebody declared something. Never waits.
    pub fn offer(&self, bytes: &[u8], names: &Arc<Names>, now: &Moment) {
        if !self.wanted.load(Ordering::Relaxed) {
            return;
        }
        let Ok(event) = bytemuck::try_pod_read_unaligned::<Event>(bytes) else { return };
        if event.kind() != Some(EventKind::Verdict) || event.key.family == 0 || !is_judged(event.reason()) {
            return;
        }
        let judged = Judged { event, names: names.clone(), time: now.timestamp(event.time_ns) };
        if self.queue.try_send(judged).is_err() {
            self.shed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether a policy was asked about the connection. What the gateway lets pass for the network's sake, what it could not read and
/// what a quarantine cuts says nothing of what the workload is for.
fn is_judged(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Forwarded
            | Reason::PolicyDenied
            | Reason::PolicyDeny
            | Reason::Blocklisted
            | Reason::LeaseExpired
            | Reason::TlsRequired
            | Reason::RateLimited
            | Reason::TooManyAttempts
            | Reason::TooManyConnections
            | Reason::AmbiguousIdentity
    )
}

/// What the loop knows and decides by.
pub struct Governance {
    /// Where events come in.
    pub inlet: Arc<Inlet>,
    desk: Mutex<Desk>,
}

struct Desk {
    book: Book,
    brake: Brake,
    intents: usize,
    contained: u64,
    held_back: u64,
}

/// What the loop found and did since the daemon began.
pub struct Tally {
    /// Open findings of low, medium and high severity.
    pub open: [usize; 3],
    /// Identities that were contained.
    pub contained: u64,
    /// Containments that were held back.
    pub held_back: u64,
    /// What was not compared, or made no finding.
    pub shed: u64,
    /// Whether nothing is contained.
    pub paused: bool,
}

impl Governance {
    /// Opens the findings. `per_hour` is how many containments an hour may have.
    pub fn open(path: &Path, inlet: Arc<Inlet>, per_hour: usize) -> Result<Self> {
        let book = Book::open(path)?;
        let brake = Brake::new(per_hour, book.paused()?);
        Ok(Self { inlet, desk: Mutex::new(Desk { book, brake, intents: 0, contained: 0, held_back: 0 }) })
    }

    /// Says what is declared from now on: events are wanted where something is.
    pub fn declare(&self, intents: &[Intent]) {
        lock(&self.desk).intents = intents.len();
        self.inlet.wanted.store(!intents.is_empty(), Ordering::Relaxed);
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

    /// How the loop stands.
    pub fn status(&self) -> GovernanceStatus {
        let Tally { open, shed, .. } = self.tally();
        let desk = lock(&self.desk);
        GovernanceStatus {
            paused: desk.brake.paused.clone(),
            intents: desk.intents,
            open_findings: open.iter().sum(),
            contained_last_hour: desk.brake.recent(Timestamp::now()),
            per_hour: desk.brake.per_hour,
            shed,
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
        let (contained, held_back) = (desk.contained, desk.held_back);
        Tally { open, contained, held_back, shed, paused: desk.brake.paused.is_some() }
    }

    /// Notes why a containment was held back. Returns whether that is news.
    fn hold_back(&self, finding: u64, why: String) -> bool {
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
}

/// What was declared, as it is in force.
#[derive(Default)]
struct Declared {
    set: Arc<PolicySet>,
    labels: HashMap<SpiffeId, BTreeMap<String, String>>,
    expected: HashSet<Known>,
}

/// A connection, by what comparing it depends on.
#[derive(PartialEq, Eq, Hash)]
struct Known {
    /// Number and address of who opened it, and of who answers.
    ends: [(u32, Addr); 2],
    proto: u8,
    port: u16,
}

impl Declared {
    /// Follows the policy. Who was expected may not be any more.
    fn follow(&mut self, set: Arc<PolicySet>) {
        if Arc::ptr_eq(&set, &self.set) {
            return;
        }
        let workloads = set.documents.workloads.iter().filter(|w| !w.labels.is_empty());
        self.labels = workloads.map(|w| (w.spiffe_id.clone(), w.labels.clone())).collect();
        self.expected.clear();
        self.set = set;
    }

    fn intents(&self) -> &[Intent] {
        &self.set.documents.intents
    }

    fn end(&self, names: &Names, number: u32, address: Addr) -> End {
        if number == Binding::AMBIGUOUS {
            return End::Ambiguous(address);
        }
        match names.identity(number).and_then(|id| id.parse::<SpiffeId>().ok()) {
            Some(id) => {
                End::Identified { labels: self.labels.get(&id).cloned().unwrap_or_default(), id, address }
            }
            None => End::Unidentified(address),
        }
    }
}

/// The loop. Ends with the daemon.
pub fn run(shared: &Shared, inlet: &Receiver<Judged>) {
    let mut declared = Declared::default();
    let mut written = Instant::now();
    loop {
        match inlet.recv_timeout(Duration::from_secs(1)) {
            Ok(first) => {
                declared.follow(shared.with_state(|state| state.set.clone()));
                for judged in std::iter::once(first).chain(inlet.try_iter().take(BATCH)) {
                    shared.look_at(&mut declared, &judged);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if written.elapsed() >= Duration::from_secs(1) {
            written = Instant::now();
            if let Err(e) = lock(&shared.governance.desk).book.flush() {
                tracing::error!("{e}");
            }
        }
    }
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

    fn look_at(&self, declared: &mut Declared, judged: &Judged) {
        let event = &judged.event;
        let opener = if event.originator == 0 { Side::A } else { Side::B };
        let ends = [opener, opener.other()].map(|side| (event.identity[side.index()], event.key.end(side).0));
        let port = event.key.end(opener.other()).1;
        let known = Known { ends, proto: event.key.proto, port };
        if declared.expected.contains(&known) {
            return;
        }
        let [client, server] = ends.map(|(number, address)| declared.end(&judged.names, number, address));
        let seen = Seen { client, server, proto: event.key.proto, port };
        let departures = compare(declared.intents(), &seen);
        if departures.is_empty() {
            if declared.expected.len() == EXPECTED {
                declared.expected.clear();
            }
            declared.expected.insert(known);
            return;
        }
        for departure in departures {
            let evidence = Evidence {
                time: judged.time,
                identity: departure.id.clone(),
                address: departure.own.address().to_ip(),
                peer_address: departure.peer.address().to_ip(),
                service: seen.service(),
                verdict: event.action().name().into(),
                reason: event.reason().name().into(),
                rule: judged.names.rule(event.rule).map(str::to_owned),
                epoch: event.epoch,
            };
            let noted = lock(&self.governance.desk).book.note(&departure, &seen, evidence);
            if let Some(noted) = noted {
                self.act(&noted);
            }
        }
    }

    /// Does what was decided, and tells of it.
    fn act(&self, noted: &Noted) {
        let mut is_news = noted.is_new;
        if let Some((id, seconds)) = &noted.contain {
            match self.contain(noted.id, id, *seconds) {
                Ok(true) => is_news = true,
                Ok(false) => {}
                Err(e) => {
                    tracing::error!("finding {}: {id} is not contained: {e}", noted.id);
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
                self.hub.send(&event::finding_json(finding));
            }
        }
    }

    /// Quarantines an identity until its time is over. Returns whether there is something new to tell.
    fn contain(&self, finding: u64, id: &SpiffeId, seconds: u64) -> Result<bool> {
        let now = Timestamp::now();
        let held = lock(&self.governance.desk).brake.holds(now);
        if let Some(why) = held {
            return Ok(self.governance.hold_back(finding, why));
        }
        let until = now + SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
        let quarantine = quarantine(finding, id, until);
        let author = Author::daemon(format!("finding {finding}"));
        let why = lock(&self.governance.desk).book.get(finding)?.why.clone();
        let what = json!({"finding": finding, "decision": "contain", "until": until.to_string(), "why": why});
        self.record_about(Kind::Finding, &author, BTreeSet::from([id.to_string()]), what)?;
        let revision = self.commit(&author, |state| add(state, quarantine))?;
        let mut desk = lock(&self.governance.desk);
        desk.brake.count(now);
        desk.contained += 1;
        desk.book.contained(finding, Containment { identity: id.clone(), at: now, until, revision });
        Ok(true)
    }
}

fn quarantine(finding: u64, id: &SpiffeId, until: Timestamp) -> Quarantine {
    Quarantine {
        // As `tidegate quarantine add` names it: `quarantine del` undoes it.
        name: manual_quarantine(&id.to_string()),
        identities: vec![Selector::SpiffeId(id.clone())],
        except: Vec::new(),
        reason: Some(format!("finding {finding}")),
        not_after: Some(until),
        place: Place { file: format!("finding {finding}").into(), line: 1, column: 1 },
    }
}

/// One that somebody set and that holds longer stays as it is.
fn add(state: &mut State, quarantine: Quarantine) {
    let longer = |q: &Quarantine| {
        q.name == quarantine.name && q.not_after.is_none_or(|end| Some(end) >= quarantine.not_after)
    };
    if !state.quarantines.iter().any(longer) {
        state.quarantines.retain(|q| q.name != quarantine.name);
        state.quarantines.push(quarantine);
    }
}
