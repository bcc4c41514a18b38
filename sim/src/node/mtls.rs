//! Mutual TLS: a server that echoes as many bytes as it is sent, and its client.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, Error};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::Reports;
use super::protocol::{Done, Message, Running, Served};
use super::spiffe;
use crate::ca::Bundle;
use crate::topology::plan::{Outcome, Tls};

/// How long a server waits for a client's next move.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long each handshake waits before the server answers it. A process serves for one node.
pub static DELAY_MS: AtomicU64 = AtomicU64::new(0);

const BETWEEN_REQUESTS: Duration = Duration::from_millis(20);

/// Opens the port and serves it in the background.
pub async fn listen(port: u16, svid: &Bundle, reports: Reports) -> Result<AbortHandle> {
    let acceptor = TlsAcceptor::from(spiffe::server(svid)?);
    let listener =
        TcpListener::bind(("::", port)).await.with_context(|| format!("cannot listen on tcp/{port}"))?;
    let server = tokio::spawn(async move {
        while let Ok((stream, client)) = listener.accept().await {
            let (acceptor, reports) = (acceptor.clone(), reports.clone());
            tokio::spawn(serve(acceptor, stream, client, reports));
        }
    });
    Ok(server.abort_handle())
}

async fn serve(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    client: SocketAddr,
    reports: Reports,
) -> io::Result<()> {
    drop(stream.set_nodelay(true));
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    let report =
        |spiffe_id, refused| drop(reports.send(Message::Served(Served { client, spiffe_id, refused })));
    let delay_ms = DELAY_MS.load(Ordering::Relaxed);
    if delay_ms > 0 {
        sleep(Duration::from_millis(delay_ms)).await;
    }
    let mut tls = match timeout(PATIENCE, acceptor.accept(stream).into_fallible()).await {
        Ok(Ok(tls)) => tls,
        Ok(Err((error, stream))) => {
            report(None, Some(error.to_string()));
            return timeout(PATIENCE, linger(stream)).await?;
        }
        Err(_) => {
            report(None, Some("the client did not go on with the handshake".into()));
            return Ok(());
        }
    };
    let peer = tls.get_ref().1.peer_certificates().and_then(|c| spiffe::spiffe_id(c.first()?));
    report(peer, None);
    // Until the client closes.
    while let Ok(Ok(())) = timeout(PATIENCE, echo(&mut tls)).await {}
    timeout(PATIENCE, tls.shutdown()).await?
}

/// Closing with unread bytes sends a reset, which can overtake the alert.
async fn linger(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut sink = [0; 4096];
    while stream.read(&mut sink).await? > 0 {}
    Ok(())
}

/// Reads a length and as many bytes, and sends as many back.
pub async fn echo(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    let length = stream.read_u64().await?;
    let read = tokio::io::copy(&mut (&mut *stream).take(length), &mut tokio::io::sink()).await?;
    if read < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    send(stream, length).await
}

/// Sends so many bytes.
pub async fn send(stream: &mut (impl AsyncWrite + Unpin), length: u64) -> io::Result<()> {
    tokio::io::copy(&mut tokio::io::repeat(b'~').take(length), stream).await?;
    stream.flush().await
}

/// The client's half of [`echo`].
pub async fn request(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), length: u64) -> io::Result<u64> {
    stream.write_u64(length).await?;
    send(stream, length).await?;
    let read = tokio::io::copy(&mut (&mut *stream).take(length), &mut tokio::io::sink()).await?;
    if read < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(read) }
}

/// What a client does.
pub struct Exchange<'a> {
    /// With whom.
    pub to: SocketAddr,
    /// Payload of a request, each way.
    pub bytes: u64,
    /// The version that is offered.
    pub tls: Tls,
    /// What the client shows.
    pub svid: &'a Bundle,
    /// What the server must show.
    pub peer: Option<String>,
    /// When the connection, or a request on it, is given up.
    pub patience: Duration,
    /// How long requests go on; zero for one request.
    pub lasting: Duration,
}

