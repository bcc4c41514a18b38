//! Ethernet II and VLAN tags (IEEE 802.3, 802.1Q, 802.1ad).

use super::be16;
use super::tunnel::Carried;
use crate::abi::{Packet, Reason};
use crate::frame::Frame;

/// IPv4.
pub const IPV4: u16 = 0x0800;
/// ARP.
pub const ARP: u16 = 0x0806;
/// IPv6.
pub const IPV6: u16 = 0x86dd;
/// Customer VLAN tag, 802.1Q.
pub const VLAN: u16 = 0x8100;
/// Service VLAN tag, 802.1ad.
pub const QINQ: u16 = 0x88a8;

const HEADER: usize = 14;
const TAG: usize = 4;

/// Link control that a gateway's own ports speak: it is never forwarded, and without it there is no link.
///
/// ARP, slow protocols (LACP, 0x8809), EAPOL (0x888e), LLDP (0x88cc), PTP (0x88f7).
#[inline(always)]
pub fn is_link_control(eth_type: u16) -> bool {
    matches!(eth_type, ARP | 0x8809 | 0x888e | 0x88cc | 0x88f7)
}

#[inline(always)]
fn is_tag(eth_type: u16) -> bool {
    matches!(eth_type, VLAN | QINQ)
}

/// Reads the header and up to three tags. Returns where the network layer starts.
#[inline(always)]
pub(super) fn parse<F: Frame>(frame: &F, packet: &mut Packet) -> Result<usize, Reason> {
    let Some(header) = frame.header::<HEADER>(0) else {
        return Err(Reason::InvalidPacket);
    };
    packet.has |= Packet::HAS_ETHERNET;
    packet.eth_type = be16(header[12], header[13]);
    let mut offset = HEADER;
    let mut read = 0;
    if let Some(tag) = frame.tag_beside() {
        packet.vlans[0] = tag & 0x0fff;
        packet.vlan_count = 1;
        read = 1;
    }
    if is_tag(packet.eth_type) {
        offset = tags(frame, packet, read)?;
    }
    packet.l3_offset = offset as u16;
    Ok(offset)
}

#[inline(always)]
fn tags<F: Frame>(frame: &F, packet: &mut Packet, read: usize) -> Result<usize, Reason> {
    let mut offset = HEADER;
    for i in read..packet.vlans.len() {
        let Some(tag) = frame.header::<TAG>(offset) else {
            return Err(Reason::VlanTruncated);
        };
        packet.vlans[i] = be16(tag[0], tag[1]) & 0x0fff;
        packet.vlan_count = i as u8 + 1;
        packet.eth_type = be16(tag[2], tag[3]);
        offset += TAG;
        if !is_tag(packet.eth_type) {
            return Ok(offset);
        }
    }
    Err(Reason::VlanFiltered)
}

/// EtherType and network layer of an Ethernet frame that a tunnel carries, behind up to three tags of its own.
///
/// A function of its own in BPF: inlined, LLVM keeps where the frame is in half a register, and the verifier takes what it
/// makes of that for a number ("invalid mem access 'scalar'", 6.18).
#[inline(never)]
pub(super) fn inner<F: Frame>(frame: &F, start: usize, carried: &mut Carried) -> Result<(), Reason> {
    let Some(header) = frame.header::<HEADER>(start) else {
        return Err(Reason::TunnelMalformed);
    };
    let mut eth_type = be16(header[12], header[13]);
    let mut offset = start + HEADER;
    for _ in 0..3 {
        if !is_tag(eth_type) {
            break;
        }
        let Some(tag) = frame.header::<TAG>(offset) else {
            return Err(Reason::VlanTruncated);
        };
        eth_type = be16(tag[2], tag[3]);
        offset += TAG;
    }
    if is_tag(eth_type) {
        return Err(Reason::VlanFiltered);
    }
    (carried.eth_type, carried.offset) = (eth_type, offset);
    Ok(())
}
