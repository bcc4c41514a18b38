//! The fields of hostile frames, held against tshark's.

mod compare;
mod tshark;
mod tunnel;

use crate::rng::from_clock;
use anyhow::{Context, Result, anyhow, bail};
use compare::Difference;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use tidegate::daemon::inspect::Inspect;
use tidegate::replay::output::Format;
use tidegate::replay::session::Reading;
use tidegate::replay::{EngineChoice, Mode, ReplayArgs, run_to};

/// How many frames, and which.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Frames
    #[arg(long, default_value_t = 3_000)]
    frames: u32,
    /// The seed of a run that is to be repeated
    #[arg(long)]
    seed: Option<u64>,
    /// Frames of tunnels, and what they carry
    #[arg(long)]
    inspect: bool,
    /// Keep the capture here
    #[arg(long)]
    keep: Option<std::path::PathBuf>,
}

const MAKER: &str = include_str!("frames.py");
const INSPECTED: [Inspect; 4] = [Inspect::Vxlan, Inspect::Geneve, Inspect::Gre, Inspect::Ipip];
/// More differences than this are not printed.
const PRINTED: usize = 2000;
/// A piece at a time: JSON of 100,000 frames is large.
const PIECE: u32 = 20_000;

/// Makes frames, has both sides read them; an error if a difference is not one of the explained ones.
pub fn run(args: &Args) -> Result<()> {
    let seed = args.seed.unwrap_or_else(from_clock);
    println!("tshark: seed {seed}, {} frames", args.frames);
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let judge = tshark::Tshark::new(folder.path(), args.inspect)?;
    let (mut whole, mut inside, mut explained, mut open) = (0, 0, BTreeMap::<&str, u32>::new(), Vec::new());
    for first in (0..args.frames).step_by(PIECE as usize) {
        let count = PIECE.min(args.frames - first);
        let seed = seed + u64::from(first);
        let capture = folder.path().join("frames.pcap");
        make(seed, count, &capture, args.inspect)?;
        if let Some(path) = &args.keep {
            std::fs::copy(&capture, path).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let theirs = judge.rows(&capture)?;
        let native = records(&capture, EngineChoice::Host, args.inspect)?;
        let loaded = records(&capture, EngineChoice::Kernel, args.inspect)?;
        if theirs.len() != native.len() || native.len() != loaded.len() {
            bail!("tshark has {} rows, the engines {} and {}", theirs.len(), native.len(), loaded.len());
        }
        for (row, (native, loaded)) in theirs.iter().zip(native.iter().zip(&loaded)) {
            if native != loaded {
                open.push(format!("seed {seed}, engines differ: native {native}\n  kernel {loaded}"));
            }
            let tunnel = if args.inspect { tunnel::split(row) } else { None };
            match compare::compare(row, tunnel.as_ref(), native) {
                Difference::None => {
                    whole += 1;
                    inside += u32::from(tunnel.is_some());
                }
                Difference::Explained(why) => *explained.entry(why).or_default() += 1,
                Difference::Open(what) => open.push(format!("seed {seed}, {what}\n  {native}")),
            }
        }
    }
    for what in open.iter().take(PRINTED) {
        println!("DIFFERENCE {what}");
    }
    for (why, count) in &explained {
        println!("{count:>8}  {why}");
    }
    println!("{} frames, {whole} agree in every field, {} unexplained differences", args.frames, open.len());
    if args.inspect {
        println!("of {inside} of those that agree it is what a tunnel carries");
    }
    if !open.is_empty() {
        bail!("{} differences from tshark (seed {seed})", open.len());
    }
    Ok(())
}

fn make(seed: u64, count: u32, capture: &Path, tunnels: bool) -> Result<()> {
    // Debian's Python, which is the one that has Debian's scapy.
    let output = Command::new("/usr/bin/python3")
        .args(["-c", MAKER, &seed.to_string(), &count.to_string()])
        .arg(capture)
        .args(tunnels.then_some("tunnels"))
        .output()
        .context("cannot start /usr/bin/python3")?;
    if !output.status.success() {
        bail!("no frames (Debian: python3-scapy): {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// What `tidegate replay --packets -o json` prints.
fn records(capture: &Path, engine: EngineChoice, tunnels: bool) -> Result<Vec<Value>> {
    let args = ReplayArgs {
        reading: Reading::default(),
        file: capture.into(),
        policy: Vec::new(),
        packets: true,
        engine: Some(engine),
        mode: Mode::Enforce,
        output: Format::Json,
        inspect: if tunnels { INSPECTED.to_vec() } else { Vec::new() },
    };
    let mut out = Vec::new();
    run_to(&args, &mut out).map_err(|error| anyhow!("{error}"))?;
    let lines = std::str::from_utf8(&out)?.lines();
    lines.map(|line| serde_json::from_str(line).context("a record is no JSON")).collect()
}
