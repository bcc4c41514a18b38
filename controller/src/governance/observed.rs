//! Who was seen with whom: what intents are learned from.
//!
//! An aid: it decides nothing, and losing it loses no verdict and no finding. It is bounded, and says what it did not keep.

use super::compare::{End, Role, Seen};
use crate::exit_code::{Code, Failure, Result};
use crate::hello::ClientHello;
use crate::policy::spiffe::{SpiffeId, SpiffePattern};
use jiff::Timestamp;
use rusqlite::{Connection, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;

/// The form that this version writes.
const VERSION: i32 = 1;
/// Pairs that are kept, about 32 MB. Beyond that the quarter goes that was heard of longest ago.
const MOST: usize = 65_536;
/// Pairs of one identity on one side. What is more is counted: a scan would be thousands.
const MOST_OF_ONE: usize = 512;
/// Names and protocols of hellos that are kept of a pair.
const MOST_NAMES: usize = 8;

/// Which pair.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Pair {
    /// Whose it is.
    pub identity: SpiffeId,
    /// On which side that stands.
    pub role: Role,
    /// Who is at the other.
    pub peer: With,
    /// IP protocol number.
    pub proto: u8,
    /// Where the server answers; the type for ICMP.
    pub port: u16,
}

/// Who was at the other end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum With {
    /// Somebody.
    SpiffeId(SpiffeId),
    /// An address without identity.
    Address(IpAddr),
    /// An address that several identities claim.
    Ambiguous(IpAddr),
}

/// What was seen of a pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sight {
    /// The first time.
    pub first_seen: Timestamp,
    /// The last time.
    pub last_seen: Timestamp,
    /// Connections.
    pub count: u64,
    /// Those of them that were denied.
    pub denied: u64,
    /// Names in their ClientHellos, 8 at most.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub sni: BTreeSet<String>,
    /// Protocols that these offer, 8 at most.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub alpn: BTreeSet<String>,
    /// Whether there was one without a name, with a name that may be a cover (ECH), with one too many, or one that could not be read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unclear: bool,
}

/// A pair with what was seen of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PairSeen {
    /// Which.
    #[serde(flatten)]
    pub pair: Pair,
    /// What.
    #[serde(flatten)]
    pub sight: Sight,
}

/// `GET /v1/observed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Observed {
    /// Since when pairs are kept.
    pub since: Timestamp,
    /// Connections of the identities whose pairs were too many.
    pub not_kept: u64,
    /// The pairs.
    pub pairs: Vec<PairSeen>,
}

/// The pairs.
#[derive(Debug)]
pub struct Pairs {
    db: Connection,
    since: Timestamp,
    seen: HashMap<Pair, Sight>,
    of_one: HashMap<(SpiffeId, Role), usize>,
    not_kept: HashMap<(SpiffeId, Role), u64>,
    dirty: HashSet<Pair>,
    /// Pairs that were forgotten.
    pub forgotten: u64,
}

impl Pairs {
    /// Opens the file, or makes it. Where that cannot be done, they are kept in memory alone.
    pub fn open(path: &Path, now: Timestamp) -> Result<Self> {
        match Self::of_file(path, now) {
            Ok(pairs) => Ok(pairs),
            Err(e) => {
                tracing::error!("{}: {e}; what is seen is kept until the daemon ends", path.display());
                let in_memory = || Self::of(Connection::open_in_memory()?, now);
                in_memory().map_err(|e: rusqlite::Error| Failure::new(Code::Failure, format!("SQLite: {e}")))
            }
        }
    }

    fn of_file(path: &Path, now: Timestamp) -> rusqlite::Result<Self> {
        let db = Connection::open(path)?;
        db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
        Self::of(db, now)
    }

