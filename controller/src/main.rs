//! The `tidegate` binary.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = tidegate::cli::Cli::parse();
    match tidegate::cli::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("tidegate: {}", failure.message);
            if let Some(hint) = &failure.hint {
                eprintln!("  {hint}");
            }
            ExitCode::from(failure.code.exit())
        }
    }
}
