//! What a tunnel carries: VXLAN (RFC 7348), Geneve (RFC 8926), GRE (RFC 2784, RFC 2890), IP in IP (RFC 2003, RFC 4213).

use super::{be16, eth, proto};
use crate::abi::{Config, Packet, Reason};
use crate::frame::Frame;

/// UDP ports (IANA).
const VXLAN_PORT: u16 = 4789;
/// What Linux takes for VXLAN where nobody says another (`vxlan.udp_port`), and with it flannel and Cilium.
const LINUX_VXLAN_PORT: u16 = 8472;
const GENEVE_PORT: u16 = 6081;
/// An Ethernet frame, as GRE and Geneve name it.
const ETHERNET: u16 = 0x6558;

/// Something that a tunnel carries: its EtherType, and where it starts in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Carried {
    pub eth_type: u16,
    pub offset: usize,
}

/// Whether the configuration asks for what the packet carries. Nobody can ask it of a fragment.
#[inline(always)]
pub(crate) fn is_asked(flags: u32, packet: &Packet) -> bool {
    flags & Config::INSPECT != 0
        && packet.has(Packet::HAS_IP)
        && is_inspected(flags, packet.key.proto, packet.dst().1)
}

/// The same of a protocol and, of UDP, the port that it goes to.
#[inline(always)]
pub(crate) fn is_inspected(flags: u32, protocol: u8, port: u16) -> bool {
    let flag = match protocol {
        proto::UDP => match port {
            VXLAN_PORT | LINUX_VXLAN_PORT => Config::INSPECT_VXLAN,
            GENEVE_PORT => Config::INSPECT_GENEVE,
            _ => 0,
        },
        proto::GRE => Config::INSPECT_GRE,
        proto::IPIP | proto::IPV6 => Config::INSPECT_IPIP,
        _ => 0,
    };
    flags & flag != 0
}

/// What the packet carries; EtherType 0 where that is nothing that is looked into (PPTP's GRE, for example).
#[inline(always)]
pub(crate) fn carried<F: Frame>(frame: &F, packet: &Packet) -> Result<Carried, Reason> {
    let at = usize::from(packet.payload_offset);
    let carried = match packet.key.proto {
        proto::IPIP => return Ok(Carried { eth_type: eth::IPV4, offset: at }),
        proto::IPV6 => return Ok(Carried { eth_type: eth::IPV6, offset: at }),
        protocol => {
            // The others have eight bytes, or at least four before a packet that has more.
            let Some(h) = frame.header::<8>(at) else {
                return Err(Reason::TunnelMalformed);
            };
            match protocol {
                proto::GRE => gre(h, at)?,
                _ if packet.dst().1 == GENEVE_PORT => geneve(h, at)?,
                _ => vxlan(h, at)?,
            }
        }
    };
    if carried.eth_type != ETHERNET {
        return Ok(carried);
    }
    let mut inner = Carried { eth_type: 0, offset: 0 };
    eth::inner(frame, carried.offset, &mut inner)?;
    Ok(inner)
}

/// RFC 7348, section 5: the flag I is set; all other bits are ignored.
#[inline(always)]
fn vxlan(h: &[u8; 8], at: usize) -> Result<Carried, Reason> {
    if h[0] & 0x08 == 0 {
        return Err(Reason::TunnelMalformed);
    }
    Ok(Carried { eth_type: ETHERNET, offset: at + 8 })
}

/// RFC 8926, section 3.4: version 0, and options of so many words.
#[inline(always)]
fn geneve(h: &[u8; 8], at: usize) -> Result<Carried, Reason> {
    if h[0] >> 6 != 0 {
        return Err(Reason::TunnelMalformed);
    }
    Ok(Carried { eth_type: be16(h[2], h[3]), offset: at + 8 + usize::from(h[0] & 0x3f) * 4 })
}

const CHECKSUM: u16 = 0x8000;
const KEY: u16 = 0x2000;
const SEQUENCE: u16 = 0x1000;
/// Bits that a receiver which does not know them refuses (RFC 2784, section 2.3).
const UNKNOWN: u16 = 0x4c00;
const VERSION: u16 = 0x0007;

/// RFC 2784, section 2; RFC 2890, section 2. Version 1 is PPTP's (RFC 2637), and carries no IP.
#[inline(always)]
fn gre(h: &[u8; 8], at: usize) -> Result<Carried, Reason> {
    let flags = be16(h[0], h[1]);
    if flags & VERSION != 0 {
        return Ok(Carried { eth_type: 0, offset: at });
    }
    if flags & UNKNOWN != 0 {
        return Err(Reason::TunnelMalformed);
    }
    let words = usize::from(flags & CHECKSUM != 0)
        + usize::from(flags & KEY != 0)
        + usize::from(flags & SEQUENCE != 0);
    Ok(Carried { eth_type: be16(h[2], h[3]), offset: at + 4 + words * 4 })
}