    fn of(db: Connection, now: Timestamp) -> rusqlite::Result<Self> {
        let version: i32 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version == 0 {
            db.execute_batch(include_str!("observed.sql"))?;
            db.execute("INSERT INTO since VALUES (?1)", params![now.to_string()])?;
        } else if version != VERSION {
            return Err(rusqlite::Error::IntegralValueOutOfRange(0, version.into()));
        }
        let since: String = db.query_row("SELECT at FROM since", [], |row| row.get(0))?;
        let mut pairs = Self {
            since: since.parse().unwrap_or(now),
            seen: HashMap::new(),
            of_one: HashMap::new(),
            not_kept: HashMap::new(),
            dirty: HashSet::new(),
            forgotten: 0,
            db,
        };
        for one in pairs.read()? {
            *pairs.of_one.entry((one.pair.identity.clone(), one.pair.role)).or_default() += 1;
            pairs.seen.insert(one.pair, one.sight);
        }
        Ok(pairs)
    }

    fn read(&self) -> rusqlite::Result<Vec<PairSeen>> {
        let mut rows = self.db.prepare("SELECT pair, sight FROM pairs")?;
        let rows = rows.query_map([], |row| {
            let (pair, sight): (String, String) = (row.get(0)?, row.get(1)?);
            // What another version wrote otherwise is seen anew.
            let read = || Some(PairSeen { pair: from_str(&pair)?, sight: from_str(&sight)? });
            Ok(read())
        })?;
        rows.filter_map(Result::transpose).collect()
    }

    /// Notes connections, for each end that is somebody.
    pub fn note(&mut self, seen: &Seen, many: u64, is_denied: bool, at: Timestamp) {
        self.each(seen, at, many, |sight| {
            sight.count += many;
            sight.denied += if is_denied { many } else { 0 };
        });
    }

    /// Notes a ClientHello.
    pub fn note_hello(&mut self, seen: &Seen, hello: &ClientHello, at: Timestamp) {
        self.each(seen, at, 0, |sight| {
            let is_read = hello.tls_hello_partial == Some(false) && hello.tls_ech.is_none();
            sight.unclear |= !is_read || hello.tls_sni.is_none();
            let names = hello.tls_sni.iter().map(|name| name.to_ascii_lowercase());
            names.for_each(|name| sight.unclear |= !keep(&mut sight.sni, name));
            let protocols = hello.tls_alpn.iter().flatten().cloned();
            protocols.for_each(|protocol| sight.unclear |= !keep(&mut sight.alpn, protocol));
        });
    }

    fn each(&mut self, seen: &Seen, at: Timestamp, many: u64, change: impl Fn(&mut Sight)) {
        for (role, own, peer) in
            [(Role::Client, &seen.client, &seen.server), (Role::Server, &seen.server, &seen.client)]
        {
            let End::Identified { id, .. } = own else { continue };
            let (identity, peer) = (id.clone(), With::of(peer));
            let pair = Pair { identity, role, peer, proto: seen.proto, port: seen.port };
            let Some(sight) = self.sight(&pair, at, many) else { continue };
            sight.first_seen = sight.first_seen.min(at);
            sight.last_seen = sight.last_seen.max(at);
            change(sight);
            self.dirty.insert(pair);
        }
    }

    /// Where there is room for it; what there is none for is counted.
    fn sight(&mut self, pair: &Pair, at: Timestamp, many: u64) -> Option<&mut Sight> {
        if !self.seen.contains_key(pair) {
            let whose = (pair.identity.clone(), pair.role);
            if self.of_one.get(&whose).is_some_and(|many| *many >= MOST_OF_ONE) {
                *self.not_kept.entry(whose).or_default() += many;
                return None;
            }
            if self.seen.len() >= MOST {
                self.forget();
            }
            *self.of_one.entry(whose).or_default() += 1;
            self.seen.insert(pair.clone(), Sight::new(at));
        }
        self.seen.get_mut(pair)
    }

