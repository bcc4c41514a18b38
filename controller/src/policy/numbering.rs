//! Numbers that mean the same in every compile: of identities, selectors, classes and rules.

use super::hashing::Map;
use super::spiffe::SpiffeId;
use super::time::Clock;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Clocks are compared to this: below it, the wall clock was slewed, and deadlines stay what they were.
const CLOCK_STEP_NS: u64 = 1_000_000_000;

/// Every number that was ever given. Kept between runs of the daemon: a number never comes to mean something else,
/// so counters and flow records of an older policy still name the right rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbering {
    identities: Map<SpiffeId, u32>,
    selectors: BTreeMap<String, u32>,
    classes: BTreeMap<String, u32>,
    rules: BTreeMap<String, u32>,
    #[serde(default)]
    guards: BTreeMap<String, u32>,
    #[serde(default)]
    interfaces: BTreeMap<String, u32>,
    /// Wall-clock time of boot by which deadlines were computed last.
    wall_of_boot_ns: Option<i64>,
}

/// What has numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbered {
    /// A SPIFFE ID.
    Identity,
    /// The text of a selector.
    Selector,
    /// A class, by the numbers of its selectors.
    Class,
    /// A rule, block or quarantine.
    Rule,
    /// A guard list, by what stands in it.
    Guard,
    /// An interface that bindings name.
    Interface,
}

impl Numbered {
    const ALL: [Self; 6] =
        [Self::Identity, Self::Selector, Self::Class, Self::Rule, Self::Guard, Self::Interface];

    /// In the saved state.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Selector => "selector",
            Self::Class => "class",
            Self::Rule => "rule",
            Self::Guard => "guard",
            Self::Interface => "interface",
        }
    }

    /// What has this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// How many numbers a numbering had.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    numbers: [usize; 6],
    /// The wall-clock time of boot by which deadlines were computed then.
    pub wall_of_boot_ns: Option<i64>,
}

impl Numbering {
    /// How many numbers there are of each kind: what was given later is told by that.
    pub fn counted(&self) -> Counted {
        Counted { numbers: Numbered::ALL.map(|kind| self.count(kind)), wall_of_boot_ns: self.wall_of_boot_ns }
    }

    /// What has got a number since: `before` was counted of an earlier form of this.
    pub fn given_since(&self, before: &Counted) -> Vec<(Numbered, String, u32)> {
        let mut given = Vec::new();
        for (kind, known) in Numbered::ALL.into_iter().zip(before.numbers) {
            if self.count(kind) > known {
                let mut put = |key: &str, number| {
                    if number as usize > known {
                        given.push((kind, key.to_owned(), number));
                    }
                };
                match self.texts(kind) {
                    Some(texts) => texts.iter().for_each(|(key, number)| put(key, *number)),
                    None => {
                        self.identities.iter().for_each(|(id, number)| put(id.as_str(), *number));
                        // In the order of the index that they are put into.
                        given.sort_unstable_by(|(_, a, _), (_, b, _)| a.cmp(b));
                    }
                }
            }
        }
        given
    }

    /// Puts a saved number back. Returns whether it can be one.
    pub fn put(&mut self, kind: Numbered, key: &str, number: u32) -> bool {
        let numbers = match kind {
            Numbered::Identity => {
                let id = key.parse().ok();
                return id.is_some_and(|id| self.identities.insert(id, number).is_none());
            }
            Numbered::Selector => &mut self.selectors,
            Numbered::Class => &mut self.classes,
            Numbered::Rule => &mut self.rules,
            Numbered::Guard => &mut self.guards,
            Numbered::Interface => &mut self.interfaces,
        };
        numbers.insert(key.to_owned(), number).is_none()
    }

    fn texts(&self, kind: Numbered) -> Option<&BTreeMap<String, u32>> {
        match kind {
            Numbered::Identity => None,
            Numbered::Selector => Some(&self.selectors),
            Numbered::Class => Some(&self.classes),
            Numbered::Rule => Some(&self.rules),
            Numbered::Guard => Some(&self.guards),
            Numbered::Interface => Some(&self.interfaces),
        }
    }

    fn count(&self, kind: Numbered) -> usize {
        self.texts(kind).map_or(self.identities.len(), BTreeMap::len)
    }

    /// The wall-clock time of boot by which deadlines were computed last.
    pub fn kept_wall_of_boot_ns(&self) -> Option<i64> {
        self.wall_of_boot_ns
    }

    /// Puts it back.
    pub fn keep_wall_of_boot_ns(&mut self, ns: Option<i64>) {
        self.wall_of_boot_ns = ns;
    }

    /// The number that something has.
    pub fn number_of(&self, kind: Numbered, key: &str) -> Option<u32> {
        match self.texts(kind) {
            Some(texts) => texts.get(key).copied(),
            None => self.identity_number(&key.parse().ok()?),
        }
    }

    /// The number that an identity has.
    pub fn identity_number(&self, id: &SpiffeId) -> Option<u32> {
        self.identities.get(id).copied()
    }

    /// Takes back numbers of identities, the last that were given, which nobody has seen.
    pub fn forget(&mut self, given: &[(SpiffeId, u32)]) {
        for (id, _) in given {
            self.identities.remove(id);
        }
    }

    /// The number of an identity, given now if it has none.
    pub fn identity(&mut self, id: &SpiffeId) -> u32 {
        match self.identities.get(id) {
            Some(number) => *number,
            None => {
                let number = self.identities.len() as u32 + 1;
                self.identities.insert(id.clone(), number);
                number
            }
        }
    }

    /// The identity that has a number.
    pub fn identity_of(&self, number: u32) -> Option<&SpiffeId> {
        self.identities.iter().find(|(_, n)| **n == number).map(|(id, _)| id)
    }

