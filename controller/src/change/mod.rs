//! `tidegate policy`: checking, applying, comparing, and going back.

mod apply;
pub mod diff;
mod flows;
pub mod history;

use crate::cli::{block_on, print_committed};
use crate::client;
use crate::daemon::{CommittedRevision, RollbackRequest, RolledBack};
use crate::exit_code::{Failure, Result};
use crate::instance::Instance;
use crate::policy;
use crate::shadow;
use crate::view::{self, Format, OutputArg, View, print_json, say};
use hyper::Method;
use std::path::PathBuf;

/// `tidegate policy`.
#[derive(Debug, clap::Subcommand)]
pub enum PolicyCommand {
    /// Say what is wrong in files, or right and probably not meant, and change nothing
    #[command(after_help = "Example:\n  tidegate policy check /etc/tidegate orders.yaml")]
    Check(PathsArg),
    /// Make files what counts, in one commit
    #[command(after_help = "\
Examples:
  tidegate policy apply /etc/tidegate
  tidegate policy apply /etc/tidegate --dry-run
  tidegate policy apply /etc/tidegate --confirm-within 60s     then: tidegate policy confirm
  tidegate policy apply /etc/tidegate --shadow 10m --max-changes 0")]
    Apply(apply::ApplyArgs),
    /// Keep what `apply --confirm-within` has made to count
    Confirm(OutputArg),
    /// What files would change of what counts: rules, workloads, blocks
    #[command(after_help = "\
Examples:
  tidegate policy diff /etc/tidegate
  tidegate policy diff /etc/tidegate --flows    and which of the flows seen lately would get another verdict")]
    Diff(diff::DiffArgs),
    /// Have the policy of an older revision count again; blocks and quarantines set by hand stay
    #[command(
        after_help = "Examples:\n  tidegate policy rollback        to the policy before this one\n  tidegate policy rollback 41"
    )]
    Rollback {
        /// Its number
        revision: Option<u64>,
        #[command(flatten)]
        output: OutputArg,
    },
    /// The revisions that are kept: when, who, how, and what became of them
    History(OutputArg),
    /// Print the JSON Schema of policy files, for editors and other tools
    #[command(
        after_help = "Examples:\n  tidegate policy schema > tidegate.schema.json\n  tidegate policy schema Workload"
    )]
    Schema {
        /// Of one kind of documents alone
        #[arg(value_parser = policy::schema::KINDS.to_vec())]
        kind: Option<String>,
    },
    /// Have a candidate policy judged beside the one that counts, and count what it would change
    Shadow(shadow::ShadowArgs),
    /// The rules that count, in the order in which they are asked
    #[command(
        after_help = "Examples:\n  tidegate policy show\n  tidegate policy show --revision 41 > policy.yaml    its files, as they were given"
    )]
    Show {
        /// The files of an older revision instead
        #[arg(long, value_name = "N")]
        revision: Option<u64>,
        #[command(flatten)]
        output: OutputArg,
    },
}

impl PolicyCommand {
    /// Where the daemon shows what the command shows, and in which form.
    pub fn shown_at(&self) -> Option<(String, &OutputArg)> {
        match self {
            Self::History(output) => Some(("/v1/policy/history".into(), output)),
            Self::Show { revision: Some(revision), output } => {
                Some((format!("/v1/policy/revision?revision={revision}"), output))
            }
            Self::Show { revision: None, output } => Some(("/v1/policy".into(), output)),
            Self::Shadow(args) => args.status().map(|output| ("/v1/shadow".into(), output)),
            Self::Check(_)
            | Self::Apply(_)
            | Self::Confirm(_)
            | Self::Diff(_)
            | Self::Rollback { .. }
            | Self::Schema { .. } => None,
        }
    }

    /// Whether it goes by no gateway at all.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Check(_) | Self::Schema { .. } => true,
            Self::Apply(_)
            | Self::Confirm(_)
            | Self::Diff(_)
            | Self::Rollback { .. }
            | Self::History(_)
            | Self::Shadow(_)
            | Self::Show { .. } => false,
        }
    }
}

/// Files and the form of the output.
#[derive(Debug, clap::Args)]
pub struct PathsArg {
    /// Files, or folders of *.yaml
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    output: OutputArg,
}

/// Runs the command.
pub fn run(instance: &Instance, command: PolicyCommand) -> Result<()> {
    match command {
        PolicyCommand::Check(args) => check(&args),
        PolicyCommand::Apply(args) => apply::run(instance, &args),
        PolicyCommand::Confirm(output) => {
            let call = client::call(instance, Method::POST, "/v1/policy/confirm", &());
            let done: CommittedRevision = block_on(call)?;
            print_committed(done, output.output, "is confirmed")
        }
        PolicyCommand::Diff(args) => diff::run(instance, &args),
        PolicyCommand::Rollback { revision, output } => {
            let request = RollbackRequest { revision };
            let call = client::call(instance, Method::POST, "/v1/policy/rollback", &request);
            let done: RolledBack = block_on(call)?;
            if output.output == Format::Json {
                return print_json(&done);
            }
            say(&format!("revision {}: the policy of revision {} counts again", done.revision, done.to))
        }
        PolicyCommand::History(output) => history::print(instance, output.output),
        PolicyCommand::Schema { kind } => {
            let schema = kind.as_deref().and_then(policy::schema::of).unwrap_or_else(policy::schema::all);
            let text =
                serde_json::to_string_pretty(&schema).map_err(|e| Failure::failed("encode JSON", e))?;
            say(&text)
        }
        PolicyCommand::Shadow(args) => shadow::run(instance, args),
        PolicyCommand::Show { revision: Some(revision), output } => {
            history::show(instance, revision, output.output)
        }
        PolicyCommand::Show { revision: None, output } => {
            view::lists::policy(&View::open(instance)?, output.output)
        }
    }
}

fn check(args: &PathsArg) -> Result<()> {
    let report = policy::check(&args.paths, jiff::Timestamp::now());
    if args.output.output == Format::Json {
        let ok = !report.has_mistakes();
        let mut value = serde_json::to_value(&report).unwrap_or_default();
        value["ok"] = ok.into();
        print_json(&value)?;
    }
    if report.has_mistakes() {
        return Err(policy::Mistakes(report.mistakes).into());
    }
    if args.output.output == Format::Table { say(&report.to_string()) } else { Ok(()) }
}
