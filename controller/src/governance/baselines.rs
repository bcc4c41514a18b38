//! How much identities of a class usually do in an hour, or where their leases are shorter, in the time of a lease: connections that they
//! open, peers that they open them to, bytes of these.
//!
//! Second to what is declared, and never more than a hint: what departs from a count is flagged with medium confidence. A class is an intent
//! within a tenant, and a window of it is the most that any of its identities did, so that jobs that come and go share one baseline and make
//! it no larger.

use super::compare::{Departure, End, Role, Seen};
use super::signal::Signal;
use super::tenant::tenant;
use super::terms::{USUAL_S, Window};
use crate::policy::intent::Intent;
use crate::policy::spiffe::SpiffeId;
use crate::policy::time::duration_text;
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// So many days of hours are remembered, and as many windows of leases.
const DAYS: i64 = 28;
const WINDOWS: usize = 28 * 24;
/// Of the same hour of the day so many days are enough to know what is usual.
const SAME_HOUR: usize = 5;
/// Where there are fewer, so many hours of any day are; so many windows of leases are too.
const ANY: usize = 24;
/// Windows of leases are of one of these lengths, the longest that a lease is as long as: leases of about the same length are one class.
const STEPS_S: [i64; 4] = [60, 300, 900, 1800];
/// Identities that are counted. Those beyond are not, until there is room.
const MOST: usize = 65_536;
/// Peers of an identity that are told apart; more are as many.
const MOST_PEERS: usize = 1024;
/// How often it is looked whose windows are over.
const SWEEP_S: i64 = 60;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    Connections,
    Peers,
    Bytes,
}

/// What an event adds to the counts of its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adds {
    /// So many connections, and perhaps a peer.
    Connections(u64),
    /// So many bytes of one that is over.
    Bytes(u64),
}

impl Measure {
    const ALL: [Self; 3] = [Self::Connections, Self::Peers, Self::Bytes];

    fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Peers => "peers",
            Self::Bytes => "bytes",
        }
    }

    /// Less than that is no matter, whatever is usual.
    fn least(self) -> u64 {
        match self {
            Self::Connections => 100,
            Self::Peers => 10,
            Self::Bytes => 10 << 20,
        }
    }
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

/// What is unusual about a count, in words: it is beyond six times the usual spread above the middle, and three times the middle.
fn unusual(
    measure: Measure,
    slots: &BTreeMap<i64, u64>,
    (slot, seconds): (i64, i64),
    count: u64,
) -> Option<String> {
    if count < measure.least() {
        return None;
    }
    let is_hour = seconds == USUAL_S;
    let same_hour = slots.iter().filter(|(other, _)| is_hour && (slot - **other) % 24 == 0);
    let same: Vec<u64> = same_hour.map(|(_, n)| *n).collect();
    let (samples, of) = match (same.len() >= SAME_HOUR, slots.len() >= ANY) {
        (true, _) => (same, "the same hour of as many days"),
        (false, true) if is_hour => (slots.values().copied().collect(), "as many hours"),
        (false, true) => (slots.values().copied().collect(), "as many times"),
        (false, false) => return None,
    };
    let middle = median(samples.clone());
    let spread = median(samples.iter().map(|n| n.abs_diff(middle)).collect());
    // The median of distances is two thirds of a standard deviation where numbers scatter evenly; six of them are nine of it.
    let limit = (middle + 9 * spread).max(3 * middle);
    let span = if is_hour {
        "an hour".to_owned()
    } else {
        format!("{} of a lease", duration_text(seconds.unsigned_abs()))
    };
    (count > limit).then(|| {
        let many = samples.len();
        format!(
            "{count} {name} in {span}; the middle of {many} ({of}) is {middle}, and half are within {spread} of it",
            name = measure.name()
        )
    })
}

