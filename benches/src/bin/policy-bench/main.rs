//! How long policy takes at scale: from the command to the moment from which every packet is judged by it, and what the daemon
//! holds in memory meanwhile. The daemon and the commands are the shipped binary.

mod api;
mod daemon;
mod feeds;
mod rules;

use anyhow::Result;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use tidegate_benches::inside;
use tidegate_benches::output::{self, Output};
use tidegate_benches::report::Report;

/// Measures policy at scale.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    output: Output,
    /// The `tidegate` binary.
    #[arg(long, value_name = "FILE")]
    tidegate: PathBuf,
    /// Prefixes of a feed.
    #[arg(long, default_value_t = 1_000_000)]
    prefixes: u32,
    /// Times that each form of a feed is loaded.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Identities.
    #[arg(long, default_value_t = 100_000)]
    identities: u32,
    /// Rules.
    #[arg(long, default_value_t = 10_000)]
    rules: u32,
    /// Times that one rule is changed.
    #[arg(long, default_value_t = 200)]
    changes: u32,
}

fn main() -> ExitCode {
    output::exit("policy-bench", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<bool> {
    inside::enter()?;
    let title = "Policy at scale: from the command until all is judged by it";
    let mut report = Report::new(title, "cargo xtask bench --policy", arguments.rounds);
    feeds::measure(&mut report, arguments)?;
    rules::measure(&mut report, arguments)?;
    arguments.output.finish(&report)
}
