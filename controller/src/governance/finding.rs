//! A finding: what departed, how often, who has to look at it, and what was done.

use super::compare::{End, Role};
use super::decide::{Confidence, Decision};
use super::signal::Signal;
use crate::exit_code::{Code, Failure, Result};
use crate::policy::act::{ActName, Step};
use crate::policy::intent::{Response, Sensitivity, WorkloadKind};
use crate::policy::spiffe::SpiffeId;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;

/// Of everything that can repeat without end, the last so many are kept.
const KEPT: usize = 16;
/// What was done is known for that long, whatever came after: so long the brake counts it.
pub const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// Who was at the other end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Peer {
    /// Somebody.
    SpiffeId(SpiffeId),
    /// Addresses without identity: one finding is for all of them, a scan makes no list of findings.
    Unidentified,
    /// Addresses that several identities claim.
    Ambiguous,
    /// All of them: what is found is of many connections.
    Several,
}

impl Peer {
    /// Of an end.
    pub fn of(end: &End) -> Self {
        match end {
            End::Identified { id, .. } => Self::SpiffeId(id.clone()),
            End::Unidentified(_) => Self::Unidentified,
            End::Ambiguous(_) => Self::Ambiguous,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SpiffeId(id) => write!(f, "{id}"),
            Self::Unidentified => f.write_str("unidentified"),
            Self::Ambiguous => f.write_str("ambiguous"),
            Self::Several => f.write_str("several"),
        }
    }
}

/// One event that a finding rests on, as it was told when it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// When.
    pub time: Timestamp,
    /// Whose intent it is.
    pub identity: SpiffeId,
    /// Where that was.
    pub address: IpAddr,
    /// Where the peer was.
    pub peer_address: IpAddr,
    /// Who that was; absent where nobody knows, and of what an identity did by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<SpiffeId>,
    /// `tcp/443`
    pub service: String,
    /// FORWARDED, AUDIT or DROPPED.
    pub verdict: String,
    /// The reason of the verdict.
    pub reason: String,
    /// The rule that decided; absent where none did.
    pub rule: Option<String>,
    /// The epoch by which it was judged; 0 of a ClientHello.
    pub epoch: u32,
    /// What else it shows, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What has become of a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum FindingState {
    /// Somebody has to look at it.
    Open,
    /// Until then, more of it says nothing and does nothing.
    Muted {
        /// Until when.
        until: Timestamp,
        /// Who said so.
        by: String,
    },
    /// Somebody looked. The next departure of its kind is a new finding.
    Resolved {
        /// When.
        at: Timestamp,
        /// Who.
        by: String,
        /// What came of it.
        note: Option<String>,
    },
}

/// What a finding led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Containment {
    /// Whom it is about.
    pub identity: SpiffeId,
    /// What was done.
    #[serde(default)]
    pub act: ActName,
    /// Which step of the intent's response that was, from 0.
    #[serde(default)]
    pub step: usize,
    /// When.
    pub at: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// The revision of the commit.
    pub revision: u64,
    /// Whether people decided that. What nobody decided is counted by the brake.
    #[serde(default)]
    pub by_people: bool,
    /// Whether somebody has undone it before its time; known where a daemon is asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undone: bool,
}

/// What departures have in common that are one finding.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Key {
    /// The intent: identities of one intent share a finding, so that jobs that come and go make no more of them.
    pub intent: String,
    /// On which side its identity stands.
    pub role: Role,
    /// In what it departs.
    pub signal: Signal,
    /// Who was at the other end.
    pub peer: Peer,
    /// The rule of the intent that looks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// A finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Its number.
    pub id: u64,
    /// What it is of.
    #[serde(flatten)]
    pub key: Key,
    /// What kind of workload that is, as the intent says; absent where an older daemon found it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadKind>,
    /// How much harm it can do, as the intent says.
    pub severity: Sensitivity,
    /// Who answers for it, as the intent says.
    pub owner: Option<String>,
    /// How sure it is.
    pub confidence: Confidence,
    /// What it led to.
    #[serde(flatten)]
    pub decision: Decision,
    /// Why, in words.
    pub why: String,
    /// Why what was decided was not done; absent where it was, or where nothing was to be done.
    pub held_back: Option<String>,
    /// Departures.
    pub count: u64,
    /// The first.
    pub first_seen: Timestamp,
    /// The last.
    pub last_seen: Timestamp,
    /// Whose intent it is: the last 16 identities.
    pub identities: VecDeque<SpiffeId>,
    /// To what: the last 16 services.
    pub services: VecDeque<String>,
    /// The last 16 events.
    pub evidence: VecDeque<Evidence>,
    /// What was done: the last 16 times, and what holds or is of the last hour.
    pub containments: VecDeque<Containment>,
    /// What has become of it.
    #[serde(flatten)]
    pub state: FindingState,
}

