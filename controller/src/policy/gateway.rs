//! What holds for the gateway as a whole: its default, connections in mid-stream, timeouts.

use super::approval::{self, Approvals};
use super::fields::{Context, Fields};
use super::place::Place;
use super::time::parse_duration;
use super::yaml::Node;
use datapath::abi::{Config, Interface};
use serde::{Deserialize, Serialize};

/// `kind: Gateway`. One at most; what it does not say is as without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// metadata.name
    pub name: String,
    /// What becomes of packets that no rule allows.
    pub default_action: DefaultAction,
    /// What becomes of TCP connections whose beginning was not seen.
    pub midstream: Midstream,
    /// After how long a connection is over.
    pub timeouts: Timeouts,
    /// What holds for what enters by single interfaces instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<OneInterface>,
    /// Which containments wait for people; none without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvals: Option<Approvals>,
    /// Where the document begins.
    pub place: Place,
}

/// What becomes of packets that no rule allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DefaultAction {
    /// They are dropped.
    #[default]
    Deny,
    /// They are dropped and answered.
    Reject,
}

/// What becomes of TCP connections whose beginning was not seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Midstream {
    /// Rules decide, for the direction that they allow.
    #[default]
    Allow,
    /// The same, with verdict AUDIT.
    Alert,
    /// They are dropped.
    Deny,
}

/// What holds for what enters by one interface; absent is as for the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneInterface {
    /// The interface.
    pub name: String,
    /// What becomes of TCP connections whose beginning was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub midstream: Option<Midstream>,
    /// Whether what is denied is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<InterfaceMode>,
}

/// Whether what is denied is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InterfaceMode {
    /// It is.
    Enforce,
    /// It passes, with verdict AUDIT.
    Monitor,
}

impl Midstream {
    const MASK: u32 = Config::MIDSTREAM_DENY | Config::MIDSTREAM_ALERT;

    fn flags(self) -> u32 {
        match self {
            Self::Allow => 0,
            Self::Alert => Config::MIDSTREAM_ALERT,
            Self::Deny => Config::MIDSTREAM_DENY,
        }
    }
}

impl OneInterface {
    /// As the kernel has it.
    pub fn settings(&self) -> Interface {
        let mut settings = Interface::NONE;
        if let Some(midstream) = self.midstream {
            settings.mask |= Midstream::MASK;
            settings.flags |= midstream.flags();
        }
        if let Some(mode) = self.mode {
            settings.mask |= Config::ENFORCE;
            settings.flags |= if mode == InterfaceMode::Enforce { Config::ENFORCE } else { 0 };
        }
        settings
    }
}

/// Seconds after which a connection is over; absent where the default holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// A SYN without answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_syn: Option<u64>,
    /// TCP, idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_established: Option<u64>,
    /// TCP, after its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_closed: Option<u64>,
    /// UDP that was answered and all else, idle; UDP without an answer and ICMP where they have no time of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datagram: Option<u64>,
    /// A SYN-ACK that nobody acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_handshake: Option<u64>,
    /// TCP after the FIN of one side, idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_half_closed: Option<u64>,
    /// TCP after its end, for `tidegate flows` to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_kept: Option<u64>,
    /// UDP without an answer, idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp_unreplied: Option<u64>,
    /// ICMP and ICMPv6, idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<u64>,
    /// SCTP, idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sctp: Option<u64>,
}

