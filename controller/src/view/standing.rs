//! `tidegate identity show`: who an identity is here, what it reached, whether that was expected, and whether to trust its credential.

use super::lists::remaining;
use super::table::{self, or_dash};
use super::{Format, print_json, say};
use crate::exit_code::Result;
use crate::governance::{Finding, PairSeen, Request, Role, With};
use crate::policy::document::Lease;
use crate::policy::ports::protocol_and_port;
use crate::policy::spiffe::SpiffeId;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;

/// `GET /v1/identity`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Standing {
    /// Who.
    pub spiffe_id: SpiffeId,
    /// Its number in the kernel's tables; absent where no packet was ever judged by it.
    pub identity: Option<u32>,
    /// Whether its credential should still be trusted.
    pub trust: Trust,
    /// Why, in words: everything that speaks against it, or what speaks for it.
    pub because: Vec<String>,
    /// Where it acts from.
    pub bindings: Vec<BoundAt>,
    /// Names of the intents that are of it.
    pub intents: Vec<String>,
    /// What it reached, and who reached it.
    pub peers: Vec<Reached>,
    /// Open findings.
    pub findings: Vec<Finding>,
    /// What is done about it now.
    pub acts: Vec<Acting>,
    /// What people are asked about it.
    pub approvals: Vec<Request>,
    /// What it was given for a while.
    pub grants: Vec<Given>,
}

/// What a gateway can say of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// A lease holds, and nothing speaks against it.
    Trusted,
    /// A lease holds, and a person should look.
    Review,
    /// No lease holds, or it is cut off.
    Denied,
}

impl Trust {
    /// For people.
    fn words(self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::Review => "review",
            Self::Denied => "denied",
        }
    }
}

/// An address that is bound to it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BoundAt {
    /// Address or prefix, and the scope of that.
    pub address: String,
    /// Who says so: a source, or a file with its line.
    pub by: String,
    /// Until when; for ever where it is absent.
    pub lease: Option<Lease>,
    /// What the source goes by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub evidence: BTreeMap<String, String>,
}

/// A peer with a service.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Reached {
    /// What was seen.
    #[serde(flatten)]
    pub seen: PairSeen,
    /// Whether an intent of it expects that; absent where none says anything of this side.
    pub expected: Option<bool>,
}

/// An act that holds.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Acting {
    /// By which `tidegate quarantine del` ends it, where it was not set by a file.
    pub name: String,
    /// What holds meanwhile.
    pub act: String,
    /// Until when; for ever where it is absent.
    pub not_after: Option<Timestamp>,
    /// Why.
    pub reason: Option<String>,
}

/// Access for a while.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Given {
    /// Its name.
    pub name: String,
    /// To whom, at what.
    pub to: String,
    /// Until when.
    pub not_after: Timestamp,
    /// Why.
    pub reason: String,
}

/// Prints it.
pub fn print(standing: &Standing, format: Format) -> Result<()> {
    if format == Format::Json {
        return print_json(standing);
    }
    let now = Timestamp::now();
    say(&format!("{}: {}", standing.spiffe_id, standing.trust.words()))?;
    standing.because.iter().try_for_each(|why| say(&format!("  {why}")))?;
    section("Acts from", &bindings(&standing.bindings, now), "nowhere: nothing is bound to it")?;
    section("Reached", &peers(&standing.peers), "nobody, and nobody reached it")?;
    let intents = standing.intents.join(", ");
    say(&format!(
        "\nExpected by: {}",
        if intents.is_empty() { "no intent; nothing is compared" } else { &intents }
    ))?;
    let Standing { findings, acts, approvals, grants, .. } = standing;
    let mut more = String::new();
    for finding in findings {
        let _ = writeln!(more, "finding {} ({}): {}", finding.id, finding.severity.name(), finding.why);
    }
    for Acting { name, act, not_after, reason } in acts {
        let reason = or_dash(reason.as_deref());
        let _ = writeln!(more, "{act} by {name}, ends {}: {reason}", ends(*not_after, now));
    }
    for request in approvals {
        let _ = writeln!(more, "approval {} waits: {}, {}", request.id, request.doing(), request.over);
    }
    for Given { name, to, not_after, reason } in grants {
        let _ = writeln!(more, "grant {name} to {to}, ends {}: {reason}", ends(Some(*not_after), now));
    }
    if more.is_empty() { Ok(()) } else { say(&format!("\n{}", more.trim_end())) }
}

fn ends(end: Option<Timestamp>, now: Timestamp) -> String {
    if end.is_none() { "never".into() } else { remaining(end, now) }
}

fn section(title: &str, text: &str, none: &str) -> Result<()> {
    if text.is_empty() { say(&format!("\n{title}: {none}")) } else { say(&format!("\n{title}:\n{text}")) }
}

fn bindings(bindings: &[BoundAt], now: Timestamp) -> String {
    if bindings.is_empty() {
        return String::new();
    }
    let mut out = table::table(&["ADDRESS", "LEASE ENDS", "SAID BY", "EVIDENCE"]);
    for BoundAt { address, by, lease, evidence } in bindings {
        let evidence: Vec<_> = evidence.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let evidence = Some(evidence.join(" ")).filter(|text| !text.is_empty());
        let lease = ends(lease.map(|lease| lease.not_after), now);
        out.add_row([address.clone(), lease, by.clone(), or_dash(evidence.as_deref())]);
    }
    table::text(&out)
}

fn peers(peers: &[Reached]) -> String {
    if peers.is_empty() {
        return String::new();
    }
    let mut out =
        table::table(&["AS", "PEER", "SERVICE", ">CONNECTIONS", ">DENIED", "EXPECTED", "LAST SEEN"]);
    for Reached { seen, expected } in peers {
        let PairSeen { pair, sight } = seen;
        let role = if pair.role == Role::Client { "client" } else { "server" };
        let peer = match &pair.peer {
            With::SpiffeId(id) => id.to_string(),
            With::Address(address) => address.to_string(),
            With::Ambiguous(address) => format!("{address} (ambiguous)"),
        };
        let expected = expected.map(|is| if is { "yes" } else { "no" });
        out.add_row([
            role.to_owned(),
            peer,
            protocol_and_port(pair.proto, pair.port),
            sight.count.to_string(),
            sight.denied.to_string(),
            or_dash(expected),
            format!("{:.0}", sight.last_seen),
        ]);
    }
    table::text(&out)
}
