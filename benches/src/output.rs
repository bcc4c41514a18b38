//! What every bench takes and how it ends.

use crate::report::Report;
use anyhow::Result;
use std::path::PathBuf;
use std::process::ExitCode;

/// Where the figures go, and whether they have to hold.
#[derive(clap::Args)]
pub struct Output {
    /// Fail where something is not within what is enforced.
    #[arg(long)]
    check: bool,
    /// Write the numbers to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Output {
    /// Prints and writes the report; whether everything is within what is enforced, or nobody asked.
    pub fn finish(&self, report: &Report) -> Result<bool> {
        report.finish(self.json.as_deref(), self.check)
    }
}

/// The exit status of the bench `name`.
pub fn exit(name: &str, result: Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
