//! A peer's chain against the bundle of its own trust domain (X509-SVID, section 5).
//!
//! First what the certificate says of itself, then whom the gateway trusts. To the peer both look alike; beside that,
//! nobody learns from dates or names in a made-up certificate which trust domains are known.

use super::leaf::{self, Leaf};
use super::material::Material;
use super::refusal::{Reason, Refusal};
use crate::policy::spiffe::SpiffeId;
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

/// The side of TLS on which a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It connected to us.
    Client,
    /// We connected to it.
    Server,
}

/// A verified peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub id: SpiffeId,
    /// When it is to be asked again: the end of its SVID, or of what vouches for it if that is sooner.
    pub not_after: Timestamp,
}

impl Material {
    /// Verifies a chain, the leaf first, at a time.
    pub fn verify(&self, chain: &[CertificateDer<'_>], side: Side, now: UnixTime) -> Result<Peer, Refusal> {
        let [end, intermediates @ ..] = chain else {
            return Err(Reason::Malformed.because("no certificate"));
        };
        let leaf = Leaf::parse(end, side)?;
        leaf.check_time(i64::try_from(now.as_secs()).unwrap_or(i64::MAX))?;
        let end = EndEntityCert::try_from(end).map_err(|e| Reason::Malformed.because(e))?;
        let path = |anchors| path_to(anchors, &end, intermediates, side, now);
        let current = match self.anchors(&leaf.trust_domain) {
            Some(anchors) => path(anchors),
            None => Err(Reason::UnknownTrustDomain.because(format_args!(
                "{}: no bundle of {}",
                leaf.id,
                leaf.trust_domain.as_str()
            ))),
        };
        let sooner = current.map_err(|refusal| match self.retired(&leaf.trust_domain).map(path) {
            Some(Ok(_)) => Reason::AuthorityRemoved
                .because(format_args!("{}: its authority was taken out of the bundle", leaf.id)),
            _ if refusal.reason == Reason::UntrustedChain => {
                Reason::UntrustedChain.because(format_args!("{}: {}", leaf.id, refusal.detail))
            }
            _ => refusal,
        })?;
        let not_after = Timestamp::from_second(leaf.not_after.min(sooner)).unwrap_or(Timestamp::MAX);
        Ok(Peer { id: leaf.id, not_after })
    }
}

/// The first end of what lies between the leaf and the anchor.
fn path_to(
    anchors: &[TrustAnchor<'_>],
    end: &EndEntityCert<'_>,
    intermediates: &[CertificateDer<'_>],
    side: Side,
    now: UnixTime,
) -> Result<i64, Refusal> {
    let usage = match side {
        Side::Client => KeyUsage::client_auth(),
        Side::Server => KeyUsage::server_auth(),
    };
    // webpki looks at cA, not at keyCertSign (RFC 5280, section 6.1.4 (n)).
    let signers = |path: &VerifiedPath<'_>| {
        let all = path.intermediate_certificates().all(|certificate| leaf::may_sign(&certificate.der()));
        if all { Ok(()) } else { Err(webpki::Error::EndEntityUsedAsCa) }
    };
    let algorithms = super::tls::provider().signature_verification_algorithms.all;
    let path = end
        .verify_for_usage(algorithms, anchors, intermediates, now, usage, None, Some(&signers))
        .map_err(|e| Reason::UntrustedChain.because(e))?;
    let mut ends = path.intermediate_certificates().map(|certificate| {
        let der = certificate.der();
        leaf::parse(&der).map(|parsed| parsed.validity().not_after.timestamp())
    });
    ends.try_fold(i64::MAX, |first, end| Ok(first.min(end?)))
}
