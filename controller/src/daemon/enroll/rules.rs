//! Who may enrol, and what is counted of it.

use crate::bindings::{CERTIFICATE, Claim, SourceName};
use crate::exit_code::{Failure, Result};
use crate::policy::Prefix;
use crate::policy::document::{Lease, OnExpiry};
use crate::policy::scope::Scope;
use crate::policy::spiffe::{SpiffeId, TrustDomain};
use crate::svid::Peer;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why somebody does not enrol; labels of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The SVID is none that the gateway believes.
    Certificate,
    /// Its trust domain does not enrol.
    TrustDomain,
    /// The address it comes from does not.
    Address,
    /// It asked for something else.
    Request,
    /// It did not go on.
    Slow,
    /// The gateway could not do it.
    Failed,
    /// The lease of the identity was revoked.
    Revoked,
}

impl Refused {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Certificate,
        Self::TrustDomain,
        Self::Address,
        Self::Request,
        Self::Slow,
        Self::Failed,
        Self::Revoked,
    ];

    /// Its label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::TrustDomain => "trust_domain",
            Self::Address => "address",
            Self::Request => "request",
            Self::Slow => "slow",
            Self::Failed => "failed",
            Self::Revoked => "revoked",
        }
    }
}

/// What a lease is that is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// Whoever asked had none.
    Granted,
    /// It holds on, until later.
    Renewed,
}

impl Given {
    /// Its name in events and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Renewed => "renewed",
        }
    }
}

/// What came of enrolments.
#[derive(Debug, Default)]
pub struct Counts {
    granted: AtomicU64,
    renewed: AtomicU64,
    withdrawn: AtomicU64,
    refused: [AtomicU64; Refused::ALL.len()],
}

