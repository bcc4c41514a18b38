//! How a command ends.

use crate::policy::Mistakes;
use serde::{Deserialize, Serialize};

/// Exit codes; scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Something failed.
    Failure = 1,
    /// The command line or a file is wrong; nothing was changed.
    Usage = 2,
    /// No daemon runs, or nothing is attached.
    NoDaemon = 3,
    /// A daemon of this name runs already.
    AlreadyRunning = 4,
    /// Root is needed.
    NotPermitted = 5,
}

/// A failed command: its exit code, and what is wrong and what to do.
#[derive(Clone, Debug, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Failure {
    /// The exit code.
    pub code: Code,
    /// For people.
    pub message: String,
}

/// A result of a command.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// With an exit code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
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
