//! One frame: ours against tshark's.

use super::tshark::{Row, number};
use super::tunnel::{Tunnel, outermost};
use datapath::abi::Reason;
use serde_json::{Value, json};

/// What came of it.
pub enum Difference {
    /// Every field is the same.
    None,
    /// One of the classes in docs/oracles.md.
    Explained(&'static str),
    /// Something else.
    Open(String),
}

/// Reasons that say nothing of a header that tshark would find fault with: verdicts on packets that are right, and what is refused
/// although a standard has it.
const NO_FAULT: [Reason; 33] = [
    Reason::Forwarded,
    Reason::Established,
    Reason::Related,
    Reason::Infrastructure,
    Reason::Failsafe,
    Reason::JudgedAtIngress,
    Reason::Redirected,
    Reason::PolicyDenied,
    Reason::PolicyDeny,
    Reason::InvalidIdentity,
    Reason::AmbiguousIdentity,
    Reason::LeaseExpired,
    Reason::GrantExpired,
    Reason::OutsideHours,
    Reason::Blocklisted,
    Reason::Quarantined,
    Reason::ConnectionCut,
    Reason::TlsRequired,
    Reason::LifetimeExceeded,
    Reason::RateLimited,
    Reason::TooManyAttempts,
    Reason::TooManyConnections,
    Reason::NoConfiguration,
    Reason::Midstream,
    Reason::SctpMidstream,
    Reason::IcmpUnsolicited,
    Reason::TcpInvalidRst,
    Reason::SctpInvalidTag,
    Reason::FragmentOrphan,
    // More than is read, which no standard forbids.
    Reason::UnsupportedL2,
    Reason::VlanFiltered,
    Reason::ExtensionChain,
    Reason::SourceRouted,
];

/// Whether a reason says that a header is wrong.
fn is_of_header(reason: &str) -> bool {
    Reason::ALL.iter().any(|known| known.name() == reason && !NO_FAULT.contains(known))
}

/// What an RFC forbids and tshark does not mind.
fn stricter(reason: &str, ours: &Value) -> Option<&'static str> {
    let is = |known: Reason| known.name() == reason;
    if is(Reason::SctpTruncated) && ours["payload_bytes"] == 12 {
        return Some("refused, and tshark does not mind: SCTP without a chunk");
    }
    if is(Reason::ExtensionOrder) {
        return Some(
            "refused, and tshark does not mind: an extension header for the second time, or not in its place",
        );
    }
    if is(Reason::FragmentLength) {
        return Some(
            "refused, and tshark does not mind: a fragment that is empty or ends within a unit of eight bytes",
        );
    }
    None
}

/// Extension headers that are walked over (RFC 8200, section 4.1; AH, RFC 4302).
const EXTENSIONS: [u64; 5] = [0, 43, 44, 51, 60];

/// The chain of headers behind the outermost IP header, as tshark walked it.
#[derive(Default)]
struct Chain {
    proto: Option<u64>,
    /// Offset in units of eight bytes, and whether more follow, of the last fragment header.
    fragment: Option<(u64, bool)>,
    /// Its identification; of IPv4 also where it is none.
    id: Option<u64>,
}

impl Chain {
    fn of_ipv4(row: &Row) -> Self {
        let more = row.number("ip.flags.mf").map(|more| more == 1);
        let fragment = row.number("ip.frag_offset").zip(more);
        Self { proto: row.number("ip.proto"), fragment, id: row.number("ip.id") }
    }

    fn of_ipv6(row: &Row, protocols: &[&str]) -> Self {
        let mut chain = Self { proto: row.number("ipv6.nxt"), ..Self::default() };
        let mut seen = std::collections::HashMap::<&str, usize>::new();
        let inside = protocols.iter().skip_while(|name| **name != "ipv6").skip(1);
        for name in inside.take_while(|name| **name == "ah" || name.starts_with("ipv6.")) {
            let nth = seen.entry(*name).or_default();
            let value = |field: &str| row.all(field).nth(*nth).and_then(number);
            let next = if *name == "ah" { "ah.next_header".into() } else { format!("{name}.nxt") };
            // A header that is cut off may lack it.
            chain.proto = value(&next).or(chain.proto);
            if *name == "ipv6.fraghdr" {
                let offset = value("ipv6.fraghdr.offset");
                chain.id = value("ipv6.fraghdr.ident");
                chain.fragment = offset.zip(value("ipv6.fraghdr.more").map(|more| more == 1));
            }
            *nth += 1;
        }
        chain
    }
}