impl Counts {
    pub(super) fn grant(&self, given: Given) {
        let count = match given {
            Given::Granted => &self.granted,
            Given::Renewed => &self.renewed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn withdraw(&self) {
        self.withdrawn.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refuse(&self, why: Refused) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Leases that were given, renewed, and given back.
    pub fn done(&self) -> [(&'static str, u64); 3] {
        [
            (Given::Granted.name(), self.granted.load(Ordering::Relaxed)),
            (Given::Renewed.name(), self.renewed.load(Ordering::Relaxed)),
            ("withdrawn", self.withdrawn.load(Ordering::Relaxed)),
        ]
    }

    /// Refusals of a kind.
    pub fn refused(&self, why: Refused) -> u64 {
        self.refused[why as usize].load(Ordering::Relaxed)
    }
}

/// Who may enrol, for how long.
#[derive(Clone, Debug)]
pub struct Rules {
    /// From where.
    pub from: Vec<Prefix>,
    /// Of which trust domains; of the gateway's own where there is none.
    pub trust_domains: Vec<TrustDomain>,
    /// The longest lease.
    pub longest: SignedDuration,
}

impl Rules {
    /// Whether this identity may have this address.
    pub fn check(&self, id: &SpiffeId, address: IpAddr, gateway: &SpiffeId) -> Result<(), (Refused, String)> {
        let domain = id.trust_domain();
        let of_it = match &self.trust_domains[..] {
            [] => domain == gateway.trust_domain(),
            domains => domains.iter().any(|d| d.as_str() == domain),
        };
        if !of_it {
            let message = format!("identities of {domain} do not enrol here (--enroll-trust-domain)");
            return Err((Refused::TrustDomain, message));
        }
        if !self.is_from(address) {
            let message = format!("{address} is no address that enrols here (--enroll-from)");
            return Err((Refused::Address, message));
        }
        Ok(())
    }

    /// Whether anybody at this address may enrol.
    pub fn is_from(&self, address: IpAddr) -> bool {
        let host = Prefix::host(address.into());
        self.from.iter().any(|prefix| prefix.covers(&host))
    }

    /// The end of a lease: the SVID's, or sooner.
    pub fn end(&self, peer: &Peer, asked_seconds: Option<u64>, now: Timestamp) -> Timestamp {
        let asked =
            asked_seconds.map(|s| SignedDuration::from_secs(i64::try_from(s.max(1)).unwrap_or(i64::MAX)));
        let longest = asked.map_or(self.longest, |asked| asked.min(self.longest));
        now.checked_add(longest).unwrap_or(Timestamp::MAX).min(peer.not_after)
    }

    /// Whether a lease that is there is as good as one to this end: who renews at every moment costs no commits.
    pub fn is_good(&self, there: &Claim, end: Timestamp) -> bool {
        let near = SignedDuration::from_secs((self.longest.as_secs() / 20).min(60));
        there.lease.is_some_and(|lease| lease.not_after <= end && end.duration_since(lease.not_after) <= near)
    }
}

/// An identity's claims are a source of their own: where two identities claim an address, neither replaces the other,
/// and nobody is believed.
pub fn source(id: &SpiffeId) -> Result<SourceName> {
    let name = format!("{}-{}", SourceName::enrol(), &hex(&Sha256::digest(id.as_str()))[..26]);
    name.parse().map_err(|e| Failure::failed("enrolment", e))
}

/// What is bound.
pub fn claim(peer: &Peer, certificate: &[u8], address: IpAddr, not_after: Timestamp) -> Claim {
    let evidence =
        [("svid_not_after", peer.not_after.to_string()), (CERTIFICATE, hex(&Sha256::digest(certificate)))];
    Claim {
        address: Prefix::host(address.into()),
        scope: Scope::default(),
        spiffe_id: peer.id.clone(),
        labels: BTreeMap::new(),
        lease: Some(Lease { not_after, on_expiry: OnExpiry::Deny, grace_s: 0 }),
        evidence: evidence.map(|(name, text)| (name.to_owned(), text)).into(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(from: &[&str], trust_domains: &[&str]) -> Rules {
        Rules {
            from: from.iter().map(|p| p.parse().unwrap()).collect(),
            trust_domains: trust_domains.iter().map(|d| d.parse().unwrap()).collect(),
            longest: SignedDuration::from_hours(1),
        }
    }

    #[test]
    fn enrolment_is_for_some_trust_domains_and_some_addresses() {
        let gateway = "spiffe://acme.example/gateway".parse().unwrap();
        let refused = |rules: &Rules, id: &str, address: &str| {
            let checked = rules.check(&id.parse().unwrap(), address.parse().unwrap(), &gateway);
            checked.err().map(|(why, _)| why)
        };
        let own = rules(&["10.1.0.0/16", "fd00:1::/32"], &[]);
        let (ours, theirs) = ("spiffe://acme.example/a", "spiffe://partner.example/a");
        assert_eq!(refused(&own, ours, "10.1.2.3"), None);
        assert_eq!(refused(&own, ours, "fd00:1::2"), None);
        assert_eq!(refused(&own, ours, "10.2.0.1"), Some(Refused::Address));
        assert_eq!(refused(&own, ours, "fd00:2::2"), Some(Refused::Address));
        assert_eq!(refused(&own, theirs, "10.1.2.3"), Some(Refused::TrustDomain));
        let partners = rules(&["10.1.0.0/16"], &["partner.example"]);
        assert_eq!(refused(&partners, theirs, "10.1.2.3"), None);
        assert_eq!(refused(&partners, ours, "10.1.2.3"), Some(Refused::TrustDomain));
        assert_eq!(refused(&rules(&["::/0"], &[]), ours, "10.1.2.3"), Some(Refused::Address));
    }

    #[test]
    fn a_lease_ends_with_the_svid_or_sooner() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let after = |minutes| now + SignedDuration::from_mins(minutes);
        let end = |svid, asked| {
            let peer = Peer { id: "spiffe://acme.example/a".parse().unwrap(), not_after: after(svid) };
            rules(&[], &[]).end(&peer, asked, now)
        };
        assert_eq!(end(30, None), after(30));
        assert_eq!(end(90, None), after(60));
        assert_eq!(end(90, Some(600)), after(10));
        assert_eq!(end(90, Some(u64::MAX)), after(60));
        assert_eq!(end(5, Some(600)), after(5));
        assert_eq!(end(5, Some(0)), now + SignedDuration::from_secs(1));
    }

    #[test]
    fn identities_are_sources_apart() {
        let of = |id: &str| source(&id.parse().unwrap()).unwrap();
        assert_eq!(of("spiffe://acme.example/a"), of("spiffe://acme.example/a"));
        assert_ne!(of("spiffe://acme.example/a"), of("spiffe://acme.example/b"));
    }
}
