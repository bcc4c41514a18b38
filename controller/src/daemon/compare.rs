//! The governance loop at work: what was told is compared with intents on a thread of its own, and what departs is noted.

use super::inlet::{Ends, Judged, What};
use super::{Shared, lock};
use crate::governance::{Counted, Departure, End, Evidence, Habits, Seen, compare, compare_hello};
use crate::names::Names;
use crate::policy::intent::Intent;
use crate::policy::spiffe::SpiffeId;
use crate::state::PolicySet;
use datapath::abi::{Addr, Binding};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Events that are compared between two looks at the policy.
const BATCH: usize = 1024;
/// Connections that are known to be expected, so that they are not compared again.
const EXPECTED: usize = 65_536;
/// How often it is written who was seen with whom.
const KEEP_EVERY: Duration = Duration::from_secs(30);

/// What was declared, as it is in force.
#[derive(Default)]
struct Declared {
    set: Arc<PolicySet>,
    labels: HashMap<SpiffeId, BTreeMap<String, String>>,
    expected: HashSet<Ends>,
    /// Identities of whose habits no intent says anything.
    without_habits: HashSet<u32>,
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
        self.without_habits.clear();
        self.set = set;
    }

    fn intents(&self) -> &[Intent] {
        &self.set.documents.intents
    }

    fn seen(&self, names: &Names, ends: &Ends) -> Seen {
        let [client, server] = ends.of.map(|(number, address)| self.end(names, number, address));
        Seen { client, server, proto: ends.proto, port: ends.port }
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

    /// Whether nothing of a connection has to be looked at.
    fn is_known(&self, ends: &Ends) -> bool {
        self.expected.contains(ends) && self.without_habits.contains(&ends.of[0].0)
    }

    fn note_expected(&mut self, ends: Ends) {
        if self.expected.len() == EXPECTED {
            self.expected.clear();
        }
        self.expected.insert(ends);
    }
}

/// The loop. Ends with the daemon.
pub fn run(shared: &Shared, outlet: &Receiver<Judged>) {
    let mut declared = Declared::default();
    let mut counted = Counted::default();
    let (mut written, mut kept) = (Instant::now(), Instant::now());
    loop {
        match outlet.recv_timeout(Duration::from_secs(1)) {
            Ok(first) => {
                declared.follow(shared.with_state(|state| state.set.clone()));
                for judged in std::iter::once(first).chain(outlet.try_iter().take(BATCH)) {
                    shared.look_at(&mut declared, &mut counted, &judged);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if kept.elapsed() >= KEEP_EVERY {
            kept = Instant::now();
            shared.governance.keep();
        }
        if written.elapsed() >= Duration::from_secs(1) {
            written = Instant::now();
            shared
                .governance
                .forgotten
                .store(counted.forgotten + lock(&shared.governance.pairs).forgotten, Ordering::Relaxed);
            shared.governance.flush();
        }
    }
}

impl Shared {
    fn look_at(&self, declared: &mut Declared, counted: &mut Counted, judged: &Judged) {
        match &judged.what {
            What::Verdict(event) => {
                let ends = Ends::of_event(event);
                let seen = declared.seen(&judged.names, &ends);
                lock(&self.governance.pairs).note(&seen, !event.reason().passes(), judged.time);
                if declared.is_known(&ends) {
                    return;
                }
                let mut departures = compare(declared.intents(), &seen);
                let is_expected = departures.is_empty();
                let habits = Habits::of(declared.intents(), &seen.client);
                let has_habits = habits.is_some();
                if let Some(habits) = habits {
                    departures.extend(counted.look(&habits, &seen, judged.time));
                }
                for departure in &departures {
                    self.note(departure, &seen, judged);
                }
                if !has_habits {
                    declared.without_habits.insert(ends.of[0].0);
                }
                if is_expected {
                    declared.note_expected(ends);
                }
            }
            What::Hello(ends, hello) => {
                let seen = declared.seen(&judged.names, ends);
                lock(&self.governance.pairs).note_hello(&seen, hello, judged.time);
                for departure in compare_hello(declared.intents(), &seen, hello) {
                    self.note(&departure, &seen, judged);
                }
            }
        }
    }

    /// Notes a departure, and does what follows from it.
    fn note(&self, departure: &Departure<'_>, seen: &Seen, judged: &Judged) {
        let noted = lock(&self.governance.desk).book.note(departure, seen, evidence(departure, seen, judged));
        if let Some(noted) = noted {
            self.act(&noted);
        }
    }
}

fn evidence(departure: &Departure<'_>, seen: &Seen, judged: &Judged) -> Evidence {
    let of_hello = ("FORWARDED", "FORWARDED", None, 0);
    let (verdict, reason, rule, epoch) = match &judged.what {
        What::Verdict(event) => {
            (event.action().name(), event.reason().name(), judged.names.rule(event.rule), event.epoch)
        }
        What::Hello(..) => of_hello,
    };
    Evidence {
        time: judged.time,
        identity: departure.id.clone(),
        address: departure.own.address().to_ip(),
        peer_address: departure.peer.address().to_ip(),
        service: seen.service(),
        verdict: verdict.into(),
        reason: reason.into(),
        rule: rule.map(str::to_owned),
        epoch,
        detail: departure.detail.clone(),
    }
}
