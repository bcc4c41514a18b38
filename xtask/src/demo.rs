//! `cargo xtask demo`: a gateway between namespaces, real traffic, and what became of it.

use crate::options::Options;
use crate::{build, setup, sh};
use anyhow::{Result, bail};

const TOPOLOGY: &str = "topologies/demo.yaml";

/// Sets up, builds and runs the demo topology.
pub fn run(options: &Options) -> Result<()> {
    if !sh::is_root() {
        bail!(
            "the demo makes network namespaces and loads programs into the kernel, which needs root:\n  {}",
            sh::sudo("demo")
        );
    }
    setup::run()?;
    let folder = if options.debug { build::with_tests()? } else { build::release()? };
    sh::step(&format!("tidegate-sim run {TOPOLOGY}"), || {
        let sim = folder.join("tidegate-sim");
        sh::run(sh::command(&sim.to_string_lossy()).args(["run", TOPOLOGY]).args(&options.rest))
    })
}
