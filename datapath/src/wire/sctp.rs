//! SCTP: the common header, the first chunk, and which chunks follow it (RFC 9260, section 3).

use super::{Network, be16};
use crate::abi::{Packet, Reason};
use crate::frame::Frame;

const HEADER: usize = 12;
const CHUNK_HEADER: usize = 4;
const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;
const SHUTDOWN_COMPLETE: u8 = 14;
/// The T bit of these two (sections 3.3.7 and 3.3.13).
const REFLECTED: u8 = 1;
/// Chunks of a packet that are looked at.
const MAX_CHUNKS: usize = 6;

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
    if (h[12] == INIT || h[12] == INIT_ACK)
        && len >= 2 * CHUNK_HEADER
        && let Some(tag) = frame.header::<4>(net.offset + HEADER + CHUNK_HEADER)
    {
        packet.ack = u32::from_be_bytes(*tag);
    }
    packet.sctp_chunks = chunks(frame, net.offset + HEADER, net.offset + net.len);
    packet.payload_offset = (net.offset + HEADER) as u16;
    packet.payload_bytes = (net.len - HEADER) as u32;
    Ok((be16(h[0], h[1]), be16(h[2], h[3])))
}

/// Which chunks there are, as the bits of [`Packet::sctp_chunks`].
///
/// A function of its own in BPF: inlined into TC's program, LLVM computes the place of a chunk twice, and the verifier saw only
/// the other one checked ("R1 offset is outside of the packet", 6.18).
#[inline(never)]
fn chunks<F: Frame>(frame: &F, from: usize, end: usize) -> u16 {
    let (mut at, mut found) = (from, 0);
    for _ in 0..MAX_CHUNKS {
        if at + CHUNK_HEADER > end {
            break;
        }
        let Some(h) = frame.header::<CHUNK_HEADER>(at) else {
            break;
        };
        let word = u32::from_be_bytes(*h);
        let (kind, len) = (word >> 24, (word & 0xffff) as usize);
        if len < CHUNK_HEADER {
            break;
        }
        if kind <= u32::from(SHUTDOWN_COMPLETE) {
            found |= 1u16 << kind;
        }
        if kind == u32::from(DATA) {
            break; // control chunks come first (section 6.10)
        }
        let may_reflect = kind == u32::from(ABORT) || kind == u32::from(SHUTDOWN_COMPLETE);
        if may_reflect && word >> 16 & u32::from(REFLECTED) != 0 {
            found |= Packet::SCTP_REFLECTED;
        }
        at += len.next_multiple_of(4);
    }
    found
}
