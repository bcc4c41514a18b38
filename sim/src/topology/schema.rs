//! The topology file as it is written: containerlab's `name` and `topology`, and keys of our own beside them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;

mod expect;

pub use expect::*;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Name of the lab.
    pub name: Spanned<String>,
    /// One sentence for the report.
    #[serde(default)]
    pub description: Option<String>,
    /// Nodes and links, as containerlab has them.
    pub topology: Topology,
    /// Addresses and routes, by node.
    #[serde(default)]
    pub network: BTreeMap<String, Spanned<Network>>,
    /// What runs on workload nodes, by node.
    #[serde(default)]
    pub workloads: BTreeMap<String, Spanned<Workload>>,
    /// How the daemon on the gateway is started.
    #[serde(default)]
    pub gateway: Gateway,
    /// Tidegate documents that bind identities, inline or paths of files.
    #[serde(default)]
    pub identities: Vec<Spanned<serde_json::Value>>,
    /// Tidegate documents that say who may talk to whom, inline or paths of files.
    #[serde(default)]
    pub policies: Vec<Spanned<serde_json::Value>>,
    /// How time passes for what is compared.
    #[serde(default)]
    pub clock: Option<Clock>,
    /// What happens.
    #[serde(default)]
    pub traffic: Vec<Spanned<Step>>,
    /// What the gateway must have seen at the end.
    #[serde(default)]
    pub expect: Expect,
}

/// containerlab's part.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// By name.
    pub nodes: BTreeMap<String, Spanned<Node>>,
    /// Point to point.
    #[serde(default)]
    pub links: Vec<Spanned<Link>>,
}

/// A node.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
}

/// What a node is.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Forwards, and runs tidegate.
    Gateway,
    /// Forwards, and judges nothing.
    Router,
    /// Sends and serves. containerlab's `linux`.
    #[serde(alias = "linux")]
    Workload,
    /// Owns its addresses and never answers: it has no route back.
    Blackhole,
    /// A switch between its links.
    Bridge,
}

/// A link.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// `node:interface`, twice.
    pub endpoints: Vec<Spanned<String>>,
}

/// Addresses and routes of a node.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// `ADDRESS/PREFIX`, by interface.
    #[serde(default)]
    pub addresses: BTreeMap<String, Vec<Spanned<String>>>,
    /// Beside the default route, which workloads get by themselves.
    #[serde(default)]
    pub routes: Vec<Spanned<Route>>,
    /// Of a router: the interface whose address what leaves there takes (nftables), as behind NAT.
    #[serde(default)]
    pub masquerade: Option<Spanned<String>>,
}

/// A route.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// `ADDRESS/PREFIX` or `default`.
    pub to: Spanned<String>,
    /// The next hop.
    pub via: Spanned<String>,
}

/// What runs on a workload.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Its certificate; by default that of the identity document of the same name.
    #[serde(default)]
    pub svid: Option<Svid>,
    /// `mtls/8443`, `tcp/9000`, `udp/5000`.
    #[serde(default)]
    pub listen: Vec<Spanned<String>>,
}

/// An X.509-SVID that the CA of the run issues.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Svid {
    /// The URI in its subject alternative name.
    #[serde(default)]
    pub spiffe_id: Option<Spanned<String>>,
    /// Relative to now, `-2h`.
    #[serde(default)]
    pub not_before: Option<Spanned<String>>,
    /// Relative to now, `1h`; `-1h` has expired.
    #[serde(default)]
    pub not_after: Option<Spanned<String>>,
}

/// How the daemon is started.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Gateway {
    /// `--mode`.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// `--xdp-mode`.
    #[serde(default)]
    pub xdp_mode: Option<XdpMode>,
    /// `--failsafe`, each.
    #[serde(default)]
    pub failsafe: Vec<String>,
    /// Its own certificate, which enrolment needs.
    #[serde(default)]
    pub svid: Option<Spanned<Svid>>,
    /// Further options of `tidegate run`, as they are typed.
    #[serde(default)]
    pub options: Vec<String>,
}

/// How time passes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// So many times as fast as on the wall, for what the daemon compares with intents: minutes and hours of counts, rates and baselines.
    /// Packets, leases and the steps of the file have the time of the wall.
    pub pace: Spanned<u16>,
}

/// Whether verdicts are carried out.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// They are.
    Enforce,
    /// They are only recorded.
    Monitor,
}

/// Where XDP runs.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum XdpMode {
    /// In the driver if it can.
    Auto,
    /// In the driver.
    Native,
    /// In the stack.
    Generic,
}

