//! What the gateway must have seen, as it is written.

use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;

/// What the gateway must have seen.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// How long to ask again until all of it holds.
    #[serde(default)]
    pub within: Option<Spanned<String>>,
    /// Packets dropped.
    #[serde(default)]
    pub drops: Vec<Spanned<DropExpect>>,
    /// Flow records.
    #[serde(default)]
    pub flows: Vec<Spanned<FlowExpect>>,
    /// Handshakes.
    #[serde(default)]
    pub handshakes: Vec<Spanned<HandshakeExpect>>,
    /// Findings of the governance loop. Where this is written, others than these must not be there; `[]` is none.
    #[serde(default)]
    pub findings: Option<Vec<Spanned<FindingExpect>>>,
    /// Records of the audit. Where this is written, `tidegate audit verify` must find the record whole, too; and of a whole story, records of
    /// findings, approvals, the brake and of who is contained that are none of these must not be there.
    #[serde(default)]
    pub audit: Option<Vec<Spanned<AuditExpect>>>,
    /// Who is cut off, was, or never was. Of a whole story, nobody else is or was, where this is written.
    #[serde(default)]
    pub containment: Vec<Spanned<ContainmentExpect>>,
}

impl Expect {
    /// Puts a number into the SPIFFE IDs that it names, in the place of `{n}`.
    pub fn number(&mut self, n: u32) {
        let findings = self.findings.iter_mut().flatten().filter_map(|f| f.value.identity.as_mut());
        let audit = self.audit.iter_mut().flatten().filter_map(|r| r.value.identity.as_mut());
        let containment = self.containment.iter_mut().map(|c| &mut c.value.identity);
        for id in findings.chain(audit).chain(containment) {
            id.value = id.value.replace("{n}", &n.to_string());
        }
    }
}

/// Drops that must have been counted.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropExpect {
    /// Its metric label.
    pub reason: Spanned<String>,
    /// `POLICY/RULE` or the rule's name alone.
    #[serde(default)]
    pub rule: Option<String>,
    /// Node or address.
    #[serde(default)]
    pub from: Option<Spanned<String>>,
    /// Node or address, with or without port.
    #[serde(default)]
    pub to: Option<Spanned<String>>,
    /// At least so many packets; 1 if neither is said.
    #[serde(default)]
    pub min: Option<u64>,
    /// At most so many.
    #[serde(default)]
    pub max: Option<u64>,
}

/// Flow records that must be there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowExpect {
    /// Node or address.
    #[serde(default)]
    pub from: Option<Spanned<String>>,
    /// Node or address, with or without port.
    #[serde(default)]
    pub to: Option<Spanned<String>>,
    /// FORWARDED, DROPPED, AUDIT.
    #[serde(default)]
    pub verdict: Option<String>,
    /// Zeek's word.
    #[serde(default)]
    pub conn_state: Option<String>,
    /// How far TLS came: established, alert, aborted ...
    #[serde(default)]
    pub tls: Option<String>,
    /// At least so many; 1 if neither is said.
    #[serde(default)]
    pub min: Option<u64>,
    /// At most so many.
    #[serde(default)]
    pub max: Option<u64>,
}

/// Handshakes that must have been seen.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandshakeExpect {
    /// Node or address.
    #[serde(default)]
    pub from: Option<Spanned<String>>,
    /// Node or address, with or without port.
    #[serde(default)]
    pub to: Option<Spanned<String>>,
    /// tcp or tls.
    pub kind: HandshakeKind,
    /// completed, refused, no_answer, alert, aborted.
    pub outcome: HandshakeOutcome,
    /// At least so many; 1 if neither is said.
    #[serde(default)]
    pub min: Option<u64>,
    /// At most so many.
    #[serde(default)]
    pub max: Option<u64>,
}

/// Which handshake.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum HandshakeKind {
    /// SYN to the ACK that completes it.
    Tcp,
    /// ClientHello to the proof of keys.
    Tls,
}

