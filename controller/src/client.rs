//! The CLI's end of the control socket.

use crate::exit_code::{Code, Failure, Result};
use crate::instance::Instance;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// Sends a request and reads the JSON answer.
pub async fn call<T: DeserializeOwned>(
    instance: &Instance,
    method: Method,
    path: &str,
    body: &impl Serialize,
) -> Result<T> {
    let response = send(instance, method, path, body).await?;
    let bytes =
        response.into_body().collect().await.map_err(|e| Failure::failed("the daemon's answer", e))?;
    // An answer without content is `()`.
    let bytes = bytes.to_bytes();
    let json = if bytes.is_empty() { &b"null"[..] } else { &bytes };
    serde_json::from_slice(json).map_err(|e| Failure::failed("the daemon's answer", e))
}

/// Sends a request; a failure that the daemon reports is returned as that.
pub async fn send(
    instance: &Instance,
    method: Method,
    path: &str,
    body: &impl Serialize,
) -> Result<Response<Incoming>> {
    let stream = connect(instance).await?;
    let broken = |e: hyper::Error| Failure::failed("talk to the daemon", e);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    tokio::spawn(connection);
    let json = serde_json::to_vec(body).map_err(|e| Failure::failed("encode the request", e))?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "tidegate")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(json)))
        .map_err(|e| Failure::failed("encode the request", e))?;
    let response = sender.send_request(request).await.map_err(broken)?;
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let bytes = response.into_body().collect().await.map_err(broken)?.to_bytes();
    Err(serde_json::from_slice(&bytes).unwrap_or_else(|_| {
        Failure::failed(format!("the daemon answered {status}"), String::from_utf8_lossy(&bytes))
    }))
}

async fn connect(instance: &Instance) -> Result<UnixStream> {
    let socket = instance.socket();
    UnixStream::connect(&socket).await.map_err(|e| match e.kind() {
        std::io::ErrorKind::PermissionDenied => {
            Failure::new(Code::NotPermitted, format!("{} is root's: run it with sudo", socket.display()))
        }
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => Failure::new(
            Code::NoDaemon,
            format!(
                "no daemon named {} answers at {}: start `tidegate run`",
                instance.name,
                socket.display()
            ),
        ),
        _ => Failure::io(format!("connect to {}", socket.display()), &e),
    })
}
