//! xdp-filter, loaded by its own command on an interface of this namespace.

use crate::cases::Runs;
use anyhow::{Context, Result, bail};
use loader::{PinnedXdp, RunResult};
use std::path::Path;
use std::process::Command;
use tidegate_benches::scene;

const INTERFACE: &str = "tgbench0";
const BPFFS: &str = "/sys/fs/bpf";

/// The loaded program.
pub struct Filter {
    program: PinnedXdp,
}

impl Filter {
    /// Makes an interface, has xdp-filter load there with all features, letting pass what no filter matches, and takes
    /// hold of its program.
    pub fn load() -> Result<Self> {
        // A file system of our own in our mount namespace: pins in it are seen by nobody else.
        sh("mount", &["-t", "bpf", "bpf", BPFFS])?;
        sh("ip", &["link", "set", "lo", "up"])?;
        sh("ip", &["link", "add", INTERFACE, "type", "veth", "peer", "name", "tgbench1"])?;
        sh("ip", &["link", "set", INTERFACE, "up"])?;
        sh("xdp-filter", &["load", "--features", "all", "--policy", "allow", "--mode", "native", INTERFACE])?;
        sh("xdp-filter", &["ip", &scene::BLOCKED.to_string(), "--mode", "src"])?;
        let pins = Path::new(BPFFS).join("xdp-filter/programs").join(INTERFACE);
        let entry = std::fs::read_dir(&pins)
            .with_context(|| format!("reading xdp-filter's pins in {}", pins.display()))?
            .next()
            .with_context(|| format!("xdp-filter has pinned nothing in {}", pins.display()))??;
        Ok(Self { program: PinnedXdp::open(&entry.path())? })
    }
}

impl Runs for Filter {
    fn run(&self, frame: &[u8], repeat: u32) -> Result<RunResult> {
        Ok(self.program.run(frame, repeat)?)
    }
}

fn sh(program: &str, words: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(words)
        .output()
        .with_context(|| format!("cannot start {program}: `cargo xtask setup` installs it"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{program} {}` failed ({}): {}", words.join(" "), output.status, said.trim());
    }
    Ok(())
}
