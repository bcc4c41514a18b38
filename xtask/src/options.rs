//! The command line. Parsed by hand: xtask is built before anything else and has to be small.

use crate::bench;

/// What `cargo xtask help` prints.
pub const USAGE: &str = "\
Usage: cargo xtask TASK [OPTIONS]

  setup            install what is missing (Debian, Ubuntu; as root) and say why
  build [--debug]  setup, then build the tidegate and tidegate-sim binaries (release by default)
  package [--debug] [--deb-version VERSION] [ARGS]...
                   build and write the Debian package into target/debian; --debug packs what `build --debug` or
                   `test` has built, as it is; ARGS go to cargo deb
  test [-p CRATE]... [FILTER]
                   setup, build and run every test; as root also those that load programs into the kernel
  demo [--debug] [ARGS]...
                   setup, build and run topologies/demo.yaml (root); ARGS go to tidegate-sim run; --debug with what `test`
                   has built
  bench [--check] [--kernel] [--live] [--size] [--forward] [--policy] [--loop] [--native]
                   the parts that are named, or all: kernel test-run beside xdp-filter, live frames beside a bare
                   XDP_DROP and nftables, cost and memory against size, forwarding through a gateway, policy at scale (root), and
                   criterion benches of the native path; figures and plots go to target/bench;
                   --check fails where a ratio is not within what is enforced (docs/benchmarks.md)
  oracle [nft|tshark|zeek|coverage|fuzz|schemathesis|vm]... [--short|--long]
                   the packet path and the API judged by others (docs/oracles.md); short unless --long
  fmt              format all crates
  lint             rustfmt, clippy and the BPF crates, warnings denied
  docs [--check]   write docs/drops.md (--check: compare it), check links and commands in the docs, rustdoc
  ci               test, lint, docs --check, demo --debug and oracle --short, as .ci/run does

Exit status: 0 done, 1 failed, 2 usage.";

const TASKS: [&str; 12] =
    ["setup", "build", "package", "test", "demo", "bench", "oracle", "fmt", "lint", "docs", "ci", "help"];

/// A task and its options.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// One of [`TASKS`].
    pub task: String,
    /// `--check`
    pub check: bool,
    /// `--debug`
    pub debug: bool,
    /// The parts that a bench is to run, as `kernel` for `--kernel`.
    pub parts: Vec<&'static str>,
    /// `--long`
    pub long: bool,
    /// `--deb-version VERSION`
    pub deb_version: Option<String>,
    /// `-p CRATE`, may be repeated.
    pub packages: Vec<String>,
    /// What else was given, for the program that the task runs.
    pub rest: Vec<String>,
}

impl Options {
    /// From the words after `cargo xtask`.
    pub fn parse(words: &[String]) -> Result<Self, String> {
        let mut words = words.iter();
        let task = match words.next().map(String::as_str) {
            None | Some("-h" | "--help") => "help",
            Some(task) if TASKS.contains(&task) => task,
            Some(other) => return Err(format!("there is no task '{other}'")),
        };
        let mut options = Self { task: task.to_owned(), ..Self::default() };
        while let Some(word) = words.next() {
            match (task, word.as_str()) {
                ("build" | "package" | "demo", "--debug") => options.debug = true,
                ("demo", _) => options.rest.push(word.clone()),
                (_, "-h" | "--help") => return Ok(Self { task: "help".into(), ..Self::default() }),
                ("bench" | "docs", "--check") => options.check = true,
                ("package", "--deb-version") => match words.next() {
                    Some(version) => options.deb_version = Some(version.clone()),
                    None => return Err("--deb-version wants a version, as 0.1.0-1".into()),
                },
                ("package", _) => options.rest.push(word.clone()),
                ("bench", part) if bench::part(part).is_some() => options.parts.extend(bench::part(part)),
                ("oracle", "--long") => options.long = true,
                ("oracle", "--short") => options.long = false,
                ("oracle", name) if !name.starts_with('-') => options.rest.push(word.clone()),
                ("test", "-p") => match words.next() {
                    Some(package) => options.packages.push(package.clone()),
                    None => return Err("-p wants the name of a crate".into()),
                },
                ("test", filter) if !filter.starts_with('-') => options.rest.push(word.clone()),
                _ => return Err(format!("'{task}' does not know '{word}'")),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(&line.split_whitespace().map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn options_belong_to_their_task() {
        assert!(parse("bench --check").is_ok_and(|options| options.check));
        assert_eq!(parse("setup --check"), Err("'setup' does not know '--check'".into()));
        assert_eq!(parse("tset"), Err("there is no task 'tset'".into()));
        assert_eq!(parse("test -p"), Err("-p wants the name of a crate".into()));
    }

    #[test]
    fn a_bench_runs_the_parts_that_are_named() {
        let parts = parse("bench --live --native").map(|options| options.parts);
        assert_eq!(parts, Ok(vec!["live", "native"]));
        assert_eq!(parse("bench --lively"), Err("'bench' does not know '--lively'".into()));
    }

    #[test]
    fn the_demo_hands_its_options_on() {
        assert_eq!(parse("demo -o json").map(|options| options.rest), Ok(vec!["-o".into(), "json".into()]));
    }

    #[test]
    fn the_package_has_the_version_that_is_given_and_hands_the_rest_on() {
        let options = parse("demo --debug -o json").expect("options");
        assert!(options.debug);
        assert_eq!(options.rest, ["-o", "json"]);
        let options = parse("package --debug --deb-version 0.2.0-1 --output /tmp").expect("options");
        assert!(options.debug);
        assert_eq!(options.deb_version.as_deref(), Some("0.2.0-1"));
        assert_eq!(options.rest, ["--output", "/tmp"]);
        let missing = Err("--deb-version wants a version, as 0.1.0-1".into());
        assert_eq!(parse("package --deb-version"), missing);
    }

    #[test]
    fn oracles_are_short_unless_long_ones_are_asked_for() {
        assert!(parse("oracle nft --long").is_ok_and(|options| options.long && options.rest == ["nft"]));
        assert!(parse("oracle").is_ok_and(|options| !options.long && options.rest.is_empty()));
    }

    #[test]
    fn no_task_asks_for_help() {
        assert_eq!(parse("").map(|options| options.task), Ok("help".into()));
        assert_eq!(parse("lint --help").map(|options| options.task), Ok("help".into()));
    }
}