/// Writes what holds into the configuration; without a document, the defaults.
pub fn configure(gateway: Option<&Gateway>, config: &mut Config) {
    let default = Config::new(1, 0);
    let timeouts = gateway.map(|g| g.timeouts).unwrap_or_default();
    let ns =
        |seconds: Option<u64>, default: u64| seconds.map_or(default, |s| s.saturating_mul(1_000_000_000));
    config.attempt_timeout_ns = ns(timeouts.tcp_syn, default.attempt_timeout_ns);
    config.tcp_idle_timeout_ns = ns(timeouts.tcp_established, default.tcp_idle_timeout_ns);
    config.close_linger_ns = ns(timeouts.tcp_closed, default.close_linger_ns);
    config.datagram_timeout_ns = ns(timeouts.datagram, default.datagram_timeout_ns);
    config.handshake_timeout_ns = ns(timeouts.tcp_handshake, default.handshake_timeout_ns);
    config.half_closed_timeout_ns = ns(timeouts.tcp_half_closed, default.half_closed_timeout_ns);
    config.unreplied_timeout_ns =
        ns(timeouts.udp_unreplied.or(timeouts.datagram), default.unreplied_timeout_ns);
    config.icmp_timeout_ns = ns(timeouts.icmp.or(timeouts.datagram), default.icmp_timeout_ns);
    config.sctp_timeout_ns = ns(timeouts.sctp, default.sctp_timeout_ns);
    config.closed_kept_ns = ns(timeouts.tcp_kept, default.closed_kept_ns);
    *config = config.with_idle_times();
    config.flags &= !(Config::REJECT | Config::BY_INTERFACE | Midstream::MASK);
    if gateway.is_some_and(|g| g.default_action == DefaultAction::Reject) {
        config.flags |= Config::REJECT;
    }
    if gateway.is_some_and(|g| !g.interfaces.is_empty()) {
        config.flags |= Config::BY_INTERFACE;
    }
    config.flags |= gateway.map(|g| g.midstream).unwrap_or_default().flags();
}

/// Reads the spec.
pub(super) fn decode(cx: &mut Context<'_>, spec: &Node) -> Option<Gateway> {
    let names = ["defaultAction", "midstream", "timeouts", "interfaces", "approvals"];
    let fields = Fields::of(cx, spec, "the spec of a Gateway", &names)?;
    let actions = [("deny", DefaultAction::Deny), ("reject", DefaultAction::Reject)];
    let default_action = match fields.optional("defaultAction") {
        Some(node) => cx.word(node, "value of `defaultAction`", &actions),
        None => Some(DefaultAction::default()),
    };
    let midstream = match fields.optional("midstream") {
        Some(node) => midstream_of(cx, node),
        None => Some(Midstream::default()),
    };
    let timeouts = match fields.optional("timeouts") {
        Some(node) => timeouts(cx, node),
        None => Some(Timeouts::default()),
    };
    let mut interfaces: Vec<OneInterface> = Vec::new();
    if let Some(node) = fields.optional("interfaces") {
        for item in cx.items(node, "`interfaces`", "for example `interfaces: [{name: eth1, mode: monitor}]`")
        {
            let Some(one) = interface(cx, item) else { continue };
            if interfaces.iter().any(|first| first.name == one.name) {
                cx.mistake(item, format!("`{}` stands twice", one.name), "write its settings in one item");
            }
            interfaces.push(one);
        }
    }
    Some(Gateway {
        name: String::new(),
        default_action: default_action?,
        midstream: midstream?,
        timeouts: timeouts?,
        interfaces,
        approvals: fields.optional("approvals").and_then(|node| approval::decode(cx, node)),
        place: cx.place(spec),
    })
}

fn midstream_of(cx: &mut Context<'_>, node: &Node) -> Option<Midstream> {
    let ways = [("allow", Midstream::Allow), ("alert", Midstream::Alert), ("deny", Midstream::Deny)];
    cx.word(node, "value of `midstream`", &ways)
}

fn interface(cx: &mut Context<'_>, node: &Node) -> Option<OneInterface> {
    let fields = Fields::of(cx, node, "an interface", &["name", "midstream", "mode"])?;
    let name = fields.required(cx, "name", "for example `name: eth1`")?;
    let name = cx.text(name, "`name`")?.to_owned();
    let midstream = fields.optional("midstream").and_then(|node| midstream_of(cx, node));
    let modes = [("enforce", InterfaceMode::Enforce), ("monitor", InterfaceMode::Monitor)];
    let mode = fields.optional("mode").and_then(|node| cx.word(node, "value of `mode`", &modes));
    if fields.all().len() == 1 {
        cx.mistake(node, format!("nothing is said of `{name}`"), "accepted: `midstream`, `mode`");
    }
    Some(OneInterface { name, midstream, mode })
}

