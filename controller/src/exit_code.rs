//! How a command ends.

use crate::policy::Mistakes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What kind of failure it is: an exit code of a command, a status of an answer. Scripts rely on both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Something failed.
    Failure,
    /// The command line, the request or a file is wrong; nothing was changed.
    Usage,
    /// No daemon runs, or nothing is attached.
    NoDaemon,
    /// A daemon of this name runs already.
    AlreadyRunning,
    /// Root, or another role, is needed.
    NotPermitted,
    /// What is named is not there.
    NotFound,
    /// It does not go with what is: nothing waits to be confirmed, something else waits.
    Conflict,
    /// The path is there, not with this method.
    MethodNotAllowed,
    /// The body did not come in time.
    Timeout,
    /// The body is larger than the route takes.
    TooLarge,
    /// The body is not JSON by its `content-type`.
    UnsupportedMediaType,
    /// The body is JSON, and not what the route takes.
    Unprocessable,
    /// As much is being done as can be at once.
    Busy,
}

impl Code {
    /// How a command ends.
    pub fn exit(self) -> u8 {
        match self {
            Self::Usage | Self::TooLarge | Self::Unprocessable => 2,
            Self::NoDaemon => 3,
            Self::AlreadyRunning => 4,
            Self::NotPermitted => 5,
            _ => 1,
        }
    }

    /// The HTTP status of an answer.
    pub fn status(self) -> u16 {
        match self {
            Self::Failure => 500,
            Self::Usage => 400,
            Self::NotPermitted => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Timeout => 408,
            Self::Conflict | Self::NoDaemon | Self::AlreadyRunning => 409,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Unprocessable => 422,
            Self::Busy => 503,
        }
    }
}

/// What is wrong, and what to do.
#[derive(Clone, Debug, thiserror::Error, Serialize, Deserialize, JsonSchema)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure it is.
    pub code: Code,
    /// For people.
    pub message: String,
    /// What to do next, where the message does not say so itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// A result of a command.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// With an exit code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// With what to do next.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The general failure.
    pub fn failed(what: impl Into<String>, error: impl std::fmt::Display) -> Self {
        Self::new(Code::Failure, format!("{}: {error}", what.into()))
    }

    /// A system error with what was tried.
    pub fn io(what: impl Into<String>, error: &std::io::Error) -> Self {
        let code = match error.kind() {
            std::io::ErrorKind::PermissionDenied => Code::NotPermitted,
            _ => Code::Failure,
        };
        Self::new(code, format!("{}: {error}", what.into()))
    }
}

impl From<loader::Error> for Failure {
    fn from(error: loader::Error) -> Self {
        let code = match &error {
            loader::Error::NotPermitted { .. } => Code::NotPermitted,
            loader::Error::NotPinned { .. } => Code::NoDaemon,
            loader::Error::NoInterface { .. } => Code::Usage,
            _ => Code::Failure,
        };
        Self::new(code, error.to_string())
    }
}

impl From<Mistakes> for Failure {
    fn from(mistakes: Mistakes) -> Self {
        Self::new(Code::Usage, mistakes.to_string())
    }
}
