//! The control socket and the metrics page.

mod bindings;
mod guard;
mod policy;

pub use bindings::{BindRequest, WithdrawRequest};
pub use guard::{BlockRequest, ReleaseRequest};
pub use policy::{ApplyRequest, RollbackRequest, RolledBack, ShadowApplyRequest, ShadowRequest};

use super::{RecentFlow, Shared, TcModeArg, XdpModeArg, lock, metrics, observe, start};
use crate::exit_code::{Code, Failure, Result};
use crate::state::Author;
use axum::body::{Body, Bytes};
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{FromRequestParts, Query, State as Extract};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use tokio::net::unix::SocketAddr as UnixAddr;
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// `POST /v1/attach`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttachRequest {
    /// Names.
    pub interfaces: Vec<String>,
    /// Where the XDP program runs.
    pub xdp_mode: XdpModeArg,
    /// How the TC program is attached.
    pub tc_mode: TcModeArg,
}

/// What attaching did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttachedPort {
    /// The interface.
    pub interface: String,
    /// `native` or `generic`.
    pub xdp_mode: String,
    /// Why the driver refused.
    pub native_refused: Option<String>,
    /// `tcx` or `clsact`.
    pub tc_mode: String,
}

/// `POST /v1/detach`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DetachRequest {
    /// Names.
    pub interfaces: Vec<String>,
}

/// The answer to what commits.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Committed {
    /// The revision that counts now.
    pub revision: u64,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.code {
            Code::Usage => StatusCode::BAD_REQUEST,
            Code::NotPermitted => StatusCode::FORBIDDEN,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self)).into_response()
    }
}

/// The socket, of which only root and the daemon's own user are served.
pub struct ControlSocket(UnixListener);

/// Binds the socket. One that is there was left behind: whoever holds the lock is the only daemon.
pub fn bind(path: &Path) -> Result<ControlSocket> {
    let bind = || -> std::io::Result<UnixListener> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    bind().map(ControlSocket).map_err(|e| Failure::io(format!("bind {}", path.display()), &e))
}

impl axum::serve::Listener for ControlSocket {
    type Io = UnixStream;
    type Addr = UnixAddr;

    async fn accept(&mut self) -> (UnixStream, UnixAddr) {
        loop {
            match self.0.accept().await {
                Ok((stream, addr)) if is_trusted(&stream) => return (stream, addr),
                Ok(_) => {}
                // Out of descriptors, most likely: others have to be closed first.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<UnixAddr> {
        self.0.local_addr()
    }
}

fn is_trusted(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}

/// Whoever is at the other end of the control socket.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    uid: Option<u32>,
}

impl Peer {
    /// The peer as somebody who changes something by a command.
    fn author(self, how: impl Into<String>) -> Author {
        Author { uid: self.uid, how: how.into() }
    }
}

impl Connected<IncomingStream<'_, ControlSocket>> for Peer {
    fn connect_info(stream: IncomingStream<'_, ControlSocket>) -> Self {
        Self { uid: stream.io().peer_cred().ok().map(|peer| peer.uid()) }
    }
}

impl FromRequestParts<Arc<Shared>> for Peer {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<Shared>) -> Result<Self> {
        let info = ConnectInfo::<Self>::from_request_parts(parts, state).await;
        info.map(|ConnectInfo(peer)| peer).map_err(|e| Failure::failed("who asks", e))
    }
}

/// Serves the control socket.
pub async fn serve(socket: ControlSocket, shared: Arc<Shared>) {
    let router = Router::new()
        .route("/v1/ping", get(|| async { Json(serde_json::json!({"version": env!("CARGO_PKG_VERSION")})) }))
        .route("/v1/attach", post(attach))
        .route("/v1/detach", post(detach))
        .route("/v1/policy", post(policy::apply))
        .route("/v1/policy/confirm", post(policy::confirm))
        .route("/v1/policy/rollback", post(policy::rollback))
        .route("/v1/shadow", post(policy::shadow))
        .route("/v1/shadow/drop", post(policy::shadow_drop))
        .route("/v1/shadow/apply", post(policy::shadow_apply))
        .route("/v1/block", post(guard::block))
        .route("/v1/unblock", post(guard::unblock))
        .route("/v1/quarantine", post(guard::quarantine))
        .route("/v1/unquarantine", post(guard::unquarantine))
        .route("/v1/bindings", post(bindings::bind))
        .route("/v1/bindings/withdraw", post(bindings::withdraw))
        .route("/v1/hellos", get(hellos))
        .route("/v1/flows/recent", get(recent_flows))
        .route("/v1/observe", get(observe_events))
        .layer(axum::extract::DefaultBodyLimit::max(256 << 20))
        .with_state(shared)
        .into_make_service_with_connect_info::<Peer>();
    if let Err(e) = axum::serve(socket, router).await {
        tracing::error!("control socket: {e}");
    }
}

