//! A topology in which every name is resolved.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use super::schema::{
    Contained, ContainmentAct, Decision, FindingState, HandshakeKind, HandshakeOutcome, Kind, Level, Mode,
    Outcome, ProcessAct, StepKind, Tls, XdpMode,
};
pub use super::values::Prefix;
pub use crate::node::hello::Hello;

/// All that a run needs.
#[derive(Debug)]
pub struct Plan {
    /// Name of the lab.
    pub name: String,
    /// One sentence.
    pub description: Option<String>,
    /// In the order of their names.
    pub nodes: Vec<Node>,
    /// In the order of the file.
    pub links: Vec<Link>,
    /// Tidegate's documents.
    pub documents: Vec<Document>,
    /// How the daemon is started.
    pub gateway: GatewayOptions,
    /// What happens.
    pub traffic: Vec<Stage>,
    /// What must have been seen.
    pub expect: Expectations,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its name in the file.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its ends of links.
    pub interfaces: Vec<Interface>,
    /// The default route among them.
    pub routes: Vec<Route>,
    /// The interface whose address what leaves there takes.
    pub masquerade: Option<String>,
    /// Its certificate.
    pub svid: Option<Svid>,
    /// What it serves.
    pub listen: Vec<Listener>,
}

impl Node {
    /// All of its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.interfaces.iter().flat_map(|i| i.addresses.iter().map(|p| p.address))
    }

    /// The first address of a family.
    pub fn address(&self, ipv6: bool) -> Option<IpAddr> {
        self.addresses().find(|a| a.is_ipv6() == ipv6)
    }
}

/// An end of a link.
#[derive(Debug)]
pub struct Interface {
    /// `eth1`.
    pub name: String,
    /// Of both families.
    pub addresses: Vec<Prefix>,
}

/// A route.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Where to.
    pub to: Prefix,
    /// The next hop; none for a blackhole.
    pub via: Option<IpAddr>,
}

/// A link.
#[derive(Debug)]
pub struct Link {
    /// Index of the node and name of the interface, twice.
    pub ends: [(usize, String); 2],
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Svid {
    /// The URI.
    pub spiffe_id: String,
    /// Relative to now.
    pub not_before_ms: i64,
    /// Relative to now.
    pub not_after_ms: i64,
}

impl Svid {
    /// The part between the scheme and the path.
    pub fn trust_domain(&self) -> &str {
        let rest = self.spiffe_id.strip_prefix("spiffe://").unwrap_or(&self.spiffe_id);
        rest.split('/').next().unwrap_or(rest)
    }
}

/// What a workload serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Mutual TLS that echoes.
    Mtls,
    /// TCP that echoes.
    Tcp,
    /// UDP that echoes.
    Udp,
}

/// A port that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Listener {
    /// How.
    pub protocol: Protocol,
    /// Where.
    pub port: u16,
}

/// A document for tidegate.
#[derive(Debug)]
pub enum Document {
    /// As it stands in the topology.
    Inline(serde_json::Value),
    /// Somewhere else.
    File(PathBuf),
}

/// How the daemon is started.
#[derive(Debug, Default)]
pub struct GatewayOptions {
    /// `--mode`.
    pub mode: Option<Mode>,
    /// `--xdp-mode`.
    pub xdp_mode: Option<XdpMode>,
    /// `--failsafe`.
    pub failsafe: Vec<String>,
    /// Its own certificate.
    pub svid: Option<Svid>,
    /// Further options.
    pub options: Vec<String>,
}

/// Steps that run at once; mostly one.
#[derive(Debug)]
pub enum Stage {
    /// At once.
    Steps(Vec<Act>),
    /// Nothing for a while.
    Pause(Duration),
}

/// One thing that is done.
#[derive(Clone, Debug)]
pub enum Act {
    /// Two nodes talk.
    Exchange(Box<Step>),
    /// Something happens to the daemon, after a while.
    Daemon(ProcessAct, Duration),
    /// Something happens to what a workload, by its index, serves, after a while.
    Server(usize, ServerAct, Duration),
    /// Somebody types a command.
    Command(Box<CommandLine>),
    /// The gateway has to see something.
    Wait(Box<Wait>),
}

/// What happens to what a workload serves.
#[derive(Clone, Copy, Debug)]
pub enum ServerAct {
    /// It serves nothing any more.
    Stop,
    /// It serves its ports again.
    Start,
    /// Its handshakes of TLS wait so long from now on.
    Slow(Duration),
}

impl ServerAct {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => ProcessAct::Stop.name(),
            Self::Start => ProcessAct::Start.name(),
            Self::Slow(_) => ProcessAct::Slow.name(),
        }
    }
}

/// A command of `tidegate`.
#[derive(Clone, Debug)]
pub struct CommandLine {
    /// For the report.
    pub name: String,
    /// On the gateway, or on a workload that enrols.
    pub place: CommandPlace,
    /// What is waited before.
    pub after: Duration,
    /// How it must end.
    pub expect: Outcome,
    /// What it must say, in part.
    pub says: Option<String>,
}

