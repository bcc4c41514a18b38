//! Changes of policy.

use super::refuse::{Body, objects};
use super::role::Caller;
use super::{Committed, blocking};
use crate::daemon::Shared;
use crate::exit_code::{Code, Failure, Result};
use crate::policy::{Documents, SourceFile};
use crate::state::{PolicySet, Shadow};
use crate::view::Format;
use axum::Json;
use axum::extract::State as Extract;
use axum::response::NoContent;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::num::NonZero;
use std::sync::Arc;

/// `POST /v1/policy`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// The files, as they are.
    #[serde(deserialize_with = "objects")]
    pub files: Vec<SourceFile>,
    /// Seconds in which it has to be confirmed, or what counted before counts again.
    pub confirm_within_s: Option<NonZero<u32>>,
    /// Whether these files take the places of those of their names, or are added, and all others that count stay. Else they are all.
    #[serde(default)]
    pub only: bool,
}

/// The answer to what applies files.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Applied {
    /// The revision that counts now.
    pub revision: u64,
    /// How many workloads the files name.
    pub workloads: usize,
    /// How many policies.
    pub policies: usize,
    /// How many rules all of them have.
    pub rules: usize,
    /// How many blocklists.
    pub blocklists: usize,
}

impl Applied {
    fn of(revision: u64, documents: &Documents) -> Self {
        Self {
            revision,
            workloads: documents.workloads.len(),
            policies: documents.policies.len(),
            rules: documents.policies.iter().map(|policy| policy.rules.len()).sum(),
            blocklists: documents.blocklists.len(),
        }
    }
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { revision, workloads, policies, rules, blocklists } = self;
        write!(
            f,
            "revision {revision}: {workloads} workloads, {policies} policies with {rules} rules, {blocklists} blocklists"
        )?;
        if *policies == 0 {
            write!(f, "\nno Policy counts: everything that no blocklist or lease stops is let through")?;
        }
        Ok(())
    }
}

fn seconds(within: Option<NonZero<u32>>) -> Option<SignedDuration> {
    within.map(|s| SignedDuration::from_secs(i64::from(s.get())))
}

/// What files say; where they are not all, with what those say that count beside them.
fn read(last: &PolicySet, files: &[SourceFile], only: bool) -> Result<Arc<PolicySet>> {
    let now = Timestamp::now();
    let set = if only { last.with(files, now)? } else { PolicySet::read_beside(files.to_vec(), now, last)? };
    Ok(Arc::new(set))
}

pub(super) async fn apply(
    Extract(shared): Extract<Arc<Shared>>,
    caller: Caller,
    Body(request): Body<ApplyRequest>,
) -> Result<Json<Applied>> {
    let work = move || {
        let (by, within) = (caller.author("policy apply"), seconds(request.confirm_within_s));
        loop {
            let last = shared.with_state(|state| state.set.clone());
            let set = read(&last, &request.files, request.only)?;
            let done = if request.only {
                shared.apply_after(&last, &by, set.clone(), within)?
            } else {
                Some(shared.apply(&by, set.clone(), within)?)
            };
            // Where others were applied meanwhile, the files are to stand beside those.
            if let Some(revision) = done {
                return Ok(Json(Applied::of(revision, &set.documents)));
            }
        }
    };
    blocking(work).await
}

pub(super) async fn confirm(
    Extract(shared): Extract<Arc<Shared>>,
    caller: Caller,
) -> Result<Json<Committed>> {
    blocking(move || shared.confirm(&caller.author("policy confirm")))
        .await
        .map(|revision| Json(Committed { revision }))
}

/// `POST /v1/policy/rollback`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// To which revision; to the one before whose policy is another without it.
    pub revision: Option<u64>,
}

/// What a rollback did.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RolledBack {
    /// The revision that counts now.
    pub revision: u64,
    /// The one whose policy it has.
    pub to: u64,
}

