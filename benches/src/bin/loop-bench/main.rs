//! The governance loop under load: from the first packet that departs from an intent to the first that the kernel drops, while so many
//! events a second come; and what became of all these events. The daemon is the shipped binary, the packets are real.

mod daemon;
mod packets;
mod scene;

use anyhow::{Result, ensure};
use clap::Parser;
use daemon::Daemon;
use scene::Scene;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tidegate_benches::inside;
use tidegate_benches::output::{self, Output};
use tidegate_benches::report::{Fact, Report, figure};

/// Measures the loop.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    output: Output,
    /// The `tidegate` binary.
    #[arg(long, value_name = "FILE")]
    tidegate: PathBuf,
    /// Identities that depart, one after the other, without load and under it.
    #[arg(long, default_value_t = 200)]
    departures: u32,
    /// New connections a second, each of which is an event.
    #[arg(long, default_value_t = 50_000)]
    load: u32,
}

fn main() -> ExitCode {
    output::exit("loop-bench", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<bool> {
    inside::enter()?;
    let title = "The governance loop under load: from a packet that departs to the first that is dropped";
    let mut report = Report::new(title, "cargo xtask bench --loop", arguments.departures);
    let scene = Scene::new()?;
    let daemon = Daemon::start(&arguments.tidegate, &scene::policy(2 * arguments.departures))?;
    let idle = depart(&scene, 0..arguments.departures)?;
    state(&mut report, "without load", &idle);

    let (stop, begun) = (AtomicBool::new(false), Instant::now());
    let (sent, loaded, took) = std::thread::scope(|scope| -> Result<_> {
        let load = scope.spawn(|| scene.client.run(|| packets::load(arguments.load, &stop)));
        std::thread::sleep(Duration::from_secs(2));
        let loaded = depart(&scene, arguments.departures..2 * arguments.departures);
        stop.store(true, Ordering::Relaxed);
        let took = begun.elapsed();
        let sent = load.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
        Ok((sent, loaded?, took))
    })?;
    fact(&mut report, "new connections a second, sent", sent as f64 / took.as_secs_f64(), "/s");
    state(&mut report, "under load", &loaded);
    // What is still to be told is told, and what is over is.
    std::thread::sleep(Duration::from_secs(3));
    let counted = daemon.counts()?;
    for (name, value) in &counted.lost {
        fact(&mut report, &format!("events lost, {name}"), *value, "");
    }
    fact(&mut report, "events not compared", counted.shed, "");
    fact(&mut report, "containments", counted.contained, "");
    let all = f64::from(2 * arguments.departures);
    ensure!(
        (counted.contained - all).abs() < 0.5,
        "{} of {all} departures were contained",
        counted.contained
    );
    arguments.output.finish(&report)
}

/// How long each of these identities could go on, in milliseconds.
fn depart(scene: &Scene, which: std::ops::Range<u32>) -> Result<Vec<f64>> {
    which.map(|n| scene.depart(n).map(|took| took.as_secs_f64() * 1e3)).collect()
}

fn state(report: &mut Report, when: &str, times: &[f64]) {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).max(1) - 1).copied();
    for (name, percent) in [("p50", 50), ("p99", 99), ("longest", 100)] {
        let name = format!(
            "from the departing packet to the first that is dropped, {when}, {name} of {}",
            sorted.len()
        );
        fact(report, &name, at(percent).unwrap_or(f64::NAN), "ms");
    }
}

fn fact(report: &mut Report, name: &str, value: f64, unit: &'static str) {
    eprintln!("    {name}: {} {unit}", figure(value));
    report.facts.push(Fact::of(name, value, unit));
}
