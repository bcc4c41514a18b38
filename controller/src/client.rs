//! The CLI's end of the API: on the control socket of this host, or over mTLS on another.

use crate::exit_code::{Code, Failure, Result};
use crate::instance::Instance;
use crate::remote::Remote;
use crate::view::Format;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

/// Room for a request with very many files. It is no memory until it is written to; to grow into it would be several copies.
const ROOM: usize = 64 << 20;

/// Sends a request and reads the JSON answer.
pub async fn call<T: DeserializeOwned>(
    instance: &Instance,
    method: Method,
    path: &str,
    body: &impl Serialize,
) -> Result<T> {
    let response = send(instance, method, path, body).await?;
    let bytes = response.into_body().collect().await.map_err(broken)?;
    // An answer without content is `()`.
    let bytes = bytes.to_bytes();
    let json = if bytes.is_empty() { &b"null"[..] } else { &bytes };
    serde_json::from_slice(json).map_err(|e| Failure::failed("the daemon's answer", e))
}

/// Prints what the daemon shows at a path.
pub async fn show(instance: &Instance, path: &str, format: Format) -> Result<()> {
    let mark = if path.contains('?') { '&' } else { '?' };
    let output = if format == Format::Json { "json" } else { "table" };
    let path = format!("{path}{mark}output={output}");
    let body = send(instance, Method::GET, &path, &()).await?.into_body();
    let bytes = body.collect().await.map_err(broken)?.to_bytes();
    crate::view::say(String::from_utf8_lossy(&bytes).trim_end())
}

/// Sends a request; a failure that the daemon reports is returned as that.
pub async fn send(
    instance: &Instance,
    method: Method,
    path: &str,
    body: &impl Serialize,
) -> Result<Response<Incoming>> {
    let stream = connect(instance).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    tokio::spawn(connection);
    let mut json = Vec::with_capacity(ROOM);
    serde_json::to_writer(&mut json, body).map_err(|e| Failure::failed("encode the request", e))?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", instance.remote.as_ref().map_or_else(|| "tidegate".into(), Remote::name))
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

/// Why a connection broke. TLS 1.3 is done for the client before the server has looked at its SVID: that it is refused, the
/// first answer says.
fn broken(e: hyper::Error) -> Failure {
    let mut cause: Option<&dyn std::error::Error> = Some(&e);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        if let Some(rustls::Error::AlertReceived(_)) = inner.and_then(|inner| inner.downcast_ref()) {
            let message = "the server does not believe this SVID";
            return Failure::new(Code::NotPermitted, message).hint("the server's log says why");
        }
        cause = error.source();
    }
    Failure::failed("talk to the daemon", e)
}

/// A connection of either kind.
trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

async fn connect(instance: &Instance) -> Result<Box<dyn Io>> {
    if let Some(remote) = &instance.remote {
        return Ok(Box::new(remote.connect().await?));
    }
    let socket = instance.socket();
    let stream = UnixStream::connect(&socket).await.map_err(|e| match e.kind() {
        std::io::ErrorKind::PermissionDenied => {
            let message = format!("{} is not open to you", socket.display());
            Failure::new(Code::NotPermitted, message).hint("run it with sudo, or get a role (docs/api.md)")
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
    })?;
    Ok(Box::new(stream))
}
