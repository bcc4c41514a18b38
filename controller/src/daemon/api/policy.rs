//! Changes of policy.

use super::{Committed, Peer, blocking};
use crate::daemon::Shared;
use crate::exit_code::{Code, Failure, Result};
use crate::policy::SourceFile;
use crate::state::{PolicySet, Shadow};
use axum::Json;
use axum::extract::State as Extract;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// `POST /v1/policy`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ApplyRequest {
    /// The files, as they are.
    pub files: Vec<SourceFile>,
}

pub(super) async fn apply(
    Extract(shared): Extract<Arc<Shared>>,
    peer: Peer,
    Json(request): Json<ApplyRequest>,
) -> Result<Json<Committed>> {
    let work = move || {
        let set = Arc::new(PolicySet::read(request.files, Timestamp::now())?);
        shared.commit(&peer.author("policy apply"), |state| state.apply(set))
    };
    blocking(work).await.map(|revision| Json(Committed { revision }))
}

/// `POST /v1/shadow`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShadowRequest {
    /// The candidate's files.
    pub files: Vec<SourceFile>,
    /// One of so many flows is judged by it.
    pub sample: u32,
}

pub(super) async fn shadow(
    Extract(shared): Extract<Arc<Shared>>,
    Json(request): Json<ShadowRequest>,
) -> Result<Json<()>> {
    let work = move || {
        let now = Timestamp::now();
        let set = Arc::new(PolicySet::read(request.files, now)?);
        shared.shadow(Some(Shadow { set, sample: request.sample, since: now }))
    };
    blocking(work).await.map(Json)
}

fn no_shadow() -> Failure {
    Failure::new(Code::Failure, "no candidate is judged; `tidegate policy shadow PATH` begins")
}

pub(super) async fn shadow_drop(Extract(shared): Extract<Arc<Shared>>) -> Result<Json<()>> {
    let work = move || {
        if shared.with_state(|state| state.shadow.is_none()) {
            return Err(no_shadow());
        }
        shared.shadow(None)
    };
    blocking(work).await.map(Json)
}

pub(super) async fn shadow_apply(
    Extract(shared): Extract<Arc<Shared>>,
    peer: Peer,
) -> Result<Json<Committed>> {
    let work = move || {
        let set = shared.with_state(|state| state.shadow.as_ref().map(|shadow| shadow.set.clone()));
        let set = set.ok_or_else(no_shadow)?;
        shared.commit(&peer.author("policy shadow apply"), |state| state.apply(set))
    };
    blocking(work).await.map(|revision| Json(Committed { revision }))
}