pub(super) async fn rollback(
    Extract(shared): Extract<Arc<Shared>>,
    caller: Caller,
    Body(request): Body<RollbackRequest>,
) -> Result<Json<RolledBack>> {
    let done = blocking(move || shared.rollback(caller.who(), request.revision)).await;
    done.map(|(revision, to)| Json(RolledBack { revision, to }))
}

/// `POST /v1/shadow`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShadowRequest {
    /// The candidate's files.
    #[serde(deserialize_with = "objects")]
    pub files: Vec<SourceFile>,
    /// One of so many flows is judged by it.
    pub sample: NonZero<u32>,
    /// As with `POST /v1/policy`.
    #[serde(default)]
    pub only: bool,
}

pub(super) async fn shadow(
    Extract(shared): Extract<Arc<Shared>>,
    Body(request): Body<ShadowRequest>,
) -> Result<NoContent> {
    let work = move || {
        let now = Timestamp::now();
        let set = read(&shared.with_state(|state| state.set.clone()), &request.files, request.only)?;
        shared.shadow(Some(Shadow { set, sample: request.sample.get(), since: now }))
    };
    blocking(work).await.map(|()| NoContent)
}

/// `POST /v1/policy/diff`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiffRequest {
    /// The files, as they are. Nothing is applied.
    #[serde(deserialize_with = "objects")]
    pub files: Vec<SourceFile>,
    /// As with `POST /v1/policy`.
    #[serde(default)]
    pub only: bool,
    /// Whether it is asked on which flows the verdict would be another: those in the tables, and those heard of lately.
    #[serde(default)]
    pub flows: bool,
    /// `json`, or `table` for people.
    #[serde(default = "json")]
    pub output: Format,
}

fn json() -> Format {
    Format::Json
}

/// The field of the answer's head that says on how many flows the verdict would be another.
pub const CHANGED: &str = "x-tidegate-changed";

/// Prints in what files differ from what counts; returns on how many flows.
pub(super) fn differ(shared: &Shared, request: &DiffRequest) -> Result<Option<u64>> {
    let set = read(&shared.with_state(|state| state.set.clone()), &request.files, request.only)?;
    let recent = request.flows.then_some(|| Ok(shared.hub.recent_flows()));
    let set = Arc::unwrap_or_clone(set);
    crate::change::diff::show(&shared.instance, set, recent, request.output)
}

fn no_shadow() -> Failure {
    Failure::new(Code::Conflict, "no candidate is judged; `tidegate policy shadow PATH` begins")
}

pub(super) async fn shadow_drop(Extract(shared): Extract<Arc<Shared>>) -> Result<NoContent> {
    let work = move || {
        if shared.with_state(|state| state.shadow.is_none()) {
            return Err(no_shadow());
        }
        shared.shadow(None)
    };
    blocking(work).await.map(|()| NoContent)
}

/// `POST /v1/shadow/apply`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShadowApplyRequest {
    /// Only if the candidate's files have this digest: nobody applies another than the one that was looked at.
    pub digest: Option<String>,
    /// As with `POST /v1/policy`.
    pub confirm_within_s: Option<NonZero<u32>>,
}

pub(super) async fn shadow_apply(
    Extract(shared): Extract<Arc<Shared>>,
    caller: Caller,
    Body(request): Body<ShadowApplyRequest>,
) -> Result<Json<Applied>> {
    let work = move || {
        let set = shared.with_state(|state| state.shadow.as_ref().map(|shadow| shadow.set.clone()));
        let set = set.ok_or_else(no_shadow)?;
        if request.digest.is_some_and(|digest| digest != set.digest) {
            return Err(Failure::new(
                Code::Conflict,
                "another candidate is judged by now; nothing was applied",
            ));
        }
        let by = caller.author("policy shadow apply");
        let revision = shared.apply(&by, set.clone(), seconds(request.confirm_within_s))?;
        Ok(Json(Applied::of(revision, &set.documents)))
    };
    blocking(work).await
}
