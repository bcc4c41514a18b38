//! What the verifier takes for each program, held against the table that was committed.

use loader::{Kernel, LoadOptions, Sizes};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Growth that goes unnoticed, as a fraction.
const GROWTH: f64 = 0.10;
/// What Linux allows a program.
const LIMIT: u32 = 1_000_000;
/// Set to write the table.
const WRITE: &str = "TIDEGATE_WRITE_VERIFIED";

fn table() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci/verified-instructions.txt")
}

fn read(text: &str) -> BTreeMap<String, u32> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let row = |line: &str| {
        let (name, count) = line.split_once(' ').expect("a name and a number");
        (name.to_owned(), count.trim().parse().expect("a number"))
    };
    lines.map(row).collect()
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn no_program_grows_unnoticed() {
    let options = LoadOptions { sizes: Sizes::small(), tc_ingress: true, ..LoadOptions::default() };
    let programs = Kernel::load(&options).unwrap().programs();
    assert_eq!(programs.len(), 3);
    if std::env::var_os(WRITE).is_some() {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let mut text = format!(
            "# Verified instructions by program, Linux {release}. Written by a test: see README.md.\n"
        );
        for program in &programs {
            writeln!(text, "{} {}", program.name, program.verified_instructions).unwrap();
        }
        std::fs::write(table(), text).unwrap();
    }
    let before = read(&std::fs::read_to_string(table()).unwrap());
    for program in programs {
        let (now, was) = (program.verified_instructions, before[program.name]);
        println!("{}: {now} verified instructions, {was} in ci/verified-instructions.txt", program.name);
        assert!(now > 0 && now < LIMIT, "{}: {now} of {LIMIT}", program.name);
        assert!(
            f64::from(now) <= f64::from(was) * (1.0 + GROWTH),
            "{} takes {now} verified instructions, {was} before. Make it cheaper, or write the table anew and commit \
             it: {WRITE}=1 cargo test -p tidegate-loader --test verifier -- --ignored",
            program.name
        );
    }
}
