//! The `tidegate` binary.

use clap::Parser;
use std::process::ExitCode;

/// A commit makes and frees many small things, on one thread and another: docs/adr/0021.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