/// Compares all fields: of what the frame carries in a tunnel, if it carries something. What is refused before that is shown as
/// far as it was read.
pub fn compare(frame: &Row, tunnel: Option<&Tunnel>, ours: &Value) -> Difference {
    let Some(Tunnel { outer, inner }) = tunnel else { return fields(frame, &outermost(frame), ours, false) };
    let found = fields(frame, inner, ours, true);
    if inner.number("eth.type") == Some(0) && matches!(fields(frame, outer, ours, false), Difference::None) {
        return Difference::Explained(
            "a tunnel that carries EtherType 0, which is nothing: judged by itself",
        );
    }
    if matches!(found, Difference::Open(_)) && ours["verdict"] == "DROPPED" {
        match fields(frame, outer, ours, false) {
            Difference::None if is_of_link(ours) => {
                return Difference::Explained("refused: the header of a tunnel, or a VLAN tag behind it");
            }
            Difference::Explained(why) => return Difference::Explained(why),
            _ => {}
        }
    }
    found
}

/// Whether it is refused for what lies between the packet that carries and the one that is carried.
fn is_of_link(ours: &Value) -> bool {
    [Reason::TunnelMalformed, Reason::VlanFiltered, Reason::VlanTruncated]
        .iter()
        .any(|reason| ours["reason"] == reason.name())
}

/// Compares with one packet of the frame.
fn fields(frame: &Row, row: &Row, ours: &Value, is_tunnel: bool) -> Difference {
    let expected = expected(row, ours);
    let wrong: Vec<&(&str, Value)> =
        expected.iter().filter(|(field, theirs)| ours[*field] != *theirs).collect();
    if wrong.is_empty() {
        return Difference::None;
    }
    if let Some(why) = explained(&wrong, row, ours, is_tunnel) {
        return Difference::Explained(why);
    }
    let number = frame.text("frame.number").unwrap_or("?");
    let notes: Vec<&str> = ["_ws.malformed", "_ws.short", "_ws.expert.message"]
        .iter()
        .flat_map(|field| row.all(field))
        .collect();
    let protocols = frame.text("frame.protocols").unwrap_or("?");
    let wrong: Vec<String> =
        wrong.iter().map(|(field, theirs)| format!("{field} {} for {theirs}", ours[*field])).collect();
    Difference::Open(format!("frame {number} ({protocols}; {}): {}", notes.join("; "), wrong.join(", ")))
}

/// Layers at which tshark stops where the datagram or packet that carries them ends in them.
const CUT: [&str; 5] = ["Packet: IPv", "Packet: VXLAN", "Packet: Geneve", "Packet: GRE", "Packet: Ethernet"];

