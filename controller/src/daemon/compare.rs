//! The governance loop at work: what was told is compared with intents on a thread of its own, and what departs is noted.

use super::inlet::{Ends, Judged, What};
use super::{Shared, lock};
use crate::governance::{
    Adds, Attempt, Baselines, Counted, Departure, End, Evidence, Failures, Habits, Latencies, Refusals,
    Retries, Role, Roles, Rules, Scans, Seen, Signal, compare, compare_hello, denied_although_expected,
    departs, lookups, places, processes,
};
use crate::names::Names;
use crate::policy::intent::Intent;
use crate::policy::spiffe::SpiffeId;
use crate::state::PolicySet;
use datapath::abi::{Action, Addr, Binding, Event, HandshakeOutcome, Reason};
use jiff::Timestamp;
use std::collections::hash_map::Entry;
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
    /// Who the ends of connections are by `names`, and by the labels of the set.
    ends: HashMap<Ends, Arc<Seen>>,
    names: Arc<Names>,
    /// The first intent of identities, by its place.
    classes: HashMap<u32, Option<usize>>,
    /// Identities of whose habits no intent says anything.
    without_habits: HashSet<u32>,
    /// Whether every event has to be looked at.
    has_rules: bool,
}

impl Declared {
    /// Follows the policy, and says whether it is another. Who was expected may not be any more.
    fn follow(&mut self, set: Arc<PolicySet>) -> bool {
        if Arc::ptr_eq(&set, &self.set) {
            return false;
        }
        self.has_rules = set.documents.intents.iter().any(|intent| !intent.rules.is_empty());
        // They can be very many, and most changes are of something else.
        if !Arc::ptr_eq(&set.documents.workloads, &self.set.documents.workloads) {
            let workloads = set.documents.workloads.iter().filter(|w| !w.labels.is_empty());
            self.labels = workloads.map(|w| (w.spiffe_id.clone(), w.labels.clone())).collect();
        }
        self.expected.clear();
        self.ends.clear();
        self.classes.clear();
        self.without_habits.clear();
        self.set = set;
        true
    }

    /// Who the ends are. In a storm the same ones come by the thousand, so that they are remembered.
    fn seen(&mut self, names: &Arc<Names>, ends: &Ends) -> Arc<Seen> {
        if !Arc::ptr_eq(names, &self.names) || self.ends.len() >= EXPECTED {
            self.ends.clear();
            self.names = names.clone();
        }
        if let Some(seen) = self.ends.get(ends) {
            return seen.clone();
        }
        let [client, server] = ends.of.map(|(number, address)| self.end(names, number, address));
        let seen = Arc::new(Seen { client, server, proto: ends.proto, port: ends.port });
        self.ends.insert(*ends, seen.clone());
        seen
    }

    /// Whose class the client of a connection is of.
    fn class(&mut self, number: u32, client: &End) -> Option<usize> {
        if !matches!(client, End::Identified { .. }) {
            return None;
        }
        if self.classes.len() >= EXPECTED {
            self.classes.clear();
        }
        let intents = &self.set.documents.intents;
        let of = || intents.iter().position(|intent| client.is_any_of(&intent.identities));
        *self.classes.entry(number).or_insert_with(of)
    }

    fn own(&self, id: &SpiffeId, address: Addr) -> End {
        let labels = self.labels.get(id).cloned().unwrap_or_default();
        End::Identified { id: id.clone(), labels, address }
    }

    fn end(&self, names: &Names, number: u32, address: Addr) -> End {
        if number == Binding::AMBIGUOUS {
            return End::Ambiguous(address);
        }
        match names.identity(number).and_then(|id| id.parse::<SpiffeId>().ok()) {
            Some(id) => self.own(&id, address),
            None => End::Unidentified(address),
        }
    }

    /// Whether nothing of a connection has to be looked at.
    fn is_known(&self, ends: &Ends) -> bool {
        !self.has_rules && self.expected.contains(ends) && self.without_habits.contains(&ends.of[0].0)
    }

    fn note_expected(&mut self, ends: Ends) {
        if self.expected.len() == EXPECTED {
            self.expected.clear();
        }
        self.expected.insert(ends);
    }
}

