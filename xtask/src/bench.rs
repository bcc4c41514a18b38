//! `cargo xtask bench`: the loaded programs in the kernel beside others, policy at scale, and the native path.

use crate::options::Options;
use crate::{setup, sh};
use anyhow::{Result, bail};

/// A bench of its own.
struct Part {
    /// Its option without the dashes, and the name of its file under target/bench.
    name: &'static str,
    /// What it measures.
    what: &'static str,
    /// The binary of `benches/` that loads programs, which needs root; the native path has none.
    binary: Option<&'static str>,
}

const PARTS: &[Part] = &[
    Part { name: "kernel", what: "kernel test-run beside xdp-filter", binary: Some("kernel-bench") },
    Part { name: "live", what: "live frames beside XDP_DROP and nftables", binary: Some("live-bench") },
    Part { name: "size", what: "cost and memory against size", binary: Some("size-bench") },
    Part { name: "forward", what: "forwarding through a gateway", binary: Some("forward-bench") },
    Part { name: "policy", what: "policy at scale: commits, feeds, memory", binary: Some("policy-bench") },
    Part { name: "loop", what: "the governance loop under load", binary: Some("loop-bench") },
    Part { name: "native", what: "criterion: the native path", binary: None },
];

/// The part that an option names.
pub fn part(option: &str) -> Option<&'static str> {
    let name = option.strip_prefix("--")?;
    PARTS.iter().map(|part| part.name).find(|known| *known == name)
}

/// Sets up and runs the benches: those that are named, or all.
pub fn run(options: &Options) -> Result<()> {
    let chosen = |part: &&Part| options.parts.is_empty() || options.parts.contains(&part.name);
    let parts: Vec<&Part> = PARTS.iter().filter(chosen).collect();
    if parts.iter().any(|part| part.binary.is_some()) && !sh::is_root() {
        bail!(
            "benches in the kernel load programs, which needs root:\n  {}\nwithout it: cargo xtask bench --native",
            sh::sudo("bench")
        );
    }
    setup::run()?;
    let mut failed = Vec::new();
    for part in parts {
        // One that fails keeps nobody from seeing the others.
        if let Err(why) = sh::step(part.what, || measure(part, options.check)) {
            eprintln!("    {why:#}");
            failed.push(part.name);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("failed: {}", failed.join(", "))
}

fn measure(part: &Part, check: bool) -> Result<()> {
    let mut cargo = sh::cargo();
    let Some(binary) = part.binary else {
        return sh::run(cargo.args(["bench", "--locked", "--package", "tidegate-benches"]));
    };
    let mut arguments = vec![];
    if ["policy", "loop"].contains(&part.name) {
        // What is measured is the daemon itself, as it is shipped.
        sh::run(sh::cargo().args(["build", "--locked", "--release", "--package", "tidegate"]))?;
        arguments = vec!["--tidegate".into(), sh::target_dir().join("release/tidegate").into_os_string()];
    }
    if part.name == "policy" {
        // How long bindings of sources take, without the daemon around it: that writes its own table.
        let mut bindings = sh::cargo();
        bindings.args(["bench", "--locked", "--package", "tidegate", "--bench", "bindings"]);
        sh::run(if check { bindings.args(["--", "--check"]) } else { &mut bindings })?;
    }
    // A debug build will do: the kernel measures, and the BPF objects are optimised in every profile.
    cargo.args(["run", "--locked", "--package", "tidegate-benches", "--bin", binary, "--"]).args(arguments);
    if check {
        cargo.arg("--check");
    }
    sh::run(cargo.arg("--json").arg(sh::target_dir().join(format!("bench/{}.json", part.name))))
}
