//! Findings, and the brake.

use super::blocking;
use super::refuse::{Body, Params};
use super::role::Caller;
use crate::daemon::Shared;
use crate::daemon::govern::GovernanceStatus;
use crate::exit_code::{Code, Failure, Result};
use crate::governance::{Finding, FindingState};
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
    Json(shared.governance.findings())
}

pub(super) async fn finding(
    Extract(shared): Extract<Arc<Shared>>,
    Params(FindingRequest { id }): Params<FindingRequest>,
) -> Result<Json<Finding>> {
    shared.governance.finding(id).map(Json)
}

pub(super) async fn resolve(
    Extract(shared): Extract<Arc<Shared>>,
    caller: Caller,
    Body(ResolveRequest { id, note }): Body<ResolveRequest>,
) -> Result<Json<Finding>> {
    short(note.as_deref().unwrap_or_default(), "note")?;
    let state = FindingState::Resolved { at: Timestamp::now(), by: caller.who().to_string(), note };
    blocking(move || shared.governance.set_state(id, state)).await.map(Json)
}

pub(super) async fn mute(
    Extract(shared): Extract<Arc<Shared>>,
    caller: Caller,
    Body(MuteRequest { id, until }): Body<MuteRequest>,
) -> Result<Json<Finding>> {
    let state = FindingState::Muted { until, by: caller.who().to_string() };
    blocking(move || shared.governance.set_state(id, state)).await.map(Json)
}

pub(super) async fn status(Extract(shared): Extract<Arc<Shared>>) -> Json<GovernanceStatus> {
    Json(shared.governance.status())
}

pub(super) async fn pause(
    Extract(shared): Extract<Arc<Shared>>,
    caller: Caller,
    Body(PauseRequest { reason }): Body<PauseRequest>,
) -> Result<Json<GovernanceStatus>> {
    short(&reason, "reason")?;
    let why = format!("{}: {reason}", caller.who());
    blocking(move || shared.governance.pause(Some(why))).await.map(Json)
}

pub(super) async fn resume(Extract(shared): Extract<Arc<Shared>>) -> Result<Json<GovernanceStatus>> {
    blocking(move || shared.governance.pause(None)).await.map(Json)
}

fn short(text: &str, field: &str) -> Result<()> {
    if text.chars().count() > 1024 {
        let message = format!("`{field}` is longer than 1024 characters");
        return Err(Failure::new(Code::Unprocessable, message));
    }
    Ok(())
}