/// Where a command is typed.
#[derive(Clone, Debug)]
pub enum CommandPlace {
    /// On the gateway, with these arguments.
    Gateway(Vec<String>),
    /// On a node, by its index: it enrols with a certificate.
    Enroll(usize, Svid),
}

/// Something that is waited for.
#[derive(Clone, Debug)]
pub struct Wait {
    /// For the report.
    pub name: String,
    /// What.
    pub until: Expectations,
}

/// One exchange.
#[derive(Clone, Debug)]
pub struct Step {
    /// For the report.
    pub name: String,
    /// mtls, tcp, udp, hello, dns or ping.
    pub kind: StepKind,
    /// Index of the node that starts it.
    pub from: usize,
    /// Where to, in words.
    pub to_name: String,
    /// Where to; port 0 for ping.
    pub to: SocketAddr,
    /// Payload, each way.
    pub bytes: u64,
    /// hello: what it says.
    pub hello: Hello,
    /// dns: the name that is asked for.
    pub query: String,
    /// mtls: the version that is offered.
    pub tls: Tls,
    /// mtls: what the client shows.
    pub svid: Option<Svid>,
    /// mtls: what the server must show.
    pub peer: Option<String>,
    /// When it is given up.
    pub timeout: Duration,
    /// mtls: how long requests go on; zero for one.
    pub lasting: Duration,
    /// What is waited before.
    pub after: Duration,
    /// How it must end.
    pub expect: Outcome,
    /// The alert that must have ended it.
    pub alert: Option<String>,
}

/// What the gateway must have seen.
#[derive(Clone, Debug)]
pub struct Expectations {
    /// How long to ask again.
    pub within: Duration,
    /// One by one.
    pub all: Vec<Expectation>,
}

/// One thing that must have been seen, so many times.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// What.
    pub what: What,
    /// Who starts it.
    pub from: Option<Party>,
    /// Who answers.
    pub to: Option<Party>,
    /// At least.
    pub min: u64,
    /// At most.
    pub max: Option<u64>,
}

/// What is counted.
#[derive(Clone, Debug)]
pub enum What {
    /// Packets dropped.
    Drop {
        /// Metric label.
        reason: String,
        /// `POLICY/RULE` or the rule alone.
        rule: Option<String>,
    },
    /// Flow records.
    Flow {
        /// FORWARDED, DROPPED, AUDIT.
        verdict: Option<String>,
        /// Zeek's word.
        conn_state: Option<String>,
        /// How far TLS came.
        tls: Option<String>,
    },
    /// Handshakes.
    Handshake {
        /// tcp or tls.
        kind: HandshakeKind,
        /// How it ended.
        outcome: HandshakeOutcome,
    },
    /// Findings.
    Finding(FindingSays),
    /// Findings that are none of these.
    OtherFinding(Vec<FindingSays>),
    /// Records of the audit.
    Audit(AuditSays),
    /// Records of decisions, of the loop and of people, that are none of these.
    OtherDecision(Vec<AuditSays>),
    /// Audits whose record is whole: one or none.
    WholeAudit,
    /// Identities that stand so: one or none.
    Containment(String, Option<ContainmentAct>, Contained),
    /// Identities that were ever contained, but for these.
    OtherContainment(Vec<String>),
}

/// What a finding says; what is not said here may be anything.
#[derive(Clone, Debug, Default)]
pub struct FindingSays {
    /// From what it departs.
    pub intent: Option<String>,
    /// In what.
    pub signal: Option<String>,
    /// client or server.
    pub role: Option<String>,
    /// A SPIFFE ID among its identities.
    pub identity: Option<String>,
    /// A SPIFFE ID, or what is said of peers that are none.
    pub peer: Option<String>,
    /// What has become of it.
    pub state: Option<FindingState>,
    /// What it led to.
    pub decision: Option<Decision>,
    /// How sure it is.
    pub confidence: Option<Level>,
    /// How much harm it can do.
    pub severity: Option<Level>,
    /// A part of its reason.
    pub why: Option<String>,
    /// Departures, at least.
    pub departures: u64,
}

/// What a record of the audit says.
#[derive(Clone, Debug)]
pub struct AuditSays {
    /// commit, finding ...
    pub kind: Option<String>,
    /// Who did it.
    pub who: Option<String>,
    /// How.
    pub how: Option<String>,
    /// A SPIFFE ID that it concerns.
    pub identity: Option<String>,
    /// Parts of what it tells.
    pub says: Vec<String>,
}

/// One end of a flow.
#[derive(Clone, Debug)]
pub struct Party {
    /// As it is written.
    pub name: String,
    /// Any of these.
    pub addresses: Vec<IpAddr>,
    /// If it is named.
    pub port: Option<u16>,
}
