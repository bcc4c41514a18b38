//! Grants that operators give by hand.

use super::guard::{in_future, short};
use super::refuse::Body;
use super::role::Caller;
use super::{Committed, blocking};
use crate::daemon::Shared;
use crate::exit_code::{Code, Failure, Result};
use crate::governance::{Access, Asked, Radius};
use crate::policy::act::Act;
use crate::policy::grant::Grant;
use crate::policy::ports::PortMatch;
use crate::policy::selector::Selector;
use crate::policy::spiffe::SpiffeId;
use crate::state::{Author, manual_grant, manual_grant_id, manual_grant_place};
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

/// What was given, or waits for people.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Granted {
    /// The revision that counts now; absent where it waits, as all but `approval` and `waits`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// What `POST /v1/grants/revoke` takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Until when it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// The approval that it waits for: nothing is given until somebody else agrees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<u64>,
    /// Why it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
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
        let by = caller.author("grant");
        let seconds = not_after.duration_since(Timestamp::now()).as_secs().max(1).unsigned_abs();
        if let Some((rules, over)) = shared.grant_awaits(&to, seconds) {
            let asked = Asked {
                by: by.who.to_string(),
                identity: from,
                act: Act::default(),
                step: 0,
                access: Some(Access { to, ports }),
                seconds,
                finding: None,
                why: reason,
                over,
                radius: Radius::default(),
            };
            let request = shared.ask(asked, &rules, &by)?;
            return Ok(Granted {
                approval: Some(request.id),
                waits: Some(request.over),
                ..Granted::default()
            });
        }
        let revision = shared.give((from, to), ports, not_after, reason, &by)?;
        let name = manual_grant(revision);
        let id = manual_grant_id(&name).map(str::to_owned);
        Ok(Granted { revision: Some(revision), id, not_after: Some(not_after), ..Granted::default() })
    };
    blocking(work).await.map(Json)
}

impl Shared {
    /// Gives one identity access to another.
    pub(in crate::daemon) fn give(
        &self,
        (from, to): (SpiffeId, SpiffeId),
        ports: Vec<PortMatch>,
        not_after: Timestamp,
        reason: String,
        by: &Author,
    ) -> Result<u64> {
        self.commit(by, |state| {
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
    }
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
