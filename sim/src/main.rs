//! `tidegate-sim`: brings a topology up in network namespaces, runs a real tidegate on its gateway, sends real
//! traffic, checks what came of it, and removes everything again.

mod ca;
mod capture;
mod exit_code;
mod expect;
mod gateway;
mod governed;
mod lab;
mod net;
mod node;
mod ns;
mod registry;
mod report;
mod run;
mod seen;
mod topology;
mod traffic;
mod worker;

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

#[derive(Parser)]
#[command(
    name = "tidegate-sim",
    version,
    about = "Brings topologies up in network namespaces and checks what tidegate does in them",
    after_help = "Examples:\n  tidegate-sim run topologies/demo.yaml\n  tidegate-sim run topologies/demo.yaml -o json --keep-going\n  tidegate-sim clean"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a topology file. Exit status: 0 if all of it held, 1 if not, 2 if the file is wrong, 5 without root.
    Run(RunOptions),
    /// Removes what runs have left that were killed.
    Clean,
    /// Checks a topology file, and makes nothing.
    Check {
        /// The topology file.
        file: PathBuf,
    },
    #[command(hide = true)]
    Node(Place),
    #[command(hide = true)]
    Capture {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        interface: String,
        #[arg(long)]
        file: PathBuf,
    },
    #[command(hide = true)]
    Exec {
        #[command(flatten)]
        place: Place,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

/// How to run.
#[derive(clap::Args)]
pub struct RunOptions {
    /// The topology file.
    pub file: PathBuf,
    /// What is printed on stdout.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Goes on with the next step when one has failed.
    #[arg(long)]
    pub keep_going: bool,
    /// The tidegate binary; by default the one beside this program.
    #[arg(long, env = "TIDEGATE_BIN", value_name = "PATH")]
    pub tidegate: Option<PathBuf>,
    /// Records each link of the gateway into DIR/NODE-INTERFACE.pcap.
    #[arg(long, value_name = "DIR")]
    pub pcap: Option<PathBuf>,
    /// Colours in the table.
    #[arg(long, value_enum, default_value_t = Colour::Auto)]
    pub color: Colour,
}

/// What is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs: one document.
    Json,
}

/// When colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(clap::Args)]
struct Place {
    #[arg(long)]
    netns: PathBuf,
    #[arg(long)]
    parent: i32,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(options) => ExitCode::from(run::run(&options)),
        Command::Clean => ExitCode::from(clean()),
        Command::Check { file } => ExitCode::from(check(&file)),
        Command::Node(place) => ended(node::run(&place.netns, place.parent)),
        Command::Capture { place, interface, file } => {
            ended(node::enter(&place.netns, place.parent).and_then(|()| capture::record(&interface, &file)))
        }
        Command::Exec { place, command } => ended(exec(&place, &command)),
    }
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(exit_code::FAILED)
        }
    }
}

/// Becomes another program inside a namespace.
fn exec(place: &Place, command: &[String]) -> anyhow::Result<()> {
    node::enter(&place.netns, place.parent)?;
    let (program, args) = command.split_first().ok_or_else(|| anyhow::anyhow!("no program"))?;
    Err(anyhow::anyhow!("cannot start {program}: {}", std::process::Command::new(program).args(args).exec()))
}

fn check(file: &std::path::Path) -> u8 {
    match topology::load(file) {
        Ok(plan) => {
            println!("{}: {} nodes, {} links: fine", file.display(), plan.nodes.len(), plan.links.len());
            exit_code::OK
        }
        Err(error) => {
            eprintln!("{error}");
            exit_code::BAD_FILE
        }
    }
}

fn clean() -> u8 {
    if !run::is_root("clean") {
        return exit_code::NOT_PERMITTED;
    }
    let sweep = match registry::sweep() {
        Ok(sweep) => sweep,
        Err(error) => {
            eprintln!("{error:#}");
            return exit_code::FAILED;
        }
    };
    for (run, pid) in &sweep.running {
        println!("{run}: still running as process {pid}, left alone");
    }
    for (run, receipt) in &sweep.removed {
        println!("{run}: {}", report::receipt(receipt));
    }
    if sweep.running.is_empty() && sweep.removed.is_empty() {
        println!("nothing to remove");
    }
    let left = sweep.removed.iter().any(|(_, receipt)| !receipt.left.is_empty());
    if left { exit_code::FAILED } else { exit_code::OK }
}