/// The class that all fields which differ fall into; docs/oracles.md lists them.
fn explained(wrong: &[&(&str, Value)], row: &Row, ours: &Value, is_tunnel: bool) -> Option<&'static str> {
    // tshark stops at an extension header whose inside it finds wrong. We read its length and go on behind it.
    let inside = ["IPv6 Hop-by-Hop", "IPv6 Destination", "IPv6 Routing"];
    let stopped = row.all("_ws.malformed").any(|text| inside.iter().any(|name| text.contains(name)));
    let beyond =
        |theirs: &Value| theirs.is_null() || theirs.as_u64().is_some_and(|next| EXTENSIONS.contains(&next));
    if stopped && wrong.iter().all(|(_, theirs)| beyond(theirs)) {
        return Some("passed over: an extension header whose inside is wrong, at which tshark stops");
    }
    let is_announced = |field: &str| field == "tcp_mss" || field == "tcp_window_scale";
    let stopped = row.all("_ws.malformed").any(|text| text.contains("TCP"));
    if stopped && wrong.iter().all(|(field, _)| is_announced(field)) {
        return Some("passed over: an option of TCP whose inside is wrong, at which tshark stops");
    }
    let fragment_headers = row.text("frame.protocols").unwrap_or_default().matches("ipv6.fraghdr").count();
    if fragment_headers > 1 && wrong.iter().all(|(field, _)| *field == "more_fragments") {
        return Some("two fragment headers in one packet: more_fragments is what either says");
    }
    let is_icmp = |field: &str| field == "icmp_type" || field == "icmp_code";
    if ours["ip_version"] == 6 && ours["proto"] == 1 && wrong.iter().all(|(field, _)| is_icmp(field)) {
        return Some("ICMP of IPv4 behind an IPv6 header: judged by its protocol number");
    }
    let is_first = ours["frag_offset"] == 0 && ours["more_fragments"] == true;
    if is_first && fragment_headers == 1 && wrong.iter().all(|(_, theirs)| beyond(theirs)) {
        return Some("a first fragment: tshark stops at it, we read on to the ports");
    }
    if ours["verdict"] != "DROPPED" {
        return None;
    }
    let only = |allowed: &dyn Fn(&str, &Value) -> bool| {
        wrong.iter().all(|(field, theirs)| ours[*field].is_null() || allowed(field, theirs))
    };
    if only(&|_, _| false) {
        let reason = ours["reason"].as_str().unwrap_or_default();
        let at_fault =
            ["_ws.malformed", "_ws.short", "_ws.expert.message"].iter().any(|f| row.all(f).next().is_some());
        if !at_fault && is_of_header(reason) {
            return stricter(reason, ours); // tshark finds nothing wrong with it
        }
        return Some("refused: headers from the wrong one on are not shown");
    }
    // Those are of a packet that is cut off in the frame.
    let is_cut = [Reason::Ipv4CutOff, Reason::Ipv6CutOff, Reason::UdpLength]
        .iter()
        .any(|reason| ours["reason"] == reason.name());
    if is_tunnel
        && !is_cut
        && row.all("_ws.malformed").any(|text| CUT.iter().any(|layer| text.contains(layer)))
    {
        return Some(
            "refused: a header that does not end in the packet that carries it, shown as far as it lies in the frame",
        );
    }
    let is_tag = matches!(ours["eth_type"].as_u64(), Some(0x8100 | 0x88a8));
    let begins = |theirs: &Value| match (ours["vlans"].as_array(), theirs.as_array()) {
        (Some(ours), Some(theirs)) => theirs.starts_with(ours),
        _ => false,
    };
    if is_tag && only(&|field, theirs| field == "eth_type" || field == "vlans" && begins(theirs)) {
        return Some("refused: more tags than are read, or a tag that is cut off");
    }
    let is_foreign_tag = ours["eth_type"].as_u64() == Some(0x9100);
    if is_foreign_tag && only(&|field, theirs| field == "eth_type" || field == "vlans" && begins(theirs)) {
        return Some("refused: a tag of type 0x9100, which no standard has");
    }
    None
}

