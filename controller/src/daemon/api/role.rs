//! Who may do what: roles, and who has which.

use crate::daemon::Shared;
use crate::exit_code::{Code, Failure, Result};
use crate::state::{Author, How, Who};
use aide::OperationInput;
use axum::extract::{FromRequestParts, Request, State as Extract};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// What a caller may do. Each may also do what those before it may.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look at everything, change nothing.
    Viewer,
    /// Contain: block, quarantine, have a candidate policy judged beside the one that counts. Give access for a while.
    Operator,
    /// Make policy count: apply, confirm, roll back.
    Approver,
    /// Attach to interfaces and leave them.
    Admin,
}

impl Role {
    /// In files, answers and OpenAPI.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Approver => "approver",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whoever is at the other end of a connection, as it was proven when it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Who.
    pub who: Who,
    /// The groups of a user of the socket.
    pub groups: Arc<[u32]>,
}

/// A peer that has a role.
#[derive(Clone, Debug)]
pub struct Caller {
    peer: Peer,
    role: Role,
}

impl Caller {
    /// As somebody who changes something by a command.
    pub fn author(&self, how: impl Into<How>) -> Author {
        Author { who: self.who(), how: how.into() }
    }

    /// Who it is.
    pub fn who(&self) -> Who {
        self.peer.who.clone()
    }

    /// Whether the caller has a role still. Who is answered for long is asked again and again.
    pub fn has_role(&self, shared: &Shared) -> bool {
        shared.access.role_of(&self.peer).is_some()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        parts.extensions.get::<Self>().cloned().ok_or_else(no_role)
    }
}

impl OperationInput for Caller {}

/// What everybody without a role is told, whatever was asked.
fn no_role() -> Failure {
    Failure::new(Code::NotPermitted, "you have no role here")
}

/// Lets nobody in who has no role. Roles are looked up for each request: one that is taken away ends with the next, and what is
/// answered for long (`/v1/observe`) within a second.
pub async fn admit(Extract(shared): Extract<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>();
    let caller = peer.and_then(|peer| {
        let role = shared.access.role_of(peer)?;
        Some(Caller { peer: peer.clone(), role })
    });
    match caller {
        Some(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        None => no_role().into_response(),
    }
}

/// Lets those in who have this role or a higher one.
pub async fn require(
    Extract(least): Extract<Role>,
    caller: Caller,
    request: Request,
    next: Next,
) -> Response {
    if caller.role >= least {
        return next.run(request).await;
    }
    let message = format!("this needs the role {least}; you, {}, are {}", caller.who(), caller.role);
    Failure::new(Code::NotPermitted, message).into_response()
}
