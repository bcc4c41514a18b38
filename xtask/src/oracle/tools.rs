//! What the oracles call: the programs of others, and our own `tidegate-oracle`.

use super::Outcome;
use crate::{apt, build, sh};
use anyhow::Result;

/// A program that is needed for the oracles alone: the Debian package, and what it is for.
const TOOLS: [(&str, &str, &str); 8] = [
    ("nft", "nftables", "the same rules in the twin namespace"),
    ("conntrack", "conntrack", "the kernel's own view of connection states"),
    ("scapy", "python3-scapy", "makes hostile frames"),
    ("tshark", "tshark", "reads the same frames"),
    ("qemu-system-x86_64", "qemu-system-x86", "boots a kernel that takes programs into libxdp's dispatcher"),
    ("busybox", "busybox-static", "the shell in there"),
    ("xdp-filter", "xdp-tools", "the other program on the interface"),
    ("bpftool", "bpftool", "writes an older version into the maps there"),
];

/// Installs programs that are missing; why it cannot be run if they still are, or if this is not root.
pub fn missing(programs: &[&str]) -> Option<String> {
    if !sh::is_root() {
        return Some(format!("it needs root: {}", sh::sudo("oracle")));
    }
    let absent = || programs.iter().filter(|program| !sh::has(program)).copied().collect::<Vec<_>>();
    let packages: Vec<&str> = TOOLS
        .iter()
        .filter(|(program, _, _)| absent().contains(program))
        .map(|(program, package, why)| {
            eprintln!("    {package}: {program} ({why})");
            *package
        })
        .collect();
    if !packages.is_empty()
        && sh::has("apt-get")
        && let Err(why) = apt::install(&packages)
    {
        eprintln!("    {why:#}");
    }
    let absent = absent();
    (!absent.is_empty()).then(|| format!("{} is not installed", absent.join(", ")))
}

/// Runs a part of `tidegate-oracle`, as it was built with the tests: most of the time is the kernel's.
pub fn oracle(args: &[&str]) -> Result<Outcome> {
    let program = build::with_tests()?.join("tidegate-oracle");
    sh::run(sh::command(&program.to_string_lossy()).args(args).current_dir(sh::root()))?;
    Ok(Outcome::Passed)
}

/// Runs those tests of `tidegate replay` whose names hold `name`, on the shared captures.
pub fn replay_test(name: &str) -> Result<Outcome> {
    const CAPTURES: &str = "../shared/captures";
    if std::env::var_os("TIDEGATE_CAPTURES").is_none() && !sh::root().join(CAPTURES).is_dir() {
        return Ok(Outcome::Skipped(format!(
            "the captures with others' answers are not here ({CAPTURES}, or TIDEGATE_CAPTURES)"
        )));
    }
    // Of all packages at once: of one, its dependencies would be built anew with its own features alone.
    let mut cargo = sh::cargo();
    cargo.args(["test", "--quiet", "--locked", "--test", "replay"]);
    sh::run(cargo.args(["--", name, "--nocapture"]))?;
    Ok(Outcome::Passed)
}
