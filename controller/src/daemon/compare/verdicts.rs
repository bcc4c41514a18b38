//! Verdicts: connections that were judged for the first time, or otherwise than before.

use super::{Usual, Watch};
use crate::daemon::inlet::{Ends, Judged};
use crate::daemon::usual::Times;
use crate::daemon::{Shared, lock};
use crate::governance::{
    Adds, Attempt, Departure, End, Habits, Role, Seen, Signal, compare, denied_although_expected, departs,
};
use crate::policy::intent::Intent;
use datapath::abi::{Action, Event, Reason};
use jiff::Timestamp;
use std::collections::hash_map::Entry;
use std::sync::Arc;

impl Shared {
    pub(super) fn look_at_verdict(
        &self,
        watch: &mut Watch,
        judged: Judged,
        (event, over): (&Event, [bool; 2]),
    ) {
        let ends = Ends::of_event(event);
        let seen = watch.declared.seen(&judged.names, &ends);
        let is_denied = event.action() == Action::Dropped;
        watch.roles.note(&seen.client, judged.time);
        watch.roles.note(&seen.server, judged.time);
        let set = watch.declared.set.clone();
        let intents = &set.documents.intents[..];
        if event.reason() == Reason::LeaseExpired {
            // Who is at an address whose lease is over is not certain: it may be the next one's already.
            let departures = leases_over(intents, &seen, over, (&judged, event.epoch));
            departures.iter().for_each(|departure| self.note(departure, &seen, &judged));
            return self.ask_rules(watch, intents, &seen, &judged);
        }
        self.look_at_attempt(watch, intents, (&*seen, &judged), Attempt::Passed(!is_denied));
        if !is_denied && watch.declared.is_known(&ends) {
            return watch.note_usual(ends, seen, judged);
        }
        let judged = &judged;
        lock(&self.governance.pairs).note(&seen, 1, is_denied, judged.time);
        self.look_at_count(watch, intents, (&*seen, judged), (ends.of[0].0, Adds::Connections(1)));
        let mut departures = compare(intents, &seen);
        let is_expected = departures.is_empty();
        match Habits::of(intents, &seen.client) {
            Some(habits) => {
                let window = watch.terms.window(&seen.client, judged.time);
                departures.extend(watch.counted.look(&habits, &seen, (judged.time, window)));
            }
            None => watch.declared.note_without_habits(ends.of[0].0),
        }
        if is_denied && matches!(event.reason(), Reason::PolicyDenied | Reason::PolicyDeny) {
            departures.extend(denied_although_expected(intents, &seen).filter(|_| is_expected));
            departures.extend(watch.scan(intents, &seen, judged.time));
        }
        departures.iter().for_each(|departure| self.note(departure, &seen, judged));
        self.ask_rules(watch, intents, &seen, judged);
        if is_expected {
            if watch.declared.note_expected(ends) {
                self.governance.inlet.usual.forget();
                watch.declared.generation = self.governance.inlet.usual.generation();
            }
            self.have_counted(watch, ends);
        }
    }

    /// Has the next connections between two ends be counted where they are read, if nothing of them has to be looked at.
    fn have_counted(&self, watch: &mut Watch, ends: Ends) {
        if watch.declared.is_known(&ends) {
            self.governance.inlet.usual.know(ends, watch.declared.generation);
        }
    }

    /// Notes what was expected of a batch, and what was counted meanwhile. Returns whether there was anything.
    pub(super) fn note_usual(&self, watch: &mut Watch) -> bool {
        let set = watch.declared.set.clone();
        let mut all = std::mem::take(&mut watch.usual);
        for (ends, Times { many, last }) in self.governance.inlet.usual.take() {
            let seen = watch.declared.seen(&last.names, &ends);
            watch.roles.note(&seen.client, last.time);
            watch.roles.note(&seen.server, last.time);
            self.look_at_attempt(watch, &set.documents.intents, (&*seen, &last), Attempt::Passed(true));
            let usual = all.entry(ends).or_insert_with(|| Usual { seen, many: 0, last });
            usual.many += many;
        }
        let was_any = !all.is_empty();
        for (ends, Usual { seen, many, last }) in all {
            lock(&self.governance.pairs).note(&seen, many, false, last.time);
            let adds = (ends.of[0].0, Adds::Connections(many));
            self.look_at_count(watch, &set.documents.intents, (&*seen, &last), adds);
        }
        was_any
    }
}

/// Of those whose leases were over, how they depart: the leases ended, or were revoked in that epoch.
fn leases_over<'s>(
    intents: &'s [Intent],
    seen: &'s Seen,
    over: [bool; 2],
    (judged, epoch): (&Judged, u32),
) -> Vec<Departure<'s>> {
    let sides = [Role::Client, Role::Server].into_iter().zip(over);
    let over = sides.filter(|(_, is_over)| *is_over).filter_map(|(role, _)| {
        let departure = departs(intents, seen, role, (Signal::ExpiredLease, None))?;
        let End::Identified { id, labels, .. } = departure.own else { return None };
        let revoked = judged.names.revoked(epoch, id, labels);
        let signal = if revoked.is_some() { Signal::RevokedLease } else { Signal::ExpiredLease };
        Some(Departure { signal, detail: revoked, ..departure })
    });
    over.collect()
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
