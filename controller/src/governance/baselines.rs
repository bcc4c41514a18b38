//! How much identities of a class usually do in an hour: connections that they open, peers that they open them to, bytes of these.
//!
//! Second to what is declared, and never more than a hint: what departs from a count is flagged with medium confidence. A class is an intent,
//! and an hour of it is the most that any of its identities did, so that jobs that come and go share one baseline and make it no larger.

use super::compare::{Departure, End, Role, Seen};
use super::signal::Signal;
use crate::exit_code::{Code, Failure, Result};
use crate::policy::intent::Intent;
use crate::policy::spiffe::SpiffeId;
use jiff::Timestamp;
use rusqlite::{Connection, params};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

const HOUR_S: i64 = 3600;
/// So many days are remembered.
const DAYS: i64 = 28;
/// Of the same hour of the day so many days are enough to know what is usual.
const SAME_HOUR: usize = 5;
/// Where there are fewer, so many hours of any day are.
const ANY_HOUR: usize = 24;
/// Identities that are counted in an hour. Those beyond are not, until the next hour.
const MOST: usize = 65_536;
/// Peers of an identity that are told apart; more are as many.
const MOST_PEERS: usize = 1024;

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

    /// Less than that in an hour is no matter, whatever is usual.
    fn least(self) -> u64 {
        match self {
            Self::Connections => 100,
            Self::Peers => 10,
            Self::Bytes => 10 << 20,
        }
    }
}

/// What an identity did in the hour that runs.
#[derive(Debug, Default)]
struct Running {
    counts: [u64; 3],
    /// By their hashes.
    peers: HashSet<u64>,
    said: [bool; 3],
}

/// By measure and hour, the most that an identity did.
type Hours = [BTreeMap<i64, u64>; 3];

/// The baselines.
#[derive(Debug)]
pub struct Baselines {
    db: Connection,
    /// The hour that runs, counted from 1970.
    hour: i64,
    running: HashMap<SpiffeId, Running>,
    /// Of each class in that hour.
    most: HashMap<String, [u64; 3]>,
    of: HashMap<String, Hours>,
    dirty: Vec<(String, usize, i64, u64)>,
}

impl Baselines {
    /// Opens them in the file of what was observed; in memory where that cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let opened = Connection::open(path).and_then(Self::of).or_else(|e| {
            tracing::error!("{}: {e}; baselines are kept until the daemon ends", path.display());
            Self::of(Connection::open_in_memory()?)
        });
        opened.map_err(|e| Failure::new(Code::Failure, format!("SQLite: {e}")))
    }

    fn of(db: Connection) -> rusqlite::Result<Self> {
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
            CREATE TABLE IF NOT EXISTS baselines (class TEXT, measure INTEGER, hour INTEGER, most INTEGER, PRIMARY KEY (class, measure, hour))",
        )?;
        let mut of: HashMap<String, Hours> = HashMap::new();
        let mut rows = db.prepare("SELECT class, measure, hour, most FROM baselines")?;
        let read = rows.query_map([], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, usize>(1)?,
                row.get::<_, i64>(2)?,
                row.get::<_, u64>(3)?,
            ))
        })?;
        for row in read {
            let (class, measure, hour, most) = row?;
            if let Some(hours) = of.entry(class).or_default().get_mut(measure) {
                hours.insert(hour, most);
            }
        }
        drop(rows);
        let (running, most, dirty) = (HashMap::new(), HashMap::new(), Vec::new());
        Ok(Self { db, hour: i64::MIN, running, most, of, dirty })
    }

    /// Counts, and says in what the client, whose first intent this is, does much more than is usual: once an hour of each measure.
    pub fn look<'s>(
        &mut self,
        intent: &'s Intent,
        seen: &'s Seen,
        adds: Adds,
        at: Timestamp,
    ) -> Vec<Departure<'s>> {
        let End::Identified { id, .. } = &seen.client else { return Vec::new() };
        self.turn(at.as_second().div_euclid(HOUR_S));
        // Nearly every event is of somebody who is known: nothing is copied for it.
        if !self.running.contains_key(id) {
            if self.running.len() >= MOST {
                return Vec::new();
            }
            self.running.insert(id.clone(), Running::default());
            self.most.entry(intent.name.clone()).or_default();
        }
        let (Some(running), Some(most)) = (self.running.get_mut(id), self.most.get_mut(&intent.name)) else {
            return Vec::new();
        };
        running.add(seen, adds);
        let hours = self.of.get(&intent.name);
        let mut departures = Vec::new();
        for (n, measure) in Measure::ALL.into_iter().enumerate() {
            most[n] = most[n].max(running.counts[n]);
            let Some(hours) = hours.filter(|_| !running.said[n]) else { continue };
            let Some(text) = unusual(measure, &hours[n], self.hour, running.counts[n]) else { continue };
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

    /// Begins another hour; what the last one had is a part of the baselines from now on.
    fn turn(&mut self, hour: i64) {
        if hour <= self.hour {
            return;
        }
        for (class, most) in self.most.drain() {
            let hours = self.of.entry(class.clone()).or_default();
            for (n, most) in most.into_iter().enumerate() {
                hours[n].insert(self.hour, most);
                self.dirty.push((class.clone(), n, self.hour, most));
            }
        }
        self.hour = hour;
        self.running.clear();
        let oldest = hour - DAYS * 24;
        self.of.retain(|_, hours| {
            hours.iter_mut().for_each(|hours| *hours = hours.split_off(&oldest));
            hours.iter().any(|hours| !hours.is_empty())
        });
    }

    /// Writes what has changed. What cannot be written is tried again.
    pub fn flush(&mut self) -> Result<()> {
        if self.dirty.is_empty() {
            return Ok(());
        }
        let failed = |e: rusqlite::Error| Failure::new(Code::Failure, format!("write baselines: {e}"));
        let transaction = self.db.transaction().map_err(failed)?;
        for (class, measure, hour, most) in &self.dirty {
            let sql = "INSERT OR REPLACE INTO baselines VALUES (?1, ?2, ?3, ?4)";
            transaction.execute(sql, params![class, measure, hour, most]).map_err(failed)?;
        }
        let oldest = self.hour - DAYS * 24;
        transaction.execute("DELETE FROM baselines WHERE hour < ?1", params![oldest]).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        self.dirty.clear();
        Ok(())
    }
}

