//! How much identities of a class usually do in an hour, or where their leases are shorter, in the time of a lease: connections that they
//! open, peers that they open them to, bytes of these.
//!
//! Second to what is declared, and never more than a hint: what departs from a count is flagged with medium confidence. A class is an intent
//! within a tenant, and a window of it is the most that any of its identities did, so that jobs that come and go share one baseline and make
//! it no larger.

#[cfg(test)]
mod tests;
mod usual;

use super::compare::{Departure, End, Role, Seen};
use super::signal::Signal;
use super::tenant::tenant;
use super::terms::{USUAL_S, Window};
use crate::policy::intent::Intent;
use crate::policy::spiffe::SpiffeId;
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use usual::{Measure, unusual};

/// So many days of hours are remembered, and as many windows of leases.
const DAYS: i64 = 28;
const WINDOWS: usize = 28 * 24;
/// Windows of leases are of one of these lengths, the longest that a lease is as long as: leases of about the same length are one class.
const STEPS_S: [i64; 4] = [60, 300, 900, 1800];
/// Identities that are counted. Those beyond are not, until there is room.
const MOST: usize = 65_536;
/// Peers of an identity that are told apart; more are as many.
const MOST_PEERS: usize = 1024;
/// How often it is looked whose windows are over.
const SWEEP_S: i64 = 60;

/// What an event adds to the counts of its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adds {
    /// So many connections, and perhaps a peer.
    Connections(u64),
    /// So many bytes of one that is over.
    Bytes(u64),
}

/// What an identity did in the window that runs.
#[derive(Debug)]
struct Running {
    class: String,
    /// When the window began, and how long it is.
    began_s: i64,
    seconds: i64,
    counts: [u64; 3],
    /// By their hashes.
    peers: HashSet<u64>,
    said: [bool; 3],
}

/// By measure and number of the window, the most that an identity did.
type Windows = [BTreeMap<i64, u64>; 3];

/// What is usual of a class in one window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Which class: an intent and a tenant, `jobs acme.example/ns/shop`.
    pub class: String,
    /// How long the window is; 3600 for the hours of the clock.
    pub seconds: i64,
    /// What was counted.
    pub measure: usize,
    /// Which window, counted from 1970.
    pub slot: i64,
    /// The most that an identity did; nothing where that is not remembered any more.
    pub most: Option<u64>,
}

/// The baselines.
#[derive(Debug, Default)]
pub struct Baselines {
    running: HashMap<SpiffeId, Running>,
    swept_s: i64,
    of: HashMap<String, BTreeMap<i64, Windows>>,
    dirty: Vec<Sample>,
    /// What was not counted: there was no room for its identity.
    pub not_counted: u64,
}

impl Baselines {
    /// Those that were kept.
    pub fn of(kept: Vec<Sample>) -> Self {
        let mut baselines = Self::default();
        for Sample { class, seconds, measure, slot, most } in kept {
            let windows = baselines.of.entry(class).or_default().entry(seconds).or_default();
            if let (Some(slots), Some(most)) = (windows.get_mut(measure), most) {
                slots.insert(slot, most);
            }
        }
        baselines
    }

