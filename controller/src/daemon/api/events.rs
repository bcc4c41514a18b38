//! What happens, and what is remembered of it.

use super::described;
use super::refuse::Params;
use crate::daemon::{RecentFlow, Shared, observe};
use crate::view::Format;
use crate::view::flow::ReadHellos;
use aide::OperationOutput;
use aide::generate::GenContext;
use aide::openapi::{Operation, Response as Described, StatusCode};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State as Extract;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use schemars::{JsonSchema, json_schema};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

pub(super) async fn hellos(Extract(shared): Extract<Arc<Shared>>) -> Json<ReadHellos> {
    Json(shared.hub.hellos())
}

pub(super) async fn recent_flows(Extract(shared): Extract<Arc<Shared>>) -> Json<Vec<RecentFlow>> {
    Json(shared.hub.recent_flows())
}

/// `GET /v1/observe`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ObserveQuery {
    /// Go on with what comes; without it, what the daemon remembers is all.
    #[serde(default)]
    pub follow: bool,
}

/// Lines of JSON, or of a table.
pub struct Lines {
    kind: &'static str,
    body: Body,
}

const NDJSON: &str = "application/x-ndjson";

impl Lines {
    /// What a command printed.
    pub fn of_page(format: Format, text: String) -> Self {
        let kind = match format {
            Format::Json => NDJSON,
            Format::Table => "text/plain; charset=utf-8",
        };
        Self { kind, body: Body::from(text) }
    }
}

impl IntoResponse for Lines {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, self.kind)], self.body).into_response()
    }
}

impl OperationOutput for Lines {
    type Inner = Self;

    fn operation_response(_: &mut GenContext, _: &mut Operation) -> Option<Described> {
        let json = json_schema!({"type": "object", "description": "One of them, each in a line."});
        Some(described::or_text(NDJSON, json, "JSON objects in Hubble's field names, one a line."))
    }

    fn inferred_responses(
        context: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<StatusCode>, Described)> {
        described::ok(Self::operation_response(context, operation))
    }
}

pub(super) async fn observe(
    Extract(shared): Extract<Arc<Shared>>,
    Params(query): Params<ObserveQuery>,
) -> crate::exit_code::Result<Lines> {
    let (recent, receiver) = shared.hub.listen();
    let start = (VecDeque::from(recent), query.follow.then_some(receiver), shared);
    let lines = futures_util::stream::unfold(start, |(mut old, mut receiver, shared)| async move {
        let line = match old.pop_front() {
            Some(line) => line,
            None => observe::next(&shared.hub, receiver.as_mut()?).await?,
        };
        let bytes = Bytes::from(format!("{line}\n"));
        Some((Ok::<_, Infallible>(bytes), (old, receiver, shared)))
    });
    Ok(Lines { kind: NDJSON, body: Body::from_stream(lines) })
}
