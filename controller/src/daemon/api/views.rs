//! What the commands show, as they show it: JSON as with `-o json`, or the table.

use super::policy::{self, CHANGED, DiffRequest};
use super::refuse::{Body, Params};
use super::{blocking, described};
use crate::daemon::{Shared, lock};
use crate::exit_code::{Code, Failure, Result};
use crate::policy::Prefix;
use crate::state::State;
use crate::stream::story::Wanted;
use crate::svid::Live;
use crate::view::blocks::Which;
use crate::view::grants::Asked;
use crate::view::why::Question;
use crate::view::{self, Format, View};
use aide::OperationOutput;
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as Described, StatusCode};
use axum::extract::State as Extract;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use schemars::{JsonSchema, json_schema};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

/// Views that are made at once: each reads whole maps. The others wait their turn.
static TURNS: Semaphore = Semaphore::const_new(4);

/// `?output=table`
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ViewQuery {
    /// `json`, or `table` for people.
    #[serde(default = "json")]
    pub output: Format,
}

fn json() -> Format {
    Format::Json
}

/// `GET /v1/why`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhyQuery {
    /// Who opens the connection: an address, a workload's name or a SPIFFE ID.
    pub source: String,
    /// Who answers.
    pub destination: String,
    /// Port and protocol: 443, 443/tcp, 53/udp, icmp.
    pub port: String,
    /// The interface by which it comes in, for bindings that hold on an interface.
    pub interface: Option<String>,
    /// The VLAN ID with which it comes in, for bindings that hold on a VLAN.
    pub vlan: Option<u16>,
    /// The port it is opened from, for bindings that hold for some ports of an address.
    pub source_port: Option<u16>,
    /// `json`, or `table` for people.
    #[serde(default = "json")]
    pub output: Format,
}

/// `GET /v1/blocks`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BlocksQuery {
    /// Only those that concern these addresses, entries of feeds too.
    pub of: Option<Prefix>,
    /// Every entry of one feed, `BLOCKLIST/FEED`.
    pub feed: Option<String>,
    /// `json`, or `table` for people.
    #[serde(default = "json")]
    pub output: Format,
}

/// `GET /v1/why/event`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventQuery {
    /// The event's number.
    pub id: u64,
    /// `json`, or `table` for people.
    #[serde(default = "json")]
    pub output: Format,
}

/// `GET /v1/story`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoryQuery {
    /// A SPIFFE ID, or a part of several.
    pub identity: String,
    /// From then on.
    pub since: Option<Timestamp>,
    /// Until then.
    pub until: Option<Timestamp>,
    /// `json` for the events, `table` for what they tell.
    #[serde(default = "json")]
    pub output: Format,
}

/// `GET /v1/policy/revision`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RevisionQuery {
    /// Its number.
    pub revision: u64,
    /// `json`, or `table` for the files themselves.
    #[serde(default = "json")]
    pub output: Format,
}

/// `GET /v1/grants`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantsQuery {
    /// Those that held then, by the audit record.
    #[serde(default)]
    pub at: Option<Timestamp>,
    /// Every one that ever was.
    #[serde(default)]
    pub all: bool,
    /// `json`, or `table` for people.
    #[serde(default = "json")]
    pub output: Format,
}

/// A page, and the form that it has.
pub struct Page {
    format: Format,
    text: String,
    /// What it says that a program asks for before all else: a number beside a table.
    changed: Option<u64>,
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let kind = match self.format {
            Format::Table => "text/plain; charset=utf-8",
            Format::Json => "application/json",
        };
        let mut response = ([(header::CONTENT_TYPE, kind)], self.text).into_response();
        if let Some(changed) = self.changed {
            response.headers_mut().insert(HeaderName::from_static(CHANGED), changed.into());
        }
        response
    }
}

impl OperationOutput for Page {
    type Inner = Self;

    fn operation_response(_: &mut GenContext, _: &mut Operation) -> Option<Described> {
        let json = json_schema!({"type": ["object", "array"]});
        Some(described::or_text(
            "application/json",
            json,
            "As the command prints it with `-o json`, or as a table.",
        ))
    }

    fn inferred_responses(
        context: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<StatusCode>, Described)> {
        described::ok(Self::operation_response(context, operation))
    }
}

/// Collects what a command prints.
async fn page(
    shared: Arc<Shared>,
    format: Format,
    print: impl FnOnce(&Shared, Format) -> Result<()> + Send + 'static,
) -> Result<Page> {
    let _turn = TURNS.acquire().await.map_err(|e| Failure::failed("the daemon", e))?;
    let text = blocking(move || view::collect(|| print(&shared, format))).await?;
    Ok(Page { format, text, changed: None })
}

/// In what files differ from what counts.
pub(super) async fn diff(
    Extract(shared): Extract<Arc<Shared>>,
    Body(request): Body<DiffRequest>,
) -> Result<Page> {
    let changed = Arc::new(Mutex::new(None));
    let found = changed.clone();
    let page = page(shared, request.output, move |shared, _| {
        *lock(&found) = policy::differ(shared, &request)?;
        Ok(())
    });
    let page = page.await?;
    Ok(Page { changed: *lock(&changed), ..page })
}