/// Serves the metrics page.
pub async fn serve_metrics(listener: TcpListener, shared: Arc<Shared>) {
    let router = Router::new().route("/metrics", get(metrics_page)).with_state(shared);
    if let Err(e) = axum::serve(listener, router).await {
        tracing::error!("metrics: {e}");
    }
}

/// Maps and kernel calls block; they run beside the tasks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(Failure::failed("the daemon", e)))
}

async fn metrics_page(Extract(shared): Extract<Arc<Shared>>) -> Response {
    match blocking(move || metrics::page(&shared)).await {
        Ok(page) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], page).into_response(),
        Err(e) => e.into_response(),
    }
}

async fn attach(
    Extract(shared): Extract<Arc<Shared>>,
    Json(request): Json<AttachRequest>,
) -> Result<Json<Vec<AttachedPort>>> {
    let work = move || {
        let mut kernel = lock(&shared.kernel);
        for interface in &request.interfaces {
            loader::netdev::index(interface)?;
        }
        let mut attached = Vec::new();
        for interface in &request.interfaces {
            match kernel.attach(interface, request.xdp_mode.into(), request.tc_mode.into()) {
                Ok(port) => attached.push(port),
                Err(e) => {
                    start::undo(&shared.instance.pin_dir(), true, &attached);
                    return Err(e.into());
                }
            }
        }
        let port = |a: loader::Attached| AttachedPort {
            interface: a.interface,
            xdp_mode: a.xdp.name().into(),
            native_refused: a.native_refused,
            tc_mode: a.tc.name().into(),
        };
        let attached = attached.into_iter().map(port).collect();
        drop(kernel);
        shared.follow_interfaces()?;
        Ok(attached)
    };
    blocking(work).await.map(Json)
}

async fn detach(
    Extract(shared): Extract<Arc<Shared>>,
    Json(request): Json<DetachRequest>,
) -> Result<Json<()>> {
    blocking(move || detach_each(&shared.instance.pin_dir(), &request.interfaces)).await.map(Json)
}

/// Takes the programs off interfaces; an interface that has none is an error before anything is done.
pub fn detach_each(pin_dir: &Path, interfaces: &[String]) -> Result<()> {
    let pinned = loader::pinned_ports(pin_dir)?;
    if let Some(wrong) = interfaces.iter().find(|name| !pinned.iter().any(|p| p.interface == **name)) {
        let names: Vec<_> = pinned.iter().map(|p| p.interface.as_str()).collect();
        let attached = if names.is_empty() { "none".into() } else { names.join(", ") };
        let message = format!("{wrong} is not attached; attached are: {attached}");
        return Err(Failure::new(Code::NoDaemon, message));
    }
    for interface in interfaces {
        loader::detach(pin_dir, interface)?;
    }
    Ok(())
}

async fn hellos(
    Extract(shared): Extract<Arc<Shared>>,
) -> Json<Vec<(String, u64, crate::hello::ClientHello)>> {
    Json(shared.hub.hellos())
}

async fn recent_flows(Extract(shared): Extract<Arc<Shared>>) -> Json<Vec<RecentFlow>> {
    Json(shared.hub.recent_flows())
}

async fn observe_events(
    Extract(shared): Extract<Arc<Shared>>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let follow = query.get("follow").is_some_and(|v| v == "true");
    let (recent, receiver) = shared.hub.listen();
    let old = recent.into_iter().collect::<std::collections::VecDeque<_>>();
    let start = (old, follow.then_some(receiver), shared);
    let lines = futures_util::stream::unfold(start, |(mut old, mut receiver, shared)| async move {
        let line = match old.pop_front() {
            Some(line) => line,
            None => observe::next(&shared.hub, receiver.as_mut()?).await?,
        };
        let bytes = Bytes::from(format!("{line}\n"));
        Some((Ok::<_, std::convert::Infallible>(bytes), (old, receiver, shared)))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}
