//! UDP (RFC 768).

use super::{Network, be16};
use crate::abi::{Packet, Reason};
use crate::frame::Frame;

const HEADER: usize = 8;
/// The longest datagram that the length field can say.
const LENGTH_FIELD_MAX: usize = 0xffff;

#[inline(always)]
pub(super) fn parse<F: Frame>(frame: &F, net: &Network, packet: &mut Packet) -> Result<(u16, u16), Reason> {
    if net.len < HEADER {
        return Err(Reason::UdpTruncated);
    }
    let Some(h) = frame.header::<HEADER>(net.offset) else {
        return Err(Reason::UdpTruncated);
    };
    let mut len = usize::from(be16(h[4], h[5]));
    if len == 0 && net.len > LENGTH_FIELD_MAX || packet.has(Packet::IS_FRAGMENT) {
        len = net.len; // RFC 2675, section 4; or counted over all fragments
    }
    if len < HEADER || len > net.len {
        return Err(Reason::UdpLength);
    }
    packet.has |= Packet::HAS_PORTS;
    packet.payload_offset = (net.offset + HEADER) as u16;
    packet.payload_bytes = (len - HEADER) as u32;
    Ok((be16(h[0], h[1]), be16(h[2], h[3])))
}
