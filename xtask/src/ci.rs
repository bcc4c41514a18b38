//! `cargo xtask ci`: what has to hold before a change lands. Nothing here is CI's alone.

use crate::options::Options;
use crate::{demo, docs, lint, oracle, sh, test};
use anyhow::{Result, bail};
use std::time::Instant;

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
    let tested = test::run(options);
    note(
        "test",
        tested.and_then(|counts| {
            closing = counts.line();
            counts.verdict()
        }),
    );
    note("lint", lint::run());
    note("docs", docs::run(&Options { check: true, ..Options::default() }));
    if sh::is_root() {
        // With what the tests were built with: a build to be deployed takes as long as most of this.
        note("demo", demo::run(&Options { debug: true, rest: options.rest.clone(), ..Options::default() }));
    } else {
        println!("demo: not run, it needs root: {}", sh::sudo("demo"));
    }
    note("oracle", oracle::run(&Options::default()));
    println!("\ncargo xtask ci: {:.0} s in all", start.elapsed().as_secs_f32());
    println!("{closing}");
    if failed.is_empty() {
        return Ok(());
    }
    bail!("failed: {}", failed.join(", "))
}
