//! The API: its routes, who may use them, and the transports that it is served on.

mod access;
mod approvals;
mod attach;
mod bindings;
mod described;
mod events;
mod governance;
mod grants;
mod guard;
mod patient;
mod policy;
mod refuse;
mod role;
mod routes;
mod serve;
mod svid;
mod tls;
mod unix;
mod views;
mod waiting;

pub use access::Access;
pub use approvals::{AskRequest, DecideRequest};
pub use attach::{AttachRequest, AttachedPort, DetachRequest, detach_each};
pub use bindings::{BindRequest, WithdrawRequest};
pub use governance::{MuteRequest, PauseRequest, ResolveRequest};
pub use grants::{GrantRequest, Granted, RevokeRequest};
pub use guard::{BlockRequest, QuarantineRequest, RateFields, ReleaseRequest, TargetFields};
pub use policy::{
    Applied, ApplyRequest, CHANGED, DiffRequest, RollbackRequest, RolledBack, ShadowApplyRequest,
    ShadowRequest,
};
pub use routes::{document, router};
pub use tls::listen;
pub use unix::{ControlSocket, bind};
pub use waiting::{Room, Waiting};

use super::{Shared, metrics};
use crate::exit_code::{Failure, Result};
use axum::Router;
use axum::extract::State as Extract;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// The answer to what commits.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Committed {
    /// The revision that counts now.
    pub revision: u64,
}

/// Connections to the metrics page: anybody who reaches it may ask.
const SCRAPERS: Room = Room { most: 64, most_of_one: 8 };
/// A page is made of all maps: there is one at a time, and the others wait their turn.
static PAGE: Semaphore = Semaphore::const_new(1);

/// Serves the metrics page. Who opens many connections, sends slowly or does not read keeps no other scraper away, and leaves
/// descriptors to the API.
pub async fn serve_metrics(listener: TcpListener, shared: Arc<Shared>) {
    let router = Router::new().route("/metrics", get(metrics_page)).with_state(shared);
    let waiting = Waiting::new(SCRAPERS);
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                // Here and not in the task: who came later gives way later.
                let (waits, given_up) = waiting.enter(from.ip());
                let router = router.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = serve::answer(stream, router) => {}
                        () = given_up => tracing::debug!("metrics: {from} gives way to others"),
                    }
                    drop(waits);
                });
            }
            // Out of descriptors, most likely: others have to be closed first.
            Err(e) => {
                tracing::warn!("metrics: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Maps and kernel calls block; they run beside the tasks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(Failure::failed("the daemon", e)))
}

async fn metrics_page(Extract(shared): Extract<Arc<Shared>>) -> Response {
    let _turn = PAGE.acquire().await;
    match blocking(move || metrics::page(&shared)).await {
        Ok(page) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], page).into_response(),
        Err(e) => e.into_response(),
    }
}
