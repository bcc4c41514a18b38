//! The fast lane: what the plainest frames say, read with one bounds check a family and kept in registers.
//!
//! Ethernet with at most one VLAN tag, IPv4 without options or fragments or IPv6 without extension headers, and a TCP
//! segment that only acknowledges or carries data, or a UDP datagram. It says nothing that [`crate::wire::parse`] would
//! not: a test holds the one against the other. Every other frame takes the way through the parser.

use crate::abi::{Addr, FlowKey, Packet, Settled, Side};
use crate::frame::Frame;
use crate::wire::{addr_v6, be16, eth, proto};

/// What a settled flow has to know of its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The flow.
    pub key: FlowKey,
    /// Who sent it.
    pub side: Side,
    /// [`Settled::ACK`] or [`Settled::DATA`].
    pub kinds: u16,
    /// Length of the IP packet.
    pub ip_bytes: u32,
    /// Where the IP header starts.
    pub l3_offset: u16,
}

/// Reads a plain frame, `None` for any other.
#[inline(always)]
pub fn read<F: Frame>(frame: &F) -> Option<Lane> {
    let h = frame.header::<18>(0)?;
    match be16(h[12], h[13]) {
        eth::IPV4 => ipv4(frame, 14),
        eth::IPV6 => ipv6(frame, 14),
        eth::VLAN => match be16(h[16], h[17]) {
            eth::IPV4 => ipv4(frame, 18),
            eth::IPV6 => ipv6(frame, 18),
            _ => None,
        },
        _ => None,
    }
}

#[inline(always)]
fn ipv4<F: Frame>(frame: &F, at: usize) -> Option<Lane> {
    let h = frame.header::<40>(at)?;
    let total = usize::from(be16(h[2], h[3]));
    let fragment = be16(h[6], h[7]) & 0x3fff;
    if h[0] != 0x45 || fragment != 0 || total < 20 || !frame.holds(at + total) {
        return None;
    }
    let transport =
        transport(h[9], [h[20], h[21], h[22], h[23]], [h[24], h[25]], [h[32], h[33]], total - 20)?;
    let src = Addr::v4([h[12], h[13], h[14], h[15]]);
    let dst = Addr::v4([h[16], h[17], h[18], h[19]]);
    Some(lane(4, h[9], src, dst, transport, total, at))
}

#[inline(always)]
fn ipv6<F: Frame>(frame: &F, at: usize) -> Option<Lane> {
    let h = frame.header::<60>(at)?;
    let payload = usize::from(be16(h[4], h[5]));
    if h[0] >> 4 != 6 || payload == 0 || !frame.holds(at + 40 + payload) {
        return None;
    }
    let transport = transport(h[6], [h[40], h[41], h[42], h[43]], [h[44], h[45]], [h[52], h[53]], payload)?;
    Some(lane(6, h[6], addr_v6::<60, 8>(h), addr_v6::<60, 24>(h), transport, 40 + payload, at))
}

struct Transport {
    src_port: u16,
    dst_port: u16,
    kinds: u16,
}

/// The ports, bytes 4 and 5 (UDP's length) and 12 and 13 (TCP's offset and flags) of a header with `len` bytes.
#[inline(always)]
fn transport(protocol: u8, ports: [u8; 4], length: [u8; 2], flags: [u8; 2], len: usize) -> Option<Transport> {
    let kinds = match protocol {
        proto::TCP => {
            let header = usize::from(flags[0] >> 4) * 4;
            let control = Packet::SYN | Packet::FIN | Packet::RST | Packet::ACK;
            if header < 20 || header > len || u16::from(flags[1]) & control != Packet::ACK {
                return None;
            }
            if len > header { Settled::DATA } else { Settled::ACK }
        }
        proto::UDP => {
            let udp = usize::from(be16(length[0], length[1]));
            if udp < 8 || udp > len {
                return None;
            }
            Settled::DATA
        }
        _ => return None,
    };
    Some(Transport { src_port: be16(ports[0], ports[1]), dst_port: be16(ports[2], ports[3]), kinds })
}

#[inline(always)]
fn lane(
    family: u8,
    protocol: u8,
    src: Addr,
    dst: Addr,
    transport: Transport,
    ip_bytes: usize,
    at: usize,
) -> Lane {
    let (key, side) =
        FlowKey::canonical(family, protocol, (src, transport.src_port), (dst, transport.dst_port));
    Lane { key, side, kinds: transport.kinds, ip_bytes: ip_bytes as u32, l3_offset: at as u16 }
}
