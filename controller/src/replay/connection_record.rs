//! One record a connection, in Zeek's fields and meanings.

use super::clock::ReplayClock;
use super::observed::Observed;
use super::packet_record::proto_name;
use super::rules::RuleNames;
use super::seconds::Seconds;
use crate::hello::ClientHello;
use datapath::abi::{Action, Connection, Endpoint, FlowKey, FlowRecord, Reason, Side, TlsState};
use datapath::wire::proto::{ICMP, ICMPV6, TCP, UDP};
use serde::Serialize;
use std::net::IpAddr;

/// A connection of a replay.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConnectionRecord {
    /// Time of the first packet.
    pub ts: Seconds,
    /// Who opened it.
    pub orig_h: IpAddr,
    /// Port of the originator; ICMP: the type of the originator's message.
    pub orig_p: u16,
    /// Whom it was opened to.
    pub resp_h: IpAddr,
    /// Port of the responder; ICMP: the type of the answer, or the code where there is none.
    pub resp_p: u16,
    /// `tcp`, `udp`, `icmp` (ICMPv6 too) or `unknown_transport`.
    pub proto: &'static str,
    /// The number of the protocol.
    pub ip_proto: u8,
    /// Zeek's S0, S1, SF, REJ, S2, S3, RSTO, RSTR, RSTOS0, RSTRH, SH, SHR or OTH.
    pub conn_state: &'static str,
    /// Zeek's history letters; null where nothing was noted.
    pub history: Option<String>,
    /// From the first packet to the last, or to the one that closed; null where they are the same.
    pub duration: Option<Seconds>,
    /// Packets of the originator.
    pub orig_pkts: u64,
    /// Packets of the responder.
    pub resp_pkts: u64,
    /// IP bytes of the originator.
    pub orig_ip_bytes: u64,
    /// IP bytes of the responder.
    pub resp_ip_bytes: u64,
    /// How far TLS came: `client_hello`, `server_hello`, `established`, `alert` or `aborted`; null where there is none.
    pub tls: Option<&'static str>,
    /// Whether that is inferred, since TLS 1.3 encrypts what would prove it.
    pub tls_inferred: Option<bool>,
    /// The alert, where one was readable: its description's number (RFC 8446, section 6).
    pub tls_alert: Option<u8>,
    /// What the ClientHello says; null where there is none.
    #[serde(flatten)]
    pub hello: ClientHello,
    /// How far QUIC came: `initial`, `handshake` or, always inferred, `established`; null where there is none.
    pub quic: Option<&'static str>,
    /// 1 or 2; null where the version is not known.
    pub quic_version: Option<u8>,
    /// Whether the server asked for the address to be proved.
    pub quic_retry: Option<bool>,
    /// Whether the server did not speak the version.
    pub quic_version_negotiation: Option<bool>,
    /// What became of its packets when it was judged last.
    pub verdict: &'static str,
    /// Why.
    pub reason: &'static str,
    /// The rule that decided.
    pub rule: Option<String>,
}

/// A flow that was counted, and its connection if it has one.
pub(super) struct Flow {
    pub key: FlowKey,
    pub record: FlowRecord,
    pub originator: Side,
    pub verdict: Decided,
    pub story: Story,
    pub hello: ClientHello,
    /// What the replay noted of it, if any of its packets went on.
    pub observed: Option<Observed>,
}

/// A verdict and why it is so.
#[derive(Clone, Copy)]
pub(super) struct Decided {
    pub action: Action,
    pub reason: Reason,
    pub rule: u32,
}

/// What there is to tell beyond counts.
pub(super) enum Story {
    /// The record that the programs kept.
    Tracked(Connection),
    /// Dropped before it was tracked: what its first packet says.
    Untracked { conn_state: &'static str, history: Option<&'static str> },
}

impl ConnectionRecord {
    pub(super) fn new(flow: &Flow, clock: &ReplayClock, rules: &RuleNames) -> Self {
        let (orig, resp) = (flow.originator, flow.originator.other());
        let (orig_end, resp_end) = (flow.key.end(orig), flow.key.end(resp));
        let record = &flow.record;
        let (first_ns, last_ns) = flow.times();
        let tls = Tls::of(&flow.story);
        let quic = match &flow.story {
            Story::Tracked(conn) if conn.is_quic() => Some(conn),
            _ => None,
        };
        let duration_ns = last_ns.saturating_sub(first_ns);
        Self {
            ts: Seconds(clock.capture_ns(first_ns)),
            orig_h: orig_end.0.to_ip(),
            orig_p: orig_end.1,
            resp_h: resp_end.0.to_ip(),
            resp_p: resp_end.1,
            proto: zeek_proto(flow.key.proto),
            ip_proto: flow.key.proto,
            conn_state: flow.conn_state(),
            history: flow.history(),
            duration: (duration_ns > 0).then_some(Seconds(duration_ns)),
            orig_pkts: record.packets[orig.index()],
            resp_pkts: record.packets[resp.index()],
            orig_ip_bytes: flow.ip_bytes(orig),
            resp_ip_bytes: flow.ip_bytes(resp),
            tls: tls.word,
            tls_inferred: tls.inferred,
            tls_alert: tls.alert,
            hello: flow.hello.clone(),
            quic: quic.map(datapath::track::quic::state_name),
            quic_version: quic.map(|conn| conn.quic_version).filter(|version| *version != 0),
            quic_retry: quic.map(|conn| conn.tls_flags & Connection::QUIC_RETRY != 0),
            quic_version_negotiation: quic.map(|conn| conn.tls_flags & Connection::QUIC_VERSIONS != 0),
            verdict: flow.verdict.action.name(),
            reason: flow.verdict.reason.name(),
            rule: rules.name(flow.verdict.rule),
        }
    }

