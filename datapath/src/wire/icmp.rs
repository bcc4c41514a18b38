//! ICMP (RFC 792) and ICMPv6 (RFC 4443).

use super::ipv6::{self, Chain, Fragment};
use super::{Network, be16, bytes, proto};
use crate::abi::{Addr, Packet, Reason};
use crate::frame::Frame;

/// Every message has eight bytes or more (RFC 792; RFC 4443, sections 3 and 4), of which the first four are alike.
const HEADER: usize = 4;
const MIN_BYTES: usize = 8;
/// Where the quoted packet starts behind the start of an error.
const QUOTE: usize = 8;
/// Extension headers that are followed in a quote: as many as a packet may have.
const QUOTED_EXTENSIONS: usize = ipv6::MAX_EXTENSIONS;
/// Stands for "no counterpart"; no type that has one has this number.
const ONE_WAY: u8 = 255;

/// Type and its counterpart stand for the ports, as in Zeek: request and reply share a flow.
#[inline(always)]
pub(super) fn parse<F: Frame>(frame: &F, net: &Network, packet: &mut Packet) -> Result<(u16, u16), Reason> {
    if net.len < MIN_BYTES {
        return Err(Reason::IcmpTruncated);
    }
    let Some(h) = frame.header::<HEADER>(net.offset) else {
        return Err(Reason::IcmpTruncated);
    };
    packet.has |= Packet::HAS_ICMP;
    packet.icmp_type = h[0];
    packet.icmp_code = h[1];
    packet.payload_offset = (net.offset + HEADER) as u16;
    packet.payload_bytes = (net.len - HEADER) as u32;
    if net.proto == proto::ICMPV6 && is_discovery(proto::ICMPV6, u16::from(h[0])) {
        discovery(net, packet)?;
    }
    let counterpart = if net.proto == proto::ICMP { counterpart_v4(h[0]) } else { counterpart_v6(h[0]) };
    Ok(ports(counterpart, h[0], h[1]))
}

/// Echo; router discovery (RFC 1256); timestamp; information; address mask (RFC 950).
#[inline(always)]
fn counterpart_v4(kind: u8) -> u8 {
    match kind {
        0 => 8,
        8 => 0,
        9 => 10,
        10 => 9,
        13 => 14,
        14 => 13,
        15 => 16,
        16 => 15,
        17 => 18,
        18 => 17,
        _ => ONE_WAY,
    }
}

/// Echo; multicast listener (RFC 2710); router and neighbour discovery (RFC 4861); node information (RFC 4620);
/// home agent discovery (RFC 6275).
#[inline(always)]
fn counterpart_v6(kind: u8) -> u8 {
    match kind {
        128 => 129,
        129 => 128,
        130 => 131,
        131 => 130,
        133 => 134,
        134 => 133,
        135 => 136,
        136 => 135,
        139 => 140,
        140 => 139,
        144 => 145,
        145 => 144,
        _ => ONE_WAY,
    }
}

/// Neighbour and router discovery (RFC 4861) and multicast listener reports (RFC 3810): no IPv6 without them.
#[inline(always)]
pub fn is_discovery(protocol: u8, kind: u16) -> bool {
    protocol == proto::ICMPV6 && matches!(kind, 130..=137 | 143)
}

/// Holds against their standards what passes without a rule, so that nothing else passes under its name: neighbour
/// discovery by RFC 4861 (sections 6.1, 7.1 and 8.1) and RFC 6980, listener messages by RFC 2710 and RFC 3810.
#[inline(always)]
fn discovery(net: &Network, packet: &Packet) -> Result<(), Reason> {
    let is_listener = matches!(packet.icmp_type, 130..=132 | 143);
    if packet.hop_limit != if is_listener { 1 } else { 255 } {
        return Err(Reason::NdHopLimit);
    }
    let min_bytes = match packet.icmp_type {
        134 => 16,
        130..=132 | 135 | 136 => 24,
        137 => 40,
        _ => 8,
    };
    let is_fragmented = packet.has & (Packet::IS_FRAGMENT | Packet::HAS_FRAGMENT_HEADER) != 0;
    if net.len < min_bytes || is_fragmented || packet.icmp_code != 0 {
        return Err(Reason::NdMalformed);
    }
    Ok(())
}

/// Whether the message is an error that quotes the packet it is about (RFC 792; RFC 4443, section 2.1).
#[inline(always)]
pub fn is_error(packet: &Packet) -> bool {
    if !packet.has(Packet::HAS_ICMP) {
        return false;
    }
    if packet.key.proto == proto::ICMP {
        matches!(packet.icmp_type, 3 | 11 | 12)
    } else {
        matches!(packet.icmp_type, 1..=4)
    }
}

