//! The state on disk: one SQLite file that only the daemon writes and every command reads.
//!
//! A commit is written ahead of the kernel: [`Store::begin`] records the revision as pending, the maps are written and
//! the epoch is flipped, [`Store::mark`] says that it counts. Which of two revisions counts after a crash between
//! these, the epoch in the kernel tells: [`Store::resolve`]. So file and kernel never disagree for longer than it takes
//! to look.

mod audit;
mod documents;
mod feeds;
mod import;
mod open;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::{Outcome, Revision};
pub use write::Given;

use super::reserve::Reserve;
use crate::exit_code::{Code, Failure};
use datapath::abi::Config;
use rusqlite::{Connection, ErrorCode};
use std::path::{Path, PathBuf};

/// Revisions that are kept. The one that counts is kept however old it is.
pub const KEPT_REVISIONS: u32 = 100;
/// Bytes of documents that are kept for revisions of the past.
const KEPT_BYTES: u64 = 256 << 20;

/// The state on disk.
#[derive(Debug)]
pub struct Store {
    db: Connection,
    path: PathBuf,
    /// What is given up where a write finds no room.
    reserve: Reserve,
    /// The form of the file: an older one can be read before a daemon has brought it to this version's.
    form: i32,
}

/// The kernel's side of the question which revision counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InKernel {
    /// The epoch by which packets are judged.
    pub epoch: u32,
    /// Which maps: each set of maps has random keys of its own.
    pub generation: String,
}

impl InKernel {
    /// As the configuration map says.
    pub fn of(config: &Config) -> Self {
        let keys = bytemuck::bytes_of(&config.hash_keys);
        Self { epoch: config.epoch, generation: super::set::hex(&keys[..16]) }
    }
}

/// What went wrong with the file, and what to do about it.
fn failed(path: &Path, error: rusqlite::Error) -> Failure {
    let path = path.display();
    let (code, advice) = match &error {
        error if is_no_room(error) => {
            (Code::Failure, "there is no room to write: make some on that file system and try again")
        }
        rusqlite::Error::SqliteFailure(e, _) => match e.code {
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => (Code::Failure, DAMAGED),
            ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => {
                let root = rustix::process::geteuid().is_root();
                let advice = "its folder has to be there and writable, also for readers";
                (if root { Code::Failure } else { Code::NotPermitted }, advice)
            }
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
                (Code::Failure, "another program holds it: end that program and try again")
            }
            _ => (Code::Failure, "nothing was changed"),
        },
        // A value that is not of its column's kind, or not there.
        _ => (Code::Failure, DAMAGED),
    };
    Failure::new(code, format!("the state in {path}: {error}; {advice}"))
}

/// Whether the disk is full.
fn is_no_room(error: &rusqlite::Error) -> bool {
    let rusqlite::Error::SqliteFailure(e, _) = error else { return false };
    e.code == ErrorCode::DiskFull || e.extended_code == rusqlite::ffi::SQLITE_IOERR_WRITE
}

const DAMAGED: &str = "it is damaged. What the kernel enforces goes on; to start anew, move the file and its -wal \
                       away and name the policy: `tidegate run --policy PATH`";

/// A part of the file that does not say what it should.
fn damaged(path: &Path, what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Failure, format!("the state in {}: {what}: {error}; {DAMAGED}", path.display()))
}