    /// Every identity that ever had a number, in no order.
    pub fn identities(&self) -> impl Iterator<Item = (u32, &SpiffeId)> {
        self.identities.iter().map(|(id, n)| (*n, id))
    }

    /// Every rule that ever had a number, by its key: `policy/NAME/RULE`, `block/NAME/WHAT`, `feed/NAME/FEED`, `quarantine/NAME`,
    /// `limit/NAME`, `grant/NAME`.
    pub fn rules(&self) -> impl Iterator<Item = (u32, &str)> {
        self.rules.iter().map(|(key, n)| (*n, key.as_str()))
    }

    pub(super) fn selector(&mut self, text: String) -> u32 {
        give(&mut self.selectors, text)
    }

    /// The number of the class of a sorted set of selector numbers. The empty set is the class of known workloads
    /// that no rule speaks of: not 0, which is that of strangers.
    pub(super) fn class(&mut self, selectors: &[u32]) -> u32 {
        give(&mut self.classes, selectors.iter().map(u32::to_string).collect::<Vec<_>>().join(","))
    }

    pub(super) fn rule(&mut self, policy: &str, rule: &str) -> u32 {
        give(&mut self.rules, format!("policy/{policy}/{rule}"))
    }

    /// The number that a rule has.
    pub(super) fn known_rule(&self, policy: &str, rule: &str) -> Option<u32> {
        self.rules.get(&format!("policy/{policy}/{rule}")).copied()
    }

    /// The number that a grant has.
    pub(super) fn known_grant(&self, name: &str) -> Option<u32> {
        self.rules.get(&format!("grant/{name}")).copied()
    }

    pub(super) fn block(&mut self, blocklist: &str, cidr: &str) -> u32 {
        give(&mut self.rules, format!("block/{blocklist}/{cidr}"))
    }

    pub(super) fn feed(&mut self, blocklist: &str, feed: &str) -> u32 {
        give(&mut self.rules, format!("feed/{blocklist}/{feed}"))
    }

    pub(super) fn quarantine(&mut self, name: &str) -> u32 {
        give(&mut self.rules, format!("quarantine/{name}"))
    }

    pub(super) fn limit(&mut self, name: &str) -> u32 {
        give(&mut self.rules, format!("limit/{name}"))
    }

    pub(super) fn grant(&mut self, name: &str) -> u32 {
        give(&mut self.rules, format!("grant/{name}"))
    }

    /// The number of a guard list by the numbers of what stands in it.
    pub(super) fn guards(&mut self, content: String) -> u32 {
        give(&mut self.guards, content)
    }

    /// The number of an interface that bindings name.
    pub(super) fn interface(&mut self, name: &str) -> u32 {
        give(&mut self.interfaces, name.to_owned())
    }

    /// Whether deadlines stay what they are.
    pub fn keeps_deadlines(&self, clock: &Clock) -> bool {
        let now = i64::try_from(clock.wall_of_boot_ns()).unwrap_or(i64::MAX);
        self.wall_of_boot_ns.is_some_and(|kept| is_slewed(kept, now))
    }

    /// The wall-clock time of boot; the one of last time where it differs by less than a step of the clock, so that
    /// a compile without changes changes no deadline.
    pub(super) fn wall_of_boot_ns(&mut self, clock: &Clock) -> i128 {
        let now = i64::try_from(clock.wall_of_boot_ns()).unwrap_or(i64::MAX);
        let kept = self.wall_of_boot_ns.filter(|kept| is_slewed(*kept, now)).unwrap_or(now);
        self.wall_of_boot_ns = Some(kept);
        i128::from(kept)
    }
}

fn is_slewed(kept: i64, now: i64) -> bool {
    kept.abs_diff(now) < CLOCK_STEP_NS
}

/// Entries are never removed, so the next number is one more than there are.
fn give<K: Ord>(numbers: &mut BTreeMap<K, u32>, key: K) -> u32 {
    let next = numbers.len() as u32 + 1;
    *numbers.entry(key).or_insert(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_and_survive_a_restart() {
        let mut numbering = Numbering::default();
        assert_eq!(numbering.rule("b", "x"), 1);
        assert_eq!(numbering.rule("a", "x"), 2);
        assert_eq!(numbering.block("a", "x"), 3);
        assert_eq!(numbering.class(&[1, 2]), 1);
        numbering.identity(&"spiffe://acme.example/a".parse().expect("an ID"));
        let mut again = Numbering::default();
        let given = numbering.given_since(&again.counted());
        assert_eq!(given.len(), 5);
        assert!(given.into_iter().all(|(kind, key, number)| again.put(kind, &key, number)));
        assert_eq!(again, numbering);
        assert_eq!(again.given_since(&numbering.counted()), []);
        assert!(!again.put(Numbered::Class, "1,2", 7), "a number never comes to mean something else");
        again = numbering.clone();
        assert_eq!(again.rule("b", "x"), 1);
        assert_eq!(again.class(&[]), 2);
        assert_eq!(again.class(&[1]), 3);
        assert_eq!(again.class(&[1, 2]), 1);
    }

    #[test]
    fn a_slewed_clock_moves_no_deadline_and_a_stepped_one_does() {
        let mut numbering = Numbering::default();
        let clock = |wall: &str, boot| Clock { wall_now: wall.parse().expect("time"), boot_now_ns: boot };
        let first = numbering.wall_of_boot_ns(&clock("2026-01-01T00:00:10Z", 10_000_000_000));
        assert_eq!(numbering.wall_of_boot_ns(&clock("2026-01-01T00:00:20Z", 20_400_000_000)), first);
        assert_ne!(numbering.wall_of_boot_ns(&clock("2026-01-01T00:00:32Z", 30_000_000_000)), first);
    }
}
