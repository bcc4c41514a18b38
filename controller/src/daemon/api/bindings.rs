//! Bindings that sources make, renew and take back.

use super::blocking;
use super::refuse::Body;
use crate::bindings::{Claim, Slot, SourceName};
use crate::daemon::Shared;
use crate::daemon::bind::{Bound, Withdraw};
use crate::exit_code::{Code, Failure, Result};
use axum::Json;
use axum::extract::State as Extract;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// `POST /v1/bindings`: claims that are made or renewed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BindRequest {
    /// Who makes them.
    pub source: SourceName,
    /// What it says.
    pub claims: Vec<Claim>,
}

/// `POST /v1/bindings/withdraw`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WithdrawRequest {
    /// Whose claims.
    pub source: SourceName,
    /// Which; all of them without this.
    pub bindings: Option<Vec<Slot>>,
}

pub(super) async fn bind(
    Extract(shared): Extract<Arc<Shared>>,
    Body(request): Body<BindRequest>,
) -> Result<Json<Bound>> {
    blocking(move || shared.bind(&request.source, request.claims)).await.map(Json)
}

pub(super) async fn withdraw(
    Extract(shared): Extract<Arc<Shared>>,
    Body(request): Body<WithdrawRequest>,
) -> Result<Json<Bound>> {
    let work = move || {
        let WithdrawRequest { source, bindings } = request;
        if let Some(slots) = &bindings {
            let unknown = shared.with_state(|state| {
                slots.iter().find(|slot| state.bindings.get(&source, slot).is_none()).cloned()
            });
            if let Some(slot) = unknown {
                let message =
                    format!("{source} has bound nothing at {slot}: `tidegate identity list` shows who has");
                return Err(Failure::new(Code::NotFound, message));
            }
        }
        shared.withdraw(&source, bindings.map_or(Withdraw::All, Withdraw::Slots))
    };
    blocking(work).await.map(Json)
}
