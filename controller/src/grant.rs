//! `tidegate grant`.

use crate::audit::cli::when;
use crate::cli::{block_on, duration, print_committed};
use crate::client;
use crate::daemon::{GrantRequest, GrantedRevision, RevokeRequest};
use crate::exit_code::{Code, Failure, Result};
use crate::guard::identity;
use crate::instance::Instance;
use crate::policy::ports::PortMatch;
use crate::policy::selector::Selector;
use crate::policy::spiffe::SpiffeId;
use crate::state::State;
use crate::view::grants::{self, Asked};
use crate::view::{Format, OutputArg, print_json, say};
use hyper::Method;
use jiff::{SignedDuration, Timestamp};

/// `tidegate grant`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct GrantArgs {
    #[command(subcommand)]
    command: Option<GrantCommand>,
    /// Who may open connections: a SPIFFE ID, or the name of a workload
    #[arg(value_name = "SRC", required = true)]
    from: Option<String>,
    /// To whom: a SPIFFE ID, or the name of a workload
    #[arg(value_name = "DST", required = true)]
    to: Option<String>,
    /// To which services, such as tcp/8443, udp/5000-5010, icmp, any; several with commas between them
    #[arg(value_name = "PORT", value_delimiter = ',', num_args = 1, required = true)]
    ports: Vec<PortMatch>,
    /// For how long, such as 90s, 15m, 1h30m; up to 7d
    #[arg(long = "for", value_name = "DURATION", value_parser = duration, required = true)]
    for_: Option<SignedDuration>,
    /// Why, for those who ask later
    #[arg(long, value_name = "TEXT", required = true)]
    reason: Option<String>,
    #[command(flatten)]
    output: OutputArg,
}

/// What becomes of grants.
#[derive(Debug, clap::Subcommand)]
pub enum GrantCommand {
    /// Who has access for a while, until when, given by whom and why
    #[command(after_help = "\
Examples:
  tidegate grant list
  tidegate grant list --at 2026-11-01T12:00:00Z    who had what then
  tidegate grant list --all -o json")]
    List(ListArgs),
    /// End a grant before its time, live connections too
    #[command(after_help = "Example:\n  tidegate grant revoke g12")]
    Revoke {
        /// As `grant list` shows it
        id: String,
        #[command(flatten)]
        output: OutputArg,
    },
}

/// `tidegate grant list`.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Who had what then, by the audit record: a time (RFC 3339), or so long ago, such as 24h
    #[arg(long, value_name = "WHEN", value_parser = when)]
    at: Option<Timestamp>,
    /// Every grant that ever was
    #[arg(long, conflicts_with = "at")]
    all: bool,
    #[command(flatten)]
    output: OutputArg,
}

impl ListArgs {
    fn asked(&self) -> Asked {
        Asked::of(self.at, self.all)
    }
}

impl GrantArgs {
    /// Where the daemon shows what the command shows.
    pub fn shown_at(&self) -> Option<(String, &OutputArg)> {
        let Some(GrantCommand::List(list)) = &self.command else { return None };
        let path = match list.asked() {
            Asked::Now => "/v1/grants".into(),
            Asked::At(at) => format!("/v1/grants?at={at}"),
            Asked::All => "/v1/grants?all=true".into(),
        };
        Some((path, &list.output))
    }
}

/// Runs `tidegate grant`.
pub fn run(instance: &Instance, args: GrantArgs) -> Result<()> {
    let GrantArgs { command, from, to, ports, for_, reason, output } = args;
    match command {
        Some(GrantCommand::List(list)) => {
            grants::print(instance, &State::of(instance)?, list.asked(), list.output.output)
        }
        Some(GrantCommand::Revoke { id, output }) => {
            let request = RevokeRequest { id };
            let done = block_on(client::call(instance, Method::POST, "/v1/grants/revoke", &request))?;
            print_committed(done, output.output, &format!("ends the grant {}", request.id))
        }
        None => {
            let (Some(from), Some(to), Some(time), Some(reason)) = (from, to, for_, reason) else {
                return Err(Failure::new(
                    Code::Usage,
                    "who, to whom, for how long, why? `tidegate grant --help`",
                ));
            };
            let (source, destination) = (exact(instance, &from)?, exact(instance, &to)?);
            let not_after = Timestamp::now() + time;
            let request = GrantRequest { from: source, to: destination, ports, not_after, reason };
            let given: GrantedRevision =
                block_on(client::call(instance, Method::POST, "/v1/grants", &request))?;
            if output.output == Format::Json {
                return print_json(&given);
            }
            match given {
                GrantedRevision { revision: Some(revision), id: Some(id), not_after: Some(end), .. } => {
                    say(&format!(
                        "grant {id}: {from} may open connections to {to} until {end:.0} (revision {revision})"
                    ))
                }
                GrantedRevision { approval, waits, .. } => say(&format!(
                    "nothing is given yet: it waits for approval {} by somebody else: {}",
                    approval.unwrap_or_default(),
                    waits.unwrap_or_default()
                )),
            }
        }
    }
}

/// One identity: a grant by hand is for nobody else.
fn exact(instance: &Instance, text: &str) -> Result<SpiffeId> {
    match identity(instance, text)? {
        Selector::SpiffeId(id) => Ok(id),
        other => Err(Failure::new(Code::Usage, format!("a grant is for one identity, not for {other}"))
            .hint("name it by its SPIFFE ID; grants for more are documents: `kind: Grant`")),
    }
}