/// A connection with one request, or with requests for a while.
pub async fn exchange(exchange: Exchange<'_>) -> Done {
    let Exchange { to, bytes, tls, svid, peer, patience, lasting } = exchange;
    let config = match spiffe::client(svid, tls, peer) {
        Ok(config) => config,
        Err(error) => return Done::error(format!("{error:#}")),
    };
    let mut run = Done::begin();
    let deadline = Instant::now() + patience;
    let stream = match timeout_at(deadline, TcpStream::connect(to)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return run.end_io(&error),
        Err(_) => return run.end(Outcome::Timeout, "no answer to the SYN"),
    };
    let connected_us = run.elapsed_us();
    run.done.connect_us = Some(connected_us);
    run.done.local = stream.local_addr().ok();
    drop(stream.set_nodelay(true));
    let name = ServerName::IpAddress(to.ip().into());
    let mut stream = match timeout_at(deadline, TlsConnector::from(config).connect(name, stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return failed(run, &error),
        Err(_) => return run.end(Outcome::Timeout, "the TLS handshake did not go on"),
    };
    run.done.handshake_us = Some(run.elapsed_us() - connected_us);
    let connection = stream.get_ref().1;
    run.done.tls = connection.protocol_version().map(|v| format!("{v:?}").replace("TLSv1_", "1."));
    run.done.peer = connection.peer_certificates().and_then(|c| spiffe::spiffe_id(c.first()?));
    let until = Instant::now() + lasting;
    loop {
        match timeout(patience, request(&mut stream, bytes)).await {
            Ok(Ok(read)) => run.done.bytes += read,
            // In TLS 1.3 the client is done before the server has seen its certificate.
            Ok(Err(error)) => return failed(run, &error),
            Err(_) => return run.end(Outcome::Timeout, "no answer to a request"),
        }
        run.done.requests += 1;
        if Instant::now() >= until {
            break;
        }
        sleep(BETWEEN_REQUESTS).await;
    }
    let deadline = Instant::now() + patience;
    drop(timeout_at(deadline, stream.shutdown()).await);
    // The server's close_notify, so that neither side resets.
    drop(timeout_at(deadline, tokio::io::copy(&mut stream, &mut tokio::io::sink())).await);
    run.ok()
}

/// Why TLS ended: what the peer said, or what we said to it.
fn failed(mut run: Running, error: &io::Error) -> Done {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let (alert, detail) = match tls {
        Some(Error::AlertReceived(alert)) => {
            (Some(*alert), format!("the server sent {}", alert_name(*alert)))
        }
        Some(Error::InvalidCertificate(why)) => {
            (Some(AlertDescription::from(why.clone())), format!("the server's certificate: {}", words(why)))
        }
        Some(other) => (None, other.to_string()),
        None => (None, format!("the server closed the connection: {error}")),
    };
    run.done.alert = alert.map(alert_name);
    if run.done.requests > 0 {
        return run.end(Outcome::Error, format!("broken off after the handshake: {detail}"));
    }
    run.done.handshake_us = None;
    run.end(Outcome::HandshakeFailed, detail)
}

fn words(error: &CertificateError) -> String {
    match error {
        CertificateError::ApplicationVerificationFailure => "another SPIFFE ID than wanted".into(),
        other => other.to_string(),
    }
}

/// The IANA name: `CertificateExpired` is certificate_expired, `UnknownCA` is unknown_ca.
fn alert_name(alert: AlertDescription) -> String {
    let mut name = String::new();
    let mut after_lower = false;
    for c in format!("{alert:?}").chars() {
        if c.is_ascii_uppercase() && after_lower {
            name.push('_');
        }
        after_lower = c.is_ascii_lowercase();
        name.push(c.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_have_their_iana_names() {
        assert_eq!(alert_name(AlertDescription::CertificateExpired), "certificate_expired");
        assert_eq!(alert_name(AlertDescription::UnknownCA), "unknown_ca");
        assert_eq!(alert_name(AlertDescription::HandshakeFailure), "handshake_failure");
    }
}