    /// Counts, and says in what the client, whose first intent this is, does much more than is usual: once a window of each measure.
    /// Without a window of its own it is compared over the hours of the clock.
    pub fn look<'s>(
        &mut self,
        intent: &'s Intent,
        seen: &'s Seen,
        adds: Adds,
        (at, window): (Timestamp, Option<Window>),
    ) -> Vec<Departure<'s>> {
        let End::Identified { id, .. } = &seen.client else { return Vec::new() };
        let now_s = at.as_second();
        self.sweep(now_s);
        let (began_s, seconds) = span(now_s, window);
        // Nearly every event is of somebody who is known: nothing is copied for it.
        match self.running.get(id) {
            Some(running) if running.seconds == seconds && now_s < running.began_s + seconds => {}
            None if self.running.len() >= MOST => {
                self.not_counted += 1;
                return Vec::new();
            }
            known => {
                if known.is_some_and(|running| running.is_over(now_s)) {
                    let over = self.running.remove(id);
                    over.into_iter().for_each(|running| self.learn(&running));
                }
                let class = format!("{} {}", intent.name, tenant(id.as_str()));
                let running = Running::new(class, began_s, seconds);
                self.running.insert(id.clone(), running);
            }
        }
        let Some(running) = self.running.get_mut(id) else { return Vec::new() };
        running.add(seen, adds);
        let Some(windows) = self.of.get(&running.class).and_then(|of| of.get(&seconds)) else {
            return Vec::new();
        };
        let mut departures = Vec::new();
        for (n, measure) in Measure::ALL.into_iter().enumerate() {
            if running.said[n] {
                continue;
            }
            let slot = running.slot();
            let Some(text) = unusual(measure, &windows[n], (slot, seconds), running.counts[n]) else {
                continue;
            };
            running.said[n] = true;
            departures.push(Departure {
                intent,
                id,
                own: &seen.client,
                role: Role::Client,
                peer: &seen.server,
                signal: Signal::UnusualCount,
                detail: Some(text),
                rule: None,
            });
        }
        departures
    }

    /// Takes what windows had that are over.
    fn sweep(&mut self, now_s: i64) {
        // Hours of the clock end at once, and the next is compared with them.
        let minute_s = now_s - now_s.rem_euclid(SWEEP_S);
        if minute_s <= self.swept_s {
            return;
        }
        self.swept_s = minute_s;
        let over = |_: &SpiffeId, running: &mut Running| running.is_over(now_s);
        let over: Vec<_> = self.running.extract_if(over).map(|(_, running)| running).collect();
        over.iter().for_each(|running| self.learn(running));
    }

    /// What a window had is a part of the baselines from now on.
    fn learn(&mut self, running: &Running) {
        let (class, seconds, slot) = (&running.class, running.seconds, running.slot());
        let windows = self.of.entry(class.clone()).or_default().entry(seconds).or_default();
        for (measure, slots) in windows.iter_mut().enumerate() {
            let most = slots.entry(slot).or_default();
            *most = running.counts[measure].max(*most);
            let sample = |slot, most| Sample { class: class.clone(), seconds, measure, slot, most };
            self.dirty.push(sample(slot, Some(*most)));
            while let Some((first, _)) = slots.first_key_value()
                && (slots.len() > WINDOWS || (seconds == USUAL_S && *first < slot - DAYS * 24))
            {
                self.dirty.push(sample(*first, None));
                slots.pop_first();
            }
        }
    }

    /// Takes what has changed since it was taken last.
    pub fn changes(&mut self) -> Vec<Sample> {
        std::mem::take(&mut self.dirty)
    }
}

/// When the window began that runs, and how long it is.
fn span(now_s: i64, window: Option<Window>) -> (i64, i64) {
    // A tenth less is as long: an agent asks a moment late.
    let fits = |step: &&i64| window.is_some_and(|window| window.seconds >= **step * 9 / 10);
    match (window, STEPS_S.iter().rfind(fits).or(window.map(|_| &STEPS_S[0]))) {
        (Some(window), Some(step)) => (now_s - (now_s - window.since.as_second()).rem_euclid(*step), *step),
        _ => (now_s - now_s.rem_euclid(USUAL_S), USUAL_S),
    }
}

impl Running {
    fn new(class: String, began_s: i64, seconds: i64) -> Self {
        Self { class, began_s, seconds, counts: [0; 3], peers: HashSet::new(), said: [false; 3] }
    }

    fn is_over(&self, now_s: i64) -> bool {
        now_s >= self.began_s + self.seconds
    }

    fn slot(&self) -> i64 {
        self.began_s.div_euclid(self.seconds)
    }

    fn add(&mut self, seen: &Seen, adds: Adds) {
        match adds {
            Adds::Bytes(bytes) => self.counts[Measure::Bytes as usize] += bytes,
            Adds::Connections(many) => {
                self.counts[Measure::Connections as usize] += many;
                if self.peers.len() < MOST_PEERS {
                    self.peers.insert(hash(&seen.server));
                }
                self.counts[Measure::Peers as usize] = self.peers.len() as u64;
            }
        }
    }
}

/// Somebody is one peer wherever he is, an address is one by itself.
fn hash(end: &End) -> u64 {
    let mut hasher = DefaultHasher::new();
    match end {
        End::Identified { id, .. } => id.hash(&mut hasher),
        End::Unidentified(address) | End::Ambiguous(address) => Hash::hash(address, &mut hasher),
    }
    hasher.finish()
}
