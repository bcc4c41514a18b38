//! Every route, in one table: who may use it, what it is for, what serves it. OpenAPI says the same.

use super::refuse::{self, Patience};
use super::role::{self, Role};
use super::{approvals, attach, bindings, events, governance, grants, guard, policy, svid, views};
use crate::daemon::Shared;
use aide::axum::ApiRouter;
use aide::axum::routing::{ApiMethodRouter, get_with, post_with};
use aide::openapi::{Info, OpenApi};
use aide::operation::OperationHandler;
use aide::transform::TransformOperation;
use aide::{OperationInput, OperationOutput};
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::middleware::from_fn_with_state;
use axum::{Extension, Json, Router};
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Bytes of a request that names things.
const SMALL: usize = 64 << 10;
/// Bytes of a request that brings policy files: blocklists are long.
const FILES: usize = 256 << 20;
/// How long policy files may take to arrive.
const FILES_PATIENCE: Duration = Duration::from_secs(300);

/// A route is a line here: the least role, the path, what it does, the handler. What the handler takes and answers is read from
/// its signature.
#[rustfmt::skip]
fn table() -> Table {
    use Role::{Admin, Approver, Operator, Viewer};
    Table(ApiRouter::new())
        .get(Viewer, "/v1/openapi.json", "This document", openapi)
        .get(Viewer, "/v1/ping", "Whether a daemon answers, and of which version", attach::ping)
        .get(Viewer, "/v1/svid", "Who the gateway is, until when, and whose SVIDs it believes", svid::svid)
        .get(Viewer, "/v1/status", "What is attached where, and how full the tables are", views::status)
        .get(Viewer, "/v1/flows", "Connections: who talks to whom, and what became of it", views::flows)
        .get(Viewer, "/v1/drops", "What was dropped, or would have been, and why", views::drops)
        .get(Viewer, "/v1/why", "What would become of a connection: which rule decides, or which one nearly did", views::why)
        .get(Viewer, "/v1/why/event", "Why an event was judged as it was, by what counted then", views::why_event)
        .get(Viewer, "/v1/story", "What happened to an identity: a line an event", views::story)
        .get(Viewer, "/v1/identities", "Workloads with SPIFFE IDs, addresses and leases", views::identities)
        .get(Viewer, "/v1/identity", "One of them: where it acts from, what it reached, whether that was expected, whether to trust it", governance::standing)
        .get(Viewer, "/v1/blocks", "What is blocked", views::blocks)
        .get(Viewer, "/v1/quarantines", "Who is quarantined", views::quarantines)
        .get(Viewer, "/v1/grants", "Who has access for a while, or had it then", views::grants)
        .get(Viewer, "/v1/policy", "The rules that count, in the order in which they are asked", views::rules)
        .get(Viewer, "/v1/policy/history", "The revisions that are kept: when, who, how, and what became of them", views::history)
        .get(Viewer, "/v1/policy/revision", "The files of one of them", views::revision)
        .get(Viewer, "/v1/shadow", "What the candidate policy would change", views::shadow)
        .get(Viewer, "/v1/observe", "Verdicts, handshakes and closed connections, a line each, as they happen", events::observe)
        .get(Viewer, "/v1/flows/recent", "Flows of which the daemon heard lately", events::recent_flows)
        .get(Viewer, "/v1/hellos", "ClientHellos that the daemon remembers", events::hellos)
        .get(Viewer, "/v1/findings", "What departs from what identities are for", governance::findings)
        .get(Viewer, "/v1/finding", "One finding, with its evidence and what was done", governance::finding)
        .get(Viewer, "/v1/observed", "Who was seen with whom: what intents are learned from", governance::observed)
        .get(Viewer, "/v1/governance", "Whether the loop contains, and how much it did", governance::status)
        .get(Viewer, "/v1/approvals", "Containments that wait for people, and what became of those before", approvals::list)
        .get(Viewer, "/v1/approval", "One of them: why, what it would touch, who agreed", approvals::one)
        .post(Operator, "/v1/approvals/ask", "Ask for a containment that somebody else has to agree to", approvals::ask)
        .post(Approver, "/v1/approvals/approve", "Agree to a containment; the last one who has to has it done", approvals::approve)
        .post(Approver, "/v1/approvals/reject", "Say no to a containment", approvals::reject)
        .post(Operator, "/v1/findings/resolve", "Say that a finding was looked at", governance::resolve)
        .post(Operator, "/v1/findings/mute", "Have a finding say and do nothing for a while", governance::mute)
        .post(Operator, "/v1/governance/pause", "Have nothing contained without a person", governance::pause)
        .post(Operator, "/v1/governance/resume", "Let the loop contain again", governance::resume)
        .post(Operator, "/v1/block", "Block an end, services, or services of an end", guard::block)
        .post(Operator, "/v1/unblock", "End a block that was set by hand", guard::unblock)
        .post(Operator, "/v1/quarantine", "Cut identities off, both ways, live connections too", guard::quarantine)
        .post(Operator, "/v1/unquarantine", "End a quarantine that was set by hand", guard::unquarantine)
        .post(Operator, "/v1/grants", "Give an identity access to another for a while", grants::give)
        .post(Operator, "/v1/grants/revoke", "End a grant before its time, live connections too", grants::revoke)
        .post_files(Operator, "/v1/shadow", "Have a candidate policy judged beside the one that counts", policy::shadow)
        .post(Operator, "/v1/shadow/drop", "End that", policy::shadow_drop)
        .post(Approver, "/v1/shadow/apply", "Have the candidate count", policy::shadow_apply)
        .post_files(Approver, "/v1/policy", "Make files what counts, in one commit", policy::apply)
        .post_files(Operator, "/v1/policy/diff", "What files would change of what counts, and on which flows; nothing is applied", views::diff)
        .post(Approver, "/v1/policy/confirm", "Keep what has to be confirmed", policy::confirm)
        .post(Approver, "/v1/policy/rollback", "Have the policy of an older revision count again", policy::rollback)
        .post_files(Approver, "/v1/bindings", "Bind identities to addresses, or renew that, for a source beside the policy's files", bindings::bind)
        .post(Approver, "/v1/bindings/withdraw", "Take such bindings back", bindings::withdraw)
        .post(Admin, "/v1/attach", "Attach to interfaces", attach::attach)
        .post(Admin, "/v1/detach", "Take the programs off interfaces", attach::detach)
}

