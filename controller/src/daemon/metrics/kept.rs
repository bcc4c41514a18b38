//! Which labels the page shows: the first that come, as long as the daemon runs.

use super::handshakes::{Counted, Seen};
use std::collections::BTreeSet;

/// What those that are too many add up under.
pub(super) const OTHER: &str = "other";

/// Label values that have series of their own. Who has a place keeps it: a counter that comes and goes would be taken for one that
/// began anew.
#[derive(Debug)]
pub(super) struct Kept {
    known: BTreeSet<Vec<String>>,
    room: usize,
}

impl Kept {
    fn new(room: usize) -> Self {
        Self { known: BTreeSet::new(), room }
    }

    /// Whether these have a place; they take one where there is room.
    pub(super) fn has_place(&mut self, values: &[&str]) -> bool {
        let values: Vec<_> = values.iter().map(|value| (*value).to_owned()).collect();
        self.known.contains(&values) || (self.known.len() < self.room && self.known.insert(values))
    }
}

/// Pairs of identities whose handshakes are counted by themselves.
pub(super) const PAIRS: usize = 500;
/// Histograms of identities, kinds, outcomes and stages: each is 24 series.
pub(super) const DURATIONS: usize = 400;
/// Changes that a candidate policy would make, by rules, verdicts and reasons.
pub(super) const CHANGES: usize = 200;

/// What the page shows by itself.
#[derive(Debug)]
pub struct Labels {
    pub(super) pairs: Kept,
    pub(super) durations: Kept,
    pub(super) changes: Kept,
    /// Handshakes of pairs that gave their places in the table to others.
    pub(super) retired: Counted,
    /// When which of those in the table were counted last.
    pub(super) seen: Seen,
}

impl Default for Labels {
    fn default() -> Self {
        let [pairs, durations, changes] = [PAIRS, DURATIONS, CHANGES].map(Kept::new);
        Self { pairs, durations, changes, retired: Counted::default(), seen: Seen::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_place_keeps_it_and_who_comes_too_late_has_none() {
        let mut kept = Kept::new(2);
        assert!(kept.has_place(&["b", "c"]));
        assert!(kept.has_place(&["bc", ""]));
        assert!(!kept.has_place(&["a", "a"]));
        assert!(kept.has_place(&["b", "c"]));
    }
}
