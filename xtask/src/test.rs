//! `cargo xtask test`: every test, counted; what is not run is never counted as passed.

use crate::options::Options;
use crate::{build, setup, sh};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Tests whose names hold the marker need what is named beside it.
const MARKERS: &[(&str, Need)] = &[
    ("with_tshark", Need::Program("tshark")),
    ("with_promtool", Need::Program("promtool")),
    ("with_prometheus", Need::Program("prometheus")),
    ("with_bpftool", Need::Program("bpftool")),
    ("with_xdp_filter", Need::Program("xdp-filter")),
    ("with_cargo_deb", Need::Program("cargo-deb")),
    ("with_systemd", Need::Program("systemd-analyze")),
    ("with_nft", Need::Program("nft")),
    ("with_cgroup2", Need::Mount("cgroup2")),
    ("with_shared_captures", Need::Folder("../shared/captures")),
];

enum Need {
    Program(&'static str),
    /// Relative to the workspace.
    Folder(&'static str),
    /// A file system of this type, mounted to be written.
    Mount(&'static str),
}

impl Need {
    fn is_met(&self) -> bool {
        match self {
            Self::Program(program) => sh::has(program),
            Self::Folder(folder) => sh::root().join(folder).is_dir(),
            Self::Mount(kind) => std::fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| {
                let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
                mounts.any(|fields| {
                    fields.get(2) == Some(kind) && fields.get(3).is_some_and(|o| o.starts_with("rw"))
                })
            }),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Program(name) | Self::Folder(name) | Self::Mount(name) => name,
        }
    }
}

/// What became of the tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tests that passed.
    pub passed: u32,
    /// Tests that failed.
    pub failed: u32,
    /// Tests that were not run.
    pub skipped: u32,
    /// The names of those that failed.
    pub failures: Vec<String>,
}

impl Counts {
    /// An error if a test failed or none ran.
    pub fn verdict(&self) -> Result<()> {
        if self.failed > 0 {
            bail!("{} failed", self.failed);
        }
        if self.passed == 0 {
            bail!("no test ran");
        }
        Ok(())
    }

    /// The line that people and CI read.
    pub fn line(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Sets up, builds, runs the tests and prints the line that sums them up.
pub fn run(options: &Options) -> Result<Counts> {
    run_with(options, || ())
}

/// The same, and calls `idle` when the tests have begun that leave processors idle: they wait for clocks.
pub fn run_with(options: &Options, idle: impl FnOnce()) -> Result<Counts> {
    setup::run()?;
    build::with_tests()?;

    let skips = skips();
    let mut counts = Counts::default();
    let host = sh::step("tests", || pass(options, &skips, &[], || ()))?;
    let waiting = host.ignored;
    counts.add(&host);
    counts.skipped += host.filtered;
    if sh::is_root() {
        // Each waits for the verifier a part of its time, and for a clock the rest. What one makes bears a name of its own; those that look at
        // the whole machine wait for each other.
        let flags = ["--ignored", "--test-threads=5"];
        let kernel = sh::step("tests that need root", || pass(options, &skips, &flags, idle))?;
        counts.add(&kernel);
        counts.skipped += waiting.saturating_sub(kernel.passed + kernel.failed);
    } else if waiting > 0 {
        counts.skipped += waiting;
        println!(
            "\n{waiting} tests need root (they load programs into the kernel and make network namespaces)."
        );
        println!("To run them as well: {}", sh::sudo("test"));
    }
    for name in &counts.failures {
        println!("FAILED {name}");
    }
    println!("\n{}", counts.line());
    Ok(counts)
}

/// What to skip, said once each.
fn skips() -> Vec<&'static str> {
    let unmet = MARKERS.iter().filter(|(_, need)| !need.is_met());
    unmet
        .map(|(marker, need)| {
            println!("{} is not here: tests named *{marker}* are skipped", need.name());
            *marker
        })
        .collect()
}

fn cargo_test(options: &Options) -> Command {
    let mut cargo = sh::cargo();
    cargo.args(["test", "--locked", "--no-fail-fast"]);
    for package in &options.packages {
        cargo.args(["--package", package]);
    }
    cargo
}

/// What one run of `cargo test` counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pass {
    passed: u32,
    failed: u32,
    ignored: u32,
    filtered: u32,
    failures: Vec<String>,
}

impl Counts {
    fn add(&mut self, pass: &Pass) {
        self.passed += pass.passed;
        self.failed += pass.failed;
        self.failures.extend(pass.failures.iter().cloned());
    }
}

/// Runs the tests that the flags choose, and calls `begun` when cargo has nothing more to build for them: until then
/// it holds the lock of the build folder.
fn pass(options: &Options, skips: &[&str], flags: &[&str], begun: impl FnOnce()) -> Result<Pass> {
    let mut begun = Some(begun);
    let mut cargo = cargo_test(options);
    cargo.arg("--").args(&options.rest).args(flags);
    for skip in skips {
        cargo.args(["--skip", skip]);
    }
    let mut child = cargo
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", sh::show(&cargo)))?;
    let mut pass = Pass::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.context("reading what the tests print")?;
            println!("{line}");
            pass.read(&line);
            if let Some(begun) = begun.take() {
                begun();
            }
        }
    }
    let status = child.wait().context("waiting for the tests")?;
    if !status.success() && pass.failed == 0 {
        // A test binary that crashes prints no result.
        pass.failed = 1;
        pass.failures.push(format!("a test process ended without a result (cargo test: {status})"));
    }
    Ok(pass)
}

impl Pass {
    /// Takes in one line of what libtest prints.
    fn read(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("test result: ") {
            let counts = rest.split_once(". ").map_or("", |(_, counts)| counts);
            for part in counts.split("; ") {
                let mut words = part.split_whitespace();
                let count = words.next().and_then(|word| word.parse::<u32>().ok()).unwrap_or(0);
                match words.next() {
                    Some("passed") => self.passed += count,
                    Some("failed") => self.failed += count,
                    Some("ignored") => self.ignored += count,
                    Some("filtered") => self.filtered += count,
                    _ => {}
                }
            }
        } else if let Some(name) =
            line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_binaries_add_up() {
        let mut pass = Pass::default();
        for line in [
            "test policy::denies ... FAILED",
            "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 4 filtered out; finished in 0.00s",
            "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s",
        ] {
            pass.read(line);
        }
        let failures = vec!["policy::denies".to_owned()];
        assert_eq!(pass, Pass { passed: 8, failed: 1, ignored: 2, filtered: 4, failures });
    }

    #[test]
    fn a_run_without_tests_is_no_success() {
        assert!(Counts::default().verdict().is_err());
        assert!(Counts { passed: 1, ..Counts::default() }.verdict().is_ok());
        assert!(Counts { passed: 1, failed: 1, ..Counts::default() }.verdict().is_err());
    }

    #[test]
    fn the_closing_line_is_the_one_that_ci_reads() {
        let counts = Counts { passed: 7, failed: 0, skipped: 2, failures: Vec::new() };
        assert_eq!(counts.line(), "7 passed, 0 failed, 2 skipped");
    }
}
