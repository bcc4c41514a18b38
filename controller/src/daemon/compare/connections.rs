//! What becomes of connections beside their verdicts: handshakes, ClientHellos, queries for names, bytes.

use super::Watch;
use crate::daemon::inlet::{Ends, Judged};
use crate::daemon::{Shared, lock};
use crate::governance::{Adds, Attempt, Deed, End, Role, Seen, Signal, compare_hello, departs, lookups};
use crate::hello::ClientHello;
use crate::policy::intent::Intent;
use datapath::abi::{Event, HandshakeKind, HandshakeOutcome};

impl Shared {
    pub(super) fn look_at_handshake(
        &self,
        watch: &mut Watch,
        intents: &[Intent],
        judged: &Judged,
        (event, kind, outcome): (&Event, HandshakeKind, HandshakeOutcome),
    ) {
        let seen = watch.declared.seen(&judged.names, &Ends::of_event(event));
        for mut departure in watch.failures.look(intents, &seen, (kind, outcome), judged.time) {
            let ends = [&seen.client, &seen.server].into_iter();
            let changed = ends.flat_map(|end| watch.roles.changed(end, judged.time));
            let said = departure.detail.take().into_iter().chain(changed);
            departure.detail = Some(said.collect::<Vec<_>>().join("; "));
            self.note(&departure, &seen, judged);
        }
        if outcome == HandshakeOutcome::Completed {
            let departures = watch.latencies.look(intents, &seen, (kind, event.duration_ns), judged.time);
            departures.iter().for_each(|departure| self.note(departure, &seen, judged));
        }
        self.look_at_attempt(watch, intents, (&*seen, judged), Attempt::Handshake(kind, outcome));
        self.ask_rules(watch, intents, &seen, judged);
    }

    pub(super) fn look_at_hello(
        &self,
        watch: &mut Watch,
        intents: &[Intent],
        judged: &Judged,
        (ends, hello): (&Ends, &ClientHello),
    ) {
        let seen = watch.declared.seen(&judged.names, ends);
        lock(&self.governance.pairs).note_hello(&seen, hello, judged.time);
        let departures = compare_hello(intents, &seen, hello);
        departures.iter().for_each(|departure| self.note(departure, &seen, judged));
        self.ask_rules(watch, intents, &seen, judged);
    }

    pub(super) fn look_at_query(
        &self,
        watch: &mut Watch,
        intents: &[Intent],
        judged: &Judged,
        (ends, name): (&Ends, &str),
    ) {
        let seen = watch.declared.seen(&judged.names, ends);
        if let End::Identified { id, .. } = &seen.client {
            lock(&self.governance.deeds).note(id, Deed::AsksFor(name.into()), judged.time);
        }
        let departure = lookups::undeclared(intents, &seen, name);
        departure.iter().for_each(|departure| self.note(departure, &seen, judged));
        self.ask_rules(watch, intents, &seen, judged);
    }

    pub(super) fn look_at_end(
        &self,
        watch: &mut Watch,
        intents: &[Intent],
        judged: &Judged,
        (ends, bytes): (&Ends, u64),
    ) {
        let seen = watch.declared.seen(&judged.names, ends);
        self.look_at_count(watch, intents, (&*seen, judged), (ends.of[0].0, Adds::Bytes(bytes)));
    }

    /// Whether an attempt at a service is one of many that all failed.
    pub(super) fn look_at_attempt(
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
    pub(super) fn look_at_count(
        &self,
        watch: &mut Watch,
        intents: &[Intent],
        (seen, judged): (&Seen, &Judged),
        (client, adds): (u32, Adds),
    ) {
        let Watch { declared, baselines, terms, .. } = watch;
        let Some(intent) = declared.class(client, &seen.client) else { return };
        let window = terms.window(&seen.client, judged.time);
        let departures = baselines.look(&intents[intent], seen, adds, (judged.time, window));
        departures.iter().for_each(|departure| self.note(departure, seen, judged));
    }

    pub(super) fn ask_rules(&self, watch: &mut Watch, intents: &[Intent], seen: &Seen, judged: &Judged) {
        if watch.declared.has_rules {
            let found = watch.rules.look(intents, seen, &judged.facts());
            found.iter().for_each(|departure| self.note(departure, seen, judged));
        }
    }
}
