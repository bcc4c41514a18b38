//! An SVID and trust bundles that belong together, ready for use.

use super::ids;
use super::leaf::Leaf;
use super::verify::Side;
use crate::policy::spiffe::{SpiffeId, TrustDomain};
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, TrustAnchor};
use rustls::sign::CertifiedKey;
use spiffe::{X509BundleSet, X509Svid};
use std::collections::BTreeMap;
use std::sync::Arc;

/// So many authorities that are gone are remembered for each trust domain, to say of a refused peer that its own is.
const RETIRED: usize = 16;

type Anchors = BTreeMap<TrustDomain, Vec<TrustAnchor<'static>>>;

/// What keeps an SVID and bundles from being used.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// The SVID is not one.
    #[error("the SVID cannot be used: {0}")]
    Svid(String),
    /// Key and certificate are not a pair.
    #[error("the SVID's key is not the one of its certificate, or not of a known kind: {0}")]
    Key(rustls::Error),
    /// An authority of a bundle cannot be used.
    #[error("the trust bundle of {domain} has an authority that cannot be used: {why}")]
    Authority {
        /// Whose.
        domain: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The gateway's SVID and the trust bundles.
pub struct Material {
    svid: X509Svid,
    bundles: X509BundleSet,
    id: SpiffeId,
    not_after: Timestamp,
    key: Arc<CertifiedKey>,
    anchors: Anchors,
    retired: Anchors,
}

impl Material {
    /// Checks that they can be used; not that they are valid now, which time changes.
    pub fn new(svid: X509Svid, bundles: X509BundleSet) -> Result<Self, MaterialError> {
        let leaf = Leaf::parse(svid.leaf().as_bytes(), Side::Server)
            .map_err(|refusal| MaterialError::Svid(refusal.detail))?;
        let chain = svid.cert_chain().iter().map(|c| CertificateDer::from(c.as_bytes().to_vec())).collect();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec()));
        let key = CertifiedKey::from_der(chain, key, &super::tls::provider()).map_err(MaterialError::Key)?;
        Ok(Self {
            anchors: anchors(&bundles)?,
            id: leaf.id,
            not_after: Timestamp::from_second(leaf.not_after).unwrap_or(Timestamp::MAX),
            key: Arc::new(key),
            svid,
            bundles,
            retired: Anchors::new(),
        })
    }

    /// Who the gateway is.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The end of its SVID.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Its chain and key.
    pub fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// Whose SVIDs can be verified.
    pub fn trust_domains(&self) -> impl Iterator<Item = &TrustDomain> {
        self.anchors.keys()
    }

    pub(super) fn anchors(&self, domain: &TrustDomain) -> Option<&[TrustAnchor<'static>]> {
        self.anchors.get(domain).map(Vec::as_slice)
    }

    pub(super) fn retired(&self, domain: &TrustDomain) -> Option<&[TrustAnchor<'static>]> {
        self.retired.get(domain).map(Vec::as_slice)
    }

    /// Whether it is made of the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.svid == other.svid && self.bundles == other.bundles
    }

    /// Remembers what was trusted before and is not any more.
    pub(super) fn retire(&mut self, before: &Self) {
        for (domain, anchors) in before.retired.iter().chain(&before.anchors) {
            let now = self.anchors.get(domain).map(Vec::as_slice).unwrap_or_default();
            let gone = self.retired.entry(domain.clone()).or_default();
            gone.extend(anchors.iter().filter(|anchor| !now.contains(anchor)).cloned());
            gone.drain(..gone.len().saturating_sub(RETIRED));
        }
    }
}

impl std::fmt::Debug for Material {
    /// Never the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut fields = f.debug_struct("Material");
        fields.field("id", &self.id).field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

fn anchors(bundles: &X509BundleSet) -> Result<Anchors, MaterialError> {
    let mut anchors = Anchors::new();
    for (domain, bundle) in bundles.iter() {
        let wrong = |why: &dyn std::fmt::Display| MaterialError::Authority {
            domain: domain.to_string(),
            why: why.to_string(),
        };
        let ours = ids::trust_domain(domain).map_err(|e| wrong(&e))?;
        for authority in bundle.authorities() {
            let der = CertificateDer::from(authority.as_bytes());
            let anchor = webpki::anchor_from_trusted_cert(&der).map_err(|e| wrong(&e))?;
            anchors.entry(ours.clone()).or_default().push(anchor.to_owned());
        }
        // A bundle that is empty is one: its trust domain is known, and nobody of it is believed.
        anchors.entry(ours).or_default();
    }
    Ok(anchors)
}
