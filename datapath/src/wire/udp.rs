//! UDP (RFC 768), and the ports of SCTP (RFC 9260), which lie in the same place.

use super::{Network, be16};
use crate::abi::{Packet, Reason};
use crate::frame::Frame;

const HEADER: usize = 8;
const SCTP_HEADER: usize = 12;

#[inline(always)]
pub(super) fn parse<F: Frame>(frame: &F, net: &Network, packet: &mut Packet) -> Result<(u16, u16), Reason> {
    if net.len < HEADER {
        return Err(Reason::CtInvalidHeader);
    }
    let Some(h) = frame.header::<HEADER>(net.offset) else {
        return Err(Reason::CtInvalidHeader);
    };
    let mut len = usize::from(be16(h[4], h[5]));
    if len == 0 || packet.has(Packet::IS_FRAGMENT) {
        len = net.len; // RFC 2675, section 4, or counted over all fragments
    }
    if len < HEADER || len > net.len {
        return Err(Reason::CtInvalidHeader);
    }
    packet.has |= Packet::HAS_PORTS;
    packet.payload_offset = (net.offset + HEADER) as u16;
    packet.payload_bytes = (len - HEADER) as u32;
    Ok((be16(h[0], h[1]), be16(h[2], h[3])))
}

#[inline(always)]
pub(super) fn ports_of_sctp<F: Frame>(
    frame: &F,
    net: &Network,
    packet: &mut Packet,
) -> Result<(u16, u16), Reason> {
    if net.len < SCTP_HEADER {
        return Err(Reason::CtInvalidHeader);
    }
    let Some(h) = frame.header::<SCTP_HEADER>(net.offset) else {
        return Err(Reason::CtInvalidHeader);
    };
    packet.has |= Packet::HAS_PORTS;
    packet.payload_offset = (net.offset + SCTP_HEADER) as u16;
    packet.payload_bytes = (net.len - SCTP_HEADER) as u32;
    Ok((be16(h[0], h[1]), be16(h[2], h[3])))
}
