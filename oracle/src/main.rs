//! The packet path, held against what others say of the same packets: nftables and conntrack in a namespace of their
//! own, tshark. `cargo xtask oracle` runs these, docs/oracles.md tells what they found.

mod corpus;
mod fields;
mod net;
mod rng;
mod twin;

use clap::Parser;
use std::process::ExitCode;

/// Holds the packet path against other people's judgement.
#[derive(Debug, Parser)]
#[command(name = "tidegate-oracle")]
enum Command {
    /// Random policies and packets, the same rules in nftables
    Nft(twin::Args),
    /// TCP states against `conntrack -E`
    Conntrack(twin::StateArgs),
    /// Fields of hostile frames against tshark's
    Tshark(fields::Args),
    /// Write seeds for the fuzz targets, made from the fixture table
    Corpus(corpus::Args),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Nft(args) => twin::run(&args),
        Command::Conntrack(args) => twin::run_states(&args),
        Command::Tshark(args) => fields::run(&args),
        Command::Corpus(args) => corpus::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate-oracle: {error:#}");
            ExitCode::FAILURE
        }
    }
}
