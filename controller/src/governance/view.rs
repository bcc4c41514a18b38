//! `tidegate findings list` and `show`.

use super::compare::Role;
use super::decide::Decision;
use super::finding::{Containment, Finding, FindingState};
use super::signal::Signal;
use crate::audit::when;
use crate::exit_code::Result;
use crate::policy::intent::Sensitivity;
use crate::view::table::{self, or_dash};
use crate::view::{Format, print_json, say};
use clap::builder::PossibleValuesParser;
use jiff::Timestamp;

/// Which findings. All that is asked has to be so.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct WantedFindings {
    /// Muted and resolved ones too
    #[arg(long)]
    all: bool,
    /// Only of identities with this in their SPIFFE ID, or with such a peer
    #[arg(long, value_name = "TEXT")]
    identity: Option<String>,
    /// Only of this severity or above: low, medium, high
    #[arg(long, value_name = "SEVERITY")]
    #[arg(value_parser = PossibleValuesParser::new(Sensitivity::WORDS.map(|(word, _)| word)))]
    severity: Option<String>,
    /// Only of these signals, such as new_peer (may be repeated)
    #[arg(long, value_name = "SIGNAL", value_delimiter = ',')]
    #[arg(value_parser = PossibleValuesParser::new(Signal::ALL.map(Signal::name)))]
    signal: Vec<String>,
    /// Only of this intent
    #[arg(long, value_name = "NAME")]
    intent: Option<String>,
    /// Only of intents of this owner
    #[arg(long, value_name = "NAME")]
    owner: Option<String>,
    /// Only what was seen since then: a time (RFC 3339), or so long ago, such as 24h
    #[arg(long, value_name = "WHEN", value_parser = when)]
    since: Option<Timestamp>,
}

impl WantedFindings {
    fn wants(&self, finding: &Finding, now: Timestamp) -> bool {
        let Self { all, identity, severity, signal, intent, owner, since } = self;
        let has = |text: &String| {
            let own = finding.identities.iter().any(|id| id.as_str().contains(text.as_str()));
            own || finding.key.peer.to_string().contains(text.as_str())
        };
        let of = |name: &String| Sensitivity::WORDS.into_iter().find(|(word, _)| word == name);
        let least = severity.as_ref().and_then(of).map(|(_, severity)| severity);
        (*all || finding.state.is_open(now))
            && identity.as_ref().is_none_or(has)
            && least.is_none_or(|least| finding.severity >= least)
            && (signal.is_empty() || signal.iter().any(|name| *name == finding.key.signal.name()))
            && intent.as_ref().is_none_or(|name| *name == finding.key.intent)
            && owner.as_ref().is_none_or(|name| Some(name) == finding.owner.as_ref())
            && since.is_none_or(|since| finding.last_seen >= since)
    }
}

/// Prints findings: those that are wanted.
pub fn print_findings(findings: &[Finding], wanted: &WantedFindings, format: Format) -> Result<()> {
    let now = Timestamp::now();
    let shown: Vec<_> = findings.iter().filter(|f| wanted.wants(f, now)).collect();
    if format == Format::Json {
        return print_json(&shown);
    }
    if shown.is_empty() {
        let text = match (findings.is_empty(), wanted.all) {
            (true, _) => "no findings",
            (false, true) => "no findings of that",
            (false, false) => "no open findings of that; --all shows those that are muted or resolved",
        };
        return say(text);
    }
    let columns = [
        ">ID",
        "STATE",
        "SEVERITY",
        "SIGNAL",
        "INTENT",
        "IDENTITY",
        "PEER",
        "SERVICES",
        ">COUNT",
        "LAST SEEN",
        "DECISION",
    ];
    let mut out = table::table(&columns);
    for finding in shown {
        let services: Vec<&str> = finding.services.iter().rev().take(3).map(String::as_str).collect();
        let more = if finding.services.len() > services.len() { " ..." } else { "" };
        out.add_row([
            finding.id.to_string(),
            finding.state.name(now).to_owned(),
            finding.severity.name().to_owned(),
            finding.key.signal.name().to_owned(),
            finding.key.intent.clone(),
            identities(finding),
            finding.key.peer.to_string(),
            services.join(" ") + more,
            finding.count.to_string(),
            format!("{:.0}", finding.last_seen),
            decision(finding),
        ]);
    }
    say(&table::text(&out))
}

