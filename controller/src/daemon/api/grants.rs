//! Grants that operators give by hand.

use super::guard::{in_future, short};
use super::refuse::Body;
use super::role::Caller;
use super::{Committed, blocking};
use crate::daemon::Shared;
use crate::exit_code::{Code, Failure, Result};
use crate::policy::grant::Grant;
use crate::policy::ports::PortMatch;
use crate::policy::selector::Selector;
use crate::policy::spiffe::SpiffeId;
use crate::state::{manual_grant, manual_grant_id, manual_grant_place};
use axum::Json;
use axum::extract::State as Extract;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// `POST /v1/grants`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantRequest {
    /// Who may open connections.
    pub from: SpiffeId,
    /// To whom.
    pub to: SpiffeId,
    /// Protocols and ports, such as `tcp/8443`, `udp/5000-5010`, `icmp`, `any`.
    #[schemars(length(min = 1))]
    pub ports: Vec<PortMatch>,
    /// Until when: seven days from now at the latest.
    pub not_after: Timestamp,
    /// Why.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
}

/// What operators may give by themselves.
const LONGEST: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What was given.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Granted {
    /// The revision that counts now.
    pub revision: u64,
    /// What `POST /v1/grants/revoke` takes.
    pub id: String,
    /// Until when it holds.
    pub not_after: Timestamp,
}

/// `POST /v1/grants/revoke`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// Which.
    pub id: String,
}

pub(super) async fn give(
    Extract(shared): Extract<Arc<Shared>>,
    caller: Caller,
    Body(request): Body<GrantRequest>,
) -> Result<Json<Granted>> {
    let GrantRequest { from, to, ports, not_after, reason } = request;
    in_future(Some(not_after))?;
    if not_after > Timestamp::now() + LONGEST {
        return Err(Failure::new(Code::Unprocessable, "a grant by hand holds for seven days at most")
            .hint("what is to last longer is a document that is applied: `kind: Grant`, or a rule"));
    }
    short(Some(&reason), "reason")?;
    if ports.is_empty() || reason.trim().is_empty() {
        let field = if ports.is_empty() { "ports" } else { "reason" };
        return Err(Failure::new(Code::Unprocessable, format!("`{field}` is empty"))
            .hint("a grant says which services it is for (`any` for all), and why"));
    }
    let work = move || {
        shared.commit(&caller.author("grant"), |state| {
            state.grants.push(Grant {
                // A revision has one number for ever, and gives one grant.
                name: manual_grant(state.revision),
                from: vec![Selector::SpiffeId(from)],
                to: vec![Selector::SpiffeId(to)],
                ports,
                not_after,
                lasts_s: None,
                reason,
                place: manual_grant_place(),
            });
        })
    };
    let revision = blocking(work).await?;
    let name = manual_grant(revision);
    let id = manual_grant_id(&name).unwrap_or(&name).to_owned();
    Ok(Json(Granted { revision, id, not_after }))
}

pub(super) async fn revoke(
    Extract(shared): Extract<Arc<Shared>>,
    caller: Caller,
    Body(RevokeRequest { id }): Body<RevokeRequest>,
) -> Result<Json<Committed>> {
    let work = move || {
        let is_it = |grant: &Grant| manual_grant_id(&grant.name) == Some(id.as_str());
        let now = Timestamp::now();
        if !shared.with_state(|state| state.grants.iter().any(|g| is_it(g) && g.not_after > now)) {
            let message = format!("no grant {id} that `tidegate grant` gave holds");
            return Err(Failure::new(Code::NotFound, message)
                .hint("`tidegate grant list` shows those that do; grants of files are changed there"));
        }
        shared
            .commit(&caller.author(format!("grant revoke {id}")), |state| state.grants.retain(|g| !is_it(g)))
    };
    blocking(work).await.map(|revision| Json(Committed { revision }))
}
