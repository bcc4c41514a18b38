//! Certificate authorities that exist in memory only, and X.509-SVIDs of theirs. For tests and simulations: whoever
//! needs a wrong certificate changes the parameters of a right one.

#[cfg(feature = "agent")]
pub mod agent;

pub use rcgen::{
    BasicConstraints, CertificateParams, Error, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};
pub use time::{Duration, OffsetDateTime};

use rcgen::string::Ia5String;
use rcgen::{DnType, Issuer, KeyPair};

/// A certificate with what is between it and the root, and its key. All of it DER.
#[derive(Clone)]
pub struct Svid {
    /// The leaf first.
    pub chain: Vec<Vec<u8>>,
    /// PKCS #8.
    pub key: Vec<u8>,
    key_pem: String,
    chain_pem: String,
}

impl Svid {
    /// The chain as a PEM file has it.
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// The key as a PEM file has it.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The chain as the Workload API sends it: DER, one after another.
    pub fn chain_der(&self) -> Vec<u8> {
        self.chain.concat()
    }
}

impl std::fmt::Debug for Svid {
    /// Never the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Svid").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

/// Issues SVIDs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: Vec<u8>,
    root_pem: String,
    /// What its leaves carry behind them: DER and PEM, the nearest first.
    between: Vec<(Vec<u8>, String)>,
}

impl Authority {
    /// A root, valid long enough that certificates in it can have expired before.
    pub fn new(common_name: &str) -> Result<Self, Error> {
        let params = signing_params(common_name);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            root: certificate.der().to_vec(),
            root_pem: certificate.pem(),
            issuer: Issuer::new(params, key),
            between: Vec::new(),
        })
    }

    /// An authority below this one, with these parameters ([`signing_params`] for a right one).
    pub fn below(&self, params: CertificateParams) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let mut between = vec![(certificate.der().to_vec(), certificate.pem())];
        between.extend(self.between.iter().cloned());
        Ok(Self {
            issuer: Issuer::new(params, key),
            root: self.root.clone(),
            root_pem: self.root_pem.clone(),
            between,
        })
    }

    /// The root's certificate: the trust bundle. DER.
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    /// The root's certificate as a PEM file has it.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// A certificate with these parameters ([`leaf_params`] for a right one) and a new key.
    pub fn issue(&self, params: CertificateParams) -> Result<Svid, Error> {
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &self.issuer)?;
        let mut chain = vec![leaf.der().to_vec()];
        let mut chain_pem = leaf.pem();
        for (der, pem) in &self.between {
            chain.push(der.clone());
            chain_pem.push_str(pem);
        }
        Ok(Svid { chain, key: key.serialize_der(), key_pem: key.serialize_pem(), chain_pem })
    }
}

/// An X.509-SVID: one URI name, no CA, signs only (X509-SVID, sections 2 and 4).
pub fn leaf_params(
    spiffe_id: &str,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri(spiffe_id)?];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = not_before;
    params.not_after = not_after;
    Ok(params)
}

/// A signing certificate, ten years from its middle to either end (X509-SVID, section 3.2).
pub fn signing_params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::days(3650);
    params.not_after = now + Duration::days(3650);
    params
}

/// A name of a certificate.
pub fn uri(text: &str) -> Result<SanType, Error> {
    Ok(SanType::URI(Ia5String::try_from(text)?))
}
