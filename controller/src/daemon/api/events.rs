//! What happens, and what is remembered of it.

use super::refuse::Params;
use crate::daemon::{RecentFlow, Shared, observe};
use crate::hello::ClientHello;
use aide::OperationOutput;
use aide::generate::GenContext;
use aide::openapi::{MediaType, Operation, Response as Described, SchemaObject, StatusCode};
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

pub(super) async fn hellos(Extract(shared): Extract<Arc<Shared>>) -> Json<Vec<(String, u64, ClientHello)>> {
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

/// Lines of JSON.
pub struct Lines(Body);

impl IntoResponse for Lines {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/x-ndjson")], self.0).into_response()
    }
}

impl OperationOutput for Lines {
    type Inner = Self;

    fn operation_response(_: &mut GenContext, _: &mut Operation) -> Option<Described> {
        let schema = SchemaObject {
            json_schema: json_schema!({"type": "object", "description": "An event, one a line."}),
            external_docs: None,
            example: None,
        };
        let media = MediaType { schema: Some(schema), ..MediaType::default() };
        let content = [("application/x-ndjson".to_owned(), media)].into_iter().collect();
        Some(Described { description: "Events, one a line.".into(), content, ..Described::default() })
    }

    fn inferred_responses(
        context: &mut GenContext,
        operation: &mut Operation,
    ) -> Vec<(Option<StatusCode>, Described)> {
        Self::operation_response(context, operation)
            .map(|described| (Some(StatusCode::Code(200)), described))
            .into_iter()
            .collect()
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
    Ok(Lines(Body::from_stream(lines)))
}
