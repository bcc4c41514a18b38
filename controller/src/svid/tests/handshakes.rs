//! rustls on both sides of a loopback connection.

use super::*;
use crate::svid::tls::{Expected, client_config, server_config};
use crate::svid::{Reason, Refusal};
use authority::{BasicConstraints, CertificateParams, IsCa, KeyUsagePurpose, uri};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, ClientConfig, HandshakeKind, ServerConfig, SignatureScheme};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// How a handshake went for the server and for the client, who asks for a byte of the server.
async fn shake(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
) -> (io::Result<()>, io::Result<HandshakeKind>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(server.clone());
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut tls = acceptor.accept(stream).await?;
        tls.write_all(b"!").await?;
        tls.shutdown().await
    };
    let connect = async {
        let stream = TcpStream::connect(to).await.unwrap();
        let name = ServerName::IpAddress(to.ip().into());
        let mut tls = TlsConnector::from(client.clone()).connect(name, stream).await?;
        tls.read_to_end(&mut Vec::new()).await?;
        Ok(tls.get_ref().1.handshake_kind().unwrap())
    };
    tokio::join!(serve, connect)
}

fn alert(result: &io::Result<HandshakeKind>) -> AlertDescription {
    let error = result.as_ref().unwrap_err();
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        _ => panic!("no alert came: {error}"),
    }
}

fn acme() -> Expected {
    Expected::TrustDomain("acme.example".parse().unwrap())
}

fn configs(server: &Live, client: &Live) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    (Arc::new(server_config(server).unwrap()), Arc::new(client_config(client, acme()).unwrap()))
}

#[tokio::test]
async fn both_sides_show_svids_and_nothing_is_resumed() {
    let authority = Authority::new("acme").unwrap();
    let (server, client) = configs(&live(&authority, leaf(GATEWAY)), &live(&authority, leaf(ORDERS)));
    for _ in 0..3 {
        let (served, connected) = shake(&server, &client).await;
        served.unwrap();
        assert_eq!(connected.unwrap(), HandshakeKind::Full);
    }
}

/// Shows a certificate, whatever stands in it.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl Shows {
    fn new(svid: &Svid, config: &ClientConfig) -> Arc<Self> {
        let chain = svid.chain.iter().map(|der| der.clone().into()).collect();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(svid.key.clone()).into();
        Arc::new(Self(Arc::new(CertifiedKey::from_der(chain, key, config.crypto_provider()).unwrap())))
    }
}

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn all_refusals_are_the_same_alert_and_are_counted_apart() {
    let (authority, stranger) = (Authority::new("acme").unwrap(), Authority::new("acme").unwrap());
    let removed = Authority::new("acme").unwrap();
    let gateway = Live::new("a test");
    let own = authority.issue(leaf(GATEWAY)).unwrap();
    gateway.publish(material(&own, [bundle("acme.example", &[&authority, &removed])]));
    gateway.publish(material(&own, [bundle("acme.example", &[&authority])]));
    let now = OffsetDateTime::now_utc();
    let between =
        |from, to| leaf_params(ORDERS, now + Duration::hours(from), now + Duration::hours(to)).unwrap();
    let with = |change: fn(&mut CertificateParams)| {
        let mut params = leaf(ORDERS);
        change(&mut params);
        authority.issue(params).unwrap()
    };
    let clients = [
        (authority.issue(between(-2, -1)).unwrap(), Reason::Expired),
        (authority.issue(between(1, 2)).unwrap(), Reason::NotYetValid),
        (authority.issue(leaf("spiffe://stranger.example/a")).unwrap(), Reason::UnknownTrustDomain),
        (authority.issue(leaf("https://acme.example/a")).unwrap(), Reason::NotSpiffeId),
        (with(|params| params.subject_alt_names.clear()), Reason::NotOneUri),
        (with(|params| params.subject_alt_names.push(uri(GATEWAY).unwrap())), Reason::NotOneUri),
        (with(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), Reason::CaAsLeaf),
        (with(|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment]), Reason::KeyUsage),
        (stranger.issue(leaf(ORDERS)).unwrap(), Reason::UntrustedChain),
        (removed.issue(leaf(ORDERS)).unwrap(), Reason::AuthorityRemoved),
    ];
    let (server, _) = configs(&gateway, &live(&authority, leaf(ORDERS)));
    let mut counted = std::collections::BTreeMap::<&str, u64>::new();
    for (svid, reason) in &clients {
        let mut client = client_config(&live(&authority, leaf(ORDERS)), acme()).unwrap();
        client.client_auth_cert_resolver = Shows::new(svid, &client);
        let (served, connected) = shake(&server, &Arc::new(client)).await;
        assert_eq!(Refusal::of_handshake(&served.unwrap_err()).unwrap().reason, *reason);
        // Of what is wrong nothing goes over the wire.
        assert_eq!(alert(&connected), AlertDescription::CertificateUnknown, "{}", reason.name());
        *counted.entry(reason.name()).or_default() += 1;
    }
    for reason in Reason::ALL {
        let wanted = counted.get(reason.name()).copied().unwrap_or_default();
        assert_eq!(gateway.refused().of(reason), wanted, "{}", reason.name());
    }
}

