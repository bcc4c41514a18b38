//! Blocks and quarantines that operators set by hand.

use super::refuse::{Body, object, objects};
use super::role::Caller;
use super::{Committed, blocking};
use crate::daemon::Shared;
use crate::exit_code::{Code, Failure, Result};
use crate::policy::Prefix;
use crate::policy::act::{Act, ActName};
use crate::policy::document::BlockEntry;
use crate::policy::limits::{Bucket, Per, RateLimit};
use crate::policy::ports::PortMatch;
use crate::policy::quantity::QuantityError;
use crate::policy::quarantine::Quarantine;
use crate::policy::selector::Selector;
use crate::policy::spiffe::{SpiffeId, SpiffePattern, TrustDomain};
use crate::policy::target::Target;
use crate::state::{manual_act, manual_place, manual_quarantine_place};
use axum::Json;
use axum::extract::State as Extract;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An end, services, or services of an end; at most one of the fields that name an end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetFields {
    /// Addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidr: Option<Prefix>,
    /// One identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<SpiffeId>,
    /// Identities by a pattern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe_path: Option<SpiffePattern>,
    /// All identities of a trust domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<TrustDomain>,
    /// Workloads that have all of these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Protocols and ports, such as `tcp/23`, `udp/5000-5010`, `icmp`; all without it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMatch>,
}

impl TargetFields {
    fn target(self) -> Result<Target> {
        let Self { cidr, spiffe_id, spiffe_path, trust_domain, labels, ports } = self;
        let ends = [
            cidr.map(Selector::Cidr),
            spiffe_id.map(Selector::SpiffeId),
            spiffe_path.map(Selector::SpiffePath),
            trust_domain.map(Selector::TrustDomain),
            labels.map(Selector::Labels),
        ];
        let mut ends = ends.into_iter().flatten();
        let selector = ends.next();
        let accepted =
            "name an end by one of cidr, spiffeId, spiffePath, trustDomain, labels; or ports; or both";
        if ends.next().is_some() {
            return Err(Failure::new(Code::Unprocessable, "more than one end is named").hint(accepted));
        }
        if selector.is_none() && ports.is_empty() {
            return Err(
                Failure::new(Code::Unprocessable, "neither an end nor a port is named").hint(accepted)
            );
        }
        if matches!(&selector, Some(Selector::Labels(labels)) if labels.is_empty()) {
            return Err(
                Failure::new(Code::Unprocessable, "`labels` is empty, which is everybody").hint(accepted)
            );
        }
        Ok(Target { selector, ports })
    }
}

impl From<Target> for TargetFields {
    fn from(Target { selector, ports }: Target) -> Self {
        let mut fields = Self { ports, ..Self::default() };
        match selector {
            Some(Selector::Cidr(cidr)) => fields.cidr = Some(cidr),
            Some(Selector::SpiffeId(id)) => fields.spiffe_id = Some(id),
            Some(Selector::SpiffePath(pattern)) => fields.spiffe_path = Some(pattern),
            Some(Selector::TrustDomain(domain)) => fields.trust_domain = Some(domain),
            Some(Selector::Labels(labels)) => fields.labels = Some(labels),
            Some(Selector::Any | Selector::Not(_)) | None => {}
        }
        fields
    }
}

/// `POST /v1/block` and `POST /v1/unblock`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BlockRequest {
    /// What.
    #[serde(deserialize_with = "object")]
    pub target: TargetFields,
    /// Until when; for ever where it is absent.
    #[serde(default)]
    pub not_after: Option<Timestamp>,
    /// Why.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
}

/// What is over already would be gone with its own commit.
pub(super) fn in_future(not_after: Option<Timestamp>) -> Result<()> {
    match not_after {
        Some(end) if end <= Timestamp::now() => {
            Err(Failure::new(Code::Unprocessable, format!("not_after {end} is over")))
        }
        _ => Ok(()),
    }
}

