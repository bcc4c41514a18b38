//! Interfaces: attaching to them and leaving them.

use super::blocking;
use super::refuse::Body;
use super::role::Caller;
use crate::audit::Kind;
use crate::daemon::ingress::{self, Chain, How, IngressArg, Turn};
use crate::daemon::{Shared, TcModeArg, XdpModeArg, lock, start};
use crate::exit_code::{Code, Failure, Result};
use axum::Json;
use axum::extract::State as Extract;
use axum::response::NoContent;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// `GET /v1/ping`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pong {
    /// The daemon's version.
    pub version: String,
}

pub(super) async fn ping() -> Json<Pong> {
    Json(Pong { version: env!("CARGO_PKG_VERSION").into() })
}

/// `POST /v1/attach`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// Names.
    pub interfaces: Vec<String>,
    /// Where what comes in is judged; as it is, or as the daemon was told last, without it.
    #[serde(default)]
    pub ingress: Option<IngressArg>,
    /// Where the XDP program runs.
    #[serde(default)]
    pub xdp_mode: XdpModeArg,
    /// The run priority in libxdp's dispatcher; as it is, at first 50, without it.
    #[serde(default)]
    pub xdp_prio: Option<u32>,
    /// What goes on to the next program of libxdp's dispatcher; as it is, at first what passes, without it.
    #[serde(default)]
    pub xdp_chain: Option<Chain>,
    /// How TC programs are attached.
    #[serde(default)]
    pub tc_mode: TcModeArg,
}

impl AttachRequest {
    fn how(&self) -> How {
        let turn = Turn { xdp_prio: self.xdp_prio, xdp_chain: self.xdp_chain };
        How { xdp_mode: self.xdp_mode, turn }
    }
}

/// What attaching did.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AttachedPort {
    /// The interface.
    pub interface: String,
    /// Where what comes in is judged: `xdp`, `libxdp` or `tc`.
    pub ingress: String,
    /// How it is attached there: `native` or `generic`, `tcx` or `clsact`.
    pub ingress_mode: String,
    /// Why the driver refused.
    pub native_refused: Option<String>,
    /// How the TC program for what leaves is attached: `tcx` or `clsact`.
    pub tc_mode: String,
}

/// `POST /v1/detach`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DetachRequest {
    /// Names.
    pub interfaces: Vec<String>,
}

pub(super) async fn attach(
    Extract(shared): Extract<Arc<Shared>>,
    caller: Caller,
    Body(request): Body<AttachRequest>,
) -> Result<Json<Vec<AttachedPort>>> {
    let work = move || {
        let mut kernel = lock(&shared.kernel);
        for interface in &request.interfaces {
            loader::netdev::index(interface)?;
        }
        let pinned = loader::pinned_ports(&shared.instance.pin_dir())?;
        let by = caller.author("attach");
        shared.record(Kind::Attach, &by, serde_json::json!({"interfaces": request.interfaces}))?;
        let mut attached = Vec::new();
        for interface in &request.interfaces {
            let there = ingress::there(&pinned, interface);
            let place = ingress::place(request.ingress, request.how(), there, shared.ingress)?;
            let place = shared.turn.of_new(place, there);
            match kernel.attach(interface, place, request.tc_mode.into()) {
                Ok(port) => attached.push(port),
                Err(e) => {
                    start::undo(&shared.instance.pin_dir(), true, &attached);
                    return Err(e.into());
                }
            }
        }
        let port = |a: loader::Attached| AttachedPort {
            interface: a.interface,
            ingress: a.ingress.hook().into(),
            ingress_mode: a.ingress.mode().into(),
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

pub(super) async fn detach(
    Extract(shared): Extract<Arc<Shared>>,
    caller: Caller,
    Body(request): Body<DetachRequest>,
) -> Result<NoContent> {
    let work = move || {
        let by = caller.author("detach");
        shared.record(Kind::Detach, &by, serde_json::json!({"interfaces": request.interfaces}))?;
        detach_each(&shared.instance.pin_dir(), &request.interfaces)
    };
    blocking(work).await.map(|()| NoContent)
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
