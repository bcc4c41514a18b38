//! Namespaces of a run. Everything lives in a network and a mount namespace that only this process holds: interfaces,
//! attached programs and pins are gone with it, however it ends.

use anyhow::{Context, Result, bail};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What tells the process that it is in its namespaces.
const INSIDE: &str = "TIDEGATE_BENCH_NAMESPACE";
/// The bpffs of the run, once [`enter`] has mounted it.
pub const BPFFS: &str = "/sys/fs/bpf";

/// Sees that the process is in namespaces of its own: starts it over in new ones if not.
pub fn enter() -> Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        // A file system of our own in our mount namespace: pins in it are seen by nobody else.
        sh("mount", &["-t", "bpf", "bpf", BPFFS])?;
        return sh("ip", &["link", "set", "lo", "up"]);
    }
    let own = std::env::current_exe().context("finding the own program")?;
    let error = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "--"])
        .arg(own)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    bail!("cannot start `unshare` (package util-linux): {error}")
}

/// Runs a command to its end.
pub fn sh(program: &str, words: &[&str]) -> Result<()> {
    read(program, words).map(drop)
}

/// What a command prints.
pub fn read(program: &str, words: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(words)
        .output()
        .with_context(|| format!("cannot start {program}: `cargo xtask setup` installs it"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{program} {}` failed ({}): {}", words.join(" "), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Frames that an interface has received.
pub fn rx_packets(interface: &str) -> Result<u64> {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").context("reading /proc/net/dev")?;
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'));
    let packets = line.and_then(|figures| figures.split_whitespace().nth(1));
    packets
        .and_then(|word| word.parse().ok())
        .with_context(|| format!("/proc/net/dev has no interface {interface}"))
}
