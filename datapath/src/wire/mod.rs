//! From bytes to a [`Packet`]: link layer, network layer, transport, one header a file.

pub mod eth;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod tcp;
pub mod tls;
pub mod udp;

use crate::abi::{Addr, FlowKey, Packet, Reason, Side};
use crate::frame::Frame;

/// IP protocol numbers (IANA) that the path treats in their own way.
pub mod proto {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// What the network layer hands to the transport layer.
pub(crate) struct Network {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Bytes that the transport layer has, by the IP header.
    pub len: usize,
    /// Where they start in the frame.
    pub offset: usize,
    /// The protocol, after IPv6 extension headers.
    pub proto: u8,
}

/// Reads a frame into `packet`. What was read before a fault stays there, for the trace.
///
/// # Errors
/// The reason why the frame cannot be judged by its flow.
pub fn parse<F: Frame>(frame: &F, packet: &mut Packet) -> Result<(), Reason> {
    network(frame, packet)?;
    transport(frame, packet)
}

/// The first half: Ethernet and IP. What [`transport`] needs of it, it finds in `packet`: where it starts, how long it
/// is, and the addresses, source first.
///
/// # Errors
/// As [`parse`].
#[inline(always)]
pub fn network<F: Frame>(frame: &F, packet: &mut Packet) -> Result<(), Reason> {
    let offset = eth::parse(frame, packet)?;
    let net = match packet.eth_type {
        eth::IPV4 => ipv4::parse(frame, offset, packet)?,
        eth::IPV6 => ipv6::parse(frame, offset, packet)?,
        _ => return Ok(()),
    };
    packet.has |= Packet::HAS_IP;
    packet.l4_offset = net.offset as u16;
    packet.payload_offset = net.offset as u16;
    packet.payload_bytes = net.len as u32;
    packet.key = FlowKey { a: net.src, b: net.dst, proto: net.proto, ..FlowKey::default() };
    Ok(())
}

/// The second half: the transport header, and the flow's key.
///
/// # Errors
/// As [`parse`].
#[inline(always)]
pub fn transport<F: Frame>(frame: &F, packet: &mut Packet) -> Result<(), Reason> {
    if !packet.has(Packet::HAS_IP) {
        return Ok(());
    }
    let net = Network {
        src: packet.key.a,
        dst: packet.key.b,
        len: packet.payload_bytes as usize,
        offset: usize::from(packet.l4_offset),
        proto: packet.key.proto,
    };
    if packet.fragment_offset != 0 {
        set_key(packet, &net, (0, 0)); // its ports are in the first fragment
        packet.payload_offset = 0;
        packet.payload_bytes = 0;
        return Ok(());
    }
    match ports(frame, &net, packet) {
        Ok(ports) => {
            set_key(packet, &net, ports);
            Ok(())
        }
        Err(reason) => {
            set_key(packet, &net, (0, 0));
            // RFC 1858 and RFC 7112: a first fragment must hold the headers that a filter needs.
            Err(if packet.has(Packet::IS_FRAGMENT) { Reason::FragmentTiny } else { reason })
        }
    }
}

#[inline(always)]
fn set_key(packet: &mut Packet, net: &Network, ports: (u16, u16)) {
    let (key, side) =
        FlowKey::canonical(packet.ip_version, net.proto, (net.src, ports.0), (net.dst, ports.1));
    packet.key = key;
    packet.from_b = u8::from(side == Side::B);
}

#[inline(always)]
fn ports<F: Frame>(frame: &F, net: &Network, packet: &mut Packet) -> Result<(u16, u16), Reason> {
    match net.proto {
        proto::TCP => tcp::parse(frame, net, packet),
        proto::UDP => udp::parse(frame, net, packet),
        proto::ICMP | proto::ICMPV6 => icmp::parse(frame, net, packet),
        proto::SCTP => udp::ports_of_sctp(frame, net, packet),
        _ => Ok((0, 0)),
    }
}

#[inline(always)]
pub(crate) fn be16(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}

/// The bytes of a header from `AT` on, copied as one: LLVM makes a load of them, where it makes one load a byte of an
/// array of bytes.
#[inline(always)]
pub(crate) fn bytes<const AT: usize, const M: usize, const N: usize>(h: &[u8; N]) -> [u8; M] {
    let mut out = [0; M];
    out.copy_from_slice(&h[AT..AT + M]);
    out
}
