//! One record a frame: what was read from it and what became of it.

use super::rules::RuleNames;
use super::seconds::Seconds;
use datapath::abi::packet::Trace;
use datapath::abi::{Packet, Reason};
use serde::Serialize;
use std::fmt::Write;
use std::net::IpAddr;

/// A frame of a replay. A field is null where the frame has nothing of the kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PacketRecord {
    /// Counts from 1, as capture tools do.
    pub frame: u64,
    /// The capture's time.
    pub ts: Seconds,
    /// FORWARDED, DROPPED or AUDIT.
    pub verdict: &'static str,
    /// Why; see docs/drops.md.
    pub reason: &'static str,
    /// The rule that decided.
    pub rule: Option<String>,
    /// EtherType after VLAN tags.
    pub eth_type: Option<u16>,
    /// VLAN IDs, the outermost first.
    pub vlans: Option<Vec<u16>>,
    /// 4 or 6.
    pub ip_version: Option<u8>,
    /// Source address.
    pub src: Option<IpAddr>,
    /// Destination address.
    pub dst: Option<IpAddr>,
    /// IP protocol, after IPv6 extension headers.
    pub proto: Option<u8>,
    /// TTL or hop limit.
    pub hop_limit: Option<u8>,
    /// Source port.
    pub sport: Option<u16>,
    /// Destination port.
    pub dport: Option<u16>,
    /// The twelve TCP flag bits, FIN lowest.
    pub tcp_flags: Option<u16>,
    /// TCP sequence number.
    pub tcp_seq: Option<u32>,
    /// TCP acknowledgement number, whether the flag for it is set or not.
    pub tcp_ack: Option<u32>,
    /// The window field of TCP, not scaled.
    pub tcp_window: Option<u16>,
    /// The maximum segment size that a SYN announces.
    pub tcp_mss: Option<u16>,
    /// The window scale that a SYN announces, 14 at most (RFC 7323, section 2.3).
    pub tcp_window_scale: Option<u8>,
    /// ICMP or ICMPv6 type.
    pub icmp_type: Option<u8>,
    /// ICMP or ICMPv6 code.
    pub icmp_code: Option<u8>,
    /// Offset of the fragment in bytes. IPv4 always has one, IPv6 with a fragment header.
    pub frag_offset: Option<u16>,
    /// Whether more fragments follow; null as `frag_offset` is.
    pub more_fragments: Option<bool>,
    /// Identification of the datagram that it is a fragment of.
    pub fragment_id: Option<u32>,
    /// Length of the IP packet by its header.
    pub ip_bytes: Option<u32>,
    /// Transport payload by that length.
    pub payload_bytes: Option<u32>,
    /// Length of the frame on the wire, and how much of it the capture holds.
    pub wire_bytes: u32,
    /// What was captured of it: less than `wire_bytes` where the capture cut it.
    pub captured_bytes: u32,
}

/// What of a frame is not in its trace.
#[derive(Clone, Copy, Debug)]
pub struct FrameFacts {
    /// Counts from 1.
    pub number: u64,
    /// The capture's time.
    pub time_ns: u64,
    /// Length on the wire.
    pub wire_bytes: u32,
    /// Length in the capture.
    pub captured_bytes: u32,
    /// Whether the frame brought an EtherType of its own.
    pub has_eth_type: bool,
}

/// EtherTypes begin here; what is less is the length of an 802.3 frame.
const FIRST_ETH_TYPE: u16 = 0x600;

