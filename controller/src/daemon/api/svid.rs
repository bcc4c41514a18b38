//! The gateway's own SVID.

use crate::daemon::Shared;
use crate::svid::{Live, Status};
use axum::Json;
use axum::extract::State as Extract;
use std::sync::Arc;

/// `GET /v1/svid`: who the gateway is, and whom it believes; null without a source of SVIDs.
pub(super) async fn svid(Extract(shared): Extract<Arc<Shared>>) -> Json<Option<Status>> {
    Json(shared.svid.as_ref().map(Live::status))
}
