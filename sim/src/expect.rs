//! Whether the gateway has seen what it should, asked again until it has or time is up.

mod governance;

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::gateway::Gateway;
use crate::governed::Governed;
use crate::seen::{Drop, End, Flow, Seen};
use crate::topology::plan::{Expectation, Expectations, HandshakeKind, HandshakeOutcome, Party, What};

const AGAIN: Duration = Duration::from_millis(250);
/// How late what must not be may come: the daemon writes and tells within a second.
const LATE: Duration = Duration::from_secs(1);

/// An expectation and whether it held.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// In words.
    pub what: String,
    /// At least.
    pub min: u64,
    /// At most.
    pub max: Option<u64>,
    /// How many there were.
    pub found: u64,
    /// Whether that is right.
    pub passed: bool,
    /// Where it is not: what of its kind there was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub instead: Vec<String>,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, ", self.what, self.found)?;
        match (self.min, self.max) {
            (min, None) => write!(f, "at least {min} wanted")?,
            (0, Some(max)) => write!(f, "at most {max} wanted")?,
            (min, Some(max)) if min == max => write!(f, "exactly {min} wanted")?,
            (min, Some(max)) => write!(f, "{min} to {max} wanted")?,
        }
        self.instead.iter().try_for_each(|there| write!(f, "\n         there was: {there}"))
    }
}

/// Asks until everything holds or the time is up; what was seen last counts. What must not be has to be absent a second time, a while
/// later: it may only have been late.
pub async fn check(expect: &Expectations, gateway: &Gateway) -> anyhow::Result<(Seen, Vec<Checked>)> {
    let deadline = tokio::time::Instant::now() + expect.within;
    let mut was_right = expect.all.iter().all(|e| e.max.is_none());
    loop {
        let mut seen = Seen::ask(gateway).await?;
        seen.governed = Governed::ask(gateway, &expect.all).await?;
        let checked: Vec<_> = expect.all.iter().map(|e| check_one(e, &seen)).collect();
        let is_right = checked.iter().all(|c| c.passed);
        if is_right && was_right || !is_right && tokio::time::Instant::now() >= deadline {
            return Ok((seen, checked));
        }
        was_right |= is_right;
        tokio::time::sleep(if is_right { LATE } else { AGAIN }).await;
    }
}

fn check_one(expectation: &Expectation, seen: &Seen) -> Checked {
    let found = count(expectation, seen);
    let Expectation { min, max, .. } = *expectation;
    let passed = found >= min && max.is_none_or(|max| found <= max);
    let instead = if passed { Vec::new() } else { governance::instead(&expectation.what, &seen.governed) };
    Checked { what: words(expectation), min, max, found, passed, instead }
}

fn count(expectation: &Expectation, seen: &Seen) -> u64 {
    let between = |source: Option<&End>, destination: Option<&End>| {
        is(expectation.from.as_ref(), source) && is(expectation.to.as_ref(), destination)
    };
    let of_flow = |f: &&Flow| between(Some(&f.source), Some(&f.destination));
    match &expectation.what {
        What::Drop { reason, rule } => {
            let right = |d: &&Drop| {
                &d.reason == reason
                    && rule.as_ref().is_none_or(|rule| d.rule.as_ref().is_some_and(|r| is_rule(r, rule)))
                    && between(d.source.as_ref(), d.destination.as_ref())
            };
            seen.drops.iter().filter(right).map(|d| d.packets).sum()
        }
        What::Flow { verdict, conn_state, tls } => {
            let says =
                |wanted: &Option<String>, has: Option<&String>| wanted.is_none() || wanted.as_ref() == has;
            let right = |f: &&Flow| {
                says(verdict, Some(&f.verdict))
                    && says(conn_state, f.conn_state.as_ref())
                    && says(tls, f.tls.as_ref())
            };
            seen.flows.iter().filter(of_flow).filter(right).count() as u64
        }
        What::Handshake { kind, outcome } => {
            seen.flows.iter().filter(of_flow).filter(|f| handshake(f, *kind) == Some(*outcome)).count() as u64
        }
        what => governance::count(what, &seen.governed),
    }
}

fn is(party: Option<&Party>, end: Option<&End>) -> bool {
    let Some(party) = party else { return true };
    end.is_some_and(|e| party.addresses.contains(&e.address) && party.port.is_none_or(|p| p == e.port))
}

/// `shop/no-reports` is that rule; `no-reports` is so in any policy.
fn is_rule(has: &str, wanted: &str) -> bool {
    has == wanted || has.rsplit_once('/').is_some_and(|(_, rule)| rule == wanted)
}

/// How a flow's handshake ended, if it did.
pub fn handshake(flow: &Flow, kind: HandshakeKind) -> Option<HandshakeOutcome> {
    match kind {
        HandshakeKind::Tls => match flow.tls.as_deref()? {
            "established" => Some(HandshakeOutcome::Completed),
            "alert" => Some(HandshakeOutcome::Alert),
            "aborted" => Some(HandshakeOutcome::Aborted),
            _ => None,
        },
        HandshakeKind::Tcp if flow.protocol != "TCP" => None,
        // Only what was let through can be answered.
        HandshakeKind::Tcp if flow.verdict == "DROPPED" => None,
        HandshakeKind::Tcp => match flow.conn_state.as_deref()? {
            "S0" => Some(HandshakeOutcome::NoAnswer),
            "REJ" => Some(HandshakeOutcome::Refused),
            "S1" | "SF" | "S2" | "S3" | "RSTO" | "RSTR" => Some(HandshakeOutcome::Completed),
            _ => None,
        },
    }
}

fn words(expectation: &Expectation) -> String {
    let mut words = match &expectation.what {
        What::Drop { reason, rule: Some(rule) } => format!("packets dropped, {reason} by {rule}"),
        What::Drop { reason, rule: None } => format!("packets dropped, {reason}"),
        What::Flow { verdict, conn_state, tls } => {
            let mut words = String::from("flows");
            for (name, value) in [("verdict", verdict), ("conn_state", conn_state), ("tls", tls)] {
                if let Some(value) = value {
                    words += &format!(", {name} {value}");
                }
            }
            words
        }
        What::Handshake { kind, outcome } => {
            let kind = if *kind == HandshakeKind::Tcp { "TCP" } else { "TLS" };
            format!("{kind} handshakes {}", outcome.words())
        }
        what => governance::words(what),
    };
    if let Some(from) = &expectation.from {
        words += &format!(", from {}", from.name);
    }
    if let Some(to) = &expectation.to {
        words += &format!(", to {}", to.name);
    }
    words
}

impl HandshakeOutcome {
    /// For sentences.
    pub fn words(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Refused => "refused",
            Self::NoAnswer => "without answer",
            Self::Alert => "ended by an alert",
            Self::Aborted => "aborted",
        }
    }
}
