//! `cargo xtask ci`: what has to hold before a change lands. Nothing here is CI's alone.

use crate::options::Options;
use crate::{demo, docs, oracle, sh, test};
use anyhow::{Result, bail};
use std::time::Instant;

/// Tasks that mostly compile: they run while the tests that need root wait for clocks, which is half of their time.
const BESIDE: [&[&str]; 2] = [&["lint"], &["oracle", "fuzz", "coverage"]];

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
    let tested = test::run_with(options, || beside = Some(BESIDE.map(sh::Beside::start)));
    note(
        "test",
        tested.and_then(|counts| {
            closing = counts.line();
            counts.verdict()
        }),
    );
    let beside = beside.unwrap_or_else(|| BESIDE.map(sh::Beside::start));
    for (words, part) in BESIDE.iter().zip(beside) {
        note(words[0], part.and_then(sh::Beside::end));
    }
    note("docs", docs::run(&Options { check: true, ..Options::default() }));
    if sh::is_root() {
        // With what the tests were built with: a build to be deployed takes as long as most of this.
        note("demo", demo::run(&Options { debug: true, rest: options.rest.clone(), ..Options::default() }));
    } else {
        println!("demo: not run, it needs root: {}", sh::sudo("demo"));
    }
    // The other oracles have the processors to themselves.
    let rest = oracle::names().filter(|name| !BESIDE[1].contains(name)).map(str::to_owned).collect();
    note("oracle", oracle::run(&Options { rest, ..Options::default() }));
    println!("\ncargo xtask ci: {:.0} s in all", start.elapsed().as_secs_f32());
    println!("{closing}");
    if failed.is_empty() {
        return Ok(());
    }
    bail!("failed: {}", failed.join(", "))
}
