//! `cargo xtask ci`: what has to hold before a change lands. Nothing here is CI's alone.

use crate::options::Options;
use crate::{demo, docs, oracle, sh, test};
use anyhow::{Result, bail};
use std::time::Instant;

/// Tasks that mostly compile: they run while the tests that need root wait for clocks, which is half of their time.
const BESIDE: [&[&str]; 2] = [&["lint"], &["oracle", "fuzz", "coverage"]];
/// The virtual machine.
const MACHINE: [&str; 2] = ["oracle", "vm"];

/// Starts what compiles, in what the tests leave.
fn compile() -> [Result<sh::Beside>; BESIDE.len()] {
    BESIDE.map(|words| sh::Beside::start(words, 19))
}

/// Runs all of it, also after something failed, and says at the end what did.
pub fn run(options: &Options) -> Result<()> {
    let start = Instant::now();
    let mut failed = Vec::new();
    let mut note = |part: &'static str, result: Result<()>| {
        if let Err(why) = result {
            eprintln!("\n{part}: {why:#}\n");
            failed.push(part);
        }
    };
    let mut closing = String::new();
    let mut beside = None;
    let tested = test::run_with(options, || beside = Some(compile()));
    note(
        "test",
        tested.and_then(|counts| {
            closing = counts.line();
            counts.verdict()
        }),
    );
    let beside = beside.unwrap_or_else(compile);
    for (words, part) in BESIDE.iter().zip(beside) {
        note(words[0], part.and_then(sh::Beside::end));
    }
    // An emulated processor keeps one of ours busy, and most of what follows the other.
    let machine = sh::Beside::start(&MACHINE, 0);
    note("docs", docs::run(&Options { check: true, ..Options::default() }));
    if sh::is_root() {
        // With what the tests were built with: a build to be deployed takes as long as most of this.
        note("demo", demo::run(&Options { debug: true, rest: options.rest.clone(), ..Options::default() }));
    } else {
        println!("demo: not run, it needs root: {}", sh::sudo("demo"));
    }
    let is_left = |name: &&str| !BESIDE[1].contains(name) && !MACHINE.contains(name);
    let rest = oracle::names().filter(is_left).map(str::to_owned).collect();
    note("oracle", oracle::run(&Options { rest, ..Options::default() }));
    note(MACHINE[0], machine.and_then(sh::Beside::end));
    println!("\ncargo xtask ci: {:.0} s in all", start.elapsed().as_secs_f32());
    println!("{closing}");
    if failed.is_empty() {
        return Ok(());
    }
    bail!("failed: {}", failed.join(", "))
}