    /// The cells of a table's row, as [`ConnectionRecord::HEADINGS`] names them.
    pub fn cells(&self) -> [String; 11] {
        let tls = match (self.tls, self.tls_inferred) {
            (Some(word), Some(true)) => format!("{word} (inferred)"),
            (word, _) => word.unwrap_or("-").to_string(),
        };
        let proto =
            if self.proto == "unknown_transport" { proto_name(self.ip_proto) } else { self.proto.into() };
        let why = match &self.rule {
            Some(rule) if self.reason == self.verdict => format!(" by {rule}"),
            Some(rule) => format!(" {} by {rule}", self.reason),
            None if self.reason == self.verdict => String::new(),
            None => format!(" {}", self.reason),
        };
        [
            format!("{:.6}", self.ts),
            end_text(self.orig_h, self.orig_p),
            end_text(self.resp_h, self.resp_p),
            proto,
            self.conn_state.to_string(),
            self.history.clone().unwrap_or_else(|| "-".into()),
            self.duration.map_or_else(|| "-".into(), |duration| format!("{duration:.6}")),
            format!("{}/{}", self.orig_pkts, self.resp_pkts),
            format!("{}/{}", self.orig_ip_bytes, self.resp_ip_bytes),
            tls,
            format!("{}{why}", self.verdict),
        ]
    }

    /// Headings of the table.
    pub const HEADINGS: [&str; 11] = [
        "TS",
        "ORIGINATOR",
        "RESPONDER",
        "PROTO",
        "STATE",
        "HISTORY",
        "DURATION",
        "PKTS",
        "IP BYTES",
        "TLS",
        "VERDICT",
    ];
}

impl Flow {
    fn times(&self) -> (u64, u64) {
        match &self.story {
            // Zeek's duration ends with the packet that closes, not with what acknowledges it.
            Story::Tracked(conn) if conn.closed_ns != 0 && both_spoke(conn) => {
                (conn.opened_ns, conn.closed_ns)
            }
            // Counts may be gone (a full table), the connection is not.
            Story::Tracked(conn) => (conn.opened_ns, self.record.last_ns.max(conn.last_ns)),
            Story::Untracked { .. } => (self.record.first_ns, self.record.last_ns),
        }
    }

    fn ip_bytes(&self, side: Side) -> u64 {
        let unsaid = self.observed.as_ref().map_or(0, |observed| observed.unsaid_bytes[side.index()]);
        self.record.bytes[side.index()].saturating_sub(unsaid)
    }

    fn conn_state(&self) -> &'static str {
        match &self.story {
            Story::Tracked(conn) => datapath::track::conn_state(conn, self.key.proto),
            Story::Untracked { conn_state, .. } => conn_state,
        }
    }

    fn history(&self) -> Option<String> {
        if !matches!(self.key.proto, TCP | UDP) {
            return None; // Zeek has no letters for the others
        }
        let kept = match &self.story {
            Story::Tracked(conn) => datapath::track::history(conn),
            Story::Untracked { history, .. } => history.unwrap_or_default().to_string(),
        };
        let history = match &self.observed {
            Some(observed) => observed.history(&kept, self.originator),
            None => kept,
        };
        (!history.is_empty()).then_some(history)
    }
}

fn both_spoke(conn: &Connection) -> bool {
    let unseen = |end| matches!(end, Endpoint::Inactive | Endpoint::Partial);
    !unseen(conn.orig()) && !unseen(conn.resp())
}

#[derive(Default)]
struct Tls {
    word: Option<&'static str>,
    inferred: Option<bool>,
    alert: Option<u8>,
}

impl Tls {
    fn of(story: &Story) -> Self {
        let Story::Tracked(conn) = story else { return Self::default() };
        let state = conn.tls_state();
        if conn.is_quic() || matches!(state, TlsState::Unknown | TlsState::NotTls) {
            return Self::default();
        }
        Self {
            word: Some(state.name()),
            inferred: Some(conn.tls_flags & Connection::TLS_INFERRED != 0),
            alert: (conn.alert_level != 0).then_some(conn.alert_description),
        }
    }
}

fn zeek_proto(proto: u8) -> &'static str {
    match proto {
        ICMP | ICMPV6 => "icmp",
        TCP => "tcp",
        UDP => "udp",
        _ => "unknown_transport",
    }
}

fn end_text(address: IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    }
}
