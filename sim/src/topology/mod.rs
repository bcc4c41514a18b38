//! Topology files: read, checked, and turned into a plan in which every name is resolved.

mod check;
pub mod plan;
pub mod schema;
mod values;

use std::path::Path;

use serde_saphyr::Location;

pub use plan::Plan;

/// A topology file that cannot be run, and why.
#[derive(Debug, thiserror::Error)]
pub enum BadFile {
    /// It could not be read.
    #[error("{file}: {source}; give the path of a topology file, for example topologies/demo.yaml")]
    Read {
        /// Its path.
        file: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A line of it is wrong.
    #[error("{file}:{line}:{column}: {message}")]
    Line {
        /// Its path.
        file: String,
        /// From 1.
        line: u64,
        /// From 1.
        column: u64,
        /// What is wrong, and what is accepted.
        message: String,
    },
}

/// A mistake, before the name of the file is known.
#[derive(Debug)]
pub struct Mistake {
    at: Location,
    message: String,
}

impl Mistake {
    /// At a place in the file.
    pub fn new(at: Location, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }
}

/// Reads and checks a file.
pub fn load(path: &Path) -> Result<Plan, BadFile> {
    let file = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|source| BadFile::Read { file: file.clone(), source })?;
    let line = |m: Mistake| BadFile::Line {
        file: file.clone(),
        line: m.at.line().max(1),
        column: m.at.column().max(1),
        message: m.message,
    };
    let raw: schema::File = serde_saphyr::from_str(&text).map_err(|error| {
        let at = error.location().unwrap_or(Location::UNKNOWN);
        line(Mistake::new(at, values::without_place(&error.without_snippet().to_string())))
    })?;
    check::check(raw, path.parent().unwrap_or(Path::new("."))).map_err(line)
}
