//! IPv6 and its extension headers (RFC 8200).

use super::{Network, be16, bytes};
use crate::abi::{Addr, Packet, Reason};
use crate::frame::Frame;

const HEADER: usize = 40;
/// Extension headers that are followed: RFC 8200, section 4.1 names an order of seven.
const MAX_EXTENSIONS: usize = 7;
/// A jumbogram, or a segment for the hardware to cut, is longer than the length field can say (RFC 2675).
const LENGTH_FIELD_MAX: usize = 0xffff;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

#[inline(always)]
pub(super) fn parse<F: Frame>(frame: &F, offset: usize, packet: &mut Packet) -> Result<Network, Reason> {
    let Some(h) = frame.header::<HEADER>(offset) else {
        return Err(Reason::InvalidIpv6);
    };
    if h[0] >> 4 != 6 {
        return Err(Reason::InvalidIpv6);
    }
    let mut total = HEADER + usize::from(be16(h[4], h[5]));
    if total == HEADER {
        let rest = frame.len().saturating_sub(offset);
        if h[6] == HOP_BY_HOP || rest > LENGTH_FIELD_MAX {
            total = rest;
        }
    }
    if total < HEADER || !frame.holds(offset + total) {
        return Err(Reason::InvalidIpv6);
    }
    packet.ip_version = 6;
    packet.ip_bytes = total as u32;
    let mut net = Network {
        src: Addr::v6(bytes::<8, 16, HEADER>(h)),
        dst: Addr::v6(bytes::<24, 16, HEADER>(h)),
        len: total - HEADER,
        offset: offset + HEADER,
        proto: h[6],
    };
    extensions(frame, &mut net, packet)?;
    Ok(net)
}

/// Walks the chain to the transport header, or to a later fragment's first byte.
#[inline(always)]
fn extensions<F: Frame>(frame: &F, net: &mut Network, packet: &mut Packet) -> Result<(), Reason> {
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(net.proto) {
            return Ok(());
        }
        let Some(h) = frame.header::<8>(net.offset) else {
            return Err(Reason::InvalidExtension);
        };
        let len = match net.proto {
            FRAGMENT => {
                fragment(h, packet);
                8
            }
            // RFC 4302, section 2.2: in words of four bytes, minus two.
            AUTHENTICATION => (usize::from(h[1]) + 2) * 4,
            // RFC 8200, section 4.3: in words of eight bytes, the first not counted.
            _ => (usize::from(h[1]) + 1) * 8,
        };
        if len > net.len {
            return Err(Reason::InvalidExtension);
        }
        net.proto = h[0];
        net.offset += len;
        net.len -= len;
        if packet.fragment_offset != 0 {
            return Ok(());
        }
    }
    if is_extension(net.proto) { Err(Reason::InvalidExtension) } else { Ok(()) }
}

#[inline(always)]
fn is_extension(proto: u8) -> bool {
    matches!(proto, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION)
}

/// RFC 8200, section 4.5. Offset 0 without more fragments is an atomic fragment (RFC 6946): the packet is whole.
#[inline(always)]
fn fragment(h: &[u8; 8], packet: &mut Packet) {
    packet.has |= Packet::HAS_FRAGMENT_HEADER;
    let field = be16(h[2], h[3]);
    if field & 0xfff9 == 0 {
        return;
    }
    packet.has |= Packet::IS_FRAGMENT;
    packet.fragment_offset = field & 0xfff8;
    packet.fragment_id = u32::from_be_bytes([h[4], h[5], h[6], h[7]]);
    if field & 1 != 0 {
        packet.has |= Packet::MORE_FRAGMENTS;
    }
}
