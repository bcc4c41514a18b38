//! Who was seen with whom: what intents are learned from.
//!
//! An aid: it decides nothing, and losing it loses no verdict and no finding. It is bounded, and says what it did not keep.

use super::compare::{End, Role, Seen};
use super::deeds::DeedSeen;
use super::table::{self, Key, Table};
use crate::hello::ClientHello;
use crate::policy::spiffe::{SpiffeId, SpiffePattern};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;

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
    /// What the identities did by themselves.
    #[serde(default)]
    pub deeds: Vec<DeedSeen>,
    /// How often there was no room for one of these.
    #[serde(default)]
    pub deeds_not_kept: u64,
}

/// The pairs.
#[derive(Debug, Default)]
pub struct Pairs {
    table: Table<Pair, Sight>,
}

impl Key for Pair {
    // A scan would be thousands.
    const MOST_OF_ONE: usize = 512;

    fn whose(&self) -> (SpiffeId, Option<Role>) {
        (self.identity.clone(), Some(self.role))
    }
}

impl table::Seen for Sight {
    fn last_seen(&self) -> Timestamp {
        self.last_seen
    }
}

impl Pairs {
    /// Those that were kept.
    pub fn of(kept: Vec<PairSeen>) -> Self {
        Self { table: Table::of(kept.into_iter().map(|PairSeen { pair, sight }| (pair, sight))) }
    }

    /// Pairs that were forgotten.
    pub fn forgotten(&self) -> u64 {
        self.table.forgotten
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
            let Some(sight) = self.table.row(pair, many, || Sight::new(at)) else { continue };
            sight.first_seen = sight.first_seen.min(at);
            sight.last_seen = sight.last_seen.max(at);
            change(sight);
        }
    }

    /// Those of identities, and of how many connections none are kept.
    pub fn of_identities(&self, pattern: &SpiffePattern) -> (Vec<PairSeen>, u64) {
        let (rows, not_kept) = self.table.of_identities(pattern);
        let seen = |(pair, sight): (&Pair, &Sight)| PairSeen { pair: pair.clone(), sight: sight.clone() };
        (rows.into_iter().map(seen).collect(), not_kept)
    }

    /// Takes so many at most of those that have changed since they were taken last; nothing beside one that is not kept any more.
    pub fn changes(&mut self, most: usize) -> Vec<(Pair, Option<Sight>)> {
        self.table.changes(most)
    }

    /// These could not be written.
    pub fn again(&mut self, changes: Vec<(Pair, Option<Sight>)>) {
        self.table.again(changes);
    }
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
        End::Identified { id, labels: BTreeMap::new(), address: Addr::v4([10, 1, 0, 2]), is_shared: false }
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

    fn all(pairs: &Pairs, pattern: &str) -> (Vec<PairSeen>, u64) {
        pairs.of_identities(&pattern.parse().expect("a pattern"))
    }

    #[test]
    fn pairs_of_both_ends_are_kept_with_their_hellos() {
        let mut pairs = Pairs::default();
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
        let (pairs, not_kept) = all(&pairs, "spiffe://a.example/*");
        assert_eq!(not_kept, 0);
        let [db, web] = &pairs[..] else { panic!("two pairs, not {pairs:?}") };
        assert_eq!((db.pair.role, web.pair.role), (Role::Server, Role::Client));
        let sight = &web.sight;
        assert_eq!((sight.count, sight.denied, sight.first_seen, sight.last_seen), (2, 1, at(10), at(20)));
        assert_eq!((sight.sni.first().map(String::as_str), sight.unclear), (Some("db.example"), false));
    }

    #[test]
    fn a_scan_fills_the_share_of_one_identity_and_of_no_other() {
        let mut pairs = Pairs::default();
        for n in 0..600 {
            pairs.note(&seen(end("scanner"), host(n), 80), 1, true, at(2));
        }
        pairs.note(&seen(end("web"), host(1), 80), 1, false, at(3));
        let (of_scanner, not_kept) = all(&pairs, "spiffe://a.example/scanner");
        assert_eq!((of_scanner.len(), not_kept), (512, 88));
        let (of_web, not_kept) = all(&pairs, "spiffe://a.example/web");
        assert_eq!((of_web.len(), not_kept), (1, 0));
    }

    #[test]
    fn when_there_is_no_room_the_quarter_goes_that_was_heard_of_longest_ago() {
        let mut pairs = Pairs::default();
        for n in 0..=65_536u32 {
            pairs.note(&seen(end(&format!("web/{n}")), host(1), 80), 1, false, at(i64::from(n)));
        }
        assert_eq!(pairs.forgotten(), 16_385);
        assert_eq!(all(&pairs, "spiffe://a.example/web/16384").0, []);
        assert_eq!(all(&pairs, "spiffe://a.example/web/16385").0.len(), 1);
        assert_eq!(all(&pairs, "spiffe://a.example/web/65536").0.len(), 1);
    }

    #[test]
    fn what_has_changed_is_taken_piece_by_piece_and_again_when_it_could_not_be_written() {
        let mut pairs = Pairs::default();
        for n in 0..10 {
            pairs.note(&seen(end("web"), host(n), 80), 1, false, at(1));
        }
        let (first, second) = (pairs.changes(7), pairs.changes(7));
        assert_eq!((first.len(), second.len(), pairs.changes(7).len()), (7, 3, 0));
        assert!(first.iter().all(|(_, sight)| sight.as_ref().is_some_and(|sight| sight.count == 1)));
        pairs.again(second);
        assert_eq!(pairs.changes(7).len(), 3);
    }
}