/// What people say of something has an end.
pub(super) fn short(text: Option<&str>, field: &str) -> Result<()> {
    match text {
        Some(text) if text.chars().count() > 1024 => {
            let message = format!("`{field}` is longer than 1024 characters");
            Err(Failure::new(Code::Unprocessable, message))
        }
        _ => Ok(()),
    }
}

pub(super) async fn block(
    Extract(shared): Extract<Arc<Shared>>,
    caller: Caller,
    Body(request): Body<BlockRequest>,
) -> Result<Json<Committed>> {
    let BlockRequest { target, not_after, reason } = request;
    let target = target.target()?;
    in_future(not_after)?;
    short(reason.as_deref(), "reason")?;
    let work = move || {
        shared.commit(&caller.author("block add"), |state| {
            state.blocks.retain(|block| block.target != target);
            state.blocks.push(BlockEntry { target, reason, not_after, place: manual_place() });
        })
    };
    blocking(work).await.map(|revision| Json(Committed { revision }))
}

pub(super) async fn unblock(
    Extract(shared): Extract<Arc<Shared>>,
    caller: Caller,
    Body(request): Body<BlockRequest>,
) -> Result<Json<Committed>> {
    let target = request.target.target()?;
    let work = move || {
        if !shared.with_state(|state| state.blocks.iter().any(|block| block.target == target)) {
            let message = format!(
                "{target} was not blocked by `tidegate block add`; entries of files are changed there (`tidegate block list`)"
            );
            return Err(Failure::new(Code::NotFound, message));
        }
        shared
            .commit(&caller.author("block del"), |state| state.blocks.retain(|block| block.target != target))
    };
    blocking(work).await.map(|revision| Json(Committed { revision }))
}

/// `POST /v1/quarantine`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuarantineRequest {
    /// Who is cut off: one of spiffeId, spiffePath, trustDomain, labels.
    #[serde(deserialize_with = "object")]
    pub who: TargetFields,
    /// What is done about it; that it is cut off where it is absent. Not `restrict`: for that there is `except`.
    #[serde(default)]
    pub act: ActName,
    /// Of `limit`, and of nothing else.
    #[serde(default)]
    pub rate: Option<RateFields>,
    /// What stays in reach, whoever opens the connection.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "objects")]
    pub except: Vec<TargetFields>,
    /// Until when; for ever where it is absent.
    #[serde(default)]
    pub not_after: Option<Timestamp>,
    /// Why.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
}

/// How much passes of an identity: `1000/s`, `600/m`; bytes with a unit, such as `10MB/s`. At least one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateFields {
    /// Packets, both ways together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<String>,
    /// Bytes of IP packets, both ways together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<String>,
    /// New connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<String>,
}

impl RateFields {
    /// Which are given.
    fn limit(&self) -> Result<RateLimit> {
        let wrong = |e: QuantityError| Failure::new(Code::Unprocessable, format!("rate: {e}"));
        let limit = RateLimit {
            packets: self
                .packets
                .as_deref()
                .map(str::parse)
                .transpose()
                .map_err(wrong)?
                .map(Bucket::of_a_second),
            bytes: self.bytes.as_deref().map(str::parse).transpose().map_err(wrong)?.map(Bucket::of_a_second),
            connections: self
                .connections
                .as_deref()
                .map(str::parse)
                .transpose()
                .map_err(wrong)?
                .map(Bucket::of_a_second),
            per: Per::Identity,
        };
        if limit.parts().is_empty() {
            return Err(Failure::new(Code::Unprocessable, "`rate` limits nothing").hint(RATE_HINT));
        }
        Ok(limit)
    }
}

const RATE_HINT: &str = "for example a rate of 10/s connections";

