//! What connections of an identity come to, one with another: when, to how many, how many.
//!
//! Of several intents of an identity, the first that says something of one of these is what counts for it.

use super::compare::{Departure, End, Role, Seen};
use super::signal::Signal;
use super::table::oldest_quarter;
use super::terms::{USUAL_S, Window};
use crate::policy::intent::Intent;
use crate::policy::quantity::Amount;
use crate::policy::spiffe::SpiffeId;
use datapath::abi::Addr;
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;

/// Identities that are counted.
const MOST_IDENTITIES: usize = 65_536;
/// Peers that are remembered of all of them.
const MOST_PEERS: usize = 262_144;

/// What is expected of one identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Habits<'i> {
    hours: Option<&'i Intent>,
    fan_out: Option<&'i Intent>,
    rate: Option<&'i Intent>,
}

impl<'i> Habits<'i> {
    /// Of an end; nothing where no intent says anything.
    pub fn of(intents: &'i [Intent], end: &End) -> Option<Self> {
        if !matches!(end, End::Identified { .. }) {
            return None;
        }
        let mut habits = Self::default();
        for intent in intents.iter().filter(|intent| end.is_any_of(&intent.identities)) {
            let first = |kept: &mut Option<&'i Intent>, says: bool| {
                if says && kept.is_none() {
                    *kept = Some(intent);
                }
            };
            first(&mut habits.hours, intent.hours.is_some());
            first(&mut habits.fan_out, intent.fan_out.is_some());
            first(&mut habits.rate, intent.rate.is_some());
        }
        (habits != Self::default()).then_some(habits)
    }
}

/// What was counted, in bounded memory: when it is full, the quarter is forgotten of which nothing was heard for longest.
#[derive(Debug, Default)]
pub struct Counted {
    of: HashMap<SpiffeId, Watched>,
    peers: usize,
    /// Identities that were forgotten.
    pub forgotten: u64,
}

#[derive(Debug)]
struct Watched {
    heard: Timestamp,
    peers: HashMap<Met, Timestamp>,
    /// Which period of the rate, and what was opened in it.
    period: (i128, u64),
}

/// A peer: an identity, wherever it is, or an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Met {
    Somebody(SpiffeId),
    Address(Addr),
}

impl Counted {
    /// Counts a connection, and says what departs.
    ///
    /// What is said of the time of a lease is of the last that is as long as one, or an hour of who has none.
    pub fn look<'s>(
        &mut self,
        habits: &Habits<'s>,
        seen: &'s Seen,
        (at, window): (Timestamp, Option<Window>),
    ) -> Vec<Departure<'s>> {
        let End::Identified { id, .. } = &seen.client else { return Vec::new() };
        let mut departures = Vec::new();
        let mut depart = |intent: &'s Intent, signal, detail| {
            let (own, peer) = (&seen.client, &seen.server);
            departures.push(Departure {
                intent,
                id,
                own,
                role: Role::Client,
                peer,
                signal,
                detail,
                rule: None,
            });
        };
        if let Some(intent) = habits.hours
            && let Some(hours) = &intent.hours
            && !hours.contain(at)
        {
            depart(intent, Signal::OffHours, Some(hours.told(at)));
        }
        if habits.fan_out.is_none() && habits.rate.is_none() {
            return departures;
        }
        if self.of.len() >= MOST_IDENTITIES || self.peers >= MOST_PEERS {
            self.forget();
        }
        let watched = self.of.entry(id.clone()).or_insert_with(|| Watched::new(at));
        watched.heard = watched.heard.max(at);
        if let Some(intent) = habits.fan_out
            && let Some(fan_out) = intent.fan_out
        {
            let before = watched.peers.len();
            let lease_s = window.map_or(USUAL_S, |window| window.seconds).unsigned_abs();
            let seconds = fan_out.seconds.unwrap_or(lease_s);
            let many = watched.meet(Met::of(&seen.server), at, seconds, fan_out.peers as usize);
            self.peers = self.peers + watched.peers.len() - before;
            if let Some(many) = many {
                depart(intent, Signal::FanOut, Some(format!("one of {many} peers")));
            }
        }
        if let Some(intent) = habits.rate
            && let Some(rate) = intent.rate
        {
            let opened = watched.open(at, rate.period.ns());
            if opened > rate.amount.get() {
                depart(intent, Signal::Rate, Some(format!("number {opened} of its period")));
            }
        }
        departures
    }

    fn forget(&mut self) {
        let Some(last) = oldest_quarter(self.of.values().map(|watched| watched.heard)) else { return };
        let before = self.of.len();
        self.of.retain(|_, watched| watched.heard > last);
        self.forgotten += (before - self.of.len()) as u64;
        self.peers = self.of.values().map(|watched| watched.peers.len()).sum();
    }
}

impl Watched {
    fn new(at: Timestamp) -> Self {
        Self { heard: at, peers: HashMap::new(), period: (0, 0) }
    }

    /// Notes a peer. Where it is new and one too many, how many there are in the window.
    fn meet(&mut self, peer: Met, at: Timestamp, seconds: u64, most: usize) -> Option<usize> {
        if self.peers.insert(peer, at).is_some() || self.peers.len() <= most {
            return None;
        }
        let window = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
        self.peers.retain(|_, last| at.duration_since(*last) < window);
        let many = self.peers.len();
        if many <= most {
            return None;
        }
        // One more than there may be is enough to know.
        if many > most + 1
            && let Some(oldest) = self.peers.iter().min_by_key(|(_, last)| **last).map(|(met, _)| met.clone())
        {
            self.peers.remove(&oldest);
        }
        Some(many.min(most + 1))
    }

    /// Counts one, and says how many the period has. Periods are those of the clock: minutes and hours of UTC.
    fn open(&mut self, at: Timestamp, period_ns: u64) -> u64 {
        let period = at.as_nanosecond() / i128::from(period_ns);
        if self.period.0 < period {
            self.period = (period, 0);
        }
        self.period.1 += 1;
        self.period.1
    }
}

impl Met {
    fn of(end: &End) -> Self {
        match end {
            End::Identified { id, .. } => Self::Somebody(id.clone()),
            End::Unidentified(address) | End::Ambiguous(address) => Self::Address(*address),
        }
    }
}
