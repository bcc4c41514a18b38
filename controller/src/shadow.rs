//! `tidegate policy shadow`.

use crate::cli::block_on;
use crate::client;
use crate::daemon::{CommittedRevision, ShadowApplyRequest, ShadowRequest};
use crate::exit_code::{Code, Failure, Result};
use crate::instance::Instance;
use crate::policy::read_files;
use crate::view::{self, OutputArg, View, say};
use hyper::Method;
use std::num::NonZero;
use std::path::PathBuf;

/// `tidegate policy shadow`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  tidegate policy shadow /etc/tidegate.new --sample 1/16
  tidegate policy shadow status
  tidegate policy shadow apply")]
pub struct ShadowArgs {
    #[command(subcommand)]
    command: Option<ShadowCommand>,
    /// Files of the candidate, or folders of *.yaml
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Which part of the flows it judges
    #[arg(long, value_name = "1/N", default_value = "1/1", value_parser = sample)]
    sample: NonZero<u32>,
}

impl ShadowArgs {
    /// The form of the status, if that is asked for.
    pub fn status(&self) -> Option<&OutputArg> {
        match &self.command {
            Some(ShadowCommand::Status(output)) => Some(output),
            _ => None,
        }
    }
}

/// What becomes of the candidate.
#[derive(Debug, clap::Subcommand)]
enum ShadowCommand {
    /// What it would change, by pair of rules
    Status(OutputArg),
    /// Make it what counts
    Apply,
    /// Judge by it no longer
    Drop,
}

fn sample(text: &str) -> Result<NonZero<u32>, String> {
    let parsed = text.strip_prefix("1/").and_then(|n| n.parse().ok());
    parsed.ok_or_else(|| "write 1/N, such as 1/16; 1/1 is every flow".into())
}

/// Runs the command.
pub fn run(instance: &Instance, args: ShadowArgs) -> Result<()> {
    let post = |path| client::send(instance, Method::POST, path, &());
    match args.command {
        None if args.paths.is_empty() => {
            Err(Failure::new(Code::Usage, "name the candidate's files: `tidegate policy shadow PATH`"))
        }
        None => {
            let request = ShadowRequest { files: read_files(&args.paths)?, sample: args.sample, only: false };
            block_on(client::call::<()>(instance, Method::POST, "/v1/shadow", &request))?;
            say(&format!("judged beside what counts: 1 of {} flows", args.sample))
        }
        Some(ShadowCommand::Status(output)) => view::shadow::print(&View::open(instance)?, output.output),
        Some(ShadowCommand::Apply) => {
            let request = ShadowApplyRequest::default();
            let call = client::call(instance, Method::POST, "/v1/shadow/apply", &request);
            let committed: CommittedRevision = block_on(call)?;
            say(&format!("the candidate is what counts (revision {})", committed.revision))
        }
        Some(ShadowCommand::Drop) => {
            block_on(post("/v1/shadow/drop"))?;
            say("the candidate is dropped")
        }
    }
}