fn median(mut numbers: Vec<u64>) -> u64 {
    let middle = numbers.len() / 2;
    if numbers.is_empty() { 0 } else { *numbers.select_nth_unstable(middle).1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Documents;
    use datapath::abi::Addr;

    const INTENTS: &str = "\
apiVersion: tidegate.dev/v1
kind: Intent
metadata: {name: jobs}
spec:
  identities: [{spiffePath: \"spiffe://a.example/job/*\"}]
  workload: batch
  client: [{to: [{any: true}], ports: [any]}]
";

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn at(hour: i64) -> Timestamp {
        second(hour * 3600)
    }

    fn intents() -> Vec<Intent> {
        Documents::parse("intents.yaml", INTENTS, at(0)).unwrap_or_else(|e| panic!("{e}")).intents
    }

    fn seen(job: i64) -> Seen {
        let id = format!("spiffe://a.example/job/j{job}").parse().expect("a SPIFFE ID");
        let client = End::Identified {
            id,
            labels: Default::default(),
            address: Addr::v4([10, 1, 0, 2]),
            is_shared: false,
        };
        Seen { client, server: End::Unidentified(Addr::v4([10, 2, 0, 3])), proto: 6, port: 443 }
    }

    fn opened(baselines: &mut Baselines, job: i64, hour: i64, many: usize) -> Vec<String> {
        let (intents, seen) = (intents(), seen(job));
        let look = |_| baselines.look(&intents[0], &seen, Adds::Connections(1), (at(hour), None));
        (0..many).flat_map(look).filter_map(|departure| departure.detail).collect()
    }

    #[test]
    fn jobs_of_a_class_share_a_baseline_and_one_that_does_much_more_is_said_once_an_hour() {
        let mut baselines = Baselines::default();
        for hour in 0..24 {
            // A job an hour, each with a name of its own: 40 to 63 connections.
            assert!(opened(&mut baselines, hour, hour, 40 + hour as usize).is_empty());
        }
        assert!(opened(&mut baselines, 100, 24, 156).is_empty(), "three times the usual");
        assert_eq!(
            opened(&mut baselines, 101, 24, 400),
            [
                "157 connections in an hour; the middle of 24 (as many hours) is 52, and half are within 6 of it"
            ]
        );
        assert_eq!(opened(&mut baselines, 101, 25, 200).len(), 1, "another hour");
    }

    #[test]
    fn with_too_few_hours_and_too_little_nothing_is_unusual() {
        let mut baselines = Baselines::default();
        for hour in 0..23 {
            opened(&mut baselines, 1, hour, 1);
        }
        assert!(opened(&mut baselines, 1, 23, 1000).is_empty(), "nobody knows what is usual");
        assert!(opened(&mut baselines, 1, 24, 99).is_empty(), "that is no matter");
    }

    #[test]
    fn the_same_hour_of_other_days_counts_first() {
        let mut baselines = Baselines::default();
        for day in 0..5 {
            opened(&mut baselines, 1, day * 24 + 2, 1000);
            for hour in 3..20 {
                opened(&mut baselines, 1, day * 24 + hour, 10);
            }
        }
        assert!(opened(&mut baselines, 1, 5 * 24 + 2, 1000).is_empty(), "the backup at two");
        assert_eq!(opened(&mut baselines, 1, 5 * 24 + 3, 1000).len(), 1);
    }

    #[test]
    fn bytes_count_and_what_was_counted_can_be_kept() {
        let (intents, seen) = (intents(), seen(1));
        let mut baselines = Baselines::default();
        for hour in 0..25 {
            assert!(baselines.look(&intents[0], &seen, Adds::Bytes(1 << 20), (at(hour), None)).is_empty());
        }
        let kept = baselines.changes();
        assert_eq!(kept.len(), 24 * 3, "the hour that runs is not known");
        let mut baselines = Baselines::of(kept);
        let found = baselines.look(&intents[0], &seen, Adds::Bytes(11 << 20), (at(26), None));
        let detail = found[0].detail.as_deref().expect("a reason");
        assert!(detail.starts_with("11534336 bytes in an hour; the middle of 24 "), "{detail}");
        // Older than four weeks is forgotten, in the file too.
        assert!(baselines.look(&intents[0], &seen, Adds::Bytes(1), (at(26 + 28 * 24), None)).is_empty());
        assert!(baselines.look(&intents[0], &seen, Adds::Bytes(1), (at(27 + 28 * 24), None)).is_empty());
        let gone = baselines.changes().iter().filter(|sample| sample.most.is_none()).count();
        assert_eq!(gone, 24 * 3);
        assert!(
            baselines.look(&intents[0], &seen, Adds::Bytes(11 << 20), (at(28 + 28 * 24), None)).is_empty()
        );
    }

    /// Opens so many connections at once, within a lease of five minutes that was given at `since`.
    fn opened_in_lease(
        baselines: &mut Baselines,
        job: i64,
        (since, now): (i64, i64),
        many: usize,
    ) -> Vec<String> {
        let (intents, seen) = (intents(), seen(job));
        let window = Window { since: second(since), seconds: 299 };
        let look = |_| baselines.look(&intents[0], &seen, Adds::Connections(1), (second(now), Some(window)));
        (0..many).flat_map(look).filter_map(|departure| departure.detail).collect()
    }

    #[test]
    fn who_is_given_five_minutes_at_a_time_is_compared_with_what_others_did_in_five_minutes() {
        let mut baselines = Baselines::default();
        // Jobs with a lease each, begun at any minute, over the edges of hours; one that is renewed is counted lease by lease.
        for job in 0..20 {
            let since = job * 700 + 13;
            assert!(opened_in_lease(&mut baselines, job, (since, since + 1), 30).is_empty());
            assert!(opened_in_lease(&mut baselines, job, (since, since + 299), 20).is_empty());
        }
        for lease in 0..10 {
            let now = 20_000 + lease * 300;
            assert!(opened_in_lease(&mut baselines, 50, (20_000, now), 50).is_empty(), "lease {lease}");
        }
        assert!(
            opened_in_lease(&mut baselines, 98, (30_000, 30_010), 150).is_empty(),
            "three times the usual"
        );
        let found = opened_in_lease(&mut baselines, 99, (30_000, 30_020), 151);
        let [said] = &found[..] else { panic!("said once, not {found:?}") };
        assert!(said.starts_with("151 connections in 5m00s of a lease; the middle of "), "{said}");
        assert!(said.ends_with(" (as many times) is 50, and half are within 0 of it"), "{said}");
        // Nobody knows what is usual of others in an hour, and leases of another length are another baseline.
        assert!(opened(&mut baselines, 99, 10, 1000).is_empty());
    }

    #[test]
    fn a_window_is_of_the_longest_length_that_a_lease_is_as_long_as() {
        let of = |seconds: i64| span(1_000_007, Some(Window { since: second(7), seconds }));
        assert_eq!([5, 60, 299, 300, 899, 1799].map(|lease| of(lease).1), [60, 60, 300, 300, 900, 1800]);
        assert_eq!(of(300), (1_000_000 - 1_000_000 % 300 + 7, 300), "from the first lease on");
        assert_eq!(span(7201, None), (7200, 3600), "by the clock");
    }

    #[test]
    fn of_windows_of_leases_as_many_are_remembered_as_of_hours() {
        let mut baselines = Baselines::default();
        for lease in 0..700 {
            opened_in_lease(&mut baselines, 1, (0, lease * 300), 1);
        }
        assert_eq!(baselines.of["jobs a.example"][&300][0].len(), 672);
        let changes = baselines.changes();
        assert_eq!(changes.iter().filter(|sample| sample.most.is_none()).count(), (699 - 672) * 3);
    }

    #[test]
    fn whom_there_is_no_room_for_is_not_counted_and_that_is_said() {
        let mut baselines = Baselines::default();
        let (intents, one) = (intents(), seen(0));
        let look = |n: usize, baselines: &mut Baselines| {
            let End::Identified { labels, address, .. } = one.client.clone() else {
                unreachable!("somebody")
            };
            let id = format!("spiffe://a.example/job/j{n}").parse().expect("a SPIFFE ID");
            let client = End::Identified { id, labels, address, is_shared: false };
            let seen = Seen { client, ..one.clone() };
            baselines.look(&intents[0], &seen, Adds::Connections(1), (at(1), None));
            baselines.not_counted
        };
        let most = (0..MOST).map(|n| look(n, &mut baselines)).max();
        assert_eq!(most, Some(0));
        assert_eq!(look(7, &mut baselines), 0, "who is known is counted");
        assert_eq!([MOST, MOST + 1].map(|n| look(n, &mut baselines)), [1, 2]);
    }

    #[test]
    fn nobody_is_blamed_for_an_address_that_is_nobodys() {
        let mut baselines = Baselines::default();
        for hour in 0..24 {
            opened(&mut baselines, 1, hour, 1);
        }
        let (intents, one) = (intents(), seen(1));
        let shared = Seen { client: End::Ambiguous(one.client.address()), ..one };
        for _ in 0..1000 {
            assert!(baselines.look(&intents[0], &shared, Adds::Connections(1), (at(24), None)).is_empty());
        }
    }
}
