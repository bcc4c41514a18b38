//! Blocks and quarantines that operators set by hand.

use super::{Committed, Peer, blocking};
use crate::daemon::Shared;
use crate::exit_code::{Code, Failure, Result};
use crate::policy::document::BlockEntry;
use crate::policy::quarantine::Quarantine;
use crate::policy::target::Target;
use axum::Json;
use axum::extract::State as Extract;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// `POST /v1/block` and `POST /v1/unblock`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BlockRequest {
    /// What.
    #[serde(flatten)]
    pub target: Target,
    /// Until when; for ever where it is absent.
    pub not_after: Option<jiff::Timestamp>,
    /// Why.
    pub reason: Option<String>,
}

pub(super) async fn block(
    Extract(shared): Extract<Arc<Shared>>,
    peer: Peer,
    Json(request): Json<BlockRequest>,
) -> Result<Json<Committed>> {
    let work = move || {
        shared.commit(&peer.author("block add"), |state| {
            let BlockRequest { target, not_after, reason } = request;
            state.blocks.retain(|block| block.target != target);
            state.blocks.push(BlockEntry { target, reason, not_after, place: crate::state::manual_place() });
        })
    };
    blocking(work).await.map(|revision| Json(Committed { revision }))
}

pub(super) async fn unblock(
    Extract(shared): Extract<Arc<Shared>>,
    peer: Peer,
    Json(request): Json<BlockRequest>,
) -> Result<Json<Committed>> {
    let work = move || {
        let target = request.target;
        if !shared.with_state(|state| state.blocks.iter().any(|block| block.target == target)) {
            let message = format!(
                "{target} was not blocked by `tidegate block add`; entries of files are changed there (`tidegate block list`)"
            );
            return Err(Failure::new(Code::Failure, message));
        }
        shared.commit(&peer.author("block del"), |state| state.blocks.retain(|block| block.target != target))
    };
    blocking(work).await.map(|revision| Json(Committed { revision }))
}

pub(super) async fn quarantine(
    Extract(shared): Extract<Arc<Shared>>,
    peer: Peer,
    Json(quarantine): Json<Quarantine>,
) -> Result<Json<Committed>> {
    let work = move || {
        shared.commit(&peer.author("quarantine add"), |state| {
            state.quarantines.retain(|q| q.name != quarantine.name);
            state.quarantines.push(quarantine);
        })
    };
    blocking(work).await.map(|revision| Json(Committed { revision }))
}

/// `POST /v1/unquarantine`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReleaseRequest {
    /// Name of the quarantine.
    pub name: String,
}

pub(super) async fn unquarantine(
    Extract(shared): Extract<Arc<Shared>>,
    peer: Peer,
    Json(request): Json<ReleaseRequest>,
) -> Result<Json<Committed>> {
    let work = move || {
        if !shared.with_state(|state| state.quarantines.iter().any(|q| q.name == request.name)) {
            let message = "it was not quarantined by `tidegate quarantine add`; quarantines of files are changed there (`tidegate quarantine list`)";
            return Err(Failure::new(Code::Failure, message));
        }
        shared.commit(&peer.author("quarantine del"), |state| {
            state.quarantines.retain(|q| q.name != request.name)
        })
    };
    blocking(work).await.map(|revision| Json(Committed { revision }))
}
