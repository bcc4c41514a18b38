//! The daemon of another host: `tidegate --server https://HOST:PORT`.

use crate::exit_code::{Code, Failure, Result};
use crate::policy::spiffe::SpiffeId;
use crate::svid::tls::{Expected, client_config};
use crate::svid::{Live, Refusal, SourceArgs};
use rustls::pki_types::ServerName;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long the own SVID, the connection and the handshake may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Options of commands that can be for another host.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Another host (before the command)")]
pub struct RemoteArgs {
    /// Ask the daemon of another host, which has to run with --listen
    #[arg(long, value_name = "https://HOST:PORT")]
    server: Option<Server>,
    /// The server's SPIFFE ID, or its trust domain [default: the own trust domain]
    #[arg(long, value_name = "ID", requires = "server", value_parser = expected)]
    server_id: Option<Expected>,
    #[command(flatten)]
    svid: SourceArgs,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Server {
    host: String,
    port: u16,
}

impl FromStr for Server {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "write https://HOST:PORT, such as https://gw1.example:9443 or https://[fd00::1]:9443";
        let rest = text.strip_prefix("https://").ok_or(wrong)?.trim_end_matches('/');
        let (host, port) = rest.rsplit_once(':').ok_or(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.contains('/') {
            return Err(wrong);
        }
        Ok(Self { host: host.to_owned(), port: port.parse().map_err(|_| wrong)? })
    }
}

fn expected(text: &str) -> Result<Expected, String> {
    match text.parse::<SpiffeId>() {
        Ok(id) if !id.path().is_empty() => Ok(Expected::Id(id)),
        _ => {
            let domain = text.strip_prefix("spiffe://").unwrap_or(text).parse();
            domain.map(Expected::TrustDomain).map_err(|e| format!("no SPIFFE ID and no trust domain: {e}"))
        }
    }
}

/// A server, how it has to prove itself, and how we do.
#[derive(Clone, Debug)]
pub struct Remote {
    server: Server,
    expected: Option<Expected>,
    svid: SourceArgs,
}

impl RemoteArgs {
    /// What is asked for; nothing for the daemon of this host.
    pub fn remote(self) -> Option<Remote> {
        let Self { server, server_id, svid } = self;
        server.map(|server| Remote { server, expected: server_id, svid })
    }
}

impl Remote {
    /// The server, for messages and the header `host`.
    pub fn name(&self) -> String {
        let Server { host, port } = &self.server;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Connects, and proves who we are to a server that proves who it is.
    pub async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let live = self.own().await?;
        let expected = match &self.expected {
            Some(expected) => expected.clone(),
            None => own_domain(&live)?,
        };
        let config = client_config(&live, expected).map_err(|e| Failure::failed("TLS", e))?;
        let name = self.name();
        let address = (self.server.host.as_str(), self.server.port);
        let late = |_| Failure::new(Code::NoDaemon, format!("{name} does not answer"));
        let stream = timeout(PATIENCE, TcpStream::connect(address)).await.map_err(late)?;
        let stream = stream.map_err(|e| {
            Failure::new(Code::NoDaemon, format!("{name}: {e}"))
                .hint("is `tidegate run --listen` running there?")
        })?;
        // The name is not looked at: the SPIFFE ID is.
        let server_name = ServerName::try_from(self.server.host.clone())
            .map_err(|e| Failure::failed(format!("--server {name}"), e))?;
        let connect = TlsConnector::from(Arc::new(config)).connect(server_name, stream);
        timeout(PATIENCE, connect).await.map_err(late)?.map_err(|e| match Refusal::of_handshake(&e) {
            Some(refusal) => Failure::new(Code::NotPermitted, format!("{name} is not believed: {refusal}"))
                .hint("--server-id names the SPIFFE ID or the trust domain that is wanted, --trust-bundle its authorities"),
            None => Failure::failed(format!("handshake with {name}"), e),
        })
    }

    /// The own SVID, as soon as its source has it.
    async fn own(&self) -> Result<Live> {
        let source = self.svid.source()?.ok_or_else(|| {
            let message =
                "--server needs an SVID: --workload-api, or --svid-cert, --svid-key and --trust-bundle";
            Failure::new(Code::Usage, message)
        })?;
        let live = source.start();
        let mut changes = live.changes();
        let came = async {
            // A file that is wrong will not become right while a command waits.
            while live.material().is_none() && live.status().error.is_none() {
                let _ = timeout(Duration::from_millis(50), changes.changed()).await;
            }
        };
        let _ = timeout(PATIENCE, came).await;
        if live.material().is_some() {
            return Ok(live);
        }
        let status = live.status();
        let why = status.error.unwrap_or_else(|| "it does not answer".into());
        Err(Failure::new(Code::Failure, format!("no SVID from {}: {why}", status.source)))
    }
}

fn own_domain(live: &Live) -> Result<Expected> {
    let material = live.material().ok_or_else(|| Failure::new(Code::Failure, "the SVID is gone"))?;
    let domain = material.id().trust_domain().parse();
    domain.map(Expected::TrustDomain).map_err(|e| Failure::failed("the SVID", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_https_with_a_port() {
        let of = |text: &str| text.parse::<Server>().map(|server| (server.host, server.port));
        assert_eq!(of("https://gw1.example:9443"), Ok(("gw1.example".into(), 9443)));
        assert_eq!(of("https://[fd00::1]:9443/"), Ok(("fd00::1".into(), 9443)));
        for wrong in [
            "gw1.example:9443",
            "http://gw:1",
            "https://gw",
            "https://:1",
            "https://gw:99999",
            "https://gw/x:1",
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_server_is_wanted_by_its_id_or_its_trust_domain() {
        assert_eq!(
            expected("spiffe://a.example/gw"),
            Ok(Expected::Id("spiffe://a.example/gw".parse().unwrap()))
        );
        for text in ["a.example", "spiffe://a.example"] {
            assert_eq!(expected(text), Ok(Expected::TrustDomain("a.example".parse().unwrap())), "{text}");
        }
        assert!(expected("A gateway").is_err());
    }
}
