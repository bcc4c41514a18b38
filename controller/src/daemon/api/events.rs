//! What happens, and what is remembered of it.

use super::described;
use super::refuse::Params;
use super::role::Caller;
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
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::broadcast;
use tokio::time::timeout;

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

/// So often it is asked whether who follows may still do so.
const LOOK: Duration = Duration::from_secs(1);

/// Somebody who is told what happens.
struct Following {
    old: VecDeque<Arc<str>>,
    /// What comes, for who wants that too.
    receiver: Option<broadcast::Receiver<Arc<str>>>,
    shared: Arc<Shared>,
    caller: Caller,
    looked: Instant,
}

impl Following {
    /// The next line; nothing at the end. A role that was taken away ends it with an error: what follows is not all that there is.
    async fn next(&mut self) -> io::Result<Option<Arc<str>>> {
        loop {
            if self.looked.elapsed() >= LOOK {
                if !self.caller.has_role(&self.shared) {
                    tracing::warn!(
                        "API: {} follows events no more: the role is taken away",
                        self.caller.who()
                    );
                    return Err(io::ErrorKind::PermissionDenied.into());
                }
                self.looked = Instant::now();
            }
            if let Some(line) = self.old.pop_front() {
                return Ok(Some(line));
            }
            let Some(receiver) = &mut self.receiver else { return Ok(None) };
            // Receiving can be given up at any time: nothing is lost by it.
            if let Ok(line) = timeout(LOOK, observe::next(&self.shared.hub, receiver)).await {
                return Ok(line);
            }
        }
    }
}

pub(super) async fn observe(
    Extract(shared): Extract<Arc<Shared>>,
    caller: Caller,
    Params(query): Params<ObserveQuery>,
) -> crate::exit_code::Result<Lines> {
    let (recent, receiver) = shared.hub.listen();
    let receiver = query.follow.then_some(receiver);
    let following = Following { old: recent.into(), receiver, shared, caller, looked: Instant::now() };
    let lines = futures_util::stream::try_unfold(following, |mut following| async move {
        let line = following.next().await?;
        Ok::<_, io::Error>(line.map(|line| (Bytes::from(format!("{line}\n")), following)))
    });
    Ok(Lines { kind: NDJSON, body: Body::from_stream(lines) })
}