/// What is declared, and what was counted.
#[derive(Default)]
struct Watch {
    declared: Declared,
    counted: Counted,
    failures: Failures,
    /// None where not even memory has room for them.
    baselines: Option<Baselines>,
    latencies: Latencies,
    scans: Scans,
    retries: Retries,
    refusals: Refusals,
    roles: Roles,
    rules: Rules,
    usual: HashMap<Ends, Usual>,
}

/// Connections between two ends that are known to be expected: counted, and noted together.
struct Usual {
    seen: Arc<Seen>,
    many: u64,
    last: Judged,
}

/// The loop. Ends with the daemon.
pub fn run(shared: &Shared, outlet: &Receiver<Judged>) {
    let baselines = Baselines::open(&shared.instance.observed_file());
    let baselines = baselines.inspect_err(|e| tracing::error!("{e}")).ok();
    let mut watch = Watch { baselines, ..Watch::default() };
    let (mut written, mut kept) = (Instant::now(), Instant::now());
    loop {
        match outlet.recv_timeout(Duration::from_secs(1)) {
            Ok(first) => {
                if watch.declared.follow(shared.with_state(|state| state.set.clone())) {
                    watch.rules.clear();
                }
                for judged in std::iter::once(first).chain(outlet.try_iter().take(BATCH)) {
                    shared.look_at(&mut watch, judged);
                }
                shared.note_usual(&mut watch);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if kept.elapsed() >= KEEP_EVERY {
            kept = Instant::now();
            shared.governance.keep();
            if let Some(Err(e)) = watch.baselines.as_mut().map(Baselines::flush) {
                tracing::error!("{e}");
            }
        }
        if written.elapsed() >= Duration::from_secs(1) {
            written = Instant::now();
            let Watch { counted, failures, latencies, scans, retries, .. } = &watch;
            let pairs = lock(&shared.governance.pairs).forgotten;
            let forgotten = counted.forgotten
                + failures.forgotten()
                + latencies.forgotten()
                + scans.forgotten
                + retries.forgotten
                + pairs;
            shared.governance.forgotten.store(forgotten, Ordering::Relaxed);
            shared.governance.flush();
        }
    }
}

impl Shared {
    fn look_at(&self, watch: &mut Watch, judged: Judged) {
        if let What::Verdict(event) = judged.what {
            return self.look_at_verdict(watch, judged, &event);
        }
        let judged = &judged;
        let set = watch.declared.set.clone();
        let intents = &set.documents.intents[..];
        match &judged.what {
            What::Verdict(_) => {}
            What::Handshake(event, kind, outcome) => {
                let seen = watch.declared.seen(&judged.names, &Ends::of_event(event));
                for mut departure in watch.failures.look(intents, &seen, (*kind, *outcome), judged.time) {
                    let changed =
                        [&seen.client, &seen.server].into_iter().filter_map(|end| watch.roles.changed(end));
                    let said = departure.detail.take().into_iter().chain(changed);
                    departure.detail = Some(said.collect::<Vec<_>>().join("; "));
                    self.note(&departure, &seen, judged);
                }
                if *outcome == HandshakeOutcome::Completed {
                    let took = (*kind, event.duration_ns);
                    let departures = watch.latencies.look(intents, &seen, took, judged.time);
                    departures.iter().for_each(|departure| self.note(departure, &seen, judged));
                }
                self.look_at_attempt(watch, intents, (&*seen, judged), Attempt::Handshake(*kind, *outcome));
                self.ask_rules(watch, intents, &seen, judged);
            }
            What::Closed(ends, bytes) => {
                let seen = watch.declared.seen(&judged.names, ends);
                self.look_at_count(watch, intents, (&*seen, judged), (ends.of[0].0, Adds::Bytes(*bytes)));
            }
            What::Query(ends, name) => {
                let seen = watch.declared.seen(&judged.names, ends);
                let departure = lookups::undeclared(intents, &seen, name);
                departure.iter().for_each(|departure| self.note(departure, &seen, judged));
                self.ask_rules(watch, intents, &seen, judged);
            }
            What::Exec(id, path, pid) => {
                let seen = Seen::on_host(watch.declared.own(id, self.address_of(id)));
                let departure = processes::undeclared(intents, &seen, path, *pid);
                departure.iter().for_each(|departure| self.note(departure, &seen, judged));
            }
            What::Connect(id, name, pid, (address, proto, port)) => {
                let peer = match self.who_is_at(*address, &judged.names) {
                    Some(peer) => watch.declared.own(&peer, *address),
                    None => End::Unidentified(*address),
                };
                let own = watch.declared.own(id, self.address_of(id));
                let seen = Seen { client: own, server: peer, proto: *proto, port: *port };
                let departure = processes::opener(intents, &seen, name, *pid);
                departure.iter().for_each(|departure| self.note(departure, &seen, judged));
            }
            What::Lease(id, address) => {
                let own = watch.declared.own(id, *address);
                if places::limit(intents, &own).is_none() {
                    return;
                }
                let (peer, others) = self.leases_of(id, *address, own.clone());
                let seen = Seen { server: peer, ..Seen::alone(own) };
                let departure = places::one_more(intents, &seen, others);
                departure.iter().for_each(|departure| self.note(departure, &seen, judged));
            }
            What::Refused(id, address, why) => {
                let Some(id) = id.clone().or_else(|| self.who_is_at(*address, &judged.names)) else { return };
                let is_proven = matches!(&judged.what, What::Refused(Some(_), ..));
                let seen = Seen::alone(watch.declared.own(&id, *address));
                let Some(departure) = departs(intents, &seen, Role::Client, (Signal::EnrolmentRefused, None))
                else {
                    return;
                };
                if let Some(detail) = watch.refusals.note(&id, is_proven, (why, judged.time)) {
                    self.note(&Departure { detail: Some(detail), ..departure }, &seen, judged);
                }
            }
            What::Hello(ends, hello) => {
                let seen = watch.declared.seen(&judged.names, ends);
                lock(&self.governance.pairs).note_hello(&seen, hello, judged.time);
                let departures = compare_hello(intents, &seen, hello);
                departures.iter().for_each(|departure| self.note(departure, &seen, judged));
                self.ask_rules(watch, intents, &seen, judged);
            }
        }
    }

    /// Whether an attempt at a service is one of many that all failed.
    fn look_at_attempt(
        &self,
        watch: &mut Watch,
        intents: &[Intent],
        (seen, judged): (&Seen, &Judged),
        attempt: Attempt,
    ) {
        let End::Identified { id, .. } = &seen.client else { return };
        let service = (seen.server.address(), seen.proto, seen.port);
        let Some(detail) = watch.retries.note(id, service, attempt, judged.time) else { return };
        let departure = departs(intents, seen, Role::Client, (Signal::Retries, Some(detail)));
        departure.iter().for_each(|departure| self.note(departure, seen, judged));
    }

    /// Whether an identity does much more than is usual for its class.
    fn look_at_count(
        &self,
        watch: &mut Watch,
        intents: &[Intent],
        (seen, judged): (&Seen, &Judged),
        (client, adds): (u32, Adds),
    ) {
        let Watch { declared, baselines: Some(baselines), .. } = watch else { return };
        let Some(intent) = declared.class(client, &seen.client) else { return };
        let departures = baselines.look(&intents[intent], seen, adds, judged.time);
        departures.iter().for_each(|departure| self.note(departure, seen, judged));
    }

    fn ask_rules(&self, watch: &mut Watch, intents: &[Intent], seen: &Seen, judged: &Judged) {
        if watch.declared.has_rules {
            let found = watch.rules.look(intents, seen, &judged.facts());
            found.iter().for_each(|departure| self.note(departure, seen, judged));
        }
    }

    /// Notes what was expected of a batch.
    fn note_usual(&self, watch: &mut Watch) {
        let set = watch.declared.set.clone();
        for (ends, Usual { seen, many, last }) in std::mem::take(&mut watch.usual) {
            lock(&self.governance.pairs).note(&seen, many, false, last.time);
            let adds = (ends.of[0].0, Adds::Connections(many));
            self.look_at_count(watch, &set.documents.intents, (&*seen, &last), adds);
        }
    }

    fn look_at_verdict(&self, watch: &mut Watch, judged: Judged, event: &Event) {
        let ends = Ends::of_event(event);
        let seen = watch.declared.seen(&judged.names, &ends);
        let is_denied = event.action() == Action::Dropped;
        watch.roles.note(&seen.client, judged.time);
        watch.roles.note(&seen.server, judged.time);
        let set = watch.declared.set.clone();
        let intents = &set.documents.intents[..];
        self.look_at_attempt(watch, intents, (&*seen, &judged), Attempt::Passed(!is_denied));
        let is_over = event.reason() == Reason::LeaseExpired;
        if !is_denied && !is_over && watch.declared.is_known(&ends) {
            return watch.note_usual(ends, seen, judged);
        }
        let judged = &judged;
        lock(&self.governance.pairs).note(&seen, 1, is_denied, judged.time);
        self.look_at_count(watch, intents, (&*seen, judged), (ends.of[0].0, Adds::Connections(1)));
        let mut departures = compare(intents, &seen);
        let is_expected = departures.is_empty();
        match Habits::of(intents, &seen.client) {
            Some(habits) => departures.extend(watch.counted.look(&habits, &seen, judged.time)),
            None => {
                watch.declared.without_habits.insert(ends.of[0].0);
            }
        }
        if is_denied && matches!(event.reason(), Reason::PolicyDenied | Reason::PolicyDeny) {
            departures.extend(denied_although_expected(intents, &seen).filter(|_| is_expected));
            departures.extend(watch.scan(intents, &seen, judged.time));
        }
        if is_over {
            let late = [Role::Client, Role::Server].into_iter().zip(ends.of);
            let late = late.filter(|(_, end)| self.is_lease_over(*end, event)).map(|(role, _)| role);
            departures
                .extend(late.filter_map(|role| departs(intents, &seen, role, (Signal::ExpiredLease, None))));
        }
        departures.iter().for_each(|departure| self.note(departure, &seen, judged));
        self.ask_rules(watch, intents, &seen, judged);
        if is_expected {
            watch.declared.note_expected(ends);
        }
    }

    /// Whose lease it was that an event tells of, the binding says.
    fn is_lease_over(&self, (number, address): (u32, Addr), event: &Event) -> bool {
        let versions = self.maps.bindings.longest(&address, 128).ok().flatten();
        versions.is_some_and(|versions| {
            let binding = versions.at(event.epoch);
            binding.identity == number && binding.not_after_ns <= event.time_ns
        })
    }

    /// Notes a departure, and does what follows from it.
    fn note(&self, departure: &Departure<'_>, seen: &Seen, judged: &Judged) {
        let noted = lock(&self.governance.desk).book.note(departure, seen, evidence(departure, seen, judged));
        if let Some(noted) = noted {
            self.act(&noted);
        }
    }
}

impl Watch {
    fn note_usual(&mut self, ends: Ends, seen: Arc<Seen>, judged: Judged) {
        match self.usual.entry(ends) {
            Entry::Occupied(mut usual) => {
                usual.get_mut().many += 1;
                usual.get_mut().last = judged;
            }
            Entry::Vacant(place) => {
                place.insert(Usual { seen, many: 1, last: judged });
            }
        }
    }

    /// Whether a denied connection is one of a scan.
    fn scan<'s>(&mut self, intents: &'s [Intent], seen: &'s Seen, at: Timestamp) -> Option<Departure<'s>> {
        let scan = departs(intents, seen, Role::Client, (Signal::Scan, None))?;
        let service = (seen.server.address(), seen.proto, seen.port);
        let detail = self.scans.note(scan.id, service, at)?;
        Some(Departure { detail: Some(detail), ..scan })
    }
}

fn evidence(departure: &Departure<'_>, seen: &Seen, judged: &Judged) -> Evidence {
    let of_hello = ("FORWARDED", "FORWARDED", None, 0);
    let (verdict, reason, rule, epoch) = match &judged.what {
        What::Verdict(event) | What::Handshake(event, ..) => {
            (event.action().name(), event.reason().name(), judged.names.rule(event.rule), event.epoch)
        }
        What::Hello(..) | What::Query(..) | What::Closed(..) => of_hello,
        What::Exec(..) => ("FORWARDED", "EXEC", None, 0),
        What::Connect(..) => ("FORWARDED", "CONNECT", None, 0),
        What::Lease(..) => ("FORWARDED", "LEASE_GRANTED", None, 0),
        What::Refused(.., why) => ("DROPPED", *why, None, 0),
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
