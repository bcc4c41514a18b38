//! Peers are checked by chain and SPIFFE ID instead of DNS name (X509-SVID, section 5).

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    ServerConfig, SignatureScheme, SupportedProtocolVersion,
};

use crate::ca::Bundle;
use crate::topology::plan::Tls;

/// The SPIFFE ID of a certificate: its one URI name.
pub fn spiffe_id(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut names = certificate.valid_uri_names();
    let id = names.next().filter(|n| n.starts_with("spiffe://"))?;
    names.next().is_none().then(|| id.to_string())
}

fn trust_domain(id: &str) -> &str {
    let rest = id.strip_prefix("spiffe://").unwrap_or(id);
    rest.split('/').next().unwrap_or(rest)
}

#[derive(Debug)]
struct Verifier {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
    chain: Arc<dyn ClientCertVerifier>,
    trust_domain: String,
    expected: Option<String>,
}

impl Verifier {
    fn new(bundle: &Bundle, expected: Option<String>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(bundle.root.clone())).context("the trust bundle")?;
        let roots = Arc::new(roots);
        let own = spiffe_id(&CertificateDer::from(bundle.certificate.as_slice()))
            .ok_or_else(|| anyhow!("the SVID has no SPIFFE ID"))?;
        let chain = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider()).build()?;
        Ok(Self {
            roots,
            algorithms: provider().signature_verification_algorithms,
            chain,
            trust_domain: trust_domain(&own).to_string(),
            expected,
        })
    }

    /// After the chain: the name.
    fn check_id(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let id = spiffe_id(certificate).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let right = match &self.expected {
            Some(expected) => &id == expected,
            None => trust_domain(&id) == self.trust_domain,
        };
        if right {
            Ok(())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        self.check_id(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        self.check_id(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn key(bundle: &Bundle) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(bundle.key.clone()).into()
}

fn versions(tls: Tls) -> &'static [&'static SupportedProtocolVersion] {
    static V12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
    static V13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
    match tls {
        Tls::V12 => V12,
        Tls::V13 => V13,
    }
}

/// For a server that asks every client for an SVID of its own trust domain.
pub fn server(bundle: &Bundle) -> Result<Arc<ServerConfig>> {
    let verifier = Arc::new(Verifier::new(bundle, None)?);
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![bundle.certificate.clone().into()], key(bundle))?;
    Ok(Arc::new(config))
}

/// For a client that shows its SVID and wants a certain one, or one of its trust domain.
pub fn client(bundle: &Bundle, tls: Tls, expected: Option<String>) -> Result<Arc<ClientConfig>> {
    let verifier = Arc::new(Verifier::new(bundle, expected)?);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(tls))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(vec![bundle.certificate.clone().into()], key(bundle))?;
    // Every exchange is a whole handshake.
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}
