//! What a run says at its end.

mod columns;
mod gateway;
mod names;
mod style;

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

pub use style::Style;

use crate::expect::Checked;
use crate::registry::Receipt;
use crate::seen::Seen;
use crate::topology::Plan;
use crate::topology::plan::{Kind, Outcome, Stage, StepKind, Tls};
use crate::traffic::StepResult;

/// Everything that a run has to say.
#[derive(Serialize)]
pub struct Report {
    /// Name of the lab.
    pub name: String,
    /// From the file.
    pub description: Option<String>,
    /// Name of the run.
    pub run: String,
    /// When it began.
    pub started_unix_ms: u64,
    /// How long it took.
    pub duration_ms: u64,
    /// Whether all of it held.
    pub passed: bool,
    /// What broke the run, if anything did.
    pub error: Option<String>,
    /// How many steps the file has.
    pub planned: usize,
    /// Steps that were carried out.
    pub steps: Vec<StepResult>,
    /// What the gateway saw.
    pub seen: Seen,
    /// What it should have seen.
    pub expectations: Vec<Checked>,
    /// The daemon's last lines.
    pub daemon_log: Vec<String>,
    /// What was made, and that it is gone.
    pub receipt: Receipt,
    #[serde(skip)]
    nodes: String,
    #[serde(skip)]
    names: names::Names,
    #[serde(skip)]
    has_gateway: bool,
    #[serde(skip)]
    clock: Instant,
}

impl Report {
    /// Of a run that begins now.
    pub fn new(plan: &Plan) -> Self {
        let count = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        let planned =
            plan.traffic.iter().map(|s| if let Stage::Steps(steps) = s { steps.len() } else { 0 }).sum();
        Self {
            name: plan.name.clone(),
            description: plan.description.clone(),
            run: String::new(),
            started_unix_ms: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
            duration_ms: 0,
            passed: false,
            error: None,
            planned,
            steps: Vec::new(),
            seen: Seen::default(),
            expectations: Vec::new(),
            daemon_log: Vec::new(),
            receipt: Receipt::default(),
            nodes: format!("{}, {}", count(plan.nodes.len(), "node"), count(plan.links.len(), "link")),
            names: names::Names::new(plan),
            has_gateway: plan.nodes.iter().any(|n| n.kind == Kind::Gateway),
            clock: Instant::now(),
        }
    }

    /// Draws the conclusion.
    pub fn finish(&mut self) {
        self.duration_ms = u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.passed = self.error.is_none()
            && self.steps.len() == self.planned
            && self.steps.iter().all(|s| s.passed)
            && self.expectations.iter().all(|e| e.passed)
            && self.receipt.left.is_empty();
        self.names.learn(&self.seen);
    }

    /// The first lines, before the traffic.
    pub fn head(&self, style: &Style) -> String {
        let mut out = format!("\n{}  {}\n", style.bold(&self.name), style.dim(&self.nodes));
        if let Some(description) = &self.description {
            let _ = writeln!(out, "{}", style.dim(description.trim()));
        }
        let _ = writeln!(out, "\n{}  {}", style.bold("TRAFFIC"), style.dim("as the clients saw it"));
        out
    }

    /// What follows the steps.
    pub fn table(&self, style: &Style) -> String {
        let mut out = String::new();
        if self.has_gateway && self.error.is_none() {
            out += &gateway::tables(&self.seen, &self.names, style);
        }
        if !self.expectations.is_empty() {
            let _ = writeln!(out, "\n{}", style.bold("WHAT THE GATEWAY HAD TO SEE"));
            for checked in &self.expectations {
                let _ = writeln!(out, "{}", expectation_line(checked, style));
            }
        }
        if let Some(error) = &self.error {
            let _ = writeln!(out, "\n{} {error}", style.bad("broken off:"));
        }
        if !self.passed && !self.daemon_log.is_empty() {
            let last = self.daemon_log.iter().rev().take(20).rev().map(|line| format!("  {line}\n"));
            let _ = write!(out, "\n{}\n{}", style.bold("THE DAEMON'S LAST LINES"), last.collect::<String>());
        }
        out + "\n" + &self.verdict(style)
    }