impl Running {
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
fn unusual(measure: Measure, hours: &BTreeMap<i64, u64>, hour: i64, count: u64) -> Option<String> {
    if count < measure.least() {
        return None;
    }
    let same: Vec<u64> = hours.iter().filter(|(h, _)| (hour - **h) % 24 == 0).map(|(_, n)| *n).collect();
    let (samples, of) = match (same.len() >= SAME_HOUR, hours.len() >= ANY_HOUR) {
        (true, _) => (same, "the same hour of as many days"),
        (false, true) => (hours.values().copied().collect(), "as many hours"),
        (false, false) => return None,
    };
    let middle = median(samples.clone());
    let spread = median(samples.iter().map(|n| n.abs_diff(middle)).collect());
    // The median of distances is two thirds of a standard deviation where numbers scatter evenly; six of them are nine of it.
    let limit = (middle + 9 * spread).max(3 * middle);
    (count > limit).then(|| {
        let many = samples.len();
        format!(
            "{count} {name} in an hour; the middle of {many} ({of}) is {middle}, and half are within {spread} of it",
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

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(hour * HOUR_S).expect("a time")
    }

    fn intents() -> Vec<Intent> {
        Documents::parse("intents.yaml", INTENTS, at(0)).unwrap_or_else(|e| panic!("{e}")).intents
    }

    fn seen(job: i64) -> Seen {
        let id = format!("spiffe://a.example/job/j{job}").parse().expect("a SPIFFE ID");
        let client = End::Identified { id, labels: Default::default(), address: Addr::v4([10, 1, 0, 2]) };
        Seen { client, server: End::Unidentified(Addr::v4([10, 2, 0, 3])), proto: 6, port: 443 }
    }

    fn opened(baselines: &mut Baselines, job: i64, hour: i64, many: usize) -> Vec<String> {
        let (intents, seen) = (intents(), seen(job));
        let look = |_| baselines.look(&intents[0], &seen, Adds::Connections(1), at(hour));
        (0..many).flat_map(look).filter_map(|departure| departure.detail).collect()
    }

    fn in_memory() -> Baselines {
        Baselines::of(Connection::open_in_memory().expect("memory")).expect("baselines")
    }

    #[test]
    fn jobs_of_a_class_share_a_baseline_and_one_that_does_much_more_is_said_once_an_hour() {
        let mut baselines = in_memory();
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
        let mut baselines = in_memory();
        for hour in 0..23 {
            opened(&mut baselines, 1, hour, 1);
        }
        assert!(opened(&mut baselines, 1, 23, 1000).is_empty(), "nobody knows what is usual");
        assert!(opened(&mut baselines, 1, 24, 99).is_empty(), "that is no matter");
    }

    #[test]
    fn the_same_hour_of_other_days_counts_first() {
        let mut baselines = in_memory();
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
    fn bytes_count_and_what_was_counted_outlives_the_daemon() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("observed.db");
        let (intents, seen) = (intents(), seen(1));
        let mut baselines = Baselines::open(&path).expect("baselines");
        for hour in 0..25 {
            assert!(baselines.look(&intents[0], &seen, Adds::Bytes(1 << 20), at(hour)).is_empty());
        }
        baselines.flush().expect("written");
        drop(baselines);
        let mut baselines = Baselines::open(&path).expect("baselines");
        let found = baselines.look(&intents[0], &seen, Adds::Bytes(11 << 20), at(26));
        let detail = found[0].detail.as_deref().expect("a reason");
        assert!(detail.starts_with("11534336 bytes in an hour; the middle of 24 "), "{detail}");
        // Older than four weeks is forgotten.
        assert!(baselines.look(&intents[0], &seen, Adds::Bytes(11 << 20), at(26 + 28 * 24)).is_empty());
    }

    #[test]
    fn nobody_is_blamed_for_an_address_that_is_nobodys() {
        let mut baselines = in_memory();
        for hour in 0..24 {
            opened(&mut baselines, 1, hour, 1);
        }
        let (intents, one) = (intents(), seen(1));
        let shared = Seen { client: End::Ambiguous(one.client.address()), ..one };
        for _ in 0..1000 {
            assert!(baselines.look(&intents[0], &shared, Adds::Connections(1), at(24)).is_empty());
        }
    }
}
