//! `tidegate findings` and `tidegate governance`.

use super::FailingRule;
use super::finding::Finding;
use super::view::{WantedFindings, print_finding, print_findings};
use crate::cli::{block_on, duration};
use crate::client;
use crate::daemon::{GovernanceStatus, MuteRequest, PauseRequest, ResolveRequest};
use crate::exit_code::Result;
use crate::instance::Instance;
use crate::view::{Format, OutputArg, print_json, say};
use hyper::Method;
use jiff::{SignedDuration, Timestamp};

/// `tidegate findings`.
#[derive(Debug, clap::Subcommand)]
pub enum FindingsCommand {
    /// What departs from its intent: open findings
    #[command(after_help = "\
Examples:
  tidegate findings list --severity high
  tidegate findings list --all --identity sa/orders --since 24h -o json")]
    List {
        #[command(flatten)]
        wanted: WantedFindings,
        #[command(flatten)]
        output: OutputArg,
    },
    /// One finding: why, on what evidence, what was done, how to undo it
    Show {
        /// Its number
        id: u64,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Say that a finding was looked at; the next departure of its kind is a new one
    #[command(after_help = "Example:\n  tidegate findings resolve 3 --note 'new replica, intent updated'")]
    Resolve {
        /// Its number
        id: u64,
        /// What came of it
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// Have a finding say and do nothing for a while; it goes on counting
    #[command(after_help = "\
Examples:
  tidegate findings mute 3 --for 2h
  tidegate findings mute 3 --until 2027-01-01T00:00:00Z")]
    Mute {
        /// Its number
        id: u64,
        /// For how long, such as 90s, 10m, 1h30m, 7d; or `--until`
        #[arg(long = "for", value_name = "DURATION", value_parser = duration, required_unless_present = "until")]
        for_: Option<SignedDuration>,
        /// Until when: RFC 3339 with a zone, such as 2027-01-01T00:00:00Z
        #[arg(long, value_name = "TIME", conflicts_with = "for_", value_parser = moment)]
        until: Option<Timestamp>,
    },
}

/// `tidegate governance`.
#[derive(Debug, clap::Subcommand)]
pub enum GovernanceCommand {
    /// Whether the loop contains, and how much it did
    Status(OutputArg),
    /// The brake: from now on nothing is contained without a person; findings are made as before
    #[command(after_help = "Example:\n  tidegate governance pause --reason 'migration tonight'")]
    Pause {
        /// Why, for those who look at findings
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Let the loop contain again
    Resume,
}

fn moment(text: &str) -> std::result::Result<Timestamp, String> {
    text.parse().map_err(|_| "write a time with a zone, as 2027-01-01T00:00:00Z; `--for` takes 2h".into())
}

/// Runs `tidegate findings`.
pub fn findings(instance: &Instance, command: FindingsCommand) -> Result<()> {
    match command {
        FindingsCommand::List { wanted, output } => {
            let findings: Vec<Finding> = block_on(client::call(instance, Method::GET, "/v1/findings", &()))?;
            print_findings(&findings, &wanted, output.output)
        }
        FindingsCommand::Show { id, output } => {
            let path = format!("/v1/finding?id={id}");
            let finding: Finding = block_on(client::call(instance, Method::GET, &path, &()))?;
            print_finding(&finding, output.output)
        }
        FindingsCommand::Resolve { id, note } => {
            let request = ResolveRequest { id, note };
            let _: Finding =
                block_on(client::call(instance, Method::POST, "/v1/findings/resolve", &request))?;
            say(&format!("finding {id} is resolved"))
        }
        FindingsCommand::Mute { id, for_, until } => {
            let now = Timestamp::now();
            let until = until.or(for_.map(|d| now + d)).unwrap_or(now);
            let request = MuteRequest { id, until };
            let _: Finding = block_on(client::call(instance, Method::POST, "/v1/findings/mute", &request))?;
            say(&format!("finding {id} is muted until {until:.0}"))
        }
    }
}

/// Runs `tidegate governance`.
pub fn governance(instance: &Instance, command: GovernanceCommand) -> Result<()> {
    let (method, path, request) = match command {
        GovernanceCommand::Status(output) => {
            let status = block_on(client::call(instance, Method::GET, "/v1/governance", &()))?;
            return print_status(&status, output.output);
        }
        GovernanceCommand::Pause { reason } => {
            (Method::POST, "/v1/governance/pause", Some(PauseRequest { reason }))
        }
        GovernanceCommand::Resume => (Method::POST, "/v1/governance/resume", None),
    };
    let status: GovernanceStatus = block_on(client::call(instance, method, path, &request))?;
    print_status(&status, Format::Table)
}

fn print_status(status: &GovernanceStatus, format: Format) -> Result<()> {
    if format == Format::Json {
        return print_json(status);
    }
    let GovernanceStatus {
        paused,
        intents,
        open_findings,
        contained_last_hour,
        per_hour,
        shed,
        forgotten,
        failing_rules,
    } = status;
    match paused {
        Some(why) => say(&format!("paused: {why}"))?,
        None => say("contains where intents say so")?,
    }
    say(&format!(
        "intents {intents}, open findings {open_findings}, containments in the last hour {contained_last_hour} of {per_hour}, events not compared {shed}, identities forgotten {forgotten}"
    ))?;
    failing_rules.iter().try_for_each(|FailingRule { intent, rule, times, error }| {
        say(&format!(
            "rule {rule} of intent {intent} failed on {times} events and said nothing of them: {error}"
        ))
    })
}
