//! `tidegate flows`: a row for each connection, in Hubble's field names.

use super::table::{self, or_dash};
use super::{Format, View, print_json, say};
use crate::exit_code::Result;
use crate::hello::ClientHello;
use crate::names::{Names, reason, verdict};
use datapath::abi::{Addr, Connection, FlowKey, Reason, Side, TlsState};
use datapath::track::{conn_state, history};
use loader::Maps;
use loader::maps::Flow;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// A flow and what is known of its connection.
pub struct Row {
    /// Counts and verdict.
    pub flow: Flow,
    /// Its connection, if it is still in a table.
    pub connection: Option<Connection>,
    /// The side that opened it.
    pub originator: Side,
    /// Its ClientHello, if the daemon has read one.
    pub hello: Option<ClientHello>,
}

/// ClientHellos as the daemon tells them.
pub type ReadHellos = Vec<ReadHello>;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReadHello {
    /// The flow: its key's bytes in hexadecimal.
    pub flow: String,
    /// When it began, on the boot clock.
    pub began_ns: u64,
    /// What it says.
    pub hello: ClientHello,
}

/// The bytes of a key.
pub fn key_hex(key: &FlowKey) -> String {
    bytemuck::bytes_of(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every flow, the latest last.
pub fn rows(maps: &Maps) -> Result<Vec<Row>> {
    let connections = maps.tracked()?;
    let mut rows: Vec<_> = maps.flow_records()?.into_iter().map(|flow| row(flow, &connections)).collect();
    rows.sort_by_key(|row| (row.flow.record.first_ns, row.flow.key));
    Ok(rows)
}

fn row(flow: Flow, connections: &HashMap<FlowKey, Connection>) -> Row {
    let same = |c: &&Connection| c.incarnation == flow.record.incarnation;
    let connection = connections.get(&flow.key).filter(same).copied();
    let originator = connection.map_or_else(|| guess_originator(&flow), |c| c.originator_side());
    Row { flow, connection, originator, hello: None }
}

/// Gives each connection its hello.
fn add_hellos(rows: &mut [Row], hellos: ReadHellos) {
    let mut by_id: HashMap<_, _> =
        hellos.into_iter().map(|read| ((read.flow, read.began_ns), read.hello)).collect();
    for row in rows {
        let ns = row.connection.map_or(0, |connection| connection.client_hello_ns);
        row.hello = if ns == 0 { None } else { by_id.remove(&(key_hex(&row.flow.key), ns)) };
    }
}

/// Without a connection record: who sent packets at all, or who is not on the lower port.
fn guess_originator(flow: &Flow) -> Side {
    match flow.record.packets {
        [_, 0] => Side::A,
        [0, _] => Side::B,
        _ if flow.key.a_port < flow.key.b_port => Side::B,
        _ => Side::A,
    }
}

impl Row {
    fn count(&self, of: [u64; 2]) -> [u64; 2] {
        match self.originator {
            Side::A => of,
            Side::B => [of[1], of[0]],
        }
    }

    /// Packets from the originator, from the responder.
    pub fn packets(&self) -> [u64; 2] {
        self.count(self.flow.record.packets)
    }

    /// IP bytes from the originator, from the responder.
    pub fn bytes(&self) -> [u64; 2] {
        self.count(self.flow.record.bytes)
    }

    /// Identities of originator and responder.
    pub fn identities(&self) -> [u32; 2] {
        let [a, b] = self.flow.record.identity;
        if self.originator == Side::A { [a, b] } else { [b, a] }
    }

    /// Zeek's conn_state. A connection that left its table unanswered was an attempt.
    pub fn state(&self) -> &'static str {
        match (&self.connection, self.packets()) {
            (Some(connection), _) => conn_state(connection, self.flow.key.proto),
            (None, [_, 0]) if matches!(self.flow.key.proto, TCP | UDP) => "S0",
            _ => "OTH",
        }
    }

    /// What is known of TLS, where there was any.
    pub fn tls(&self) -> Option<&Connection> {
        let seen = |c: &&Connection| !matches!(c.tls_state(), TlsState::Unknown | TlsState::NotTls);
        self.connection.as_ref().filter(|c| !c.is_quic()).filter(seen)
    }

    /// In Hubble's field names.
    pub fn json(&self, names: &Names, now: &Moment) -> Value {
        let record = &self.flow.record;
        let mut flow = ends_json(&self.flow.key, self.originator, self.identities(), names);
        let reason = Reason::from_u8(record.reason);
        flow.insert("time".into(), json!(now.wall(record.first_ns)));
        flow.insert("last_seen".into(), json!(now.wall(record.last_ns)));
        flow.insert("verdict".into(), json!(verdict(record.action)));
        flow.insert("reason".into(), json!(reason.name()));
        if !reason.passes() {
            flow.insert("drop_reason".into(), json!(reason.code()));
        }
        flow.insert("drop_reason_desc".into(), json!(reason.name()));
        flow.insert("rule".into(), json!(names.rule(record.rule)));
        flow.insert("conn_state".into(), json!(self.state()));
        let ([orig_pkts, resp_pkts], [orig_bytes, resp_bytes]) = (self.packets(), self.bytes());
        flow.insert("packets".into(), json!(orig_pkts + resp_pkts));
        flow.insert("bytes".into(), json!(orig_bytes + resp_bytes));
        for (name, value) in [
            ("orig_pkts", orig_pkts),
            ("resp_pkts", resp_pkts),
            ("orig_ip_bytes", orig_bytes),
            ("resp_ip_bytes", resp_bytes),
        ] {
            flow.insert(name.into(), json!(value));
        }
        if let Some(connection) = &self.connection {
            flow.insert("history".into(), json!(history(connection)));
            connection_json(connection, &mut flow);
        }
        if let Some(hello) = &self.hello {
            super::event::add_hello(&mut flow, hello);
        }
        Value::Object(flow)
    }
}

fn connection_json(c: &Connection, flow: &mut Map<String, Value>) {
    let between = |from: u64, to: u64| (from != 0 && to >= from).then(|| to - from);
    if let Some(ns) = between(c.opened_ns, c.established_ns) {
        flow.insert("tcp_handshake_ns".into(), json!(ns));
    }
    if c.syn_retransmits != 0 {
        flow.insert("syn_retransmits".into(), json!(c.syn_retransmits));
    }
    let state = c.tls_state();
    if c.is_quic() {
        flow.insert("quic".into(), json!(datapath::track::quic::state_name(c)));
        flow.insert("quic_version".into(), json!((c.quic_version != 0).then_some(c.quic_version)));
        flow.insert("quic_retry".into(), json!(c.tls_flags & Connection::QUIC_RETRY != 0));
        let negotiated = c.tls_flags & Connection::QUIC_VERSIONS != 0;
        flow.insert("quic_version_negotiation".into(), json!(negotiated));
        if let Some(ns) = between(c.client_hello_ns, c.tls_done_ns) {
            flow.insert("quic_handshake_ns".into(), json!(ns));
        }
        return;
    }
    if matches!(state, TlsState::Unknown | TlsState::NotTls) {
        return;
    }
    flow.insert("tls".into(), json!(state.name()));
    flow.insert("tls_version".into(), json!(tls_version(c)));
    flow.insert("tls_inferred".into(), json!(c.tls_flags & Connection::TLS_INFERRED != 0));
    if let Some(ns) = between(c.client_hello_ns, c.tls_done_ns) {
        flow.insert("tls_handshake_ns".into(), json!(ns));
    }
    if c.alert_level != 0 {
        flow.insert("tls_alert".into(), json!(alert_name(c.alert_description)));
    }
}

/// As far as the wire shows: TLS 1.3 by how its handshake runs, what else was established before it.
pub fn tls_version(c: &Connection) -> Option<&'static str> {
    if c.tls_flags & Connection::TLS_1_3 != 0 {
        return Some("1.3");
    }
    match c.tls_version {
        0x30 => return Some("SSL 3.0"),
        0x31 => return Some("1.0"),
        0x32 => return Some("1.1"),
        _ => {}
    }
    (c.tls_flags & (Connection::TLS_ORIG_CCS | Connection::TLS_RESP_CCS) != 0).then_some("1.2")
}