    fn forget(&mut self) {
        let mut heard: Vec<Timestamp> = self.seen.values().map(|sight| sight.last_seen).collect();
        let (_, last, _) = heard.select_nth_unstable(self.seen.len() / 4);
        let last = *last;
        let old: Vec<Pair> = self
            .seen
            .iter()
            .filter(|(_, sight)| sight.last_seen <= last)
            .map(|(pair, _)| pair.clone())
            .collect();
        self.forgotten += old.len() as u64;
        for pair in old {
            self.seen.remove(&pair);
            let whose = (pair.identity.clone(), pair.role);
            if let Some(many) = self.of_one.get_mut(&whose) {
                *many -= 1;
                if *many == 0 {
                    self.of_one.remove(&whose);
                    self.not_kept.remove(&whose);
                }
            }
            self.dirty.insert(pair);
        }
    }

    /// What was seen of identities.
    pub fn of_identities(&self, pattern: &SpiffePattern) -> Observed {
        let of = |(pair, _): &(&Pair, &Sight)| pattern.matches(&pair.identity);
        let all = self.seen.iter().filter(of);
        let mut pairs: Vec<_> =
            all.map(|(pair, sight)| PairSeen { pair: pair.clone(), sight: sight.clone() }).collect();
        pairs.sort_by(|a, b| a.pair.cmp(&b.pair));
        let not_kept = self.not_kept.iter().filter(|((id, _), _)| pattern.matches(id)).map(|(_, n)| n).sum();
        Observed { since: self.since, not_kept, pairs }
    }

    /// Writes what has changed. What cannot be written is tried again.
    pub fn flush(&mut self) -> Result<()> {
        if self.dirty.is_empty() {
            return Ok(());
        }
        let failed =
            |e: rusqlite::Error| Failure::new(Code::Failure, format!("write what was observed: {e}"));
        let transaction = self.db.transaction().map_err(failed)?;
        for pair in &self.dirty {
            let key = json(pair)?;
            match self.seen.get(pair) {
                Some(sight) => {
                    let sql = "INSERT INTO pairs VALUES (?1, ?2) ON CONFLICT (pair) DO UPDATE SET sight = excluded.sight";
                    transaction.execute(sql, params![key, json(sight)?])
                }
                None => transaction.execute("DELETE FROM pairs WHERE pair = ?1", params![key]),
            }
            .map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
        self.dirty.clear();
        Ok(())
    }
}

fn from_str<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Failure::failed("encode JSON", e))
}

/// Keeps one of a few. Returns whether there was room.
fn keep(kept: &mut BTreeSet<String>, one: String) -> bool {
    if kept.len() >= MOST_NAMES && !kept.contains(&one) {
        return false;
    }
    kept.insert(one);
    true
}

impl Sight {
    /// Takes in what was seen of another identity of the class.
    pub fn add(&mut self, other: &Self) {
        self.first_seen = self.first_seen.min(other.first_seen);
        self.last_seen = self.last_seen.max(other.last_seen);
        self.count += other.count;
        self.denied += other.denied;
        self.unclear |= other.unclear;
        for (own, others) in [(&mut self.sni, &other.sni), (&mut self.alpn, &other.alpn)] {
            own.extend(others.iter().cloned());
        }
    }

    fn new(at: Timestamp) -> Self {
        let (sni, alpn) = (BTreeSet::new(), BTreeSet::new());
        Self { first_seen: at, last_seen: at, count: 0, denied: 0, sni, alpn, unclear: false }
    }
}

