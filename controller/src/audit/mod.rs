//! What was done to this gateway, by whom: a chain of records that cannot be changed without that being seen.
//!
//! A record holds its number and the hash of the one before it, and is hashed as it is written (SHA-256 over RFC 8785). A
//! checkpoint is a record too, which signs all before it. Records are rows of the state's own file, written in the
//! transaction of what they tell of: neither is there without the other (docs/adr/0022-audit.md).

mod bind;
pub mod canonical;
mod chain;
pub mod cli;
mod commit;
pub mod grants;
mod key;
mod record;
mod show;
mod table;
#[cfg(test)]
mod tests;
mod words;

pub use bind::bind;
pub use chain::{Chain, Finding, Summary};
pub use commit::commit;
pub use key::{Key, PublicKey};
pub use record::{Entry, Head, Kind, Record};
pub use show::when;
pub use table::{append, checkpoint, head, last_of, read};
pub use words::{told, told_about};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The table.
pub const SCHEMA: &str = include_str!("schema.sql");

/// A record with its hash: a line of an export, a row of the table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The record's text, as it was hashed.
    pub record: Box<RawValue>,
    /// Its hash.
    pub hash: String,
}

/// What a checkpoint signs: the record before it, which binds all before that.
fn signed(of: &Head) -> String {
    format!("tidegate audit checkpoint\n{}\n{}\n", of.seq, of.hash)
}
