//! `cargo xtask build`: the binaries, the BPF objects inside them.

use crate::options::Options;
use crate::{setup, sh};
use anyhow::Result;
use std::path::PathBuf;

/// Sets up and builds.
pub fn run(options: &Options) -> Result<()> {
    setup::run()?;
    let folder = if options.debug { with_tests()? } else { release()? };
    eprintln!("    {}\n    {}", folder.join("tidegate").display(), folder.join("tidegate-sim").display());
    Ok(())
}

/// Builds `tidegate` and `tidegate-sim` to be deployed; the folder that they are in.
pub fn release() -> Result<PathBuf> {
    sh::step("build of tidegate and tidegate-sim (release)", || {
        sh::run(sh::cargo().args([
            "build",
            "--locked",
            "--release",
            "--package",
            "tidegate",
            "--package",
            "tidegate-sim",
        ]))
    })?;
    Ok(sh::target_dir().join("release"))
}

/// Builds every binary and every test in one go; the folder that the binaries are in.
///
/// Tests start the binaries of other crates, which cargo does not build for them. Apart from the tests the binaries
/// would be built with other features of their dependencies, and those twice.
pub fn with_tests() -> Result<PathBuf> {
    sh::step("build of binaries and tests (debug)", || {
        sh::run(sh::cargo().args(["build", "--locked", "--bins", "--tests"]))
    })?;
    Ok(sh::target_dir().join("debug"))
}