#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let authority = Authority::new("acme").unwrap();
    let (server, _) = configs(&live(&authority, leaf(GATEWAY)), &live(&authority, leaf(ORDERS)));
    let mut nobody = client_config(&live(&authority, leaf(ORDERS)), acme()).unwrap();
    nobody.client_auth_cert_resolver = Arc::new(NoCertificate);
    let (served, connected) = shake(&server, &Arc::new(nobody)).await;
    assert_eq!(served.unwrap_err().to_string(), "peer sent no certificates");
    assert_eq!(alert(&connected), AlertDescription::CertificateRequired);
}

#[tokio::test]
async fn a_bundle_change_counts_for_the_next_handshake_of_the_same_configuration() {
    let (old, new) = (Authority::new("old").unwrap(), Authority::new("new").unwrap());
    let gateway = Live::new("a test");
    let own = old.issue(leaf(GATEWAY)).unwrap();
    gateway.publish(material(&own, [bundle("acme.example", &[&old, &new])]));
    let (server, client) = configs(&gateway, &live(&old, leaf(ORDERS)));
    shake(&server, &client).await.0.unwrap();
    gateway.publish(material(&own, [bundle("acme.example", &[&new])]));
    let refused = shake(&server, &client).await.0.unwrap_err();
    assert_eq!(Refusal::of_handshake(&refused).unwrap().reason, Reason::AuthorityRemoved);
}

#[tokio::test]
async fn a_rotated_svid_is_shown_by_the_same_configuration() {
    let authority = Authority::new("acme").unwrap();
    let now = OffsetDateTime::now_utc();
    let old = leaf_params(ORDERS, now - Duration::hours(2), now - Duration::hours(1)).unwrap();
    let workload = live(&authority, old);
    let (server, client) = configs(&live(&authority, leaf(GATEWAY)), &workload);
    assert_eq!(alert(&shake(&server, &client).await.1), AlertDescription::CertificateUnknown);
    let rotated = authority.issue(leaf(ORDERS)).unwrap();
    assert!(workload.publish(material(&rotated, [bundle("acme.example", &[&authority])])));
    shake(&server, &client).await.0.unwrap();
}

#[tokio::test]
async fn a_client_takes_only_the_server_that_it_wants() {
    let authority = Authority::new("acme").unwrap();
    let server = Arc::new(server_config(&live(&authority, leaf(GATEWAY))).unwrap());
    let workload = live(&authority, leaf(ORDERS));
    let wants = |expected| Arc::new(client_config(&workload, expected).unwrap());
    shake(&server, &wants(Expected::Id(GATEWAY.parse().unwrap()))).await.1.unwrap();
    for other in [
        Expected::Id("spiffe://acme.example/other".parse().unwrap()),
        Expected::TrustDomain("partner.example".parse().unwrap()),
    ] {
        let refused = shake(&server, &wants(other)).await.1.unwrap_err();
        assert_eq!(Refusal::of_handshake(&refused).unwrap().reason, Reason::UnexpectedId);
    }
}

#[tokio::test]
async fn a_gateway_without_material_lets_nobody_in() {
    let authority = Authority::new("acme").unwrap();
    let (server, client) = configs(&Live::new("nothing"), &live(&authority, leaf(ORDERS)));
    let (served, connected) = shake(&server, &client).await;
    assert!(served.is_err() && connected.is_err());
}
