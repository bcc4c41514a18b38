//! The fuzz targets, each for a while: from what was committed and from seeds made of the fixture table.

use super::{Length, Outcome, tools};
use crate::sh;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Installed where an oracle wants it and nowhere else.
const CARGO_FUZZ: &str = "0.13.2";

/// Runs every target that `fuzz/Cargo.toml` names.
pub fn run(length: Length) -> Result<Outcome> {
    if !has_nightly() {
        let how = "rustup toolchain install nightly --profile minimal";
        return Ok(Outcome::Skipped(format!("libFuzzer needs a nightly compiler: {how}")));
    }
    if !sh::has("cargo-fuzz") {
        sh::step(&format!("cargo-fuzz {CARGO_FUZZ} from crates.io, runs the fuzz targets"), || {
            let mut cargo = sh::cargo();
            cargo.args(["install", "cargo-fuzz", "--version", CARGO_FUZZ, "--locked"]);
            sh::run(cargo.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS"))
        })?;
    }
    let seeds = sh::target_dir().join("oracle/seeds");
    tools::oracle(&["corpus", &seeds.to_string_lossy()])?;
    let targets = targets()?;
    let seconds = match length {
        Length::Short => 20,
        // Ten minutes each.
        Length::Long => 600,
    };
    for target in &targets {
        sh::step(&format!("fuzz {target} for {seconds} s"), || one(target, &seeds, seconds))?;
    }
    Ok(Outcome::Passed)
}

fn has_nightly() -> bool {
    let mut rustup = sh::command("rustup");
    sh::read(rustup.args(["run", "nightly", "rustc", "--version"])).is_ok()
}

fn targets() -> Result<Vec<String>> {
    let folder = sh::root().join("fuzz/fuzz_targets");
    let files = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let paths = files.flatten().map(|file| file.path());
    let mut names: Vec<String> = paths
        .filter(|path| path.extension().is_some_and(|kind| kind == "rs"))
        .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    if names.is_empty() {
        bail!("there is no target in {}", folder.display());
    }
    Ok(names)
}

/// New inputs go into the target folder; what is worth keeping is committed by hand (`cargo fuzz cmin`).
fn one(target: &str, seeds: &Path, seconds: u32) -> Result<()> {
    let found = sh::target_dir().join("oracle/fuzz").join(target);
    std::fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
    let folders: [PathBuf; 3] = [found, sh::root().join("fuzz/corpus").join(target), seeds.join(target)];
    let mut rustup = sh::command("rustup");
    rustup.args(["run", "nightly", "cargo", "fuzz", "run", target]);
    rustup.args(folders.iter().filter(|folder| folder.is_dir()));
    rustup.args([
        "--",
        &format!("-max_total_time={seconds}"),
        "-max_len=8192",
        "-print_final_stats=0",
        "-verbosity=0",
    ]);
    // An own folder: another compiler and other flags would throw the workspace's build away.
    sh::run(rustup.env("CARGO_TARGET_DIR", sh::target_dir().join("fuzz")).env_remove("RUSTFLAGS"))
}
