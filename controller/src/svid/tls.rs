//! rustls configurations that show the newest SVID and verify peers by the newest bundles.
//!
//! TLS 1.3 only, where certificates travel encrypted. Nothing is resumed: a resumed session would go by a verification
//! of before a bundle changed.

use super::live::Live;
use super::refusal::{Reason, Refusal};
use super::verify::{Peer, Side};
use crate::policy::spiffe::{SpiffeId, TrustDomain};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, ServerConfig,
    SignatureScheme,
};
use std::sync::{Arc, LazyLock};

/// The cryptography of all of it.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    PROVIDER.clone()
}

/// Which server a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// This one.
    Id(SpiffeId),
    /// Anyone of this trust domain.
    TrustDomain(TrustDomain),
}

/// For a server that asks every client for an SVID. Made once; it stays with the newest material.
pub fn server_config(live: &Live) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(Verifier { live: live.clone(), expected: None }))
        .with_cert_resolver(Arc::new(Shown(live.clone())));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// For a client that shows its SVID and wants a certain server. Made once; it stays with the newest material.
pub fn client_config(live: &Live, expected: Expected) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { live: live.clone(), expected: Some(expected) }))
        .with_client_cert_resolver(Arc::new(Shown(live.clone())));
    config.resumption = Resumption::disabled();
    // The name is in the certificate, not in the question.
    config.enable_sni = false;
    Ok(config)
}

#[derive(Debug)]
struct Shown(Live);

impl Shown {
    fn newest(&self) -> Option<Arc<CertifiedKey>> {
        Some(self.0.material()?.key().clone())
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.newest()
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.newest()
    }

    fn has_certs(&self) -> bool {
        self.0.material().is_some()
    }
}

#[derive(Debug)]
struct Verifier {
    live: Live,
    expected: Option<Expected>,
}

impl Verifier {
    fn verify(
        &self,
        end: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        side: Side,
        now: UnixTime,
    ) -> Result<(), Error> {
        let chain: Vec<_> = std::iter::once(end).chain(intermediates).cloned().collect();
        let verified = self.live.verify(&chain, side, now).and_then(|peer| self.is_expected(&peer));
        verified.map_err(|refusal| {
            self.live.refused().count(refusal.reason);
            refusal.into()
        })
    }

    fn is_expected(&self, peer: &Peer) -> Result<(), Refusal> {
        let unexpected = |wanted: &str| {
            Err(Reason::UnexpectedId.because(format_args!("{wanted} was wanted, this is {}", peer.id)))
        };
        match &self.expected {
            Some(Expected::Id(id)) if *id != peer.id => unexpected(id.as_str()),
            Some(Expected::TrustDomain(domain)) if domain.as_str() != peer.id.trust_domain() => {
                unexpected(&format!("a server of {}", domain.as_str()))
            }
            _ => Ok(()),
        }
    }

    fn signature(
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn no_tls12() -> Error {
        PeerIncompatible::ServerDoesNotSupportTls12Or13.into()
    }
}

impl ClientCertVerifier for Verifier {
    /// Whom the gateway trusts is nobody's business.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end, intermediates, Side::Client, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Self::no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end, intermediates, Side::Server, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Self::no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
