//! The event stream: every event has a number, is kept in files, and goes from there to whoever wants it
//! (docs/adr/0026-event-stream.md).

mod cursor;
pub mod deliver;
mod files;
mod follow;
mod log;
pub mod story;
#[cfg(test)]
mod tests;

pub use cursor::{Cursor, RECORDS};
pub use files::Files;
pub use follow::Follow;
pub use log::{Log, Pen};

use serde_json::Value;

/// How much an event matters where there is no room for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// What somebody decided, or has to look at.
    Decision,
    /// What traffic did: there is more of it than of anything else.
    Traffic,
}

/// Kinds of events.
pub const KINDS: [&str; 13] = [
    "verdict",
    "drop",
    "handshake",
    "closed",
    "client_hello",
    "dns_query",
    "process",
    "socket",
    "finding",
    "approval",
    "record",
    "enrolment",
    "identity_source",
];

impl Weight {
    /// Of an event.
    pub fn of(event: &Value) -> Self {
        match kind(event) {
            "verdict" | "drop" | "handshake" | "closed" | "client_hello" | "dns_query" | "process"
            | "socket" => Self::Traffic,
            _ => Self::Decision,
        }
    }
}

/// The kind of an event: `verdict`, `finding`, `record` ...
pub fn kind(event: &Value) -> &str {
    event.get("event").and_then(Value::as_str).unwrap_or_default()
}