/// Names of alerts (RFC 8446, section 6).
pub fn alert_name(description: u8) -> String {
    let name = match description {
        0 => "close_notify",
        10 => "unexpected_message",
        20 => "bad_record_mac",
        22 => "record_overflow",
        40 => "handshake_failure",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        47 => "illegal_parameter",
        48 => "unknown_ca",
        49 => "access_denied",
        50 => "decode_error",
        51 => "decrypt_error",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        86 => "inappropriate_fallback",
        90 => "user_canceled",
        109 => "missing_extension",
        110 => "unsupported_extension",
        112 => "unrecognized_name",
        116 => "certificate_required",
        120 => "no_application_protocol",
        n => return format!("alert_{n}"),
    };
    name.to_owned()
}

/// `IP`, `l4`, `source` and `destination`.
pub fn ends_json(key: &FlowKey, originator: Side, identities: [u32; 2], names: &Names) -> Map<String, Value> {
    let (source, destination) = (key.end(originator), key.end(originator.other()));
    let ports = json!({"source_port": source.1, "destination_port": destination.1});
    let l4 = match key.proto {
        TCP => json!({"TCP": ports}),
        UDP => json!({"UDP": ports}),
        SCTP => json!({"SCTP": ports}),
        ICMP => json!({"ICMPv4": {"type": source.1}}),
        ICMPV6 => json!({"ICMPv6": {"type": source.1}}),
        n => json!({ format!("PROTO-{n}"): {} }),
    };
    let end = |number: u32| json!({"identity": number, "spiffe_id": names.identity(number)});
    let version = if key.family == 6 { "IPv6" } else { "IPv4" };
    let ip = json!({"source": source.0.to_ip(), "destination": destination.0.to_ip(), "ipVersion": version});
    let mut object = Map::new();
    object.insert("IP".into(), ip);
    object.insert("l4".into(), l4);
    object.insert("source".into(), end(identities[0]));
    object.insert("destination".into(), end(identities[1]));
    object
}