/// One step of the traffic.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// What is done.
    pub kind: StepKind,
    /// For the report.
    #[serde(default)]
    pub name: Option<String>,
    /// The node that starts it.
    #[serde(default)]
    pub from: Option<Spanned<String>>,
    /// `NODE:PORT`, `NODE` (ping), or an address.
    #[serde(default)]
    pub to: Option<Spanned<String>>,
    /// Which addresses of the nodes are used.
    #[serde(default)]
    pub family: Option<Family>,
    /// Payload, each way.
    #[serde(default)]
    pub bytes: Option<Spanned<u64>>,
    /// The only version that is offered.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// A certificate for this step alone.
    #[serde(default)]
    pub svid: Option<Svid>,
    /// The SPIFFE ID that the server must show; by default the one of its node.
    #[serde(default)]
    pub peer: Option<Spanned<String>>,
    /// How often, one after the other.
    #[serde(default)]
    pub count: Option<Spanned<u32>>,
    /// When it is given up.
    #[serde(default)]
    pub timeout: Option<Spanned<String>>,
    /// How it must end; `ok` if not said.
    #[serde(default)]
    pub expect: Option<Outcome>,
    /// hello: the name in it.
    #[serde(default)]
    pub sni: Option<Spanned<String>>,
    /// hello: the protocols that it offers.
    #[serde(default)]
    pub alpn: Vec<String>,
    /// hello: whether it carries an encrypted one, or pretends to.
    #[serde(default)]
    pub ech: bool,
    /// dns: the name that is asked for.
    #[serde(default)]
    pub query: Option<Spanned<String>>,
    /// The TLS alert that must have ended it, by its IANA name.
    #[serde(default)]
    pub alert: Option<String>,
    /// Length of a pause; for mtls, how long requests go on over one connection; for a server that is slow, how slow.
    #[serde(default, rename = "for")]
    pub duration: Option<Spanned<String>>,
    /// Waits so long before it begins; for steps that run at once.
    #[serde(default)]
    pub after: Option<Spanned<String>>,
    /// What happens to the daemon, or to what a workload serves.
    #[serde(default, rename = "do")]
    pub act: Option<ProcessAct>,
    /// What is typed on the gateway after `tidegate`.
    #[serde(default)]
    pub run: Vec<String>,
    /// What the command must have said, in part.
    #[serde(default)]
    pub says: Option<String>,
    /// What is waited for.
    #[serde(default)]
    pub until: Option<Box<Expect>>,
    /// What runs at once, or one after another.
    #[serde(default)]
    pub steps: Vec<Spanned<Self>>,
}

impl Step {
    /// Puts a number into its texts, in the place of `{n}`.
    pub fn number(&mut self, n: u32) {
        let number = n.to_string();
        let put = |text: &mut String| *text = text.replace("{n}", &number);
        self.run.iter_mut().for_each(put);
        self.name.iter_mut().chain(&mut self.says).for_each(put);
        let svid = self.svid.as_mut().and_then(|svid| svid.spiffe_id.as_mut());
        for text in svid.into_iter().chain(&mut self.to).chain(&mut self.peer) {
            put(&mut text.value);
        }
        if let Some(until) = &mut self.until {
            until.number(n);
        }
        self.steps.iter_mut().for_each(|step| step.value.number(n));
    }
}

/// What happens to a process.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ProcessAct {
    /// SIGKILL, as by the OOM killer.
    Kill,
    /// SIGTERM, as by an operator.
    Stop,
    /// Started again, as by a service manager.
    Start,
    /// Of a server: each handshake of TLS waits from now on.
    Slow,
}

impl ProcessAct {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Slow => "slow",
        }
    }
}

/// What a step does.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// Mutual TLS, a request and its echo.
    Mtls,
    /// A plain TCP connection.
    Tcp,
    /// A datagram and its echo.
    Udp,
    /// A ClientHello of one's own making, and whatever the server says to it.
    Hello,
    /// A query for a name, over UDP, and its echo.
    Dns,
    /// ICMP or ICMPv6 echo.
    Ping,
    /// Something happens to the gateway's daemon.
    Daemon,
    /// A workload stops to serve its ports, serves them again, or answers slowly.
    Server,
    /// A command of `tidegate` on the gateway.
    Tidegate,
    /// `tidegate enroll --once` on a workload.
    Enroll,
    /// Until the gateway has seen something, or time is up.
    Wait,
    /// Nothing for a while.
    Pause,
    /// Its `steps`, at once.
    Parallel,
    /// Its `steps`, one after another, `count` times; `{n}` in their texts is which time it is.
    Sequence,
}

impl StepKind {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mtls => "mtls",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Hello => "hello",
            Self::Dns => "dns",
            Self::Ping => "ping",
            Self::Daemon => "daemon",
            Self::Server => "server",
            Self::Tidegate => "tidegate",
            Self::Enroll => "enroll",
            Self::Wait => "wait",
            Self::Pause => "pause",
            Self::Parallel => "parallel",
            Self::Sequence => "sequence",
        }
    }
}

/// Which addresses.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// One step for each.
    Both,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum Tls {
    /// RFC 5246.
    #[serde(rename = "1.2")]
    V12,
    /// RFC 8446.
    #[default]
    #[serde(rename = "1.3")]
    V13,
}

/// How a step ends.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should.
    Ok,
    /// TLS did not come about.
    HandshakeFailed,
    /// No answer.
    Timeout,
    /// Answered by a reset, or by ICMP port unreachable; of a command, by an error.
    Refused,
    /// A router said that there is no way.
    Unreachable,
    /// It could not be done at all; no expectation can ask for it.
    Error,
    /// However it ends: a race that may be won or lost. No step ends so.
    Any,
}

impl Outcome {
    /// Whether a step that has to end so may end like that.
    pub fn allows(self, ended: Self) -> bool {
        self == Self::Any || self == ended
    }
}
