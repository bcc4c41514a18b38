//! One request to a gateway.

use crate::exit_code::{Code, Failure, Result};
use crate::svid::Refusal;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const PATIENCE: Duration = Duration::from_secs(15);
const MAX_ANSWER: usize = 64 << 10;

/// Sends what is asked, and reads the answer.
pub async fn ask<T: DeserializeOwned>(
    config: &Arc<ClientConfig>,
    gateway: &str,
    path: &str,
    what: &impl Serialize,
) -> Result<T> {
    let exchange = async {
        let stream = connect(config, gateway).await?;
        post(stream, gateway, path, what).await
    };
    timeout(PATIENCE, exchange).await.unwrap_or_else(|_| {
        let message = format!("no answer in {} s: is enrolment served there?", PATIENCE.as_secs());
        Err(Failure::new(Code::Failure, message))
    })
}

async fn connect(config: &Arc<ClientConfig>, gateway: &str) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(gateway).await.map_err(|e| Failure::failed("connect", e))?;
    let peer = stream.peer_addr().map_err(|e| Failure::failed("connect", e))?;
    let name = ServerName::IpAddress(peer.ip().into());
    TlsConnector::from(config.clone()).connect(name, stream).await.map_err(|e| tls(&e))
}

async fn post<T: DeserializeOwned>(
    stream: TlsStream<TcpStream>,
    gateway: &str,
    path: &str,
    what: &impl Serialize,
) -> Result<T> {
    let json = serde_json::to_vec(what).map_err(|e| Failure::failed("encode the request", e))?;
    let request = Request::post(path)
        .header(header::HOST, gateway)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(json)))
        .map_err(|e| Failure::failed("encode the request", e))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| http(&e))?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(|e| http(&e))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let bytes = body.map_err(|e| Failure::failed("read the answer", e))?.to_bytes();
    if status.is_success() {
        return serde_json::from_slice(&bytes).map_err(|e| Failure::failed("read the answer", e));
    }
    Err(serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Failure::new(Code::Failure, format!("the gateway answered {status}"))))
}

/// In TLS 1.3 a client is done before the server has seen its certificate: the refusal comes with the first answer.
fn http(error: &hyper::Error) -> Failure {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(e) = source {
        if let Some(io) = e.downcast_ref::<io::Error>() {
            return tls(io);
        }
        source = e.source();
    }
    Failure::failed("talk to the gateway", error)
}

fn tls(error: &io::Error) -> Failure {
    if let Some(refusal) = Refusal::of_handshake(error) {
        return Failure::new(Code::NotPermitted, format!("the gateway's SVID is refused, {refusal}"));
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(AlertDescription::CertificateUnknown)) => {
            Failure::new(Code::NotPermitted, "the gateway refuses the SVID; its log says why")
        }
        _ => Failure::failed("talk to the gateway", error),
    }
}
