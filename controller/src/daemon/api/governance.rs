//! Findings, and the brake.

use super::blocking;
use super::guard::short;
use super::refuse::{Body, Params};
use super::role::Caller;
use crate::daemon::Shared;
use crate::daemon::govern::GovernanceStatus;
use crate::exit_code::Result;
use crate::governance::{Finding, FindingState, Observed};
use crate::policy::spiffe::{SpiffeId, SpiffePattern};
use crate::view::standing::Standing;
use axum::Json;
use axum::extract::State as Extract;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// `GET /v1/finding`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FindingRequest {
    /// Its number.
    pub id: u64,
}

/// `GET /v1/observed`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ObservedRequest {
    /// A SPIFFE ID, or a pattern of them.
    pub identity: SpiffePattern,
}

/// `GET /v1/identity`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StandingRequest {
    /// Its SPIFFE ID.
    pub id: SpiffeId,
}

/// `POST /v1/findings/resolve`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolveRequest {
    /// Its number.
    pub id: u64,
    /// What came of it.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub note: Option<String>,
}

/// `POST /v1/findings/mute`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MuteRequest {
    /// Its number.
    pub id: u64,
    /// Until when it says and does nothing.
    pub until: Timestamp,
}

/// `POST /v1/governance/pause`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseRequest {
    /// Why.
    #[schemars(length(max = 1024))]
    pub reason: String,
}

pub(super) async fn findings(Extract(shared): Extract<Arc<Shared>>) -> Json<Vec<Finding>> {
    Json(shared.findings())
}

pub(super) async fn finding(
    Extract(shared): Extract<Arc<Shared>>,
    Params(FindingRequest { id }): Params<FindingRequest>,
) -> Result<Json<Finding>> {
    shared.finding(id).map(Json)
}

pub(super) async fn standing(
    Extract(shared): Extract<Arc<Shared>>,
    Params(StandingRequest { id }): Params<StandingRequest>,
) -> Result<Json<Standing>> {
    blocking(move || shared.standing(&id)).await.map(Json)
}

pub(super) async fn observed(
    Extract(shared): Extract<Arc<Shared>>,
    Params(ObservedRequest { identity }): Params<ObservedRequest>,
) -> Result<Json<Observed>> {
    Ok(Json(shared.governance.observed(&identity)))
}

pub(super) async fn resolve(
    Extract(shared): Extract<Arc<Shared>>,
    caller: Caller,
    Body(ResolveRequest { id, note }): Body<ResolveRequest>,
) -> Result<Json<Finding>> {
    short(note.as_deref(), "note")?;
    let state = FindingState::Resolved { at: Timestamp::now(), by: caller.who().to_string(), note };
    let by = caller.author("findings resolve");
    blocking(move || shared.decide_finding(id, state, &by)).await.map(Json)
}

pub(super) async fn mute(
    Extract(shared): Extract<Arc<Shared>>,
    caller: Caller,
    Body(MuteRequest { id, until }): Body<MuteRequest>,
) -> Result<Json<Finding>> {
    let state = FindingState::Muted { until, by: caller.who().to_string() };
    let by = caller.author("findings mute");
    blocking(move || shared.decide_finding(id, state, &by)).await.map(Json)
}

pub(super) async fn status(Extract(shared): Extract<Arc<Shared>>) -> Json<GovernanceStatus> {
    Json(shared.governance.status())
}

pub(super) async fn pause(
    Extract(shared): Extract<Arc<Shared>>,
    caller: Caller,
    Body(PauseRequest { reason }): Body<PauseRequest>,
) -> Result<Json<GovernanceStatus>> {
    short(Some(&reason), "reason")?;
    let why = format!("{}: {reason}", caller.who());
    let by = caller.author("governance pause");
    blocking(move || shared.brake(Some(why), &by)).await.map(Json)
}

pub(super) async fn resume(
    Extract(shared): Extract<Arc<Shared>>,
    caller: Caller,
) -> Result<Json<GovernanceStatus>> {
    let by = caller.author("governance resume");
    blocking(move || shared.brake(None, &by)).await.map(Json)
}
