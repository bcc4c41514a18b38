//! `tidegate findings list` and `show`.

use super::compare::Role;
use super::decide::Decision;
use super::finding::{Finding, FindingState};
use crate::exit_code::Result;
use crate::view::table::{self, or_dash};
use crate::view::{Format, print_json, say};
use jiff::Timestamp;

/// Prints findings: those that are open, or all.
pub fn print_findings(findings: &[Finding], all: bool, format: Format) -> Result<()> {
    let now = Timestamp::now();
    let shown: Vec<_> = findings.iter().filter(|f| all || f.state.is_open(now)).collect();
    if format == Format::Json {
        return print_json(&shown);
    }
    if shown.is_empty() {
        let text = if all || findings.is_empty() {
            "no findings"
        } else {
            "no open findings; --all shows those that are muted or resolved"
        };
        return say(text);
    }
    let columns = [
        ">ID",
        "STATE",
        "SEVERITY",
        "SIGNAL",
        "INTENT",
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
            finding.key.peer.to_string(),
            services.join(" ") + more,
            finding.count.to_string(),
            format!("{:.0}", finding.last_seen),
            decision(finding),
        ]);
    }
    say(&table::text(&out))
}

fn decision(finding: &Finding) -> String {
    match (finding.decision, finding.containments.back(), &finding.held_back) {
        (Decision::Flag, ..) => "flag".to_owned(),
        (Decision::Contain { .. }, _, Some(_)) => "contain (held back)".to_owned(),
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
    for c in &finding.containments {
        say(&format!(
            "\n{} was {} at {:.0} until {:.0} (revision {})\n  to undo: tidegate quarantine del {} --act {}",
            c.identity,
            c.act.done(),
            c.at,
            c.until,
            c.revision,
            c.identity,
            c.act
        ))?;
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
