//! Whether an identity tries again and again what never succeeds.

use super::table::oldest_quarter;
use crate::policy::spiffe::SpiffeId;
use crate::policy::time::duration_text;
use datapath::abi::{Addr, HandshakeKind, HandshakeOutcome};
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;

/// So many attempts that failed are no finding yet: what comes back soon was tried again meanwhile.
const FEW: u32 = 19;
/// Longer after the first of them, they are counted anew.
const WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// Services that are counted. Beyond that the quarter is forgotten of which nothing was heard for longest.
const MOST: usize = 16_384;

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The connection was let pass, or not.
    Passed(bool),
    /// A handshake ended.
    Handshake(HandshakeKind, HandshakeOutcome),
}

/// A service: address, protocol and port.
type Service = (Addr, u8, u16);

/// Attempts that failed, since the last one that did not.
#[derive(Debug, Default)]
pub struct Retries {
    of: HashMap<SpiffeId, HashMap<Service, Tries>>,
    services: usize,
    /// Services that were forgotten.
    pub forgotten: u64,
}

/// How far attempts came that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// They were denied.
    Denied,
    /// TCP did not come about.
    Transport,
    /// TLS or QUIC did not.
    Keys,
}

#[derive(Debug)]
struct Tries {
    stage: Stage,
    failed: u32,
    first: Timestamp,
    last: Timestamp,
}

impl Attempt {
    /// Where it failed, or how far it came.
    fn stage(self) -> Option<(Stage, bool)> {
        use HandshakeOutcome::{Completed, Retransmitted, Retry, VersionNegotiation};
        match self {
            Self::Passed(passed) => Some((Stage::Denied, passed)),
            // What is counted beside an outcome is none.
            Self::Handshake(_, Retransmitted | Retry | VersionNegotiation) => None,
            Self::Handshake(HandshakeKind::Tcp, outcome) => Some((Stage::Transport, outcome == Completed)),
            Self::Handshake(_, outcome) => Some((Stage::Keys, outcome == Completed)),
        }
    }
}

impl Retries {
    /// Notes an attempt. Where it is one of many that all failed, how many there were.
    pub fn note(
        &mut self,
        id: &SpiffeId,
        service: Service,
        attempt: Attempt,
        at: Timestamp,
    ) -> Option<String> {
        let (stage, came_about) = attempt.stage()?;
        if came_about {
            // Nearly always there is nothing to take back.
            self.came_about(id, &service, stage);
            return None;
        }
        if self.services >= MOST {
            self.forget();
        }
        let of = self.of.entry(id.clone()).or_default();
        let before = of.len();
        let begin = Tries { stage, failed: 0, first: at, last: at };
        let tries = of.entry(service).or_insert(begin);
        if at.duration_since(tries.first) >= WINDOW {
            *tries = Tries { stage, failed: 0, first: at, last: at };
        }
        tries.failed += 1;
        tries.last = tries.last.max(at);
        tries.stage = tries.stage.max(stage);
        let failed = tries.failed;
        self.services += of.len() - before;
        (failed > FEW).then(|| {
            let minutes = duration_text(WINDOW.as_secs().unsigned_abs());
            format!("attempt {failed} of {minutes} that all failed")
        })
    }

    /// What came so far is no failure of a stage up to that: a handshake may still fail later.
    fn came_about(&mut self, id: &SpiffeId, service: &Service, stage: Stage) {
        let Some(of) = self.of.get_mut(id) else { return };
        if of.get(service).is_some_and(|tries| tries.stage <= stage) {
            of.remove(service);
            self.services -= 1;
        }
        if of.is_empty() {
            self.of.remove(id);
        }
    }

    fn forget(&mut self) {
        let heard = self.of.values().flat_map(HashMap::values).map(|tries| tries.last);
        let Some(last) = oldest_quarter(heard) else { return };
        let before = self.services;
        self.of.retain(|_, of| {
            of.retain(|_, tries| tries.last > last);
            !of.is_empty()
        });
        self.services = self.of.values().map(HashMap::len).sum();
        self.forgotten += (before - self.services) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> SpiffeId {
        "spiffe://a.example/web".parse().expect("a SPIFFE ID")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    const TCP: HandshakeKind = HandshakeKind::Tcp;
    const TLS: HandshakeKind = HandshakeKind::Tls;
    const DONE: HandshakeOutcome = HandshakeOutcome::Completed;

    #[test]
    fn the_twentieth_attempt_is_found_and_one_that_succeeds_ends_the_count() {
        let service = (Addr::v4([10, 2, 0, 1]), 6, 443);
        let mut retries = Retries::default();
        let mut attempts = |attempts: &[Attempt], from: i64| -> Vec<Option<String>> {
            let one =
                |(n, attempt): (usize, &Attempt)| retries.note(&id(), service, *attempt, at(from + n as i64));
            attempts.iter().enumerate().map(one).collect()
        };
        let refused = [Attempt::Handshake(TCP, HandshakeOutcome::Refused); 19];
        assert!(attempts(&refused, 0).iter().all(Option::is_none));
        let found = attempts(&refused[..1], 20).remove(0);
        assert_eq!(found.as_deref(), Some("attempt 20 of 10m00s that all failed"));
        assert_eq!(attempts(&[Attempt::Handshake(TCP, DONE)], 30), [None]);
        assert!(attempts(&refused, 31).iter().all(Option::is_none), "one succeeded");
        assert!(attempts(&refused, 700).iter().all(Option::is_none), "the first are too long ago");
    }

    #[test]
    fn what_fails_later_is_not_undone_by_what_works_before_it() {
        let service = (Addr::v4([10, 2, 0, 1]), 6, 443);
        let mut retries = Retries::default();
        let mut found = None;
        for n in 0..20 {
            for attempt in [
                Attempt::Passed(true),
                Attempt::Handshake(TCP, DONE),
                Attempt::Handshake(TLS, HandshakeOutcome::Alert),
            ] {
                found = retries.note(&id(), service, attempt, at(n));
            }
        }
        assert!(found.is_some(), "TLS never came about");
        assert_eq!(
            retries.note(&id(), service, Attempt::Handshake(TLS, HandshakeOutcome::Retry), at(21)),
            None
        );
        retries.note(&id(), service, Attempt::Handshake(TLS, DONE), at(22));
        assert_eq!((retries.services, retries.of.len()), (0, 0));
    }

    #[test]
    fn memory_is_bounded_and_the_longest_unheard_go() {
        let mut retries = Retries::default();
        for n in 0..20_000_u32 {
            let service = (Addr::v4(n.to_be_bytes()), 6, 443);
            retries.note(&id(), service, Attempt::Passed(false), at(i64::from(n)));
        }
        assert!(retries.services <= MOST);
        assert_eq!(retries.services as u64 + retries.forgotten, 20_000);
    }
}
