//! TCP (RFC 9293).

use super::{Network, be16, options};
use crate::abi::{Packet, Reason};
use crate::frame::Frame;

const HEADER: usize = 20;

#[inline(always)]
pub(super) fn parse<F: Frame>(frame: &F, net: &Network, packet: &mut Packet) -> Result<(u16, u16), Reason> {
    if net.len < HEADER {
        return Err(Reason::TcpTruncated);
    }
    let Some(h) = frame.header::<HEADER>(net.offset) else {
        return Err(Reason::TcpTruncated);
    };
    // RFC 9293, section 3.1: the data offset counts words of four bytes and is at least five.
    let header_len = usize::from(h[12] >> 4) * 4;
    if header_len < HEADER {
        return Err(Reason::TcpDataOffset);
    }
    if header_len > net.len {
        return Err(Reason::TcpTruncated);
    }
    packet.has |= Packet::HAS_TCP | Packet::HAS_PORTS;
    packet.seq = u32::from_be_bytes([h[4], h[5], h[6], h[7]]);
    packet.ack = u32::from_be_bytes([h[8], h[9], h[10], h[11]]);
    packet.tcp_flags = be16(h[12] & 0x0f, h[13]);
    packet.tcp_window = be16(h[14], h[15]);
    packet.payload_offset = (net.offset + header_len) as u16;
    packet.payload_bytes = (net.len - header_len) as u32;
    Ok((be16(h[0], h[1]), be16(h[2], h[3])))
}

/// Reads the options of a SYN.
#[inline(always)]
pub fn announced<F: Frame>(frame: &F, packet: &mut Packet) -> Result<(), Reason> {
    if !announces(packet) {
        return Ok(());
    }
    let start = usize::from(packet.l4_offset) + HEADER;
    options::tcp(frame, start, usize::from(packet.payload_offset) - start, packet)
}

/// Whether it is a SYN with options.
#[inline(always)]
pub(crate) fn announces(packet: &Packet) -> bool {
    let end = usize::from(packet.l4_offset) + HEADER;
    packet.has(Packet::HAS_TCP) && packet.flag(Packet::SYN) && usize::from(packet.payload_offset) > end
}

/// Whether no TCP sends such flags: none of SYN, ACK, FIN, RST, or SYN with FIN or RST (RFC 9293, section 3.10.7).
#[inline(always)]
pub fn has_invalid_flags(packet: &Packet) -> bool {
    let core = packet.tcp_flags & (Packet::SYN | Packet::ACK | Packet::FIN | Packet::RST);
    core == 0 || packet.flag(Packet::SYN) && packet.flag(Packet::FIN | Packet::RST)
}
