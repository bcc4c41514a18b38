//! `cargo xtask lint` and `fmt`.

use crate::{bpf_toolchain, setup, sh};
use anyhow::{Result, bail};

/// rustfmt for every crate, those outside the workspace's default members too.
pub fn format(check: bool) -> Result<()> {
    let mut manifests = vec![sh::root().join("Cargo.toml")];
    let fuzz = sh::root().join("fuzz/Cargo.toml");
    if fuzz.exists() {
        manifests.push(fuzz);
    }
    for manifest in manifests {
        let mut cargo = sh::cargo();
        cargo.args(["fmt", "--all", "--manifest-path"]).arg(manifest);
        if check {
            cargo.args(["--", "--check"]);
        }
        sh::run(&mut cargo)?;
    }
    Ok(())
}

/// Everything that is wrong without being run; all warnings are errors.
pub fn run() -> Result<()> {
    setup::run()?;
    sh::step("rustfmt", || format(true))?;
    sh::step("clippy", || {
        sh::run(sh::cargo().args(["clippy", "--locked", "--all-targets", "--", "-D", "warnings"]))
    })?;
    sh::step("fuzz targets compile", fuzz)?;
    sh::step("BPF crates, warnings denied", bpf)
}

/// The targets are a workspace of their own; any compiler can check them, only running them wants a nightly one.
fn fuzz() -> Result<()> {
    let mut check = sh::cargo();
    check.args(["check", "--quiet", "--locked", "--manifest-path"]).arg(sh::root().join("fuzz/Cargo.toml"));
    sh::run(check.env("CARGO_TARGET_DIR", sh::target_dir()))
}

/// Clippy has no driver for the BPF compiler: the BPF crates are compiled with the compiler's own lints denied.
fn bpf() -> Result<()> {
    let toolchain = match bpf_toolchain::find() {
        Ok(toolchain) => toolchain,
        Err(why) => bail!("{why}"),
    };
    // aya's macros wrap each program in a function of the same name and leave its docs inside.
    let mut check = toolchain.command("check", &["-D", "warnings", "-A", "missing_docs"]);
    check
        .args([
            "--locked",
            "--profile",
            "bpf",
            "--package",
            "tidegate-xdp",
            "--package",
            "tidegate-tc",
            "--package",
            "tidegate-host",
        ])
        .env("CARGO_TARGET_DIR", sh::target_dir().join("lint-bpf"))
        .current_dir(sh::root());
    sh::run(&mut check)
}