impl PacketRecord {
    /// From the trace that an engine left.
    pub fn new(facts: FrameFacts, trace: &Trace, rules: &RuleNames) -> Self {
        let packet = &trace.packet;
        let when = |bits: u16| packet.has(bits).then_some(());
        let [ip, tcp, icmp] = [Packet::HAS_IP, Packet::HAS_TCP, Packet::HAS_ICMP].map(when);
        // A later fragment is judged by the ports of the first one, but has none itself.
        let ports = when(Packet::HAS_PORTS).filter(|()| packet.fragment_offset == 0);
        let (src, dst) = (packet.src(), packet.dst());
        let fragment = ip.filter(|()| packet.ip_version == 4 || packet.has(Packet::HAS_FRAGMENT_HEADER));
        // Options that are refused say nothing.
        let announced = tcp.filter(|()| trace.reason() != Reason::TcpOptions);
        let scale = when(Packet::HAS_WINDOW_SCALE);
        let identified = when(Packet::HAS_IP | Packet::IS_FRAGMENT);
        let is_ethernet = facts.has_eth_type && packet.has(Packet::HAS_ETHERNET);
        let vlans = packet.vlans.get(..usize::from(packet.vlan_count)).unwrap_or(&packet.vlans);
        Self {
            frame: facts.number,
            ts: Seconds(facts.time_ns),
            verdict: trace.action().name(),
            reason: trace.reason().name(),
            rule: rules.name(trace.rule),
            eth_type: (is_ethernet && packet.eth_type >= FIRST_ETH_TYPE).then_some(packet.eth_type),
            vlans: (!vlans.is_empty()).then(|| vlans.to_vec()),
            ip_version: ip.map(|()| packet.ip_version),
            src: ip.map(|()| src.0.to_ip()),
            dst: ip.map(|()| dst.0.to_ip()),
            proto: ip.map(|()| packet.key.proto),
            hop_limit: ip.map(|()| packet.hop_limit),
            sport: ports.map(|()| src.1),
            dport: ports.map(|()| dst.1),
            tcp_flags: tcp.map(|()| packet.tcp_flags),
            tcp_seq: tcp.map(|()| packet.seq),
            tcp_ack: tcp.map(|()| packet.ack),
            tcp_window: tcp.map(|()| packet.tcp_window),
            tcp_mss: announced.map(|()| packet.tcp_mss).filter(|mss| *mss != 0),
            tcp_window_scale: announced.and(scale).map(|()| packet.tcp_window_scale),
            icmp_type: icmp.map(|()| packet.icmp_type),
            icmp_code: icmp.map(|()| packet.icmp_code),
            frag_offset: fragment.map(|()| packet.fragment_offset),
            more_fragments: fragment.map(|()| packet.has(Packet::MORE_FRAGMENTS)),
            fragment_id: identified.map(|()| packet.fragment_id),
            ip_bytes: ip.map(|()| packet.ip_bytes),
            payload_bytes: ip.map(|()| packet.payload_bytes),
            wire_bytes: facts.wire_bytes,
            captured_bytes: facts.captured_bytes,
        }
    }

    /// A line for people.
    pub fn line(&self) -> String {
        let mut line = format!("{:>6} {:.6} {:<9}", self.frame, self.ts, self.verdict);
        let _ = write!(line, " {}", self.ends());
        if let Some(flags) = self.tcp_flags {
            let _ = write!(line, " {}", flag_letters(flags));
        }
        if let (Some(kind), Some(code)) = (self.icmp_type, self.icmp_code) {
            let _ = write!(line, " type {kind} code {code}");
        }
        if let (Some(offset), Some(more)) = (self.frag_offset, self.more_fragments)
            && (offset > 0 || more)
        {
            let _ = write!(line, " fragment {offset}{}", if more { "+" } else { "" });
        }
        if let Some(vlans) = &self.vlans {
            let _ = write!(line, " vlan {}", vlans.iter().map(u16::to_string).collect::<Vec<_>>().join("."));
        }
        if self.reason != Reason::Forwarded.name() {
            let _ = write!(line, " {}", self.reason);
        }
        if let Some(rule) = &self.rule {
            let _ = write!(line, " by {rule}");
        }
        line
    }

    fn ends(&self) -> String {
        let end = |address: Option<IpAddr>, port: Option<u16>| match (address, port) {
            (Some(IpAddr::V6(address)), Some(port)) => format!("[{address}]:{port}"),
            (Some(address), Some(port)) => format!("{address}:{port}"),
            (Some(address), None) => address.to_string(),
            (None, _) => "-".to_string(),
        };
        match (self.proto, self.eth_type) {
            (Some(proto), _) => {
                let ends = (end(self.src, self.sport), end(self.dst, self.dport));
                format!("{} {} -> {}", proto_name(proto), ends.0, ends.1)
            }
            (None, Some(eth_type)) => format!("EtherType {eth_type:#06x}"),
            (None, None) => format!("{} bytes", self.captured_bytes),
        }
    }
}

/// The name of an IP protocol, or its number.
pub fn proto_name(proto: u8) -> String {
    let name = match proto {
        1 => "icmp",
        2 => "igmp",
        4 => "ipip",
        6 => "tcp",
        17 => "udp",
        41 => "ip6ip",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "icmpv6",
        132 => "sctp",
        _ => return format!("proto {proto}"),
    };
    name.to_string()
}

fn flag_letters(flags: u16) -> String {
    const LETTERS: [char; 9] = ['F', 'S', 'R', 'P', 'A', 'U', 'E', 'C', 'e'];
    LETTERS.iter().enumerate().filter(|(bit, _)| flags & 1 << bit != 0).map(|(_, letter)| letter).collect()
}
