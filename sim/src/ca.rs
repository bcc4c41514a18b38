//! The certificate authority of a run. Its key and those of the SVIDs exist in memory only.

use anyhow::Result;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::topology::plan::Svid;

/// A certificate with its key, and the root that peers are checked against. All of it DER.
#[derive(Clone, Serialize, Deserialize)]
pub struct Bundle {
    /// The X.509-SVID.
    pub certificate: Vec<u8>,
    /// PKCS #8.
    pub key: Vec<u8>,
    /// The trust bundle.
    pub root: Vec<u8>,
}

impl std::fmt::Debug for Bundle {
    /// Never the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundle").field("certificate_bytes", &self.certificate.len()).finish_non_exhaustive()
    }
}

/// Issues SVIDs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: Vec<u8>,
}

impl Authority {
    /// A new one, valid long enough that certificates in it can have expired before.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, "tidegate-sim");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = OffsetDateTime::now_utc();
        params.not_before = now - Duration::days(3650);
        params.not_after = now + Duration::days(3650);
        let key = KeyPair::generate()?;
        let root = params.self_signed(&key)?.der().to_vec();
        Ok(Self { issuer: Issuer::new(params, key), root })
    }

    /// An X.509-SVID: one URI name, no CA, signs only (X509-SVID, sections 2 and 4).
    pub fn issue(&self, svid: &Svid) -> Result<Bundle> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(svid.spiffe_id.as_str())?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = OffsetDateTime::now_utc();
        params.not_before = now + Duration::milliseconds(svid.not_before_ms);
        params.not_after = now + Duration::milliseconds(svid.not_after_ms);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Bundle {
            certificate: certificate.der().to_vec(),
            key: key.serialize_der(),
            root: self.root.clone(),
        })
    }
}