/// tshark's answer in the fields of a packet record: of the outermost headers.
fn expected(row: &Row, ours: &Value) -> Vec<(&'static str, Value)> {
    let protocols: Vec<&str> = row.text("frame.protocols").unwrap_or_default().split(':').collect();
    let has = |name: &str| protocols.contains(&name);
    let (v4, v6) = (has("ip"), has("ipv6"));
    // Whichever comes first is the outer one.
    let v4 = v4 && protocols.iter().find(|name| ["ip", "ipv6"].contains(name)) == Some(&"ip");
    let v6 = v6 && !v4;
    let when = |holds: bool, value: Value| if holds { value } else { Value::Null };
    let Chain { proto, fragment, id } = match (v4, v6) {
        (true, _) => Chain::of_ipv4(row),
        (_, true) => Chain::of_ipv6(row, &protocols),
        _ => Chain::default(),
    };
    let is_fragment = fragment.is_some_and(|(offset, more)| offset != 0 || more);
    let first = fragment.is_none_or(|(offset, _)| offset == 0);
    let is = |number: u64| first && proto == Some(number);
    let ports = match proto {
        Some(6) if first => [row.number("tcp.srcport"), row.number("tcp.dstport")],
        Some(17) if first => [row.number("udp.srcport"), row.number("udp.dstport")],
        Some(132) if first => [row.number("sctp.srcport"), row.number("sctp.dstport")],
        _ => [None, None],
    };
    let bytes = if v4 { row.number("ip.len") } else { row.number("ipv6.plen").map(|len| len + 40) };
    let ip = |v4_field: &str, v6_field: &str| match (v4, v6) {
        (true, _) => json!(row.text(v4_field)),
        (_, true) => json!(row.text(v6_field)),
        _ => Value::Null,
    };
    let tcp = |field: &str| when(is(6), json!(row.number(field)));
    let is_syn = is(6) && row.number("tcp.flags").is_some_and(|flags| flags & 0x02 != 0);
    // The last option of its kind counts.
    let announced = |field: &str, most: u64| {
        let last = row.all(field).last().and_then(number);
        when(is_syn, json!(last.map(|value| value.min(most))))
    };
    vec![
        ("eth_type", eth_type(row, &protocols).unwrap_or_else(|| ours["eth_type"].clone())),
        ("vlans", vlans(row)),
        ("ip_version", when(v4 || v6, json!(if v4 { 4 } else { 6 }))),
        ("src", ip("ip.src", "ipv6.src")),
        ("dst", ip("ip.dst", "ipv6.dst")),
        ("proto", json!(proto)),
        ("hop_limit", json!(row.number(if v4 { "ip.ttl" } else { "ipv6.hlim" }))),
        ("fragment_id", json!(id.filter(|_| is_fragment))),
        ("sport", json!(ports[0])),
        ("dport", json!(ports[1])),
        ("tcp_flags", tcp("tcp.flags")),
        ("tcp_seq", tcp("tcp.seq_raw")),
        ("tcp_ack", tcp("tcp.ack_raw")),
        ("tcp_window", tcp("tcp.window_size_value")),
        ("tcp_mss", announced("tcp.options.mss_val", u64::from(u16::MAX))),
        // RFC 7323, section 2.3: a greater one counts for 14.
        ("tcp_window_scale", announced("tcp.options.wscale.shift", 14)),
        ("icmp_type", icmp(row, proto.filter(|_| first), "type")),
        ("icmp_code", icmp(row, proto.filter(|_| first), "code")),
        ("frag_offset", json!(fragment.map(|(units, _)| units * 8))),
        ("more_fragments", json!(fragment.map(|(_, more)| more))),
        ("ip_bytes", when(v4 || v6, json!(bytes))),
    ]
}

fn icmp(row: &Row, proto: Option<u64>, what: &str) -> Value {
    match proto {
        Some(1) => json!(row.number(&format!("icmp.{what}"))),
        Some(58) => json!(row.number(&format!("icmpv6.{what}"))),
        _ => Value::Null,
    }
}

/// The EtherType behind all tags; numbers below 0x600 are lengths. `None`: tshark has no field for the type in an
/// 802.1ad tag, and what follows it is nothing that it knows.
fn eth_type(row: &Row, protocols: &[&str]) -> Option<Value> {
    let shown = |kind: u64| Some(json!((kind >= 0x600).then_some(kind)));
    if let Some(kind) = row.all("vlan.etype").last().and_then(number) {
        return shown(kind);
    }
    match row.number("eth.type") {
        Some(0x88a8) => {
            let behind =
                protocols.iter().rposition(|name| *name == "ethertype").and_then(|at| protocols.get(at + 1));
            let known = [("ip", 0x0800), ("ipv6", 0x86dd), ("arp", 0x0806)];
            known.iter().find(|(name, _)| Some(name) == behind).map(|(_, kind)| json!(kind))
        }
        Some(kind) => shown(kind),
        None => Some(Value::Null),
    }
}

fn vlans(row: &Row) -> Value {
    let ids: Vec<u64> =
        ["ieee8021ad.id", "vlan.id"].iter().flat_map(|f| row.all(f)).filter_map(number).collect();
    if ids.is_empty() { Value::Null } else { json!(ids) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_of_a_header_is_one_for_which_tshark_has_to_find_fault() {
        let of_headers = ["IPV4_HEADER_LENGTH_INVALID", "TCP_DATA_OFFSET_INVALID", "UDP_LENGTH_INVALID"];
        assert!(of_headers.into_iter().all(is_of_header));
        assert!(!is_of_header("POLICY_DENIED") && !is_of_header("INVALID_IPV4_HEADER"));
        let named = Reason::ALL.iter().filter(|reason| is_of_header(reason.name())).count();
        assert_eq!(named + NO_FAULT.len(), Reason::COUNT);
    }
}
