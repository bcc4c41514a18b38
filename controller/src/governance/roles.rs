//! Who was at an address before, and by which certificate: what fails may fail since that has changed.

use super::compare::End;
use crate::policy::spiffe::SpiffeId;
use datapath::abi::Addr;
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;

/// Addresses that are remembered. When there are more, all are forgotten: it is a hint.
const MOST: usize = 65_536;
/// Certificates change all the time: a change so long ago is no reason any more. It is twice the time in which failures are a surge.
const SHORTLY: SignedDuration = SignedDuration::from_mins(10);

/// Who was seen last at which address, and since when that is somebody else than before.
#[derive(Debug, Default)]
pub struct Roles {
    of: HashMap<Addr, (SpiffeId, Option<Timestamp>)>,
    certified: HashMap<Addr, Certified>,
    /// Addresses that were forgotten.
    pub forgotten: u64,
}

/// By which certificate an identity has an address, as its enrolment proved.
#[derive(Debug)]
struct Certified {
    id: SpiffeId,
    sha256: Box<str>,
    /// When it was another before, and which.
    changed: Option<(Timestamp, Box<str>)>,
}

impl Roles {
    /// Notes who is there.
    pub fn note(&mut self, end: &End, at: Timestamp) {
        let End::Identified { id, address, .. } = end else { return };
        match self.of.get_mut(address) {
            Some((known, _)) if known == id => {}
            Some(known) => *known = (id.clone(), Some(at)),
            None => {
                if self.of.len() >= MOST {
                    self.forgotten += self.of.len() as u64;
                    self.of.clear();
                }
                self.of.insert(*address, (id.clone(), None));
            }
        }
    }

    /// Notes by which certificate, in SHA-256, an identity was given a lease on its address.
    pub fn certify(&mut self, end: &End, sha256: Option<&str>, at: Timestamp) {
        let (End::Identified { id, address, .. }, Some(sha256)) = (end, sha256) else { return };
        let changed = match self.certified.get(address) {
            Some(known) if known.id == *id && *known.sha256 == *sha256 => return,
            Some(known) if known.id == *id => Some((at, known.sha256.clone())),
            // That somebody else is there is another change.
            Some(_) => None,
            None => {
                if self.certified.len() >= MOST {
                    self.forgotten += self.certified.len() as u64;
                    self.certified.clear();
                }
                None
            }
        };
        self.certified.insert(*address, Certified { id: id.clone(), sha256: sha256.into(), changed });
    }

    /// What has changed at an end, in words: since when somebody else is there, and whose certificate is another than shortly before.
    pub fn changed(&self, end: &End, now: Timestamp) -> impl Iterator<Item = String> {
        self.other_role(end).into_iter().chain(self.other_certificate(end, now))
    }

    fn other_role(&self, end: &End) -> Option<String> {
        let (id, since) = self.of.get(&end.address())?;
        Some(format!("{} was first seen as {id} at {:.0}", end.address().to_ip(), (*since)?))
    }

    fn other_certificate(&self, end: &End, now: Timestamp) -> Option<String> {
        let Certified { id, sha256, changed } = self.certified.get(&end.address())?;
        let (at, before) = changed.as_ref().filter(|(at, _)| now.duration_since(*at) <= SHORTLY)?;
        let is_its = matches!(end, End::Identified { id: own, .. } if own == id);
        let short = |sha256: &str| sha256.get(..12).unwrap_or(sha256).to_owned();
        is_its.then(|| {
            let (is, was, ip) = (short(sha256), short(before), end.address().to_ip());
            format!("{id} ({ip}) enrolled with another certificate at {at:.0}: SHA-256 {is}, before it {was}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn end(path: &str) -> End {
        let id = format!("spiffe://a.example/{path}").parse().expect("a SPIFFE ID");
        End::Identified { id, labels: BTreeMap::new(), address: Addr::v4([10, 1, 0, 2]), is_shared: false }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn changed(roles: &Roles, path: &str, second: i64) -> Vec<String> {
        roles.changed(&end(path), at(second)).collect()
    }

    #[test]
    fn an_address_that_becomes_somebody_else_says_since_when() {
        let mut roles = Roles::default();
        roles.note(&end("a"), at(1));
        assert!(changed(&roles, "a", 1).is_empty());
        roles.note(&end("b"), at(2));
        roles.note(&end("b"), at(3));
        let text = "10.1.0.2 was first seen as spiffe://a.example/b at 1970-01-01T00:00:02Z";
        assert_eq!(changed(&roles, "b", 9999), [text]);
    }

    #[test]
    fn a_certificate_that_is_another_is_said_shortly_after_and_of_who_has_it() {
        let (first, second) = ("0123456789abcdef", "fedcba9876543210");
        let mut roles = Roles::default();
        roles.certify(&end("a"), Some(first), at(1));
        roles.certify(&end("a"), Some(first), at(2));
        roles.certify(&end("a"), None, at(3));
        assert!(changed(&roles, "a", 3).is_empty(), "a renewal with the same");
        roles.certify(&end("a"), Some(second), at(60));
        roles.certify(&end("a"), Some(second), at(90));
        let text = "spiffe://a.example/a (10.1.0.2) enrolled with another certificate at 1970-01-01T00:01:00Z: SHA-256 fedcba987654, before it 0123456789ab";
        assert_eq!(changed(&roles, "a", 660), [text]);
        assert!(changed(&roles, "a", 661).is_empty(), "that was long ago");
        assert!(changed(&roles, "b", 61).is_empty(), "it is no certificate of another");
        roles.certify(&end("b"), Some(first), at(70));
        assert!(changed(&roles, "b", 71).is_empty(), "another identity is no other certificate");
    }
}
