//! For how long identities have leases: what somebody does who is given five minutes at a time is compared over five minutes.
//!
//! A term begins with the first lease and goes on for as long as there is another in time. It is as long as the longest lease that the
//! identity was given in it, and never longer than what is usual.

use super::compare::End;
use super::table::oldest_quarter;
use crate::policy::spiffe::SpiffeId;
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;

/// The usual window: whoever has a lease for so long, or no lease, is compared over the hours of the clock.
pub const USUAL_S: i64 = 3600;
/// Identities that are remembered. Beyond that the quarter is forgotten whose leases ended first: they have the usual windows.
const MOST: usize = 65_536;

/// A span of time in which what an identity does is counted together, within its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// When the term began.
    pub since: Timestamp,
    /// How long a lease is, less than [`USUAL_S`].
    pub seconds: i64,
}

#[derive(Debug)]
struct Term {
    since: Timestamp,
    until: Timestamp,
    seconds: i64,
}

/// Terms of identities.
#[derive(Debug, Default)]
pub struct Terms {
    of: HashMap<SpiffeId, Term>,
    /// Identities that were forgotten.
    pub forgotten: u64,
}

impl Terms {
    /// Notes that an identity was given a lease, or had one renewed, until then; without an end where it has none.
    pub fn note(&mut self, id: &SpiffeId, at: Timestamp, until: Option<Timestamp>) {
        let Some(until) = until else {
            self.of.remove(id);
            return;
        };
        let seconds = until.duration_since(at).as_secs();
        if seconds <= 0 {
            return;
        }
        if let Some(term) = self.of.get_mut(id) {
            // Who gives a lease back and asks anew, or lets one end, begins nothing anew within the time of a lease.
            if at.duration_since(term.until) < SignedDuration::from_secs(term.seconds) {
                term.until = term.until.max(until);
                term.seconds = term.seconds.max(seconds);
                return;
            }
        } else if self.of.len() >= MOST {
            self.forget();
        }
        self.of.insert(id.clone(), Term { since: at, until, seconds });
    }

    /// The window of an identity; nothing where it is the usual one.
    pub fn window(&self, end: &End, at: Timestamp) -> Option<Window> {
        let End::Identified { id, .. } = end else { return None };
        let term = self.of.get(id)?;
        // Long after its end it has another source, such as a file.
        let is_over = at.duration_since(term.until) >= SignedDuration::from_secs(term.seconds);
        // An agent asks a moment late, and a certificate ends a moment early: a tenth less is as long.
        let is_usual = term.seconds >= USUAL_S * 9 / 10;
        (!is_over && !is_usual).then_some(Window { since: term.since, seconds: term.seconds })
    }

    fn forget(&mut self) {
        let Some(last) = oldest_quarter(self.of.values().map(|term| term.until)) else { return };
        let before = self.of.len();
        self.of.retain(|_, term| term.until > last);
        self.forgotten += (before - self.of.len()) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datapath::abi::Addr;
    use std::collections::BTreeMap;

    fn id(path: &str) -> SpiffeId {
        format!("spiffe://a.example/{path}").parse().expect("a SPIFFE ID")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn window(terms: &Terms, path: &str, second: i64) -> Option<(i64, i64)> {
        let end = End::Identified {
            id: id(path),
            labels: BTreeMap::new(),
            address: Addr::v4([10, 1, 0, 2]),
            is_shared: false,
        };
        terms.window(&end, at(second)).map(|window| (window.since.as_second(), window.seconds))
    }

    #[test]
    fn a_term_begins_with_the_first_lease_and_goes_on_with_those_that_follow() {
        let mut terms = Terms::default();
        assert_eq!(window(&terms, "job", 10), None, "who has no lease has the usual windows");
        terms.note(&id("job"), at(10), Some(at(310)));
        terms.note(&id("job"), at(200), Some(at(500)));
        // Shorter, as the certificate ends.
        terms.note(&id("job"), at(400), Some(at(560)));
        assert_eq!(window(&terms, "job", 559), Some((10, 300)));
        // Given back, or over, and asked for again.
        terms.note(&id("job"), at(700), Some(at(1000)));
        assert_eq!(window(&terms, "job", 999), Some((10, 300)));
        // The next job of that name.
        terms.note(&id("job"), at(2000), Some(at(2060)));
        assert_eq!(window(&terms, "job", 2001), Some((2000, 60)));
        assert_eq!(window(&terms, "job", 2120), None, "long after it");
    }

    #[test]
    fn long_leases_and_those_without_an_end_have_the_usual_windows() {
        let mut terms = Terms::default();
        terms.note(&id("web"), at(0), Some(at(86_400)));
        terms.note(&id("hour"), at(0), Some(at(3590)));
        terms.note(&id("half"), at(0), Some(at(1800)));
        terms.note(&id("job"), at(0), Some(at(60)));
        terms.note(&id("job"), at(1), None);
        terms.note(&id("gone"), at(2), Some(at(2)));
        let all = ["web", "hour", "half", "job", "gone"].map(|path| window(&terms, path, 3));
        assert_eq!(all, [None, None, Some((0, 1800)), None, None]);
    }

    #[test]
    fn memory_is_bounded_and_those_whose_leases_ended_first_go() {
        let mut terms = Terms::default();
        for n in 0..=65_536_i64 {
            terms.note(&id(&format!("job/{n}")), at(n), Some(at(n + 300)));
        }
        assert_eq!(terms.forgotten, 16_385);
        assert_eq!(window(&terms, "job/65536", 65_537), Some((65_536, 300)));
        assert_eq!(window(&terms, "job/0", 65_537), None);
    }
}
