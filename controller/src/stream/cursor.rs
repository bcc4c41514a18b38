//! How far somebody has come: a number in a file that is replaced, never written over.

use crate::exit_code::{Failure, Result};
use std::path::{Path, PathBuf};

/// The cursor of the audit records that were told.
pub const RECORDS: &str = "records";

/// The number of the last thing that was done.
#[derive(Debug)]
pub struct Cursor {
    path: PathBuf,
    last: u64,
}

impl Cursor {
    /// Reads how far it was; `new` where it begins now, which is kept at once.
    pub fn open(folder: &Path, name: &str, new: impl FnOnce() -> Result<u64>) -> Result<Self> {
        let path = folder.join(format!("{name}.cursor"));
        match std::fs::read_to_string(&path) {
            Ok(text) => match text.trim().parse() {
                Ok(last) => Ok(Self { path, last }),
                Err(_) => {
                    let what = format!("{} holds no number", path.display());
                    Err(Failure::failed("the event stream", what)
                        .hint("remove it: what comes from now on is delivered"))
                }
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let mut cursor = Self { path, last: 0 };
                cursor.advance(new()?)?;
                Ok(cursor)
            }
            Err(e) => Err(Failure::io(format!("read {}", path.display()), &e)),
        }
    }

    /// How far it was, where it has begun and can be read.
    pub fn read(folder: &Path, name: &str) -> Option<u64> {
        let text = std::fs::read_to_string(folder.join(format!("{name}.cursor"))).ok()?;
        text.trim().parse().ok()
    }

    /// The last number.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Keeps a new one.
    pub fn advance(&mut self, last: u64) -> Result<()> {
        let new = self.path.with_extension("new");
        let write = || {
            std::fs::write(&new, format!("{last}\n"))?;
            std::fs::rename(&new, &self.path)
        };
        write().map_err(|e| Failure::io(format!("write {}", self.path.display()), &e))?;
        self.last = last;
        Ok(())
    }
}