struct Table(ApiRouter<Arc<Shared>>);

impl Table {
    fn get<H, I, O, T>(self, least: Role, path: &'static str, what: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Shared>> + OperationHandler<I, O>,
        I: OperationInput,
        O: OperationOutput,
        T: 'static,
    {
        let route = get_with(handler, |operation| describe(operation, "get", path, what, least));
        self.route(least, path, route)
    }

    fn post<H, I, O, T>(self, least: Role, path: &'static str, what: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Shared>> + OperationHandler<I, O>,
        I: OperationInput,
        O: OperationOutput,
        T: 'static,
    {
        let route = post_with(handler, |operation| describe(operation, "post", path, what, least));
        self.route(least, path, route)
    }

    /// Like [`Self::post`], for requests that bring policy files.
    fn post_files<H, I, O, T>(self, least: Role, path: &'static str, what: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Shared>> + OperationHandler<I, O>,
        I: OperationInput,
        O: OperationOutput,
        T: 'static,
    {
        let route = post_with(handler, |operation| describe(operation, "post", path, what, least));
        let route: ApiMethodRouter<_> = route.layer(DefaultBodyLimit::max(FILES));
        let route = route.layer(Extension(Patience(FILES_PATIENCE)));
        self.route(least, path, route)
    }

    /// The role is asked for before anything of the request is read.
    fn route(self, least: Role, path: &str, route: ApiMethodRouter<Arc<Shared>>) -> Self {
        Self(self.0.api_route(path, route.route_layer(from_fn_with_state(least, role::require))))
    }
}

fn describe<'t>(
    operation: TransformOperation<'t>,
    method: &str,
    path: &str,
    what: &str,
    least: Role,
) -> TransformOperation<'t> {
    let name = path.trim_start_matches("/v1/").replace(['/', '.', '{', '}'], "_");
    let mut operation = operation
        .id(&format!("{method}_{name}"))
        .summary(what)
        .description(&format!("Needs the role {least} or a higher one."))
        .tag(name.split('_').next().unwrap_or_default());
    operation.inner_mut().extensions.insert("x-tidegate-role".into(), json!(least));
    operation
}

/// The document, made once.
static DOCUMENT: OnceLock<Value> = OnceLock::new();

/// The OpenAPI document.
pub fn document() -> &'static Value {
    DOCUMENT.get_or_init(|| finish().1)
}

async fn openapi() -> Json<&'static Value> {
    Json(document())
}

fn finish() -> (Router<Arc<Shared>>, Value) {
    let mut api = OpenApi {
        info: Info {
            title: "Tidegate".into(),
            description: Some(
                "The API of a gateway's daemon: on its Unix socket, where users have roles, and over mTLS, where SPIFFE IDs have."
                    .into(),
            ),
            version: env!("CARGO_PKG_VERSION").into(),
            ..Info::default()
        },
        ..OpenApi::default()
    };
    let router = table().0.finish_api(&mut api);
    (router, serde_json::to_value(api).unwrap_or_default())
}

/// The API as it is served, on whichever transport.
pub fn router(shared: Arc<Shared>) -> Router {
    let (router, document) = finish();
    DOCUMENT.get_or_init(|| document);
    router
        .fallback(refuse::no_route)
        .method_not_allowed_fallback(refuse::no_method)
        .layer(DefaultBodyLimit::max(SMALL))
        .layer(from_fn_with_state(shared.clone(), role::admit))
        .with_state(shared)
}