    fn verdict(&self, style: &Style) -> String {
        let good = |passed: &mut dyn Iterator<Item = bool>| passed.filter(|p| *p).count();
        let mut line = if self.passed { style.good("PASSED") } else { style.bad("FAILED") };
        let _ =
            write!(line, "  {} of {} steps", good(&mut self.steps.iter().map(|s| s.passed)), self.planned);
        if !self.expectations.is_empty() {
            let held = good(&mut self.expectations.iter().map(|e| e.passed));
            let _ = write!(line, " and {held} of {} expectations", self.expectations.len());
        }
        let seconds = self.duration_ms as f64 / 1000.0;
        format!("{line} held, {seconds:.1} s\n{}\n", style.dim(&receipt(&self.receipt)))
    }
}

fn expectation_line(checked: &Checked, style: &Style) -> String {
    let mark = if checked.passed { style.good("ok  ") } else { style.bad("FAIL") };
    let found = checked.to_string();
    format!("  {mark} {}", if checked.passed { found } else { style.bad(&found) })
}

/// What was made, and whether it is gone.
pub fn receipt(receipt: &Receipt) -> String {
    let made = format!(
        "{} namespaces, {} interfaces, {} processes, {} pins",
        receipt.namespaces, receipt.links, receipt.processes, receipt.pins
    );
    if receipt.left.is_empty() {
        format!("cleaned up: {made}: all gone")
    } else {
        format!("cleaned up: {made}; LEFT BEHIND: {}", receipt.left.join("; "))
    }
}

/// A step, in a line or two.
pub fn step_line(step: &StepResult, style: &Style) -> String {
    let mark = if step.passed { style.good("ok  ") } else { style.bad("FAIL") };
    let protocol = match step.tls_offered {
        Some(Tls::V12) => "mTLS 1.2",
        Some(Tls::V13) => "mTLS 1.3",
        None => step.kind.name(),
    };
    let version = match step.address.parse::<SocketAddr>().map(|a| a.ip()).or_else(|_| step.address.parse()) {
        Ok(IpAddr::V4(_)) => "IPv4",
        Ok(IpAddr::V6(_)) => "IPv6",
        Err(_) => "",
    };
    let way = match step.kind {
        StepKind::Server => format!("{}: {} its servers", step.from, step.to),
        StepKind::Daemon => format!("{}: {} tidegate", step.from, step.to),
        StepKind::Tidegate | StepKind::Enroll | StepKind::Wait => format!("{}: {}", step.from, step.name),
        _ => format!("{} -> {}", step.from, step.to),
    };
    let outcome = match (&step.done.alert, step.done.outcome) {
        (Some(alert), _) => format!("{}: {alert}", words(step.done.outcome)),
        (None, Outcome::Ok) if step.address.is_empty() => "done".into(),
        (None, Outcome::Ok) if step.done.requests > 1 => format!("answered {} requests", step.done.requests),
        (None, Outcome::Ok) => "answered".into(),
        (None, outcome) => words(outcome).into(),
    };
    let time = gateway::time(step.done.duration_us * 1000);
    let mut line = format!(
        "  {mark} {:<34} {:<8} {version:<4}  {:<38} {time:>9}\n",
        style::cut(&way, 34),
        protocol,
        style::cut(&outcome, 38)
    );
    if !step.passed {
        let mut wanted = words(step.expected).to_string();
        if let Some(alert) = &step.expected_alert {
            wanted = format!("{wanted}: {alert}");
        }
        let detail = step.done.detail.as_deref().unwrap_or("");
        let _ = writeln!(line, "       {}", style.bad(&format!("expected {wanted}. {detail}")));
    }
    line
}

fn words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "answered",
        Outcome::HandshakeFailed => "handshake failed",
        Outcome::Timeout => "no answer",
        Outcome::Refused => "refused",
        Outcome::Unreachable => "unreachable",
        Outcome::Error => "could not be done",
        Outcome::Any => "any end",
    }
}
