//! IPv6 and its extension headers (RFC 8200).

use super::{Network, be16, bytes};
use crate::abi::{Addr, Packet, Reason};
use crate::frame::Frame;

const HEADER: usize = 40;
/// Extension headers that are followed: RFC 8200, section 4.1 names an order of seven.
pub(super) const MAX_EXTENSIONS: usize = 7;
/// A jumbogram, or a segment for the hardware to cut, is longer than the length field can say (RFC 2675).
const LENGTH_FIELD_MAX: usize = 0xffff;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// Set where the protocol is an extension header.
const EXTENSION: u8 = 0x80;

/// By protocol number: [`EXTENSION`], and how many bytes a unit of its length field has, beyond the first eight.
///
/// A table, so that all kinds go one way: with branches the verifier follows every sequence of them.
static UNITS: [u8; 256] = {
    let mut table = [0; 256];
    table[HOP_BY_HOP as usize] = EXTENSION | 8;
    table[ROUTING as usize] = EXTENSION | 8;
    table[DESTINATION as usize] = EXTENSION | 8;
    // RFC 4302, section 2.2: in words of four bytes, minus two.
    table[AUTHENTICATION as usize] = EXTENSION | 4;
    // The byte is reserved, the header has eight (RFC 8200, section 4.5).
    table[FRAGMENT as usize] = EXTENSION;
    table
};

/// What the extension headers say: of fragments, and of the way.
#[derive(Clone, Copy, Default)]
pub(crate) struct Fragment {
    /// There is one, also of a packet that is whole (RFC 6946).
    pub is_there: bool,
    /// Offset and flag, as they lie in the header, without reserved bits.
    pub field: u16,
    /// Identification.
    pub id: u32,
    /// A routing header of type 0 has segments left (RFC 5095).
    pub is_behind_route: bool,
}

impl Fragment {
    /// Offset in bytes.
    #[inline(always)]
    pub fn offset(&self) -> u16 {
        self.field & 0xfff8
    }
}

/// A place in a chain of headers.
pub(super) struct Chain {
    /// The protocol of the header there.
    pub proto: u8,
    /// Where it starts in the frame.
    pub offset: usize,
    /// How many bytes of the packet are left from there.
    pub len: usize,
}

#[inline(always)]
pub(super) fn parse<F: Frame>(frame: &F, offset: usize, packet: &mut Packet) -> Result<Network, Reason> {
    let Some(h) = frame.header::<HEADER>(offset) else {
        return Err(Reason::Ipv6Truncated);
    };
    if h[0] >> 4 != 6 {
        return Err(Reason::Ipv6Version);
    }
    let mut total = HEADER + usize::from(be16(h[4], h[5]));
    if total == HEADER {
        let rest = frame.len().saturating_sub(offset);
        if h[6] == HOP_BY_HOP || rest > LENGTH_FIELD_MAX {
            total = rest;
        }
    }
    if total < HEADER || !frame.holds(offset + total) {
        return Err(Reason::Ipv6CutOff);
    }
    packet.ip_version = 6;
    packet.ip_bytes = total as u32;
    packet.hop_limit = h[7];
    let mut chain = Chain { proto: h[6], offset: offset + HEADER, len: total - HEADER };
    let (src, dst) = (Addr::v6(bytes::<8, 16, HEADER>(h)), Addr::v6(bytes::<24, 16, HEADER>(h)));
    let mut fragment = Fragment::default();
    let walked = extensions::<F, MAX_EXTENSIONS>(frame, &mut chain, &mut fragment);
    note(packet, &fragment);
    match walked {
        // RFC 7112: a first fragment holds the whole chain.
        Err(Reason::InvalidExtension) if packet.has(Packet::IS_FRAGMENT) => Err(Reason::FragmentTiny),
        Err(reason) => Err(reason),
        Ok(()) => Ok(Network { src, dst, len: chain.len, offset: chain.offset, proto: chain.proto }),
    }
}

/// RFC 8200, section 4.5. Offset 0 without more fragments is an atomic fragment (RFC 6946): the packet is whole.
#[inline(always)]
fn note(packet: &mut Packet, fragment: &Fragment) {
    if fragment.is_behind_route {
        packet.has |= Packet::IS_SOURCE_ROUTED;
    }
    if !fragment.is_there {
        return;
    }
    packet.has |= Packet::HAS_FRAGMENT_HEADER;
    if fragment.field == 0 {
        return;
    }
    packet.has |= Packet::IS_FRAGMENT;
    packet.fragment_offset = fragment.offset();
    packet.fragment_id = fragment.id;
    if fragment.field & 1 != 0 {
        packet.has |= Packet::MORE_FRAGMENTS;
    }
}

/// Walks the chain to the transport header, or to a later fragment's first byte.
#[inline(always)]
pub(super) fn extensions<F: Frame, const MAX: usize>(
    frame: &F,
    chain: &mut Chain,
    fragment: &mut Fragment,
) -> Result<(), Reason> {
    for i in 0..MAX {
        let units = UNITS[usize::from(chain.proto)];
        if units == 0 {
            return Ok(());
        }
        let Some(h) = frame.header::<8>(chain.offset) else {
            return Err(Reason::InvalidExtension);
        };
        let len = usize::from(h[1]) * usize::from(units & !EXTENSION) + 8;
        if len > chain.len {
            return Err(Reason::InvalidExtension);
        }
        let is_misplaced =
            chain.proto == HOP_BY_HOP && i != 0 || chain.proto == FRAGMENT && fragment.is_there;
        if is_misplaced {
            return Err(Reason::ExtensionOrder);
        }
        if chain.proto == ROUTING && h[2] == 0 && h[3] != 0 {
            fragment.is_behind_route = true;
        }
        if chain.proto == FRAGMENT {
            fragment.is_there = true;
            fragment.field = be16(h[2], h[3]) & 0xfff9;
            fragment.id = u32::from_be_bytes([h[4], h[5], h[6], h[7]]);
        }
        chain.proto = h[0];
        chain.offset += len;
        chain.len -= len;
        if fragment.offset() != 0 {
            return Ok(());
        }
    }
    if UNITS[usize::from(chain.proto)] == 0 { Ok(()) } else { Err(Reason::ExtensionChain) }
}
