//! Which lines of the packet path no fixture reaches.

use super::{Length, Outcome};
use crate::sh;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FOLDER: &str = "datapath/src";
/// Plain maps for tests and replay: not part of what is judged here.
const NOT_THE_PATH: &str = "host.rs";

/// Runs the fixture table natively with counters for each line, and prints the lines that stayed at 0. The short form
/// prints their number alone. Both fail if a reason for a verdict has no fixture.
pub fn run(length: Length) -> Result<Outcome> {
    sh::step("each reason has a fixture", || {
        sh::run(fixtures("test", &sh::target_dir()).args(["--", "--exact", "every_reason_has_a_fixture"]))
    })?;
    let Some(tools) = Tools::find()? else {
        let how = "rustup component add llvm-tools, or Debian's llvm-22";
        return Ok(Outcome::Skipped(format!("no llvm-cov and llvm-profdata of LLVM {}: {how}", llvm()?)));
    };
    let folder = sh::target_dir().join("oracle/coverage");
    let binary = instrumented(&folder)?;
    let profile = folder.join("fixtures.profraw");
    let mut test = sh::command(&binary.to_string_lossy());
    test.args(["--exact", "every_fixture_on_the_native_path", "--quiet"]).env("LLVM_PROFILE_FILE", &profile);
    sh::run(&mut test)?;
    let merged = folder.join("fixtures.profdata");
    sh::run(sh::command(&tools.profdata).args(["merge", "-sparse", "-o"]).arg(&merged).arg(&profile))?;
    let mut export = sh::command(&tools.cov);
    export.args(["export", "--format=lcov", "--instr-profile"]).arg(&merged).arg(&binary);
    let report = sh::read(export.arg(sh::root().join(FOLDER)))?;
    print(&lines_by_file(&report), length)
}

fn print(files: &BTreeMap<String, BTreeMap<u32, u64>>, length: Length) -> Result<Outcome> {
    let (mut all, mut reached) = (0, 0);
    for (name, lines) in files {
        let missed: Vec<u32> =
            lines.iter().filter(|(_, count)| **count == 0).map(|(line, _)| *line).collect();
        all += lines.len();
        reached += lines.len() - missed.len();
        if !missed.is_empty() && length == Length::Long {
            println!(
                "{FOLDER}/{name}: {} of {} lines not reached: {}",
                missed.len(),
                lines.len(),
                ranges(&missed)
            );
        }
    }
    if all == 0 {
        bail!("the report names no line of {FOLDER}");
    }
    println!(
        "fixtures reach {reached} of {all} lines of {FOLDER} ({:.1} %)",
        reached as f32 * 100.0 / all as f32
    );
    Ok(Outcome::Passed)
}

fn fixtures(task: &str, target: &Path) -> std::process::Command {
    let mut cargo = sh::cargo();
    cargo.args([task, "--quiet", "--locked", "--package", "tidegate-datapath", "--features", "host"]);
    cargo.args(["--test", "host"]).env("CARGO_TARGET_DIR", target);
    cargo
}

/// The fixtures' test, built with counters.
fn instrumented(folder: &Path) -> Result<PathBuf> {
    let mut cargo = fixtures("test", folder);
    // Without optimisation no line is merged with another. Build scripts are not counted: they would leave files.
    cargo.args(["--no-run", "--message-format=json"]).env("RUSTFLAGS", "-C instrument-coverage");
    let messages = sh::read(cargo.env("LLVM_PROFILE_FILE", folder.join("build.profraw")))?;
    let path = messages.lines().rev().find_map(|line| {
        let (_, rest) = line.split_once("\"executable\":\"")?;
        rest.split_once('"').map(|(path, _)| PathBuf::from(path))
    });
    path.context("cargo does not say where the test is")
}

struct Tools {
    cov: String,
    profdata: String,
}

impl Tools {
    /// Those of rustup's compiler, or the distribution's of the same LLVM: the format changes between versions.
    fn find() -> Result<Option<Self>> {
        let sysroot = sh::read(sh::command("rustc").args(["--print", "sysroot"]))?;
        let host = sh::read(sh::command("rustc").args(["--print", "host-tuple"]))?;
        let rustup = Path::new(sysroot.trim()).join("lib/rustlib").join(host.trim()).join("bin");
        let folders = [rustup, PathBuf::from(format!("/usr/lib/llvm-{}/bin", llvm()?))];
        let found = folders.iter().find(|folder| folder.join("llvm-cov").is_file());
        let tool = |folder: &PathBuf, name: &str| folder.join(name).to_string_lossy().into_owned();
        Ok(found
            .map(|folder| Self { cov: tool(folder, "llvm-cov"), profdata: tool(folder, "llvm-profdata") }))
    }
}

/// The major version of the compiler's LLVM.
fn llvm() -> Result<String> {
    let text = sh::read(sh::command("rustc").arg("-vV"))?;
    let version = text.lines().find_map(|line| line.strip_prefix("LLVM version: ")).unwrap_or_default();
    Ok(version.split('.').next().unwrap_or_default().to_owned())
}

/// How often each line was run, by file, from lcov's format.
fn lines_by_file(report: &str) -> BTreeMap<String, BTreeMap<u32, u64>> {
    let mut files = BTreeMap::<String, BTreeMap<u32, u64>>::new();
    let mut name = String::new();
    for line in report.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            name = path.rsplit_once(&format!("{FOLDER}/")).map_or(path, |(_, name)| name).to_owned();
        } else if let Some((number, count)) = line.strip_prefix("DA:").and_then(|rest| rest.split_once(','))
            && let (Ok(number), Ok(count)) = (number.parse(), count.parse())
            && name != NOT_THE_PATH
        {
            files.entry(name.clone()).or_default().insert(number, count);
        }
    }
    files
}

/// `3-5, 9`.
fn ranges(lines: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for line in lines {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *line => *last = *line,
            _ => runs.push((*line, *line)),
        }
    }
    let one = |(first, last): &(u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    runs.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_by_file() {
        let report = "SF:/x/datapath/src/judge.rs\nDA:3,1\nDA:4,0\nDA:5,0\nDA:9,0\nend_of_record\n\
                      SF:/x/datapath/src/host.rs\nDA:1,0\nend_of_record\n";
        let files = lines_by_file(report);
        assert_eq!(files.keys().collect::<Vec<_>>(), ["judge.rs"]);
        assert_eq!(files["judge.rs"], BTreeMap::from([(3, 1), (4, 0), (5, 0), (9, 0)]));
    }

    #[test]
    fn neighbouring_lines_are_one_range() {
        assert_eq!(ranges(&[4, 5, 6, 9]), "4-6, 9");
        assert_eq!(ranges(&[]), "");
    }
}