/// Whether an error says that a packet is too large for the way (RFC 1191; RFC 8201): a connection hangs whose sender does not
/// hear it.
#[inline(always)]
pub(crate) fn is_path_mtu(packet: &Packet) -> bool {
    if packet.key.proto == proto::ICMP {
        packet.icmp_type == 3 && packet.icmp_code == 4
    } else {
        packet.icmp_type == 2
    }
}

/// The packet that an error quotes, as far as it quotes it.
#[derive(Clone, Copy)]
pub(crate) struct Quote {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Identification, where it is a fragment.
    pub fragment_id: u32,
    /// IP protocol number, after IPv6 extension headers.
    pub proto: u32,
    /// Offset, where it is a later fragment: then its ports are not in it.
    pub fragment_offset: u32,
    /// What stands for the ports: of TCP, UDP and SCTP their ports, of ICMP type and counterpart, of others nothing.
    pub ports: [u16; 2],
}

/// Reads what an error quotes. Returns whether it quotes enough. Lengths in it are of the packet that was sent, not of
/// what is quoted.
///
/// Two functions of their own in BPF: with both in one, LLVM runs out of registers, spills where the frame is, and the
/// verifier takes what comes back for a number ("invalid mem access 'scalar'", 6.18).
#[inline(always)]
pub(crate) fn quote<F: Frame>(frame: &F, packet: &Packet, quote: &mut Quote) -> bool {
    let offset = usize::from(packet.l4_offset) + QUOTE;
    if packet.ip_version == 4 { quote_v4(frame, offset, quote) } else { quote_v6(frame, offset, quote) }
}

#[inline(never)]
fn quote_v4<F: Frame>(frame: &F, offset: usize, quote: &mut Quote) -> bool {
    let Some(h) = frame.header::<20>(offset) else {
        return false;
    };
    let header_len = usize::from(h[0] & 0x0f) * 4;
    if h[0] >> 4 != 4 || header_len < 20 {
        return false;
    }
    quote.src = Addr::v4(bytes::<12, 4, 20>(h));
    quote.dst = Addr::v4(bytes::<16, 4, 20>(h));
    quote.fragment_id = u32::from(be16(h[4], h[5]));
    quote.proto = u32::from(h[9]);
    quote.fragment_offset = u32::from(be16(h[6], h[7]) & 0x1fff) << 3;
    quoted_ports(frame, offset + header_len, proto::ICMP, quote)
}

#[inline(never)]
fn quote_v6<F: Frame>(frame: &F, offset: usize, quote: &mut Quote) -> bool {
    let Some(h) = frame.header::<40>(offset) else {
        return false;
    };
    if h[0] >> 4 != 6 {
        return false;
    }
    quote.src = Addr::v6(bytes::<8, 16, 40>(h));
    quote.dst = Addr::v6(bytes::<24, 16, 40>(h));
    let mut chain = Chain { proto: h[6], offset: offset + 40, len: usize::from(be16(h[4], h[5])) };
    let mut fragment = Fragment::default();
    if ipv6::extensions::<F, QUOTED_EXTENSIONS>(frame, &mut chain, &mut fragment).is_err() {
        return false;
    }
    quote.fragment_id = fragment.id;
    quote.proto = u32::from(chain.proto);
    quote.fragment_offset = u32::from(fragment.offset());
    quoted_ports(frame, chain.offset, proto::ICMPV6, quote)
}

/// Returns whether the ports are quoted, or need not be.
#[inline(always)]
fn quoted_ports<F: Frame>(frame: &F, offset: usize, icmp: u8, quote: &mut Quote) -> bool {
    let protocol = quote.proto as u8;
    let has_ports = matches!(protocol, proto::TCP | proto::UDP | proto::SCTP);
    quote.ports = [0, 0];
    if quote.fragment_offset != 0 || !has_ports && protocol != icmp {
        return true;
    }
    let Some(p) = frame.header::<4>(offset) else {
        return false;
    };
    quote.ports = if has_ports {
        [be16(p[0], p[1]), be16(p[2], p[3])]
    } else {
        let counterpart = if icmp == proto::ICMP { counterpart_v4(p[0]) } else { counterpart_v6(p[0]) };
        let (kind, second) = ports(counterpart, p[0], p[1]);
        [kind, second]
    };
    true
}

#[inline(always)]
fn ports(counterpart: u8, kind: u8, code: u8) -> (u16, u16) {
    let second = if counterpart == ONE_WAY { code } else { counterpart };
    (u16::from(kind), u16::from(second))
}
