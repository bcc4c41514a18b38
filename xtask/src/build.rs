//! `cargo xtask build`: the binaries, the BPF objects inside them.

use crate::options::Options;
use crate::{setup, sh};
use anyhow::Result;
use std::path::PathBuf;

/// Sets up and builds.
pub fn run(options: &Options) -> Result<()> {
    setup::run()?;
    let folder = binaries(!options.debug)?;
    eprintln!("    {}\n    {}", folder.join("tidegate").display(), folder.join("tidegate-sim").display());
    Ok(())
}

/// Builds `tidegate` and `tidegate-sim`; the folder that they are in.
pub fn binaries(release: bool) -> Result<PathBuf> {
    let profile = if release { "release" } else { "debug" };
    sh::step(&format!("build of tidegate and tidegate-sim ({profile})"), || {
        let mut cargo = sh::cargo();
        cargo.args(["build", "--locked", "--package", "tidegate", "--package", "tidegate-sim"]);
        if release {
            cargo.arg("--release");
        }
        sh::run(&mut cargo)
    })?;
    Ok(sh::target_dir().join(profile))
}
