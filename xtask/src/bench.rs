//! `cargo xtask bench`: the loaded programs by kernel test-run, and the native path.

use crate::options::Options;
use crate::{setup, sh};
use anyhow::{Result, bail};

/// Sets up and runs the benches; both, unless one is named.
pub fn run(options: &Options) -> Result<()> {
    let both = options.kernel == options.native;
    if (both || options.kernel) && !sh::is_root() {
        bail!(
            "the kernel bench loads programs, which needs root:\n  {}\nwithout it: cargo xtask bench --native",
            sh::sudo("bench")
        );
    }
    setup::run()?;
    if both || options.kernel {
        kernel(options)?;
    }
    if both || options.native {
        sh::step("criterion: the native path", || {
            sh::run(sh::cargo().args(["bench", "--locked", "--package", "tidegate-benches"]))
        })?;
    }
    Ok(())
}

/// A debug build will do: the kernel measures, and the BPF objects are optimised in every profile.
fn kernel(options: &Options) -> Result<()> {
    sh::step("kernel test-run beside xdp-filter", || {
        let mut cargo = sh::cargo();
        cargo.args(["run", "--locked", "--package", "tidegate-benches", "--bin", "kernel-bench", "--"]);
        if options.check {
            cargo.arg("--check");
        }
        cargo.arg("--json").arg(sh::target_dir().join("bench/kernel.json"));
        sh::run(&mut cargo)
    })
}
