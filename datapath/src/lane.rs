//! The fast lane: what the plainest frames say, read with one bounds check a family and kept in registers.
//!
//! Ethernet with at most one VLAN tag, IPv4 without options or fragments or IPv6 without extension headers, and a TCP
//! segment that only acknowledges or carries data, a SYN without options, or a UDP datagram. It says nothing that
//! [`crate::wire::parse`] would not: a test holds the one against the other. Every other frame takes the way through the
//! parser.

use crate::abi::{Addr, FlowKey, Packet, Settled, Side};
use crate::frame::Frame;
use crate::weight::{Gso, Weight};
use crate::wire::{bytes, eth, proto};

/// What a settled flow has to know of its packet, and who has to be turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The flow.
    pub key: FlowKey,
    /// Who sent it.
    pub side: Side,
    /// [`Settled::ACK`] or [`Settled::DATA`]; [`Settled::CONTROL`] for a SYN that opens.
    pub kinds: u16,
    /// What the frame counts for.
    pub weight: Weight,
    /// Where the IP header starts.
    pub l3_offset: u16,
}

/// The EtherType and where its header starts, behind at most one VLAN tag.
#[inline(always)]
pub fn link<F: Frame>(frame: &F) -> Option<(u16, usize)> {
    let h = frame.header::<18>(0)?;
    Some(match be16::<12, 18>(h) {
        eth::VLAN => (be16::<16, 18>(h), 18),
        eth_type => (eth_type, 14),
    })
}

/// Reads a plain IPv4 packet at `at`, `None` for any other.
#[inline(always)]
pub fn ipv4<F: Frame>(frame: &F, at: usize) -> Option<Lane> {
    let h = frame.header::<40>(at)?;
    let total = usize::from(be16::<2, 40>(h));
    let fragment = be16::<6, 40>(h) & 0x3fff;
    if h[0] != 0x45 || fragment != 0 || total < 20 || !frame.holds(at + total) {
        return None;
    }
    let transport = transport(h[9], bytes::<20, 20, 40>(h), total - 20)?;
    let src = Addr::v4(bytes::<12, 4, 40>(h));
    let dst = Addr::v4(bytes::<16, 4, 40>(h));
    Some(lane(4, h[9], src, dst, transport, (20, total), at, frame.gso()))
}

/// Reads a plain IPv6 packet at `at`, `None` for any other.
#[inline(always)]
pub fn ipv6<F: Frame>(frame: &F, at: usize) -> Option<Lane> {
    let h = frame.header::<60>(at)?;
    let payload = usize::from(be16::<4, 60>(h));
    if h[0] >> 4 != 6 || payload == 0 || !frame.holds(at + 40 + payload) {
        return None;
    }
    let transport = transport(h[6], bytes::<40, 20, 60>(h), payload)?;
    Some(lane(
        6,
        h[6],
        Addr::v6(bytes::<8, 16, 60>(h)),
        Addr::v6(bytes::<24, 16, 60>(h)),
        transport,
        (40, 40 + payload),
        at,
        frame.gso(),
    ))
}

struct Transport {
    src_port: u16,
    dst_port: u16,
    kinds: u16,
    /// Bytes of its header, and behind it.
    header: u16,
    payload: u32,
}

/// The first twenty bytes of a transport header that has `len` bytes with its payload.
#[inline(always)]
fn transport(protocol: u8, h: [u8; 20], len: usize) -> Option<Transport> {
    let (kinds, header, payload) = match protocol {
        proto::TCP => {
            let header = usize::from(h[12] >> 4) * 4;
            let control = Packet::SYN | Packet::FIN | Packet::RST | Packet::ACK;
            let kinds = match u16::from(h[13]) & control {
                Packet::ACK if len > header => Settled::DATA,
                Packet::ACK => Settled::ACK,
                Packet::SYN if len == 20 => Settled::CONTROL,
                _ => return None,
            };
            if header < 20 || header > len {
                return None;
            }
            (kinds, header as u16, len - header)
        }
        proto::UDP => {
            let udp = usize::from(be16::<4, 20>(&h));
            if udp < 8 || udp > len {
                return None;
            }
            (Settled::DATA, 8, udp - 8)
        }
        _ => return None,
    };
    Some(Transport {
        src_port: be16::<0, 20>(&h),
        dst_port: be16::<2, 20>(&h),
        kinds,
        header,
        payload: payload as u32,
    })
}

#[inline(always)]
fn be16<const AT: usize, const N: usize>(h: &[u8; N]) -> u16 {
    u16::from_be_bytes(bytes::<AT, 2, N>(h))
}

/// `network` and `total` are the bytes of the IP header and of the IP packet.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "a structure of them would be this one's fields")]
fn lane(
    family: u8,
    protocol: u8,
    src: Addr,
    dst: Addr,
    transport: Transport,
    (network, total): (u16, usize),
    at: usize,
    gso: Gso,
) -> Lane {
    let (key, side) =
        FlowKey::canonical(family, protocol, (src, transport.src_port), (dst, transport.dst_port));
    let headers = network + transport.header;
    let weight = Weight::new(total as u32, headers, gso.more(transport.payload));
    Lane { key, side, kinds: transport.kinds, weight, l3_offset: at as u16 }
}