/// The last one, and how many others there are.
fn identities(finding: &Finding) -> String {
    match finding.identities.len() {
        0 => or_dash(None),
        1 => finding.identities[0].to_string(),
        many => format!("{} and {} more", finding.identities[many - 1], many - 1),
    }
}

fn decision(finding: &Finding) -> String {
    match (finding.decision, finding.containments.back(), &finding.held_back) {
        (Decision::Flag, ..) => "flag".to_owned(),
        (Decision::Contain { .. }, _, Some(_)) => "contain (held back)".to_owned(),
        (Decision::Contain { .. }, Some(last), None) if last.undone => {
            format!("contained ({}), undone", last.act)
        }
        (Decision::Contain { .. }, Some(last), None) => {
            format!("contained ({}) until {:.0}", last.act, last.until)
        }
        (Decision::Contain { .. }, None, None) => "contain".to_owned(),
    }
}

/// Prints all that is known of one.
pub fn print_finding(finding: &Finding, format: Format) -> Result<()> {
    if format == Format::Json {
        return print_json(finding);
    }
    let now = Timestamp::now();
    say(&format!("finding {}: {}", finding.id, finding.why))?;
    let role = match finding.key.role {
        Role::Client => "client",
        Role::Server => "server",
    };
    let mut out = table::table(&["", ""]);
    let mut row = |name: &str, text: String| {
        out.add_row([name.to_owned(), text]);
    };
    row("signal", format!("{} as {role}", finding.key.signal.name()));
    if let Some(workload) = finding.workload {
        row("workload", workload.name().to_owned());
    }
    row("severity", finding.severity.name().to_owned());
    row("confidence", format!("{:?}", finding.confidence).to_lowercase());
    row("owner", or_dash(finding.owner.as_deref()));
    row("state", state(&finding.state, now));
    row("decision", decision(finding));
    row("asks to", finding.key.signal.asks().name().to_owned());
    if let Some(why) = &finding.held_back {
        row("held back", why.clone());
    }
    row("seen", format!("{} times, {:.0} to {:.0}", finding.count, finding.first_seen, finding.last_seen));
    // The line of the header is empty.
    say(table::text(&out).trim_start_matches('\n'))?;
    for Containment { identity, act, at, until, revision, undone, .. } in &finding.containments {
        let rest = match (*undone, *until > now) {
            (true, _) => "\n  it was undone before its time".to_owned(),
            (false, true) => format!("\n  to undo: tidegate quarantine del {identity} --act {act}"),
            (false, false) => String::new(),
        };
        let did = act.done();
        say(&format!("\n{identity} was {did} at {at:.0} until {until:.0} (revision {revision}){rest}"))?;
    }
    let mut out = table::table(&["TIME", "IDENTITY", "ADDRESS", "PEER", "SERVICE", "VERDICT", "BY"]);
    for e in &finding.evidence {
        out.add_row([
            format!("{:.3}", e.time),
            e.identity.to_string(),
            e.address.to_string(),
            e.peer
                .as_ref()
                .map_or_else(|| e.peer_address.to_string(), |peer| format!("{peer} ({})", e.peer_address)),
            e.service.clone(),
            e.verdict.clone(),
            e.detail.clone().or(e.rule.clone()).unwrap_or_else(|| e.reason.clone()),
        ]);
    }
    say(&format!("\n{}", table::text(&out)))
}

fn state(state: &FindingState, now: Timestamp) -> String {
    match state {
        FindingState::Muted { until, by } if *until > now => format!("muted by {by} until {until:.0}"),
        FindingState::Open | FindingState::Muted { .. } => "open".to_owned(),
        FindingState::Resolved { at, by, note } => {
            let note = note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
            format!("resolved by {by} at {at:.0}{note}")
        }
    }
}
