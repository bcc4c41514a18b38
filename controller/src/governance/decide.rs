//! What a departure leads to, how sure that is, and why.

use super::compare::{Departure, End, Role};
use super::finding::HOUR;
use super::signal::Signal;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// How sure it is that who is named did what is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// Who the peer is, nobody knows: several claim its address.
    Low,
    /// The peer is an address without identity.
    Medium,
    /// Both ends are identities.
    High,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", tag = "decision")]
pub enum Decision {
    /// A finding is made, for a person.
    Flag,
    /// That, and something is done about the identity: the next step of the intent's response.
    Contain {
        /// For so many seconds.
        seconds: u64,
    },
}

/// What keeps the loop itself from taking a fleet down.
#[derive(Clone, Debug)]
pub struct Brake {
    /// Why nothing is contained; `None` where it is.
    pub paused: Option<String>,
    /// The most containments in an hour.
    pub per_hour: usize,
    /// When those of the last hour were.
    recent: VecDeque<Timestamp>,
}

impl Brake {
    /// A brake that lets so many pass an hour, or none where it is paused. `done` is when there were some before.
    pub fn new(per_hour: usize, paused: Option<String>, mut done: Vec<Timestamp>) -> Self {
        done.sort_unstable();
        Self { paused, per_hour, recent: done.into() }
    }

    /// What holds a containment back now.
    pub fn holds(&mut self, now: Timestamp) -> Option<String> {
        if let Some(why) = &self.paused {
            return Some(format!("containment is paused ({why})"));
        }
        while self.recent.front().is_some_and(|first| now.duration_since(*first) >= HOUR) {
            self.recent.pop_front();
        }
        (self.recent.len() >= self.per_hour)
            .then(|| format!("{} containments in an hour are the most", self.per_hour))
    }

    /// Counts one.
    pub fn count(&mut self, now: Timestamp) {
        self.recent.push_back(now);
    }

    /// Those of the last hour.
    pub fn recent(&self, now: Timestamp) -> usize {
        self.recent.iter().filter(|at| now.duration_since(**at) < HOUR).count()
    }
}

/// What a departure leads to: the decision, how sure it is, and the reason in words.
pub fn decide(departure: &Departure<'_>, service: &str) -> (Decision, Confidence, String) {
    let confidence = match departure.peer {
        // Whom a name covers that may be one of many, nobody knows.
        _ if departure.signal == Signal::HiddenSni => Confidence::Low,
        // Nor who it was that acted under a name that several have.
        _ if departure.own.is_several() => Confidence::Low,
        // What is usual is no promise.
        _ if departure.signal == Signal::UnusualCount => Confidence::Medium,
        // What it does with several of them is its own deed, whoever they are.
        _ if departure.signal.is_of_many() => Confidence::High,
        peer if peer.is_several() => Confidence::Low,
        End::Identified { .. } => Confidence::High,
        End::Unidentified(_) => Confidence::Medium,
        End::Ambiguous(_) => Confidence::Low,
    };
    let may_contain = departure.signal.may_contain() && confidence != Confidence::Low;
    let decision = match (departure.intent.response.step(0), departure.role) {
        (Some(first), Role::Client) if may_contain => Decision::Contain { seconds: first.seconds },
        // Who is called did nothing: whoever calls has an intent of his own.
        _ => Decision::Flag,
    };
    let detail = departure.detail.as_ref().map(|detail| format!(", {detail}")).unwrap_or_default();
    let why = format!(
        "{}{} {}: {} at {service}{detail}; intent {} ({}) {}",
        departure.id,
        if departure.own.is_several() { ", which several are," } else { "" },
        did(departure.role, departure.signal),
        departure.peer,
        departure.intent.name,
        departure.intent.place,
        departure.expectation()
    );
    (decision, confidence, why)
}

fn did(role: Role, signal: Signal) -> &'static str {
    match (role, signal) {
        (Role::Client, Signal::NewPeer) => "opened a connection to a peer that its intent does not name",
        (Role::Client, Signal::NewService) => {
            "opened a connection to a service that its intent does not name"
        }
        (Role::Server, Signal::NewPeer) => "was opened to by a peer that its intent does not name",
        (Role::Server, Signal::NewService) => "was opened to at a service that its intent does not name",
        (Role::Client, Signal::NewSni) => "asked for a server's name that its intent does not name",
        (Role::Server, Signal::NewSni) => "was asked for a server's name that its intent does not name",
        (Role::Client, Signal::NewAlpn) => "offered a protocol that its intent does not name",
        (Role::Server, Signal::NewAlpn) => "was offered a protocol that its intent does not name",
        (Role::Client, Signal::NewJa4) => "sent a ClientHello of a shape that its intent does not name",
        (Role::Server, Signal::NewJa4) => "was sent a ClientHello of a shape that its intent does not name",
        (Role::Client, Signal::HiddenSni) => {
            "asked for a server's name that its intent does not name, and that may be a cover (ECH)"
        }
        (Role::Server, Signal::HiddenSni) => {
            "was asked for a server's name that its intent does not name, and that may be a cover (ECH)"
        }
        (_, Signal::NewName) => "asked for a name that its intent does not have",
        (_, Signal::OffHours) => "opened a connection outside the hours of its intent",
        (_, Signal::FanOut) => "opened connections to more peers than its intent says",
        (_, Signal::ExpectedDenied) => "was denied a connection that its intent expects",
        (_, Signal::Scan) => "tries one service after the other",
        (_, Signal::HandshakeFailures) => "fails in more handshakes than is usual",
        (_, Signal::UnusualCount) => "did much more in an hour than is usual",
        (_, Signal::LatencyShift) => "takes longer for handshakes than is usual",
        (Role::Client, Signal::ExpiredLease) => "went on when its lease was over",
        (Role::Server, Signal::ExpiredLease) => "was opened to when its lease was over",
        (Role::Client, Signal::RevokedLease) => "went on when its lease was revoked",
        (Role::Server, Signal::RevokedLease) => "was opened to when its lease was revoked",
        (_, Signal::Retries) => "tries again and again what never succeeds",
        (_, Signal::NewProcess) => "executed a program that its intent does not have",
        (_, Signal::NewOpener) => "opened a connection by a process that its intent does not have",
        (_, Signal::Instances) => "is at more addresses at once than its intent says",
        (_, Signal::EnrolmentRefused) => "was refused a lease",
        (_, Signal::Rule) => "did what a rule of its intent looks for",
        (_, Signal::Rate) => "opened more connections than its intent says",
    }
}
