//! `tidegate approvals`.

use super::approvals::{Radius, Request, RequestState};
use crate::cli::{block_on, duration};
use crate::client;
use crate::daemon::{AskRequest, DecideRequest};
use crate::exit_code::{Code, Failure, Result};
use crate::guard::one;
use crate::instance::Instance;
use crate::policy::time::duration_text;
use crate::view::table::{self, or_dash};
use crate::view::{Format, OutputArg, print_json, say};
use hyper::Method;
use jiff::SignedDuration;

/// `tidegate approvals`.
#[derive(Debug, clap::Subcommand)]
pub enum ApprovalsCommand {
    /// Containments and grants that wait
    List {
        /// Those that were decided too
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        output: OutputArg,
    },
    /// One of them: why it is asked for, what it would touch, who agreed
    Show {
        /// Its number
        id: u64,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Agree; the last one who has to has it done. Who asked cannot
    Approve {
        /// Its number
        id: u64,
    },
    /// Say no: it is not done, nor asked for again for the same finding
    #[command(after_help = "Example:\n  tidegate approvals reject 3 --note 'a migration, not an attack'")]
    Reject {
        /// Its number
        id: u64,
        /// Why
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// Ask for a containment oneself: somebody else has to agree, however little it touches
    #[command(after_help = "\
Example:
  tidegate approvals ask spiffe://acme.example/ns/shop/sa/orders --for 1h --reason 'a leaked key'")]
    Ask {
        /// Who is to be quarantined: a SPIFFE ID, or the name of a workload
        identity: String,
        /// For how long, from when it is done, such as 90s, 10m, 1h30m, 7d
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        for_: SignedDuration,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

/// Runs it.
pub fn run(instance: &Instance, command: ApprovalsCommand) -> Result<()> {
    match command {
        ApprovalsCommand::List { all, output } => {
            let requests: Vec<Request> = block_on(client::call(instance, Method::GET, "/v1/approvals", &()))?;
            list(requests, all, output.output)
        }
        ApprovalsCommand::Show { id, output } => {
            let path = format!("/v1/approval?id={id}");
            let request: Request = block_on(client::call(instance, Method::GET, &path, &()))?;
            show(&request, output.output)
        }
        ApprovalsCommand::Approve { id } => {
            let request = DecideRequest { id, note: None };
            let request: Request =
                block_on(client::call(instance, Method::POST, "/v1/approvals/approve", &request))?;
            say(&format!("approval {id}: {}", became(&request)))
        }
        ApprovalsCommand::Reject { id, note } => {
            let request = DecideRequest { id, note };
            let request: Request =
                block_on(client::call(instance, Method::POST, "/v1/approvals/reject", &request))?;
            say(&format!("approval {id}: {}", became(&request)))
        }
        ApprovalsCommand::Ask { identity, for_, reason } => {
            let seconds = u64::try_from(for_.as_secs()).ok().filter(|seconds| *seconds > 0);
            let seconds = seconds.ok_or_else(|| Failure::new(Code::Usage, "--for is a second at least"))?;
            let request = AskRequest { identity: one(instance, &identity)?, seconds, reason };
            let request: Request =
                block_on(client::call(instance, Method::POST, "/v1/approvals/ask", &request))?;
            say(&format!("approval {}: {}", request.id, became(&request)))
        }
    }
}

/// What has become of it, in words.
fn became(request: &Request) -> String {
    let Request { identity, act, access, agreed, approvers, answer_by, unanswered, .. } = request;
    let (to_be, is, is_not) = match access {
        Some(access) => {
            let has = format!("access to {access}");
            (format!("to have {has}"), format!("has {has}"), format!("has no {has}"))
        }
        None => {
            (format!("to be contained ({act})"), "is contained".to_owned(), "is not contained".to_owned())
        }
    };
    match &request.state {
        RequestState::Waiting => format!(
            "{identity} waits {to_be}: {} of {approvers} have agreed; unanswered at {answer_by:.0}, {unanswered}",
            agreed.len()
        ),
        RequestState::Approved { until, .. } if access.is_some() => {
            format!("{identity} {is} until {until:.0}")
        }
        RequestState::Approved { until, .. } => format!("{identity} {is} until {until:.0} ({act})"),
        RequestState::Rejected { by, note, .. } => {
            let note = note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
            format!("{by} said no{note}: {identity} {is_not}")
        }
        RequestState::Lapsed { at } => format!("nobody answered until {at:.0}: {identity} {is_not}"),
        RequestState::Withdrawn { at, by } => {
            format!("needless since {by} decided about the finding at {at:.0}: {identity} {is_not}")
        }
    }
}

fn state(request: &Request) -> &'static str {
    match request.state {
        RequestState::Waiting => "waiting",
        RequestState::Approved { .. } => "approved",
        RequestState::Rejected { .. } => "rejected",
        RequestState::Lapsed { .. } => "lapsed",
        RequestState::Withdrawn { .. } => "withdrawn",
    }
}

fn list(requests: Vec<Request>, all: bool, format: Format) -> Result<()> {
    let is_none = requests.is_empty();
    let shown: Vec<_> = requests.into_iter().filter(|request| all || request.waits()).collect();
    if format == Format::Json {
        return print_json(&shown);
    }
    if shown.is_empty() {
        let text =
            if is_none { "nothing was asked for" } else { "nothing waits; --all shows what was decided" };
        return say(text);
    }
    let columns =
        [">ID", "STATE", "IDENTITY", "ACT", "FOR", "FINDING", "OVER", ">AGREED", "ANSWER BY", "ASKED BY"];
    let mut out = table::table(&columns);
    for request in &shown {
        out.add_row([
            request.id.to_string(),
            state(request).to_owned(),
            request.identity.to_string(),
            request.doing(),
            duration_text(request.seconds),
            or_dash(request.finding.map(|finding| finding.to_string()).as_deref()),
            request.over.clone(),
            format!("{} of {}", request.agreed.len(), request.approvers),
            format!("{:.0}", request.answer_by),
            request.asked_by.clone(),
        ]);
    }
    say(&table::text(&out))
}

fn show(request: &Request, format: Format) -> Result<()> {
    if format == Format::Json {
        return print_json(request);
    }
    say(&format!("approval {}: {}", request.id, became(request)))?;
    let Radius { addresses, peers, connections, service } = &request.radius;
    let mut out = table::table(&["", ""]);
    let mut row = |name: &str, text: String| {
        out.add_row([name.to_owned(), text]);
    };
    row(
        "asked",
        format!("{:.0} by {}, for {}", request.asked_at, request.asked_by, duration_text(request.seconds)),
    );
    row("why", request.why.clone());
    row("over", request.over.clone());
    let share = service.as_ref().map(|share| format!(", {} % of {}", share.percent, share.service));
    row(
        "touches",
        format!(
            "{addresses} addresses, {peers} peers, {connections} connections{}",
            share.unwrap_or_default()
        ),
    );
    for agreed in &request.agreed {
        row("agreed", format!("{:.0} by {}", agreed.at, agreed.by));
    }
    if let RequestState::Approved { revision, .. } = &request.state {
        row(
            "done",
            match &request.access {
                Some(_) => format!("revision {revision}; undo it: tidegate grant revoke g{revision}"),
                None => format!(
                    "revision {revision}; undo it: tidegate quarantine del {} --act {}",
                    request.identity,
                    request.act.name()
                ),
            },
        );
    }
    say(&table::text(&out))
}