/// What is asked for, if it can be done by hand.
fn act(name: ActName, rate: Option<RateFields>, except: &[Target]) -> Result<Act> {
    let refuse = |what: String, hint: &str| Err(Failure::new(Code::Unprocessable, what).hint(hint));
    if !except.is_empty() && name != ActName::Quarantine {
        return refuse(format!("`{name}` has no exceptions"), "they are for `quarantine`");
    }
    match (name, rate) {
        (ActName::Limit, Some(rate)) => rate.limit().map(Act::Limit),
        (ActName::Limit, None) => refuse("`limit` does not say to what".into(), RATE_HINT),
        (_, Some(_)) => refuse(format!("`rate` is for `limit`, not for `{name}`"), RATE_HINT),
        (ActName::Restrict, None) => refuse(
            "`restrict` follows from an intent".into(),
            "say what stays in reach: a quarantine with exceptions",
        ),
        (ActName::Quarantine, None) => Ok(Act::Quarantine),
        (ActName::RequireTls, None) => Ok(Act::RequireTls),
        (ActName::CutFlows, None) => Ok(Act::CutFlows),
        (ActName::RevokeLease, None) => Ok(Act::RevokeLease),
    }
}

/// Identities, and nothing else.
fn identities(who: TargetFields) -> Result<Selector> {
    match who.target()? {
        Target { selector: Some(selector), ports }
            if ports.is_empty() && !matches!(selector, Selector::Cidr(_)) =>
        {
            Ok(selector)
        }
        other => {
            Err(Failure::new(Code::Unprocessable, format!("a quarantine is for identities, not for {other}"))
                .hint("name them by spiffeId, spiffePath, trustDomain or labels; all else is for /v1/block"))
        }
    }
}

pub(super) async fn quarantine(
    Extract(shared): Extract<Arc<Shared>>,
    caller: Caller,
    Body(request): Body<QuarantineRequest>,
) -> Result<Json<Committed>> {
    let selector = identities(request.who)?;
    let except = request.except.into_iter().map(TargetFields::target).collect::<Result<Vec<_>>>()?;
    in_future(request.not_after)?;
    short(request.reason.as_deref(), "reason")?;
    let act = act(request.act, request.rate, &except)?;
    let quarantine = Quarantine {
        name: manual_act(act.name(), &selector.to_string()),
        identities: vec![selector],
        except,
        since: (!act.is_quarantine()).then(Timestamp::now),
        act,
        reason: request.reason,
        not_after: request.not_after,
        place: manual_quarantine_place(),
    };
    let work = move || {
        shared.commit(&caller.author("quarantine add"), |state| {
            state.quarantines.retain(|q| q.name != quarantine.name);
            state.quarantines.push(quarantine);
        })
    };
    blocking(work).await.map(|revision| Json(Committed { revision }))
}

/// `POST /v1/unquarantine`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    /// Who, as it was given to `POST /v1/quarantine`.
    #[serde(deserialize_with = "object")]
    pub who: TargetFields,
    /// What is undone; all that was done about it where it is absent.
    #[serde(default)]
    pub act: Option<ActName>,
}

pub(super) async fn unquarantine(
    Extract(shared): Extract<Arc<Shared>>,
    caller: Caller,
    Body(request): Body<ReleaseRequest>,
) -> Result<Json<Committed>> {
    let who = identities(request.who)?.to_string();
    let acts = request.act.map_or(ActName::ALL.to_vec(), |act| vec![act]);
    let names: Vec<_> = acts.into_iter().map(|act| manual_act(act, &who)).collect();
    let work = move || {
        if !shared.with_state(|state| state.quarantines.iter().any(|q| names.contains(&q.name))) {
            let message = "it was not quarantined by `tidegate quarantine add`; quarantines of files are changed there (`tidegate quarantine list`)";
            return Err(Failure::new(Code::NotFound, message));
        }
        shared.commit(&caller.author("quarantine del"), |state| {
            state.quarantines.retain(|q| !names.contains(&q.name));
        })
    };
    blocking(work).await.map(|revision| Json(Committed { revision }))
}
