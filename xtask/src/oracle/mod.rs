//! `cargo xtask oracle`: the packet path and the API, judged by others. docs/oracles.md says by whom, and what differs and why.

mod coverage;
mod fuzz;
mod schemathesis;
mod tools;
mod vm;

use crate::options::Options;
use crate::{setup, sh};
use anyhow::{Result, bail};
use std::time::Instant;

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// What CI runs: seconds to half a minute each.
    Short,
    /// By hand, before a release.
    Long,
}

/// How a part went.
enum Outcome {
    Passed,
    /// Why it could not run. Never counted as passed.
    Skipped(String),
}

type Part = (&'static str, fn(Length) -> Result<Outcome>);

const PARTS: [Part; 7] = [
    ("nft", nft),
    ("tshark", tshark),
    ("zeek", zeek),
    ("coverage", coverage::run),
    ("fuzz", fuzz::run),
    ("schemathesis", schemathesis::run),
    ("vm", vm::run),
];

/// What the parts are called.
pub fn names() -> impl Iterator<Item = &'static str> {
    PARTS.iter().map(|(name, _)| *name)
}

/// Sets up and runs the parts that are named, or all of them.
pub fn run(options: &Options) -> Result<()> {
    if let Some(unknown) = options.rest.iter().find(|name| !names().any(|known| known == *name)) {
        let names: Vec<&str> = names().collect();
        bail!("there is no oracle '{unknown}'; there are {}", names.join(", "));
    }
    let length = if options.long { Length::Long } else { Length::Short };
    setup::run()?;
    let wanted = |name: &str| options.rest.is_empty() || options.rest.iter().any(|one| one == name);
    let mut lines = Vec::new();
    let mut failed = Vec::new();
    for (name, part) in PARTS.iter().filter(|(name, _)| wanted(name)) {
        let start = Instant::now();
        let outcome = sh::step(&format!("oracle {name}"), || part(length));
        let took = start.elapsed().as_secs_f32();
        match outcome {
            Ok(Outcome::Passed) => lines.push(format!("{name:<12} passed   {took:>6.1} s")),
            Ok(Outcome::Skipped(why)) => lines.push(format!("{name:<12} SKIPPED: {why}")),
            Err(error) => {
                lines.push(format!("{name:<12} FAILED   {took:>6.1} s  {error:#}"));
                failed.push(*name);
            }
        }
    }
    println!("\n{}", lines.join("\n"));
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn nft(length: Length) -> Result<Outcome> {
    if let Some(why) = tools::missing(&["nft", "conntrack"]) {
        return Ok(Outcome::Skipped(why));
    }
    let (packets, connections) = match length {
        Length::Short => ("30000", "400"),
        Length::Long => ("1000000", "20000"),
    };
    tools::oracle(&seeded(length, &["nft", "--packets", packets]))?;
    tools::oracle(&seeded(length, &["conntrack", "--connections", connections]))
}

/// The short form is the same each time: a change that lands is not held up by what an earlier one did. The long form
/// looks where nobody has looked.
fn seeded<'a>(length: Length, command: &[&'a str]) -> Vec<&'a str> {
    let seed: &[&str] = match length {
        Length::Short => &["--seed", "5"],
        Length::Long => &[],
    };
    [command, seed].concat()
}

fn tshark(length: Length) -> Result<Outcome> {
    if let Some(why) = tools::missing(&["tshark", "scapy"]) {
        return Ok(Outcome::Skipped(why));
    }
    let frames = match length {
        Length::Short => "3000",
        Length::Long => "100000",
    };
    tools::oracle(&seeded(length, &["tshark", "--frames", frames]))?;
    tools::oracle(&seeded(length, &["tshark", "--inspect", "--frames", frames]))?;
    tools::replay_test("frames_agree_with_shared_tshark_answers")
}

fn zeek(_: Length) -> Result<Outcome> {
    tools::replay_test("connections_agree_with_zeek")
}
