//! ICMP (RFC 792) and ICMPv6 (RFC 4443).

use super::{Network, be16, bytes, proto};
use crate::abi::{Addr, FlowKey, Packet, Reason};
use crate::frame::Frame;

const HEADER: usize = 4;
/// Where the quoted packet starts behind the start of an error.
const QUOTE: usize = 8;
/// Stands for "no counterpart"; no type that has one has this number.
const ONE_WAY: u8 = 255;

/// Type and its counterpart stand for the ports, as in Zeek: request and reply share a flow.
#[inline(always)]
pub(super) fn parse<F: Frame>(frame: &F, net: &Network, packet: &mut Packet) -> Result<(u16, u16), Reason> {
    if net.len < HEADER {
        return Err(Reason::CtInvalidHeader);
    }
    let Some(h) = frame.header::<HEADER>(net.offset) else {
        return Err(Reason::CtInvalidHeader);
    };
    packet.has |= Packet::HAS_ICMP;
    packet.icmp_type = h[0];
    packet.icmp_code = h[1];
    packet.payload_offset = (net.offset + HEADER) as u16;
    packet.payload_bytes = (net.len - HEADER) as u32;
    let counterpart = if net.proto == proto::ICMP { counterpart_v4(h[0]) } else { counterpart_v6(h[0]) };
    let second = if counterpart == ONE_WAY { h[1] } else { counterpart };
    Ok((u16::from(h[0]), u16::from(second)))
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

/// The flow that an error quotes, if it quotes enough: addresses, protocol and the first four transport bytes.
///
/// `None` for what has no ports, for later fragments and behind IPv6 extension headers: such an error is judged as
/// any other packet.
#[inline(always)]
pub fn quoted_flow<F: Frame>(frame: &F, packet: &Packet) -> Option<FlowKey> {
    let offset = usize::from(packet.l4_offset) + QUOTE;
    if packet.ip_version == 4 {
        let h = frame.header::<20>(offset)?;
        let header_len = usize::from(h[0] & 0x0f) * 4;
        if h[0] >> 4 != 4 || header_len < 20 || be16(h[6], h[7]) & 0x1fff != 0 {
            return None;
        }
        let ends = (Addr::v4([h[12], h[13], h[14], h[15]]), Addr::v4([h[16], h[17], h[18], h[19]]));
        quoted_ports(frame, 4, h[9], ends, offset + header_len)
    } else {
        let h = frame.header::<40>(offset)?;
        if h[0] >> 4 != 6 {
            return None;
        }
        quoted_ports(
            frame,
            6,
            h[6],
            (Addr::v6(bytes::<8, 16, 40>(h)), Addr::v6(bytes::<24, 16, 40>(h))),
            offset + 40,
        )
    }
}

#[inline(always)]
fn quoted_ports<F: Frame>(
    frame: &F,
    family: u8,
    protocol: u8,
    ends: (Addr, Addr),
    offset: usize,
) -> Option<FlowKey> {
    if !matches!(protocol, proto::TCP | proto::UDP | proto::SCTP) {
        return None;
    }
    let p = frame.header::<4>(offset)?;
    let (src, dst) = ((ends.0, be16(p[0], p[1])), (ends.1, be16(p[2], p[3])));
    Some(FlowKey::canonical(family, protocol, src, dst).0)
}
