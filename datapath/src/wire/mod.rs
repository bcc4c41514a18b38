//! From bytes to a [`Packet`]: link layer, network layer, transport, one header a file.

pub mod eth;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
mod options;
pub mod plain;
pub mod quic;
mod sctp;
pub mod tcp;
pub mod tls;
pub(crate) mod tunnel;
pub mod udp;

use crate::abi::{Addr, FlowKey, Packet, Reason, Side};
use crate::frame::Frame;

/// IP protocol numbers (IANA) that the path treats in their own way.
pub mod proto {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP (RFC 2003).
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP (RFC 4213).
    pub const IPV6: u8 = 41;
    /// GRE (RFC 2784).
    pub const GRE: u8 = 47;
    /// ESP (RFC 4303).
    pub const ESP: u8 = 50;
    /// Authentication header (RFC 4302).
    pub const AH: u8 = 51;
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
    ip(frame, offset, packet)
}

/// Turns to what a tunnel carries, if it carries anything: from here on the packet is that.
///
/// # Errors
/// The reason why it cannot be found.
#[inline(always)]
pub(crate) fn turn_to_carried<F: Frame>(frame: &F, packet: &mut Packet) -> Result<(), Reason> {
    let inner = tunnel::carried(frame, packet)?;
    if inner.eth_type == 0 {
        return Ok(());
    }
    // Until the inner header is read: where what is carried ends.
    packet.payload_bytes += u32::from(packet.payload_offset);
    // Nobody has said yet which end of the inner flow sent it.
    packet.from_b = 0;
    packet.has = Packet::HAS_ETHERNET | Packet::IS_CARRIED;
    packet.eth_type = inner.eth_type;
    packet.l3_offset = inner.offset as u16;
    packet.ip_bytes = 0;
    Ok(())
}

/// The network header of what a tunnel carries.
///
/// # Errors
/// As [`network`].
#[inline(always)]
pub(crate) fn carried<F: Frame>(frame: &F, packet: &mut Packet) -> Result<(), Reason> {
    let outer_end = packet.payload_bytes;
    ip(frame, usize::from(packet.l3_offset), packet)?;
    if u32::from(packet.l3_offset) + packet.ip_bytes > outer_end {
        return Err(Reason::TunnelMalformed);
    }
    Ok(())
}

#[inline(always)]
fn ip<F: Frame>(frame: &F, offset: usize, packet: &mut Packet) -> Result<(), Reason> {
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
    // What is refused is read all the same: people look for it by its ports.
    let fault = fault(&net, packet);
    if packet.fragment_offset != 0 {
        set_key(packet, &net, (0, 0)); // its ports are in the first fragment
        packet.payload_offset = 0;
        packet.payload_bytes = 0;
        return fault;
    }
    let read = ports(frame, &net, packet);
    set_key(packet, &net, read.unwrap_or((0, 0)));
    fault?;
    match read {
        Ok(_) => {
            packet.more_segments = frame.gso().more(packet.payload_bytes);
            tcp::announced(frame, packet)
        }
        // RFC 1858 and RFC 7112: a first fragment must hold the headers that a filter needs.
        Err(reason) if packet.has(Packet::IS_FRAGMENT) && is_cut(reason) => Err(Reason::FragmentTiny),
        Err(reason) => Err(reason),
    }
}

/// A packet that names its own way; what no fragment may be, and what no later fragment of TCP may hold (RFC 8200,
/// section 4.5; RFC 1858, section 3).
#[inline(always)]
fn fault(net: &Network, packet: &Packet) -> Result<(), Reason> {
    if packet.has(Packet::IS_SOURCE_ROUTED) {
        return Err(Reason::SourceRouted);
    }
    if !packet.has(Packet::IS_FRAGMENT) {
        return Ok(());
    }
    if net.len == 0 || packet.has(Packet::MORE_FRAGMENTS) && net.len & 7 != 0 {
        return Err(Reason::FragmentLength);
    }
    if usize::from(packet.fragment_offset) + net.len > 0xffff {
        return Err(Reason::FragmentBeyond);
    }
    if packet.fragment_offset == 8 && net.proto == proto::TCP {
        return Err(Reason::FragmentOverlap);
    }
    Ok(())
}

/// Whether the packet ends within a transport header.
#[inline(always)]
fn is_cut(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::TcpTruncated
            | Reason::UdpTruncated
            | Reason::SctpTruncated
            | Reason::IcmpTruncated
            | Reason::CtInvalidHeader
    )
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
        proto::ICMP if packet.ip_version == 4 => icmp::parse(frame, net, packet),
        proto::ICMPV6 if packet.ip_version == 6 => icmp::parse(frame, net, packet),
        proto::SCTP => sctp::parse(frame, net, packet),
        // SPI and sequence number (RFC 4303, section 2); flags and protocol type (RFC 2784, section 2.1).
        proto::ESP if net.len < 8 => Err(Reason::CtInvalidHeader),
        proto::GRE if net.len < 4 => Err(Reason::CtInvalidHeader),
        _ => Ok((0, 0)),
    }
}

/// One byte, read with the one before it, which has to be there too: of a check for one byte LLVM makes `>=`, from which
/// the verifier learns nothing ("R1 offset is outside of the packet", 6.18).
#[inline(always)]
fn byte<F: Frame>(frame: &F, at: usize) -> Option<u8> {
    frame.header::<2>(at - 1).map(|h| h[1])
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
