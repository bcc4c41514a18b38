//! The loaded programs by kernel test-run, beside xdp-filter with all features, on the same frames in turn.

mod cases;
mod filter;
mod rounds;

use anyhow::{Context, Result, ensure};
use cases::Peers;
use clap::Parser;
use loader::{CpuPin, Kernel, LoadOptions};
use std::process::ExitCode;
use tidegate_benches::output::{self, Output};
use tidegate_benches::report::Report;
use tidegate_benches::{inside, scene};

/// Measures the programs beside xdp-filter by kernel test-run.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    output: Output,
    /// Rounds; in each, every case runs both of its sides.
    #[arg(long, default_value_t = 41)]
    rounds: u32,
    /// Runs of a frame in a round.
    #[arg(long, default_value_t = 50_000)]
    repeat: u32,
    /// Prefixes of the large blocklist.
    #[arg(long, default_value_t = 1_000_000)]
    prefixes: u32,
    /// Only cases whose name holds this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    case: String,
}

fn main() -> ExitCode {
    output::exit("kernel-bench", run(&Arguments::parse()))
}

/// Whether every ratio is within its bound, or nobody asked.
fn run(arguments: &Arguments) -> Result<bool> {
    inside::enter()?;
    let mut report = Report::new(
        "Kernel test-run: nanoseconds a packet, the runner's own share included",
        "cargo xtask bench --kernel",
        arguments.rounds,
    );
    let filter = filter::load()?;
    let load = || -> Result<Kernel> {
        let kernel = Kernel::load(&LoadOptions { tc_ingress: true, ..LoadOptions::default() })
            .context("loading the programs")?;
        scene::load(&kernel)?;
        Ok(kernel)
    };
    let (kernel, large) = (load()?, load()?);
    eprintln!("    {} prefixes for the large blocklist", arguments.prefixes);
    for n in 0..arguments.prefixes {
        let (addr, bits, versions) = scene::nth_block(n);
        large.maps().blocklist.insert(&addr, bits, &versions)?;
    }
    let pin = CpuPin::here()?;
    let peers = Peers { kernel: &kernel, large: &large, filter: &filter };
    let mut cases = cases::all(&peers, pin.cpu())?;
    cases.retain(|case| case.name.contains(&arguments.case));
    ensure!(!cases.is_empty(), "no case has \"{}\" in its name", arguments.case);
    eprintln!("    {} rounds of {} cases", arguments.rounds, cases.len());
    let (rows, share) = rounds::run(&peers, &cases, arguments.rounds, arguments.repeat)?;
    report.rows = rows;
    report.facts.push(share);
    arguments.output.finish(&report)
}
