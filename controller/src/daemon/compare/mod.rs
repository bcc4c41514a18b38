//! The governance loop at work: what was told is compared with intents on a thread of its own, and what departs is noted.
//!
//! Nothing here waits for a disk but a containment, whose record and commit have to be kept before they count.

mod connections;
mod declared;
mod identities;
mod verdicts;

use super::inlet::{Ends, Judged, Outlet, What};
use super::{Shared, lock};
use crate::governance::{
    Baselines, Counted, Departure, End, Evidence, Failures, Latencies, Refusals, Retries, Roles, Rules,
    Scans, Seen, Terms,
};
use declared::Declared;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

/// Events that are compared between two looks at the policy.
const BATCH: usize = 1024;
const SECOND: Duration = Duration::from_secs(1);
/// How often it is looked what was counted of connections that are known, while there are any.
const SOON: Duration = Duration::from_millis(100);

/// What is declared, and what was counted.
struct Watch {
    declared: Declared,
    counted: Counted,
    failures: Failures,
    baselines: Baselines,
    latencies: Latencies,
    scans: Scans,
    retries: Retries,
    refusals: Refusals,
    roles: Roles,
    rules: Rules,
    terms: Terms,
    usual: HashMap<Ends, Usual>,
}

/// Connections between two ends that are known to be expected: counted, and noted together.
struct Usual {
    seen: Arc<Seen>,
    many: u64,
    last: Judged,
}

/// The loop, by the baselines that were kept. Ends with the daemon.
pub fn run(shared: &Shared, outlet: &Outlet, baselines: Baselines) {
    let mut watch = Watch::new(baselines);
    let (mut counted, mut is_busy) = (Instant::now(), false);
    loop {
        let first = match outlet.wait(if is_busy { SOON } else { SECOND }) {
            Ok(first) => Some(first),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // Before the policy: whom an older one knows, nobody is told.
        let generation = shared.governance.inlet.usual.generation();
        if watch.declared.follow(shared.with_state(|state| state.set.clone())) {
            watch.rules.clear();
        }
        watch.declared.generation = generation;
        is_busy = first.is_some();
        for judged in first.into_iter().chain(outlet.come().take(BATCH)) {
            shared.look_at(&mut watch, judged);
        }
        is_busy |= shared.note_usual(&mut watch);
        if !is_busy {
            outlet.doze();
        }
        if counted.elapsed() >= SECOND {
            counted = Instant::now();
            let pairs = lock(&shared.governance.pairs).forgotten();
            let kept = pairs + lock(&shared.governance.deeds).forgotten();
            shared.governance.forgotten.store(watch.forgotten() + kept, Ordering::Relaxed);
            shared.governance.keep_baselines(watch.baselines.changes());
            shared.governance.note_rules(watch.rules.failed, watch.rules.failing());
        }
    }
}

impl Shared {
    fn look_at(&self, watch: &mut Watch, judged: Judged) {
        let set = watch.declared.set.clone();
        let intents = &set.documents.intents[..];
        match &judged.what {
            What::Verdict(event, over) => {
                let (event, over) = (*event, *over);
                self.look_at_verdict(watch, judged, (&event, over));
            }
            What::Handshake(event, kind, outcome) => {
                self.look_at_handshake(watch, intents, &judged, (event, *kind, *outcome));
            }
            What::Hello(ends, hello) => self.look_at_hello(watch, intents, &judged, (ends, hello)),
            What::Query(ends, name) => self.look_at_query(watch, intents, &judged, (ends, name)),
            What::Closed(ends, bytes) => self.look_at_end(watch, intents, &judged, (ends, *bytes)),
            What::Exec(local, path) => self.look_at_exec(watch, intents, &judged, (local, path)),
            What::Connect(local, name, to) => {
                self.look_at_connect(watch, intents, &judged, (local, name, *to));
            }
            What::Lease(lent) => self.look_at_lease(watch, intents, &judged, lent),
            // It is noted with the batch.
            What::Usual => {}
            What::Refused(knocked) => self.look_at_refusal(watch, intents, &judged, knocked),
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

impl Watch {
    fn new(baselines: Baselines) -> Self {
        Self {
            declared: Declared::default(),
            counted: Counted::default(),
            failures: Failures::default(),
            baselines,
            latencies: Latencies::default(),
            scans: Scans::default(),
            retries: Retries::default(),
            refusals: Refusals::default(),
            roles: Roles::default(),
            rules: Rules::default(),
            terms: Terms::default(),
            usual: HashMap::new(),
        }
    }

    /// What was forgotten of what is counted, for want of room.
    fn forgotten(&self) -> u64 {
        let Self { counted, failures, latencies, scans, retries, terms, refusals, roles, baselines, .. } =
            self;
        let classes = failures.forgotten() + latencies.forgotten() + baselines.not_counted;
        let identities = refusals.forgotten + roles.forgotten + terms.forgotten;
        counted.forgotten + classes + identities + scans.forgotten + retries.forgotten
    }
}

fn evidence(departure: &Departure<'_>, seen: &Seen, judged: &Judged) -> Evidence {
    let of_hello = ("FORWARDED", "FORWARDED", None, 0);
    let (verdict, reason, rule, epoch) = match &judged.what {
        What::Verdict(event, _) | What::Handshake(event, ..) => {
            (event.action().name(), event.reason().name(), judged.names.rule(event.rule), event.epoch)
        }
        What::Hello(..) | What::Query(..) | What::Closed(..) | What::Usual => of_hello,
        What::Exec(..) => ("FORWARDED", Judged::EXECUTED, None, 0),
        What::Connect(..) => ("FORWARDED", Judged::CONNECTED, None, 0),
        What::Lease(..) => ("FORWARDED", Judged::GRANTED, None, 0),
        What::Refused(knocked) => ("DROPPED", knocked.why.name(), None, 0),
    };
    Evidence {
        time: judged.time,
        identity: departure.id.clone(),
        address: departure.own.address().to_ip(),
        peer_address: departure.peer.address().to_ip(),
        peer: match departure.peer {
            End::Identified { id, .. } if !seen.is_alone() => Some(id.clone()),
            _ => None,
        },
        service: seen.service(),
        verdict: verdict.into(),
        reason: reason.into(),
        rule: rule.map(str::to_owned),
        epoch,
        detail: departure.detail.clone(),
    }
}
