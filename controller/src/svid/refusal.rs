//! Why a peer's certificate is refused. The peer itself learns nothing of it: every refusal is the same TLS alert,
//! `certificate_unknown`.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The kinds of refusals; labels of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The gateway itself has no trust bundles yet.
    NoTrustBundles,
    /// No certificate that can be read.
    Malformed,
    /// No URI name, or several (X509-SVID, section 2).
    NotOneUri,
    /// The URI is not the SPIFFE ID of a workload (SPIFFE-ID, section 2; X509-SVID, section 3.1).
    NotSpiffeId,
    /// A signing certificate shown as one's own (X509-SVID, sections 3.2 and 5.2).
    CaAsLeaf,
    /// A key that is not for signatures, or not for this side of TLS (X509-SVID, sections 4.3 and 4.4).
    KeyUsage,
    /// Its time has not begun.
    NotYetValid,
    /// Its time is over.
    Expired,
    /// There is no bundle of its trust domain.
    UnknownTrustDomain,
    /// No chain to an authority of its trust domain's bundle (X509-SVID, section 5.1).
    UntrustedChain,
    /// The chain ends at an authority that was in the bundle and is not any more.
    AuthorityRemoved,
    /// Another SPIFFE ID than the one that was wanted.
    UnexpectedId,
}

impl Reason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::NoTrustBundles,
        Self::Malformed,
        Self::NotOneUri,
        Self::NotSpiffeId,
        Self::CaAsLeaf,
        Self::KeyUsage,
        Self::NotYetValid,
        Self::Expired,
        Self::UnknownTrustDomain,
        Self::UntrustedChain,
        Self::AuthorityRemoved,
        Self::UnexpectedId,
    ];

    /// Its label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoTrustBundles => "no_trust_bundles",
            Self::Malformed => "malformed",
            Self::NotOneUri => "not_one_uri",
            Self::NotSpiffeId => "not_spiffe_id",
            Self::CaAsLeaf => "ca_as_leaf",
            Self::KeyUsage => "key_usage",
            Self::NotYetValid => "not_yet_valid",
            Self::Expired => "expired",
            Self::UnknownTrustDomain => "unknown_trust_domain",
            Self::UntrustedChain => "untrusted_chain",
            Self::AuthorityRemoved => "authority_removed",
            Self::UnexpectedId => "unexpected_id",
        }
    }

    /// A refusal with what is to be said of it.
    pub(super) fn because(self, detail: impl fmt::Display) -> Refusal {
        Refusal { reason: self, detail: detail.to_string() }
    }
}

/// A refused certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.name())]
pub struct Refusal {
    /// Which kind.
    pub reason: Reason,
    /// For the log.
    pub detail: String,
}

impl Refusal {
    /// The refusal that ended a handshake, where one did.
    pub fn of_handshake(error: &io::Error) -> Option<&Self> {
        let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) = error else {
            return None;
        };
        other.0.downcast_ref()
    }
}

impl From<Refusal> for rustls::Error {
    fn from(refusal: Refusal) -> Self {
        Self::InvalidCertificate(rustls::CertificateError::Other(rustls::OtherError(Arc::new(refusal))))
    }
}

/// How often each reason refused a handshake.
#[derive(Debug, Default)]
pub struct Refused([AtomicU64; Reason::ALL.len()]);

impl Refused {
    pub(super) fn count(&self, reason: Reason) {
        self.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was this one.
    pub fn of(&self, reason: Reason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }
}