impl With {
    fn of(end: &End) -> Self {
        match end {
            End::Identified { id, .. } => Self::SpiffeId(id.clone()),
            End::Unidentified(address) => Self::Address(address.to_ip()),
            End::Ambiguous(address) => Self::Ambiguous(address.to_ip()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datapath::abi::Addr;
    use std::collections::BTreeMap;

    fn end(path: &str) -> End {
        let id = format!("spiffe://a.example/{path}").parse().expect("a SPIFFE ID");
        End::Identified { id, labels: BTreeMap::new(), address: Addr::v4([10, 1, 0, 2]) }
    }

    fn host(n: u32) -> End {
        End::Unidentified(Addr::v4(n.to_be_bytes()))
    }

    fn seen(client: End, server: End, port: u16) -> Seen {
        Seen { client, server, proto: 6, port }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn all(pairs: &Pairs, pattern: &str) -> Observed {
        pairs.of_identities(&pattern.parse().expect("a pattern"))
    }

    #[test]
    fn pairs_of_both_ends_are_kept_with_their_hellos_and_outlive_the_daemon() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("observed.db");
        let mut pairs = Pairs::open(&path, at(1)).expect("pairs");
        let web_db = seen(end("web"), end("db"), 443);
        pairs.note(&web_db, 1, false, at(10));
        pairs.note(&web_db, 1, true, at(20));
        let hello = ClientHello {
            tls_sni: Some("DB.example".into()),
            tls_alpn: Some(vec!["h2".into()]),
            tls_hello_partial: Some(false),
            ..ClientHello::default()
        };
        pairs.note_hello(&web_db, &hello, at(20));
        pairs.flush().expect("written");
        let before = all(&pairs, "spiffe://a.example/*");
        drop(pairs);
        let pairs = Pairs::open(&path, at(99)).expect("pairs");
        let Observed { since, not_kept, pairs } = all(&pairs, "spiffe://a.example/*");
        assert_eq!((since, not_kept, &pairs), (at(1), 0, &before.pairs));
        let [db, web] = &pairs[..] else { panic!("two pairs, not {pairs:?}") };
        assert_eq!((db.pair.role, web.pair.role), (Role::Server, Role::Client));
        let sight = &web.sight;
        assert_eq!((sight.count, sight.denied, sight.first_seen, sight.last_seen), (2, 1, at(10), at(20)));
        assert_eq!((sight.sni.first().map(String::as_str), sight.unclear), (Some("db.example"), false));
    }

    #[test]
    fn a_scan_fills_the_share_of_one_identity_and_of_no_other() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut pairs = Pairs::open(&dir.path().join("observed.db"), at(1)).expect("pairs");
        for n in 0..600 {
            pairs.note(&seen(end("scanner"), host(n), 80), 1, true, at(2));
        }
        pairs.note(&seen(end("web"), host(1), 80), 1, false, at(3));
        let scanner = all(&pairs, "spiffe://a.example/scanner");
        assert_eq!((scanner.pairs.len(), scanner.not_kept), (512, 88));
        let web = all(&pairs, "spiffe://a.example/web");
        assert_eq!((web.pairs.len(), web.not_kept), (1, 0));
    }

    #[test]
    fn when_there_is_no_room_the_quarter_goes_that_was_heard_of_longest_ago() {
        let mut pairs = Pairs::of(Connection::open_in_memory().expect("SQLite"), at(0)).expect("pairs");
        for n in 0..=65_536u32 {
            pairs.note(&seen(end(&format!("web/{n}")), host(1), 80), 1, false, at(i64::from(n)));
        }
        assert_eq!(pairs.forgotten, 16_385);
        assert_eq!(all(&pairs, "spiffe://a.example/web/16384").pairs, []);
        assert_eq!(all(&pairs, "spiffe://a.example/web/16385").pairs.len(), 1);
        assert_eq!(all(&pairs, "spiffe://a.example/web/65536").pairs.len(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_read_keeps_nobody_from_starting() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("observed.db");
        std::fs::write(&path, "no database, and long enough to be taken for the header of one ".repeat(20))
            .expect("a file");
        let mut pairs = Pairs::open(&path, at(1)).expect("pairs in memory");
        pairs.note(&seen(end("web"), host(1), 80), 1, false, at(2));
        pairs.flush().expect("kept in memory");
        assert_eq!(all(&pairs, "spiffe://a.example/web").pairs.len(), 1);
    }
}
