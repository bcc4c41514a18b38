//! Builds the BPF objects of ../xdp, ../tc and ../host into OUT_DIR; the crate embeds them.
//!
//! Which compiler and linker is decided in one place, which `cargo xtask setup` reads as well.

#[path = "../xtask/src/bpf_toolchain.rs"]
#[allow(dead_code)] // set-up uses more of it
mod bpf_toolchain;

use anyhow::{Context, Result, anyhow, bail};
use std::env;
use std::path::{Path, PathBuf};

/// The packages with programs.
const PACKAGES: [&str; 3] = ["tidegate-xdp", "tidegate-tc", "tidegate-host"];
/// Their binaries.
const OBJECTS: [&str; 5] =
    ["tidegate-xdp", "tidegate-gate", "tidegate-tc", "tidegate-tc-ingress", "tidegate-host"];

const FLAGS: [&str; 10] = [
    "-C",
    "link-arg=--btf",
    "-C",
    "debuginfo=2",
    // v3 has 32-bit compares and jumps, which every kernel with ring buffers knows.
    "-C",
    "target-cpu=v3",
    // Turns byte-wise header loads into word loads; all machines that run XDP allow them.
    "-C",
    "link-arg=--cpu-features=+allows-misaligned-mem-access",
    // Or the linker turns every memset and struct copy into a call of a loop over bytes: 60 ns a packet.
    "-C",
    "link-arg=--disable-expand-memcpy-in-order",
];

fn main() -> Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..").canonicalize()?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for dir in ["xdp", "tc", "host", "datapath"] {
        // Relative: a build folder that is copied into another tree watches that one.
        println!("cargo:rerun-if-changed=../{dir}/src");
        println!("cargo:rerun-if-changed=../{dir}/Cargo.toml");
    }
    for variable in [bpf_toolchain::RUSTC_VARIABLE, "PATH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let toolchain = bpf_toolchain::find()
        .map_err(|why| anyhow!("{why}\n`cargo xtask setup` installs what is missing."))?;
    println!("BPF toolchain: {}", toolchain.chosen);
    for object in OBJECTS.iter().zip(build(&toolchain, &root, &out)?) {
        let copy = out.join(format!("{}.o", object.0));
        std::fs::copy(&object.1, &copy).with_context(|| format!("copy {}", object.1.display()))?;
    }
    Ok(())
}

fn build(toolchain: &bpf_toolchain::BpfToolchain, root: &Path, out: &Path) -> Result<Vec<PathBuf>> {
    // A folder of its own: the host build holds the lock of the usual one while it waits for us.
    let target_dir = out.join("bpf");
    let mut cargo = toolchain.command("build", &FLAGS);
    cargo.current_dir(root).args(["--profile", "bpf", "--target-dir"]).arg(&target_dir);
    for package in PACKAGES {
        cargo.args(["--package", package]);
    }
    let status = cargo.status().context("start cargo for the BPF objects")?;
    if !status.success() {
        bail!("the BPF objects did not build with {} (see the messages above)", toolchain.chosen);
    }
    Ok(OBJECTS.iter().map(|object| target_dir.join(bpf_toolchain::TARGET).join("bpf").join(object)).collect())
}
