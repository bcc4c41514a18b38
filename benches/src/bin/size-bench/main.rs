//! What a packet costs, and what memory is held, as flows, rules, identities and blocked prefixes grow. The sizes of one
//! kind are loaded side by side and run in turn.

mod grow;
mod memory;
mod paths;

use anyhow::{Context, Result};
use clap::Parser;
use grow::Grow;
use loader::{CpuPin, Kernel, LoadOptions};
use paths::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use tidegate_benches::output::{self, Output};
use tidegate_benches::report::{Bound, Curve, Report, Row, Series, Spread};
use tidegate_benches::{inside, scene};

/// Measures cost and memory against size.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    output: Output,
    /// Rounds; in each, every path runs at every size.
    #[arg(long, default_value_t = 31)]
    rounds: u32,
}

fn main() -> ExitCode {
    output::exit("size-bench", run(&Arguments::parse()))
}

/// A loaded kernel of some size.
struct Sized {
    size: u32,
    kernel: Kernel,
    pins: PathBuf,
}

/// Whether every ratio is within what is enforced, or nobody asked.
fn run(arguments: &Arguments) -> Result<bool> {
    inside::enter()?;
    let mut report = Report::new(
        "Cost against size: kernel test-run, at the greatest size beside the least",
        "cargo xtask bench --size",
        arguments.rounds,
    );
    for grow in Grow::ALL {
        eprintln!("    {}", grow.name());
        let sized = grow.sizes().into_iter().map(|size| load(grow, size)).collect::<Result<Vec<_>>>()?;
        memory::add(&mut report, grow, &sized)?;
        measure(&mut report, grow, &sized, arguments.rounds).with_context(|| grow.name())?;
    }
    arguments.output.finish(&report)
}

fn load(grow: Grow, size: u32) -> Result<Sized> {
    let pins: PathBuf = format!("{}/{}{size}", inside::BPFFS, grow.name()).into();
    let options =
        LoadOptions { pin_dir: Some(pins.clone()), sizes: grow.tables(size), ..LoadOptions::default() };
    let kernel = Kernel::load(&options).context("loading the programs")?;
    scene::load(&kernel)?;
    grow.fill(&kernel, size).with_context(|| format!("{size} {}", grow.name()))?;
    Ok(Sized { size, kernel, pins })
}

fn measure(report: &mut Report, grow: Grow, sized: &[Sized], rounds: u32) -> Result<()> {
    let pin = CpuPin::here()?;
    let mut runs = Vec::new();
    for Sized { size, kernel, .. } in sized {
        let events = kernel.maps().events()?;
        runs.push((Path::all(kernel, grow, *size, pin.cpu())?, events));
    }
    let paths: Vec<&str> =
        runs.first().map_or(Vec::new(), |(paths, _)| paths.iter().map(|p| p.name).collect());
    let mut times = vec![vec![Vec::new(); sized.len()]; paths.len()];
    for round in 0..rounds {
        for (path, times) in times.iter_mut().enumerate() {
            // What takes least is what a busy machine disturbs most: it has more turns.
            let turns = if paths[path] == paths::ESTABLISHED { 5 } else { 1 };
            for turn in 0..turns * runs.len() {
                let who = (round as usize + turn / runs.len() + turn) % runs.len();
                let (paths, events) = &mut runs[who];
                times[who].push((paths[path].run)(round)?);
                events.drain(|_| {});
            }
        }
    }
    for (path, times) in paths.iter().zip(times) {
        let series = |at: usize| Series { name: format!("at {}", sized[at].size), values: times[at].clone() };
        let (least, most) = (series(0), series(sized.len() - 1));
        let flat = *path == paths::ESTABLISHED;
        let bounds = if flat { (Some(Bound::AtMost(1.1)), Some(Bound::AtMost(1.5))) } else { (None, None) };
        let case = format!("{path}, many {}", grow.name());
        let row = Row::new(case, "ns", &most, &least, bounds);
        report.rows.push(row);
        let points =
            sized.iter().enumerate().map(|(at, s)| (f64::from(s.size), beside(&times, at))).collect();
        report.curves.push(Curve { name: (*path).into(), size_of: grow.name(), unit: "ns", points });
    }
    Ok(())
}

/// The time at a size: that at the least size, times the median of the rounds' ratios to it. A plain median of each size
/// would set one moment of a busy machine beside another.
fn beside(times: &[Vec<f64>], at: usize) -> f64 {
    let ratios: Vec<f64> = times[at].iter().zip(&times[0]).map(|(mine, least)| mine / least).collect();
    Spread::of(&ratios).median * Spread::of(&times[0]).median
}
