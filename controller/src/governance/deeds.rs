//! What identities were seen to do by themselves: names that they asked for, programs that they executed, processes that opened their
//! connections, at how many addresses they were at once. What intents are learned from, beside [`super::Pairs`].

use super::compare::Role;
use super::table::{Key, Seen, Table};
use crate::policy::spiffe::{SpiffeId, SpiffePattern};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What somebody did.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// It asked for a name.
    AsksFor(String),
    /// It executed a program, by this path.
    Executes(String),
    /// A process of this name opened a connection for it.
    Opens(String),
    /// It had leases at so many addresses at once.
    Addresses(usize),
}

/// Whose deed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct DeedOf {
    /// Whose.
    pub identity: SpiffeId,
    /// What.
    pub deed: Deed,
}

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Times {
    /// The first time.
    pub first_seen: Timestamp,
    /// The last time.
    pub last_seen: Timestamp,
    /// How often it was told. A program is told once, and again when there is another policy.
    pub count: u64,
}

/// A deed with what was seen of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeedSeen {
    /// Which.
    #[serde(flatten)]
    pub of: DeedOf,
    /// How often.
    #[serde(flatten)]
    pub times: Times,
}

/// The deeds.
#[derive(Debug, Default)]
pub struct Deeds {
    table: Table<DeedOf, Times>,
}

impl Key for DeedOf {
    // Names can be made up without end.
    const MOST_OF_ONE: usize = 256;

    fn whose(&self) -> (SpiffeId, Option<Role>) {
        (self.identity.clone(), None)
    }
}

impl Seen for Times {
    fn last_seen(&self) -> Timestamp {
        self.last_seen
    }
}

impl Deeds {
    /// Those that were kept.
    pub fn of(kept: Vec<DeedSeen>) -> Self {
        Self { table: Table::of(kept.into_iter().map(|DeedSeen { of, times }| (of, times))) }
    }

    /// Deeds that were forgotten.
    pub fn forgotten(&self) -> u64 {
        self.table.forgotten
    }

    /// Notes one.
    pub fn note(&mut self, id: &SpiffeId, deed: Deed, at: Timestamp) {
        let of = DeedOf { identity: id.clone(), deed };
        let new = || Times { first_seen: at, last_seen: at, count: 0 };
        if let Some(times) = self.table.row(of, 1, new) {
            times.last_seen = times.last_seen.max(at);
            times.count += 1;
        }
    }

    /// Those of identities, and how often there was no room for one.
    pub fn of_identities(&self, pattern: &SpiffePattern) -> (Vec<DeedSeen>, u64) {
        let (rows, not_kept) = self.table.of_identities(pattern);
        (rows.into_iter().map(|(of, times)| DeedSeen { of: of.clone(), times: *times }).collect(), not_kept)
    }

    /// Takes so many at most of those that have changed since they were taken last; nothing beside one that is not kept any more.
    pub fn changes(&mut self, most: usize) -> Vec<(DeedOf, Option<Times>)> {
        self.table.changes(most)
    }

    /// These could not be written.
    pub fn again(&mut self, changes: Vec<(DeedOf, Option<Times>)>) {
        self.table.again(changes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(path: &str) -> SpiffeId {
        format!("spiffe://a.example/{path}").parse().expect("a SPIFFE ID")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn asks(name: impl Into<String>) -> Deed {
        Deed::AsksFor(name.into())
    }

    #[test]
    fn names_that_are_made_up_fill_the_share_of_one_identity_and_of_no_other() {
        let mut deeds = Deeds::default();
        for n in 0..300 {
            deeds.note(&id("tunnel"), asks(format!("{n}.example")), at(n));
        }
        deeds.note(&id("web"), asks("db.example"), at(1));
        deeds.note(&id("web"), asks("db.example"), at(2));
        let (of_tunnel, not_kept) = deeds.of_identities(&"spiffe://a.example/tunnel".parse().expect("one"));
        assert_eq!((of_tunnel.len(), not_kept), (256, 44));
        let (of_web, not_kept) = deeds.of_identities(&"spiffe://a.example/web".parse().expect("one"));
        assert_eq!(not_kept, 0);
        assert_eq!(of_web[0].times, Times { first_seen: at(1), last_seen: at(2), count: 2 });
    }

    #[test]
    fn when_there_is_no_room_the_quarter_goes_that_was_heard_of_longest_ago() {
        let mut deeds = Deeds::default();
        for n in 0..=65_536 {
            deeds.note(&id(&format!("web/{n}")), asks("db.example"), at(n));
        }
        assert_eq!(deeds.table.len(), 65_537 - 16_385);
        let mut changes = Vec::new();
        while changes.len() < 65_537 {
            let some = deeds.changes(1000);
            assert!((1..=1000).contains(&some.len()), "{}", some.len());
            changes.extend(some);
        }
        let gone = changes.iter().filter(|(_, times)| times.is_none()).count();
        assert_eq!((gone, deeds.changes(1000).len()), (16_385, 0));
        deeds.again(changes);
        assert_eq!(deeds.changes(usize::MAX).len(), 65_537);
    }
}