/// How it ended.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum HandshakeOutcome {
    /// Both sides completed it.
    Completed,
    /// The SYN was answered by a reset.
    Refused,
    /// The SYN was never answered.
    NoAnswer,
    /// An alert ended it.
    Alert,
    /// Closed or reset before it was complete.
    Aborted,
}

/// Findings that must be there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FindingExpect {
    /// From what they depart.
    #[serde(default)]
    pub intent: Option<String>,
    /// In what: new_peer, new_service ...
    #[serde(default)]
    pub signal: Option<String>,
    /// On which side: client or server.
    #[serde(default)]
    pub role: Option<String>,
    /// A SPIFFE ID, or a node that has one: it must be among those whose finding it is.
    #[serde(default)]
    pub identity: Option<Spanned<String>>,
    /// A SPIFFE ID, a node that has one, or what is said of peers that are none: unidentified, ambiguous, several.
    #[serde(default)]
    pub peer: Option<Spanned<String>>,
    /// open, muted or resolved.
    #[serde(default)]
    pub state: Option<FindingState>,
    /// What it led to.
    #[serde(default)]
    pub decision: Option<Decision>,
    /// low, medium or high.
    #[serde(default)]
    pub confidence: Option<Level>,
    /// low, medium or high.
    #[serde(default)]
    pub severity: Option<Level>,
    /// Its reason holds this.
    #[serde(default)]
    pub why: Option<String>,
    /// So many departures each, at least.
    #[serde(default)]
    pub departures: Option<u64>,
    /// At least so many findings; 1 if neither is said.
    #[serde(default)]
    pub min: Option<u64>,
    /// At most so many.
    #[serde(default)]
    pub max: Option<u64>,
}

/// What has become of a finding.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum FindingState {
    /// Somebody has to look at it.
    Open,
    /// It says nothing for a while.
    Muted,
    /// Somebody looked.
    Resolved,
}

/// What a finding led to.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It waits for a person.
    Flag,
    /// Somebody was cut off.
    Contain,
    /// Somebody was to be cut off, and was not.
    HeldBack,
}

/// How much, or how sure.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
}

/// Records of the audit that must be there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditExpect {
    /// start, commit, bind, finding ...
    #[serde(default)]
    pub kind: Option<String>,
    /// Who did it: the daemon, root ...
    #[serde(default)]
    pub who: Option<String>,
    /// By which command, or for what.
    #[serde(default)]
    pub how: Option<String>,
    /// A SPIFFE ID, or a node that has one, that it concerns.
    #[serde(default)]
    pub identity: Option<Spanned<String>>,
    /// What it tells holds each of these.
    #[serde(default)]
    pub says: Vec<String>,
    /// At least so many; 1 if neither is said.
    #[serde(default)]
    pub min: Option<u64>,
    /// At most so many.
    #[serde(default)]
    pub max: Option<u64>,
}

/// Whether somebody is cut off.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainmentExpect {
    /// A SPIFFE ID, or a node that has one.
    pub identity: Spanned<String>,
    /// By which act; any if not said.
    #[serde(default)]
    pub act: Option<ContainmentAct>,
    /// How it stands.
    pub state: Contained,
}

/// What is done about somebody, as `tidegate quarantine list` has it.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum ContainmentAct {
    /// Nothing is left to it.
    Quarantine,
    /// What its intents declare is.
    Restrict,
    /// Less than before.
    Limit,
    /// TLS is.
    RequireTls,
    /// New connections are.
    CutFlows,
    /// What is for nobody is.
    RevokeLease,
}

impl ContainmentAct {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quarantine => "quarantine",
            Self::Restrict => "restrict",
            Self::Limit => "limit",
            Self::RequireTls => "require-tls",
            Self::CutFlows => "cut-flows",
            Self::RevokeLease => "revoke-lease",
        }
    }
}

/// How a containment stands.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Contained {
    /// It is cut off now.
    Active,
    /// It was, and is no more.
    Ended,
    /// It never was.
    Never,
}
