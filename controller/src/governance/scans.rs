//! Whether an identity tries one service after the other, and is denied.

use super::table::oldest_quarter;
use crate::policy::spiffe::SpiffeId;
use datapath::abi::Addr;
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;

/// So many services that were denied in a minute are no scan yet.
const FEW: usize = 15;
const WINDOW: SignedDuration = SignedDuration::from_mins(1);
/// Identities that are counted. Beyond that the quarter is forgotten of which nothing was heard for longest.
const MOST: usize = 4096;

/// Services that identities were denied: address, protocol and port.
#[derive(Debug, Default)]
pub struct Scans {
    of: HashMap<SpiffeId, HashMap<(Addr, u8, u16), Timestamp>>,
    /// Identities that were forgotten.
    pub forgotten: u64,
}

impl Scans {
    /// Notes that an identity was denied a service. Where that is one of a scan, how many there were.
    pub fn note(&mut self, id: &SpiffeId, service: (Addr, u8, u16), at: Timestamp) -> Option<String> {
        if self.of.len() >= MOST && !self.of.contains_key(id) {
            self.forget();
        }
        let denied = self.of.entry(id.clone()).or_default();
        let is_new = denied.insert(service, at).is_none();
        denied.retain(|_, last| at.duration_since(*last) < WINDOW);
        if !is_new || denied.len() <= FEW {
            return None;
        }
        let (ports, addresses) = (distinct(denied.keys().map(|s| s.2)), distinct(denied.keys().map(|s| s.0)));
        let text = format!(
            "one of {} services that were denied in 1m00s, at {addresses} addresses and {ports} ports",
            denied.len()
        );
        if denied.len() > 4 * FEW
            && let Some(oldest) = denied.iter().min_by_key(|(_, last)| **last).map(|(service, _)| *service)
        {
            denied.remove(&oldest);
        }
        Some(text)
    }

    fn forget(&mut self) {
        let last =
            |denied: &HashMap<_, Timestamp>| denied.values().max().copied().unwrap_or(Timestamp::UNIX_EPOCH);
        let Some(oldest) = oldest_quarter(self.of.values().map(last)) else { return };
        let before = self.of.len();
        self.of.retain(|_, denied| last(denied) > oldest);
        self.forgotten += (before - self.of.len()) as u64;
    }
}

fn distinct<T: std::hash::Hash + Eq>(all: impl Iterator<Item = T>) -> usize {
    all.collect::<std::collections::HashSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(host: u8, port: u16) -> (Addr, u8, u16) {
        (Addr::v4([10, 2, 0, host]), 6, port)
    }

    #[test]
    fn many_services_in_a_minute_are_a_scan_and_one_that_is_tried_again_is_not() {
        let id: SpiffeId = "spiffe://a.example/web".parse().expect("a SPIFFE ID");
        let at = |second: i64| Timestamp::from_second(second).expect("a time");
        let mut scans = Scans::default();
        for n in 0..15 {
            assert_eq!(scans.note(&id, service(1, n), at(0)), None);
        }
        assert_eq!(scans.note(&id, service(1, 3), at(1)), None, "that is a retry");
        assert_eq!(
            scans.note(&id, service(2, 80), at(2)).as_deref(),
            Some("one of 16 services that were denied in 1m00s, at 2 addresses and 16 ports")
        );
        // A minute later only the last are left.
        assert_eq!(scans.note(&id, service(2, 81), at(61)), None);
        for n in 0..1000 {
            scans.note(&id, service(3, n), at(62));
        }
        assert!(scans.of[&id].len() <= 61);
    }
}