fn timeouts(cx: &mut Context<'_>, node: &Node) -> Option<Timeouts> {
    let names = [
        "tcpSyn",
        "tcpEstablished",
        "tcpClosed",
        "datagram",
        "tcpHandshake",
        "tcpHalfClosed",
        "tcpKept",
        "udpUnreplied",
        "icmp",
        "sctp",
    ];
    let fields = Fields::of(cx, node, "`timeouts`", &names)?;
    let [
        tcp_syn,
        tcp_established,
        tcp_closed,
        datagram,
        tcp_handshake,
        tcp_half_closed,
        tcp_kept,
        udp_unreplied,
        icmp,
        sctp,
    ] = names.map(|name| {
        let node = fields.optional(name)?;
        let text = cx.text(node, "a timeout")?;
        let seconds = parse_duration(text).and_then(|d| u64::try_from(d.as_secs()).ok());
        if seconds.is_none() {
            let accepted = "accepted: whole numbers of s, m, h, d, such as 90s, 10m, 1h30m, 7d";
            cx.mistake(node, format!("`{text}` is not a duration"), accepted);
        }
        seconds
    });
    Some(Timeouts {
        tcp_syn,
        tcp_established,
        tcp_closed,
        datagram,
        tcp_handshake,
        tcp_half_closed,
        tcp_kept,
        udp_unreplied,
        icmp,
        sctp,
    })
}

#[cfg(test)]
mod tests {
    use super::super::Documents;
    use super::*;

    fn read(spec: &str) -> Result<Documents, String> {
        let text =
            format!("apiVersion: tidegate.dev/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec: {spec}\n");
        let now = "2026-11-22T12:00:00Z".parse().expect("time");
        Documents::parse("g.yaml", &text, now).map_err(|e| e.to_string())
    }

    #[test]
    fn a_gateway_document_becomes_configuration_and_its_absence_the_defaults() {
        let documents =
            read("{defaultAction: reject, midstream: deny, timeouts: {tcpEstablished: 1h, datagram: 30s}}")
                .expect("a document");
        let mut config = Config::new(64, 7);
        let before = config;
        configure(documents.gateway.as_ref(), &mut config);
        assert_eq!(config.flags, before.flags | Config::REJECT | Config::MIDSTREAM_DENY);
        assert_eq!(
            (config.tcp_idle_timeout_ns, config.datagram_timeout_ns),
            (3_600_000_000_000, 30_000_000_000)
        );
        assert_eq!(config.attempt_timeout_ns, before.attempt_timeout_ns);
        configure(None, &mut config);
        assert_eq!(config, before);
    }

    #[test]
    fn an_interface_has_what_is_said_of_it_and_no_more() {
        let documents = read(
            "{interfaces: [{name: eth1, mode: monitor}, {name: eth2, midstream: alert, mode: enforce}]}",
        )
        .expect("a document");
        let gateway = documents.gateway.expect("a gateway");
        let settings: Vec<_> = gateway.interfaces.iter().map(OneInterface::settings).collect();
        let (enforce, both) = (Config::ENFORCE, Config::ENFORCE | Midstream::MASK);
        assert_eq!(settings[0], Interface { mask: enforce, ..Interface::NONE });
        let flags = enforce | Config::MIDSTREAM_ALERT;
        assert_eq!(settings[1], Interface { mask: both, flags, ..Interface::NONE });
        let mut config = Config::new(64, 7);
        configure(Some(&gateway), &mut config);
        assert!(config.has(Config::BY_INTERFACE));
    }

    #[test]
    fn what_a_gateway_cannot_be_is_a_mistake() {
        for (spec, what) in [
            ("{defaultAction: allow}", "`allow` is no value of `defaultAction`"),
            ("{midstream: drop}", "`drop` is no value of `midstream`"),
            ("{timeouts: {tcpEstablished: 0s}}", "`0s` is not a duration"),
            ("{timeouts: {udp: 1s}}", "unknown field `udp` in `timeouts`"),
            ("{interfaces: [{name: eth1}]}", "nothing is said of `eth1`"),
            ("{interfaces: [{name: eth1, mode: off}]}", "`off` is no value of `mode`"),
            ("{interfaces: [{name: e, mode: monitor}, {name: e, midstream: deny}]}", "`e` stands twice"),
        ] {
            let said = read(spec).expect_err("a mistake");
            assert!(said.contains(what), "{said}");
        }
        let two = "{}\n---\napiVersion: tidegate.dev/v1\nkind: Gateway\nmetadata: {name: other}\nspec: {}";
        let said = read(two).expect_err("a mistake");
        assert!(said.contains("a second Gateway: the first is at g.yaml:1:1"), "{said}");
    }
}
