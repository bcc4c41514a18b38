//! Containments that wait for people.

use super::blocking;
use super::governance::FindingRequest as ById;
use super::guard::short;
use super::refuse::{Body, Params};
use super::role::Caller;
use crate::daemon::Shared;
use crate::exit_code::Result;
use crate::governance::{Asked, Request};
use crate::policy::act::Act;
use crate::policy::approval::{Approvals as Rules, Thresholds, Unanswered};
use crate::policy::spiffe::SpiffeId;
use axum::Json;
use axum::extract::State as Extract;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// `POST /v1/approvals/approve` and `reject`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecideRequest {
    /// Its number.
    pub id: u64,
    /// Why, of a refusal.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub note: Option<String>,
}

/// `POST /v1/approvals/ask`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AskRequest {
    /// Who is to be quarantined.
    pub identity: SpiffeId,
    /// For how long, from when it is done.
    #[schemars(range(min = 1, max = 31_536_000))]
    pub seconds: u64,
    /// Why.
    #[schemars(length(max = 1024))]
    pub reason: String,
}

/// What holds for what people ask for where no gateway document says anything of approvals.
const RULES: Rules = Rules {
    over: Thresholds { addresses: None, peers: None, connections: None, share: None },
    grants: None,
    approvers: 1,
    within_s: 15 * 60,
    unanswered: Unanswered::Reject,
};

pub(super) async fn list(Extract(shared): Extract<Arc<Shared>>) -> Json<Vec<Request>> {
    Json(shared.requests())
}

pub(super) async fn one(
    Extract(shared): Extract<Arc<Shared>>,
    Params(ById { id }): Params<ById>,
) -> Result<Json<Request>> {
    shared.request(id).map(Json)
}

pub(super) async fn approve(
    Extract(shared): Extract<Arc<Shared>>,
    caller: Caller,
    Body(DecideRequest { id, note }): Body<DecideRequest>,
) -> Result<Json<Request>> {
    short(note.as_deref(), "note")?;
    let by = caller.author("approvals approve");
    blocking(move || shared.approve(id, &by)).await.map(Json)
}

pub(super) async fn reject(
    Extract(shared): Extract<Arc<Shared>>,
    caller: Caller,
    Body(DecideRequest { id, note }): Body<DecideRequest>,
) -> Result<Json<Request>> {
    short(note.as_deref(), "note")?;
    let by = caller.author("approvals reject");
    blocking(move || shared.reject(id, note, &by)).await.map(Json)
}

pub(super) async fn ask(
    Extract(shared): Extract<Arc<Shared>>,
    caller: Caller,
    Body(AskRequest { identity, seconds, reason }): Body<AskRequest>,
) -> Result<Json<Request>> {
    short(Some(&reason), "reason")?;
    let by = caller.author("approvals ask");
    let work = move || {
        let radius = shared.radius(&identity)?;
        let rules = shared.approval_rules().unwrap_or(RULES);
        let over = rules.exceeded(&radius).unwrap_or_else(|| "a person asks".into());
        let by_name = by.who.to_string();
        let (act, step, access) = (Act::Quarantine, 0, None);
        let asked = Asked {
            by: by_name,
            identity,
            act,
            step,
            access,
            seconds,
            finding: None,
            why: reason,
            over,
            radius,
        };
        shared.ask(asked, &rules, &by)
    };
    blocking(work).await.map(Json)
}
