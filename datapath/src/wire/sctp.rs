//! SCTP: the common header and the first chunk (RFC 9260, section 3).

use super::{Network, be16};
use crate::abi::{Packet, Reason};
use crate::frame::Frame;

const HEADER: usize = 12;
const CHUNK_HEADER: usize = 4;
const INIT: u8 = 1;

#[inline(always)]
pub(super) fn parse<F: Frame>(frame: &F, net: &Network, packet: &mut Packet) -> Result<(u16, u16), Reason> {
    if net.len < HEADER + CHUNK_HEADER {
        return Err(Reason::SctpTruncated);
    }
    let Some(h) = frame.header::<{ HEADER + CHUNK_HEADER }>(net.offset) else {
        return Err(Reason::SctpTruncated);
    };
    let room = net.len - HEADER;
    let len = usize::from(be16(h[14], h[15]));
    let tag = u32::from_be_bytes([h[4], h[5], h[6], h[7]]);
    // A chunk of a packet that was cut into fragments may end in another one.
    let is_whole = len <= room || packet.has(Packet::IS_FRAGMENT);
    if len < CHUNK_HEADER || !is_whole {
        return Err(Reason::SctpChunk);
    }
    // Section 8.5.1: INIT has tag 0 and nothing else has; it travels alone (section 3.1), padded to a word.
    let is_alone = len.next_multiple_of(4) >= room;
    if (h[12] == INIT) != (tag == 0) || h[12] == INIT && !is_alone {
        return Err(Reason::SctpChunk);
    }
    packet.has |= Packet::HAS_PORTS | Packet::HAS_SCTP;
    packet.seq = tag;
    packet.sctp_chunk = h[12];
    packet.payload_offset = (net.offset + HEADER) as u16;
    packet.payload_bytes = (net.len - HEADER) as u32;
    Ok((be16(h[0], h[1]), be16(h[2], h[3])))
}