fn open(shared: &Shared) -> Result<View> {
    View::open(&shared.instance)
}

pub(super) async fn status(
    Extract(shared): Extract<Arc<Shared>>,
    Params(query): Params<ViewQuery>,
) -> Result<Page> {
    page(shared, query.output, |shared, format| {
        let daemon = view::status::Daemon { svid: shared.svid.as_ref().map(Live::status) };
        view::status::print(&shared.instance, &open(shared)?, Some(&daemon), format)
    })
    .await
}

pub(super) async fn drops(
    Extract(shared): Extract<Arc<Shared>>,
    Params(query): Params<ViewQuery>,
) -> Result<Page> {
    page(shared, query.output, |shared, format| view::drops::print(&open(shared)?, format)).await
}

pub(super) async fn rules(
    Extract(shared): Extract<Arc<Shared>>,
    Params(query): Params<ViewQuery>,
) -> Result<Page> {
    page(shared, query.output, |shared, format| view::lists::policy(&open(shared)?, format)).await
}

pub(super) async fn shadow(
    Extract(shared): Extract<Arc<Shared>>,
    Params(query): Params<ViewQuery>,
) -> Result<Page> {
    page(shared, query.output, |shared, format| view::shadow::print(&open(shared)?, format)).await
}

pub(super) async fn identities(
    Extract(shared): Extract<Arc<Shared>>,
    Params(query): Params<ViewQuery>,
) -> Result<Page> {
    page(shared, query.output, |shared, format| {
        shared.with_state(|state| view::lists::identities(state, format))
    })
    .await
}

pub(super) async fn blocks(
    Extract(shared): Extract<Arc<Shared>>,
    Params(query): Params<BlocksQuery>,
) -> Result<Page> {
    let BlocksQuery { of, feed, output } = query;
    let which = Which { of, feed };
    page(shared, output, move |shared, format| {
        shared.with_state(|state| view::blocks::print(state, &which, format))
    })
    .await
}

pub(super) async fn quarantines(
    Extract(shared): Extract<Arc<Shared>>,
    Params(query): Params<ViewQuery>,
) -> Result<Page> {
    page(shared, query.output, |shared, format| {
        shared.with_state(|state| view::lists::quarantines(state, format))
    })
    .await
}

pub(super) async fn grants(
    Extract(shared): Extract<Arc<Shared>>,
    Params(query): Params<GrantsQuery>,
) -> Result<Page> {
    let GrantsQuery { at, all, output } = query;
    if at.is_some() && all {
        return Err(Failure::new(Code::Usage, "`at` and `all` do not go together"));
    }
    let asked = Asked::of(at, all);
    page(shared, output, move |shared, format| {
        let state = shared.with_state(State::clone);
        view::grants::print(&shared.instance, &state, asked, format)
    })
    .await
}

pub(super) async fn history(
    Extract(shared): Extract<Arc<Shared>>,
    Params(query): Params<ViewQuery>,
) -> Result<Page> {
    page(shared, query.output, |shared, format| crate::change::history::print(&shared.instance, format)).await
}

pub(super) async fn revision(
    Extract(shared): Extract<Arc<Shared>>,
    Params(query): Params<RevisionQuery>,
) -> Result<Page> {
    page(shared, query.output, move |shared, format| {
        crate::change::history::show(&shared.instance, query.revision, format)
    })
    .await
}

pub(super) async fn why(
    Extract(shared): Extract<Arc<Shared>>,
    Params(query): Params<WhyQuery>,
) -> Result<Page> {
    let WhyQuery { source, destination, port, interface, vlan, source_port, output } = query;
    let asked = Question { source, destination, port, interface, vlan, source_port };
    page(shared, output, move |shared, format| view::why::print(&open(shared)?, &asked, format)).await
}

pub(super) async fn why_event(
    Extract(shared): Extract<Arc<Shared>>,
    Params(query): Params<EventQuery>,
) -> Result<Page> {
    page(shared, query.output, move |shared, format| view::past::print(&shared.instance, query.id, format))
        .await
}

/// A story is lines of JSON, and of text.
pub(super) async fn story(
    Extract(shared): Extract<Arc<Shared>>,
    Params(query): Params<StoryQuery>,
) -> Result<super::events::Lines> {
    let StoryQuery { identity, since, until, output } = query;
    let wanted = Wanted { identity, since, until };
    let page =
        page(shared, output, move |shared, format| view::story::print(&shared.instance, &wanted, format));
    page.await.map(|page| super::events::Lines::of_page(page.format, page.text))
}

/// Flows are lines of JSON, and a table.
pub(super) async fn flows(
    Extract(shared): Extract<Arc<Shared>>,
    Params(query): Params<ViewQuery>,
) -> Result<super::events::Lines> {
    let page = page(shared, query.output, |shared, format| {
        view::flow::print(&open(shared)?, shared.hub.hellos(), format)
    });
    page.await.map(|page| super::events::Lines::of_page(page.format, page.text))
}
