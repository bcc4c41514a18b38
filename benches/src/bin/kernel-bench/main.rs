//! The loaded XDP program by kernel test-run, beside xdp-filter with all features, on the same frames in turn.
//!
//! All of it happens in a network and a mount namespace of its own: the interface and xdp-filter's pins are gone with
//! the process, however it ends.

mod cases;
mod filter;
mod report;
mod rounds;

use anyhow::{Context, Result, bail};
use clap::Parser;
use loader::{CpuPin, Kernel, LoadOptions};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// What tells the process that it is in its namespaces.
const INSIDE: &str = "TIDEGATE_BENCH_NAMESPACE";

/// Measures the XDP program beside xdp-filter by kernel test-run.
#[derive(Parser)]
struct Arguments {
    /// Fail where a ratio is above its bound.
    #[arg(long)]
    check: bool,
    /// Write the numbers to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Rounds; in each, both programs run every case.
    #[arg(long, default_value_t = 25)]
    rounds: u32,
    /// Runs of a frame in a round.
    #[arg(long, default_value_t = 100_000)]
    repeat: u32,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kernel-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every ratio is within its bound, or nobody asked.
fn run(arguments: &Arguments) -> Result<bool> {
    if std::env::var_os(INSIDE).is_none() {
        return enter_namespaces();
    }
    let filter = filter::Filter::load()?;
    let kernel = Kernel::load(&LoadOptions::default()).context("loading the XDP program")?;
    cases::prepare(&kernel)?;
    let pin = CpuPin::here()?;
    let cases = cases::all(&kernel, &filter, pin.cpu())?;
    let results = rounds::run(&kernel, &filter, &cases, arguments.rounds, arguments.repeat)?;
    let report = report::Report::new(&results, arguments.rounds, arguments.repeat);
    print!("{}", report.table());
    if let Some(path) = &arguments.json {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let json = serde_json::to_string_pretty(&report).context("writing JSON")?;
        std::fs::write(path, json + "\n").with_context(|| format!("writing {}", path.display()))?;
        println!("{}", path.display());
    }
    let above = report.above_bound();
    for case in &above {
        println!("above its bound: {case}");
    }
    Ok(above.is_empty() || !arguments.check)
}

/// Starts over in new namespaces; returns only if that fails.
fn enter_namespaces() -> Result<bool> {
    let own = std::env::current_exe().context("finding the own program")?;
    let error = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "--"])
        .arg(own)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    bail!("cannot start `unshare` (package util-linux): {error}")
}
