//! `cargo xtask`: set-up, build, package, test, demo and bench of Tidegate.

mod apt;
mod bench;
mod bpf_toolchain;
mod build;
mod ci;
mod demo;
mod docs;
mod lint;
mod options;
mod oracle;
mod package;
mod setup;
mod sh;
mod test;

use options::Options;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let options = match Options::parse(&words) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("cargo xtask: {why}\n\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    let result = match options.task.as_str() {
        "help" => {
            println!("{}", options::USAGE);
            Ok(())
        }
        "setup" => setup::run(),
        "build" => build::run(&options),
        "package" => package::run(&options),
        "test" => test::run(&options).and_then(|counts| counts.verdict()),
        "demo" => demo::run(&options),
        "bench" => bench::run(&options),
        "oracle" => oracle::run(&options),
        "fmt" => lint::format(false),
        "lint" => lint::run(),
        "docs" => docs::run(&options),
        _ => ci::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ncargo xtask {}: {error:#}", options.task);
            ExitCode::FAILURE
        }
    }
}
