//! What identities were seen to do by themselves: names that they asked for, programs that they executed, processes that opened their
//! connections, at how many addresses they were at once. What intents are learned from, beside [`super::Pairs`].

use crate::policy::spiffe::{SpiffeId, SpiffePattern};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// Deeds that are kept, about 16 MB. Beyond that the quarter goes that was heard of longest ago.
const MOST: usize = 65_536;
/// Deeds of one identity. What is more is counted: names can be made up without end.
const MOST_OF_ONE: usize = 256;

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
    seen: HashMap<DeedOf, Times>,
    of_one: HashMap<SpiffeId, usize>,
    not_kept: HashMap<SpiffeId, u64>,
    dirty: HashSet<DeedOf>,
}

impl Deeds {
    /// Those that were kept.
    pub fn of(kept: Vec<DeedSeen>) -> Self {
        let mut deeds = Self::default();
        for DeedSeen { of, times } in kept {
            *deeds.of_one.entry(of.identity.clone()).or_default() += 1;
            deeds.seen.insert(of, times);
        }
        deeds
    }

    /// Notes one.
    pub fn note(&mut self, id: &SpiffeId, deed: Deed, at: Timestamp) {
        let of = DeedOf { identity: id.clone(), deed };
        if !self.seen.contains_key(&of) {
            if self.of_one.get(id).is_some_and(|many| *many >= MOST_OF_ONE) {
                *self.not_kept.entry(id.clone()).or_default() += 1;
                return;
            }
            if self.seen.len() >= MOST {
                self.forget();
            }
            *self.of_one.entry(id.clone()).or_default() += 1;
            self.seen.insert(of.clone(), Times { first_seen: at, last_seen: at, count: 0 });
        }
        if let Some(times) = self.seen.get_mut(&of) {
            times.last_seen = times.last_seen.max(at);
            times.count += 1;
        }
        self.dirty.insert(of);
    }

    fn forget(&mut self) {
        let mut heard: Vec<Timestamp> = self.seen.values().map(|times| times.last_seen).collect();
        let (_, last, _) = heard.select_nth_unstable(self.seen.len() / 4);
        let last = *last;
        let (of_one, not_kept, dirty) = (&mut self.of_one, &mut self.not_kept, &mut self.dirty);
        self.seen.retain(|of, times| {
            let stays = times.last_seen > last;
            if !stays {
                if let Some(many) = of_one.get_mut(&of.identity) {
                    *many -= 1;
                    if *many == 0 {
                        of_one.remove(&of.identity);
                        not_kept.remove(&of.identity);
                    }
                }
                dirty.insert(of.clone());
            }
            stays
        });
    }

    /// Those of identities, and how often there was no room for one.
    pub fn of_identities(&self, pattern: &SpiffePattern) -> (Vec<DeedSeen>, u64) {
        let of = self.seen.iter().filter(|(of, _)| pattern.matches(&of.identity));
        let mut all: Vec<_> = of.map(|(of, times)| DeedSeen { of: of.clone(), times: *times }).collect();
        all.sort_by(|a, b| a.of.cmp(&b.of));
        let not_kept = self.not_kept.iter().filter(|(id, _)| pattern.matches(id)).map(|(_, n)| n).sum();
        (all, not_kept)
    }

    /// Takes so many at most of those that have changed since they were taken last; nothing beside one that is not kept any more.
    pub fn changes(&mut self, most: usize) -> Vec<(DeedOf, Option<Times>)> {
        let some: Vec<_> = self.dirty.iter().take(most).cloned().collect();
        let changed = |of: DeedOf| {
            self.dirty.remove(&of);
            let times = self.seen.get(&of).copied();
            (of, times)
        };
        some.into_iter().map(changed).collect()
    }

    /// These could not be written.
    pub fn again(&mut self, changes: Vec<(DeedOf, Option<Times>)>) {
        self.dirty.extend(changes.into_iter().map(|(of, _)| of));
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
        assert_eq!(deeds.seen.len(), 65_537 - 16_385);
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
