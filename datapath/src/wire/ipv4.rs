//! IPv4 (RFC 791).

use super::{Network, be16, bytes, options};
use crate::abi::{Addr, Packet, Reason};
use crate::frame::Frame;

const HEADER: usize = 20;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

#[inline(always)]
pub(super) fn parse<F: Frame>(frame: &F, offset: usize, packet: &mut Packet) -> Result<Network, Reason> {
    let Some(h) = frame.header::<HEADER>(offset) else {
        return Err(Reason::Ipv4Truncated);
    };
    if h[0] >> 4 != 4 {
        return Err(Reason::Ipv4Version);
    }
    // RFC 791, section 3.1: the header has at least five words.
    let header_len = usize::from(h[0] & 0x0f) * 4;
    if header_len < HEADER {
        return Err(Reason::Ipv4HeaderLength);
    }
    let mut total = usize::from(be16(h[2], h[3]));
    if total == 0 {
        // Segmentation offload leaves the length to the hardware: the frame says how long it is.
        total = frame.len().saturating_sub(offset);
    }
    if total < header_len {
        return Err(Reason::Ipv4TotalLength);
    }
    if !frame.holds(offset + total) {
        return Err(Reason::Ipv4CutOff);
    }
    if header_len > HEADER {
        options::ipv4(frame, offset + HEADER, header_len - HEADER, packet)?;
    }
    packet.ip_version = 4;
    packet.ip_bytes = total as u32;
    packet.hop_limit = h[8];
    let fragment = be16(h[6], h[7]);
    if fragment & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0 {
        packet.has |= Packet::IS_FRAGMENT;
        packet.fragment_id = u32::from(be16(h[4], h[5]));
        packet.fragment_offset = (fragment & FRAGMENT_OFFSET) << 3;
        if fragment & MORE_FRAGMENTS != 0 {
            packet.has |= Packet::MORE_FRAGMENTS;
        }
    }
    Ok(Network {
        src: Addr::v4(bytes::<12, 4, HEADER>(h)),
        dst: Addr::v4(bytes::<16, 4, HEADER>(h)),
        len: total - header_len,
        offset: offset + header_len,
        proto: h[9],
    })
}