impl Finding {
    /// Takes one more event in.
    pub fn add(&mut self, evidence: Evidence) {
        self.count += 1;
        self.last_seen = self.last_seen.max(evidence.time);
        keep(&mut self.identities, evidence.identity.clone());
        keep(&mut self.services, evidence.service.clone());
        if self.evidence.len() == KEPT {
            self.evidence.pop_front();
        }
        self.evidence.push_back(evidence);
    }

    /// Notes what was done.
    pub fn contained(&mut self, containment: Containment) {
        let now = containment.at;
        while self.containments.len() >= KEPT {
            // What holds says what comes next, and whether somebody has undone it.
            let is_past = |done: &Containment| done.until <= now && now.duration_since(done.at) >= HOUR;
            let Some(past) = self.containments.iter().position(is_past) else { break };
            self.containments.remove(past);
        }
        self.containments.push_back(containment);
    }

    /// What is to be done about an identity that departs then; nothing while what was done last has its time.
    pub fn next_step(&self, id: &SpiffeId, response: &Response, at: Timestamp) -> Option<(usize, Step)> {
        let Some(last) = self.containments.iter().rfind(|c| c.identity == *id) else {
            return Some((0, response.step(0)?));
        };
        let next = (last.step + 1).min(response.steps().checked_sub(1)?);
        let step = response.step(next)?;
        let is_due = if next > last.step {
            at.duration_since(last.at) >= SignedDuration::from_secs(i64::try_from(step.after_s).ok()?)
        } else {
            last.until <= at
        };
        is_due.then_some((next, step))
    }

    /// Whether somebody can decide that.
    pub fn may_become(&self, state: &FindingState) -> Result<()> {
        if let FindingState::Resolved { at, by, .. } = &self.state {
            let message = format!("finding {} was resolved by {by} at {at:.0}", self.id);
            return Err(Failure::new(Code::Conflict, message)
                .hint("the next departure of its kind is a finding of its own"));
        }
        match state {
            FindingState::Muted { until, .. } if *until <= Timestamp::now() => {
                Err(Failure::new(Code::Unprocessable, format!("`until` is over: {until:.0}")))
            }
            _ => Ok(()),
        }
    }

    /// What was decided, and done as far as it could be: `flag`, `contain` or `held back`.
    pub fn decided(&self) -> &'static str {
        match (self.decision, &self.held_back) {
            (Decision::Flag, _) => "flag",
            (Decision::Contain { .. }, None) => "contain",
            (Decision::Contain { .. }, Some(_)) => "held back",
        }
    }

    /// Whether a muting holds.
    pub fn is_muted(&self, now: Timestamp) -> bool {
        matches!(&self.state, FindingState::Muted { until, .. } if *until > now)
    }
}

/// Keeps the last so many that differ.
fn keep<T: PartialEq>(kept: &mut VecDeque<T>, one: T) {
    if let Some(place) = kept.iter().position(|other| *other == one) {
        kept.remove(place);
    } else if kept.len() == KEPT {
        kept.pop_front();
    }
    kept.push_back(one);
}

impl FindingState {
    /// Whether somebody has to look at it.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.name(now) == "open"
    }

    /// `open`, `muted`, `resolved`; a muting that is over is open.
    pub fn name(&self, now: Timestamp) -> &'static str {
        match self {
            Self::Muted { until, .. } if *until > now => "muted",
            Self::Open | Self::Muted { .. } => "open",
            Self::Resolved { .. } => "resolved",
        }
    }
}
