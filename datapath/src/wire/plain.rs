//! The plainest packets in one go: at most one VLAN tag, IPv4 without options or fragments or IPv6 without extension
//! headers, TCP or UDP. It says nothing that [`super::parse`] would not: a test holds the one against the other.

use super::{Network, be16, bytes, eth, proto, set_key, tcp, udp};
use crate::abi::{Addr, Packet};
use crate::frame::Frame;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// Reads a frame into `packet`, which is empty, all but a SYN's options ([`tcp::announced`]). `false` if the frame is not as
/// plain: then what is there is of no use.
#[inline(always)]
pub fn read<F: Frame>(frame: &F, packet: &mut Packet) -> bool {
    let Some(h) = frame.header::<18>(0) else {
        return false;
    };
    packet.eth_type = be16(h[12], h[13]);
    packet.l3_offset = 14;
    if let Some(tag) = frame.tag_beside() {
        packet.vlans[0] = tag & 0x0fff;
        packet.vlan_count = 1;
    } else if packet.eth_type == eth::VLAN {
        packet.vlans[0] = be16(h[14], h[15]) & 0x0fff;
        packet.vlan_count = 1;
        packet.eth_type = be16(h[16], h[17]);
        packet.l3_offset = 18;
    }
    let at = usize::from(packet.l3_offset);
    let net = match packet.eth_type {
        eth::IPV4 => ipv4(frame, at, packet),
        eth::IPV6 => ipv6(frame, at, packet),
        _ => None,
    };
    let Some(net) = net else {
        return false;
    };
    packet.has = Packet::HAS_ETHERNET | Packet::HAS_IP;
    packet.l4_offset = net.offset as u16;
    let read = match net.proto {
        proto::TCP => tcp::parse(frame, &net, packet),
        proto::UDP => udp::parse(frame, &net, packet),
        _ => return false,
    };
    let Ok(ports) = read else {
        return false;
    };
    set_key(packet, &net, ports);
    packet.more_segments = frame.gso().more(packet.payload_bytes);
    true
}

#[inline(always)]
fn ipv4<F: Frame>(frame: &F, at: usize, packet: &mut Packet) -> Option<Network> {
    let h = frame.header::<IPV4_HEADER>(at)?;
    let total = usize::from(be16(h[2], h[3]));
    let fragment = be16(h[6], h[7]) & 0x3fff;
    if h[0] != 0x45 || fragment != 0 || total < IPV4_HEADER || !frame.holds(at + total) {
        return None;
    }
    packet.ip_version = 4;
    packet.hop_limit = h[8];
    packet.ip_bytes = total as u32;
    Some(Network {
        src: Addr::v4(bytes::<12, 4, IPV4_HEADER>(h)),
        dst: Addr::v4(bytes::<16, 4, IPV4_HEADER>(h)),
        len: total - IPV4_HEADER,
        offset: at + IPV4_HEADER,
        proto: h[9],
    })
}

#[inline(always)]
fn ipv6<F: Frame>(frame: &F, at: usize, packet: &mut Packet) -> Option<Network> {
    let h = frame.header::<IPV6_HEADER>(at)?;
    let len = usize::from(be16(h[4], h[5]));
    if h[0] >> 4 != 6 || len == 0 || !frame.holds(at + IPV6_HEADER + len) {
        return None;
    }
    packet.ip_version = 6;
    packet.hop_limit = h[7];
    packet.ip_bytes = (IPV6_HEADER + len) as u32;
    Some(Network {
        src: Addr::v6(bytes::<8, 16, IPV6_HEADER>(h)),
        dst: Addr::v6(bytes::<24, 16, IPV6_HEADER>(h)),
        len,
        offset: at + IPV6_HEADER,
        proto: h[6],
    })
}