/// `tcp`, `udp`, `icmp` ...
pub fn proto_name(proto: u8) -> String {
    crate::policy::ports::protocol_name(proto)
}

/// An end as people know it: the last parts of its SPIFFE ID, or its address.
pub fn end_text(end: (Addr, u16), identity: u32, names: &Names, proto: u8) -> String {
    let ip = end.0.to_ip();
    let ports = matches!(proto, TCP | UDP | SCTP);
    let socket = if ports { SocketAddr::new(ip, end.1).to_string() } else { ip.to_string() };
    match names.identity(identity) {
        Some(id) => format!("{id} ({socket})"),
        None => socket,
    }
}

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    boot_ns: u64,
    wall: jiff::Timestamp,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        Self { boot_ns: loader::boot_ns(), wall: jiff::Timestamp::now() }
    }

    /// The wall-clock time of a boot-clock one.
    pub fn wall(&self, boot_ns: u64) -> String {
        format!("{:.6}", self.timestamp(boot_ns))
    }

    /// The same as a time.
    pub fn timestamp(&self, boot_ns: u64) -> jiff::Timestamp {
        let ago = i128::from(self.boot_ns) - i128::from(boot_ns);
        jiff::Timestamp::from_nanosecond(self.wall.as_nanosecond() - ago).unwrap_or(self.wall)
    }

    /// How long ago a boot-clock time was.
    pub fn ago_ns(&self, boot_ns: u64) -> u64 {
        self.boot_ns.saturating_sub(boot_ns)
    }
}

/// Prints the flows. ClientHellos are what the daemon remembers, if there is one.
pub fn print(view: &View, hellos: ReadHellos, format: Format) -> Result<()> {
    let mut rows = rows(&view.maps)?;
    add_hellos(&mut rows, hellos);
    let now = Moment::now();
    if format == Format::Json {
        return rows.iter().try_for_each(|row| print_json(&row.json(&view.names, &now)));
    }
    let columns =
        ["SOURCE", "DESTINATION", "PROTO", "STATE", "TLS", "VERDICT", "WHY", ">PACKETS", ">BYTES", ">AGE"];
    let mut out = table::table(&columns);
    for row in &rows {
        let (key, record) = (&row.flow.key, &row.flow.record);
        let [source, destination] = row.identities();
        let why = view.names.rule(record.rule).unwrap_or(reason(record.reason));
        let ([orig, resp], [orig_bytes, resp_bytes]) = (row.packets(), row.bytes());
        out.add_row([
            end_text(key.end(row.originator), source, &view.names, key.proto),
            end_text(key.end(row.originator.other()), destination, &view.names, key.proto),
            proto_name(key.proto),
            row.state().to_owned(),
            or_dash(row.tls().map(|c| c.tls_state().name())),
            verdict(record.action).to_owned(),
            why.to_owned(),
            format!("{orig}/{resp}"),
            format!("{} / {}", table::bytes(orig_bytes), table::bytes(resp_bytes)),
            table::duration(now.ago_ns(record.first_ns)),
        ]);
    }
    if rows.is_empty() {
        return say("no flow yet");
    }
    say(&table::text(&out))
}
