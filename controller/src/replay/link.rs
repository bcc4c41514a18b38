//! What lies before the IP packet: every supported link type becomes Ethernet, which is what the programs read.

use super::capture::LinkType;
use datapath::abi::Reason;
use std::borrow::Cow;

/// How a link type begins its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Ethernet.
    Ethernet,
    /// An IPv4 or IPv6 packet, nothing before it.
    Raw,
    /// BSD loopback: four bytes of address family in the byte order of whoever captured.
    Null,
    /// OpenBSD loopback: the same in network order.
    Loop,
    /// Linux "cooked", version 1.
    Cooked,
    /// Linux "cooked", version 2.
    Cooked2,
}

/// A frame that an engine can be given.
#[derive(Debug, PartialEq, Eq)]
pub struct Wire<'a> {
    /// The frame, Ethernet header first.
    pub bytes: Cow<'a, [u8]>,
    /// Whether its EtherType was in the capture (Ethernet, cooked) or follows from the IP version.
    pub has_eth_type: bool,
}

const ETH_HEADER_BYTES: usize = 14;
const ETH_IPV4: u16 = 0x0800;
const ETH_IPV6: u16 = 0x86dd;

impl Link {
    /// The link type, if it is one that is read here.
    pub fn of(link: LinkType) -> Option<Self> {
        Some(match link.0 {
            1 => Self::Ethernet,
            // 12 and 14 are what BSDs wrote for 101; 228 and 229 fix the version.
            12 | 14 | 101 | 228 | 229 => Self::Raw,
            0 => Self::Null,
            108 => Self::Loop,
            113 => Self::Cooked,
            276 => Self::Cooked2,
            _ => return None,
        })
    }

    /// The frame as Ethernet, or why no engine is asked.
    pub fn to_ethernet(self, frame: &[u8]) -> Result<Wire<'_>, Reason> {
        match self {
            // The kernel's test-run refuses what has no whole Ethernet header, and so would a driver.
            Self::Ethernet if frame.len() < ETH_HEADER_BYTES => Err(Reason::InvalidPacket),
            Self::Ethernet => Ok(Wire { bytes: Cow::Borrowed(frame), has_eth_type: true }),
            Self::Raw => raw(frame),
            Self::Null | Self::Loop => loopback(frame, self),
            Self::Cooked => cooked(frame),
            Self::Cooked2 => cooked2(frame),
        }
    }
}

/// For messages: the names that people know and the number.
pub fn link_name(link: LinkType) -> String {
    let name = match link.0 {
        9 => "PPP",
        10 => "FDDI",
        105 => "IEEE 802.11",
        119 => "Prism",
        127 => "IEEE 802.11 radiotap",
        147..=162 => "user-defined",
        189 | 220 => "USB",
        192 => "per-packet information",
        195 | 230 => "IEEE 802.15.4",
        201 | 187 => "Bluetooth",
        227 => "SocketCAN",
        239 => "nflog",
        253 => "netlink",
        281 | 282 => "Broadcom tag",
        284 => "DSA",
        _ => return format!("link type {}", link.0),
    };
    format!("link type {} ({name})", link.0)
}

/// What [`Link::of`] knows, for messages.
pub const SUPPORTED: &str =
    "Ethernet (1), raw IP (101, 12, 14, 228, 229), Linux cooked (113, 276), BSD loopback (0, 108)";

fn with_header(source: &[u8], eth_type: u16, packet: &[u8], has_eth_type: bool) -> Wire<'static> {
    let mut bytes = Vec::with_capacity(ETH_HEADER_BYTES + packet.len());
    bytes.extend([0; 6]);
    bytes.extend(source);
    bytes.resize(12, 0);
    bytes.extend(eth_type.to_be_bytes());
    bytes.extend(packet);
    Wire { bytes: Cow::Owned(bytes), has_eth_type }
}

fn raw(packet: &[u8]) -> Result<Wire<'_>, Reason> {
    let eth_type = match packet.first().map(|byte| byte >> 4) {
        Some(4) => ETH_IPV4,
        Some(6) => ETH_IPV6,
        _ => return Err(Reason::InvalidPacket),
    };
    Ok(with_header(&[], eth_type, packet, false))
}

fn loopback(frame: &[u8], link: Link) -> Result<Wire<'_>, Reason> {
    let Some((&family, packet)) = frame.split_first_chunk::<4>() else { return Err(Reason::InvalidPacket) };
    let mut family = u32::from_be_bytes(family);
    if link == Link::Null && family > 0xffff {
        family = family.swap_bytes();
    }
    let eth_type = match family {
        2 => ETH_IPV4,
        // AF_INET6 of Linux, of NetBSD and OpenBSD, of FreeBSD, of macOS.
        10 | 24 | 28 | 30 => ETH_IPV6,
        _ => return Err(Reason::UnsupportedL2),
    };
    Ok(with_header(&[], eth_type, packet, false))
}

fn cooked(frame: &[u8]) -> Result<Wire<'_>, Reason> {
    let Some((header, packet)) = frame.split_first_chunk::<16>() else { return Err(Reason::InvalidPacket) };
    let hardware = u16::from_be_bytes([header[2], header[3]]);
    let address_bytes = u16::from_be_bytes([header[4], header[5]]);
    let protocol = u16::from_be_bytes([header[14], header[15]]);
    from_cooked(hardware, address_bytes, &header[6..12], protocol, packet)
}

fn cooked2(frame: &[u8]) -> Result<Wire<'_>, Reason> {
    let Some((header, packet)) = frame.split_first_chunk::<20>() else { return Err(Reason::InvalidPacket) };
    let hardware = u16::from_be_bytes([header[8], header[9]]);
    let protocol = u16::from_be_bytes([header[0], header[1]]);
    from_cooked(hardware, u16::from(header[11]), &header[12..18], protocol, packet)
}

fn from_cooked<'a>(
    hardware: u16,
    address_bytes: u16,
    address: &[u8],
    protocol: u16,
    packet: &'a [u8],
) -> Result<Wire<'a>, Reason> {
    // ARPHRD_IEEE80211 and its kin, ARPHRD_NETLINK: the protocol field is none of Ethernet's.
    if matches!(hardware, 801..=803 | 824) {
        return Err(Reason::UnsupportedL2);
    }
    let source = if address_bytes == 6 { address } else { &[] };
    Ok(with_header(source, protocol, packet, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eth_type_of(wire: &Wire) -> u16 {
        u16::from_be_bytes([wire.bytes[12], wire.bytes[13]])
    }

    #[test]
    fn ethernet_is_passed_through_and_a_cut_header_is_invalid() {
        let frame = [7u8; 14];
        let wire = Link::Ethernet.to_ethernet(&frame).unwrap();
        assert_eq!(wire.bytes, Cow::Borrowed(&frame[..]));
        assert!(wire.has_eth_type);
        assert_eq!(Link::Ethernet.to_ethernet(&frame[..13]), Err(Reason::InvalidPacket));
    }

    #[test]
    fn raw_ip_takes_its_type_from_the_version() {
        for (first, eth_type) in [(0x45, ETH_IPV4), (0x60, ETH_IPV6)] {
            let wire =
                Link::Raw.to_ethernet(&[first, 1, 2]).map(|w| (eth_type_of(&w), w.bytes.len())).unwrap();
            assert_eq!(wire, (eth_type, 17));
        }
        assert!(!Link::Raw.to_ethernet(&[0x45]).unwrap().has_eth_type);
        assert_eq!(Link::Raw.to_ethernet(&[0x55]), Err(Reason::InvalidPacket));
        assert_eq!(Link::Raw.to_ethernet(&[]), Err(Reason::InvalidPacket));
    }

    #[test]
    fn loopback_families_are_read_in_either_byte_order() {
        for (link, header, eth_type) in [
            (Link::Null, [2, 0, 0, 0], ETH_IPV4),
            (Link::Null, [0, 0, 0, 2], ETH_IPV4),
            (Link::Null, [30, 0, 0, 0], ETH_IPV6),
            (Link::Loop, [0, 0, 0, 24], ETH_IPV6),
        ] {
            let frame = [&header[..], &[0x45, 9]].concat();
            assert_eq!(eth_type_of(&link.to_ethernet(&frame).unwrap()), eth_type);
        }
        assert_eq!(Link::Loop.to_ethernet(&[2, 0, 0, 0, 0x45]), Err(Reason::UnsupportedL2));
        assert_eq!(Link::Null.to_ethernet(&[2, 0, 0]), Err(Reason::InvalidPacket));
    }

    #[test]
    fn cooked_headers_keep_protocol_and_source() {
        let v1 = [&[0, 0, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 0x81, 0x00][..], &[0xaa]].concat();
        let wire = Link::Cooked.to_ethernet(&v1).unwrap();
        assert_eq!(&wire.bytes[..], [0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 0x81, 0, 0xaa]);
        assert!(wire.has_eth_type);
        let v2 = [&[0x86, 0xdd, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0][..], &[0xbb]].concat();
        let wire = Link::Cooked2.to_ethernet(&v2).unwrap();
        assert_eq!(&wire.bytes[..], [0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 0x86, 0xdd, 0xbb]);
        assert_eq!(Link::Cooked.to_ethernet(&v1[..15]), Err(Reason::InvalidPacket));
        assert_eq!(Link::Cooked2.to_ethernet(&v2[..19]), Err(Reason::InvalidPacket));
    }

    #[test]
    fn netlink_in_a_cooked_capture_is_no_ethernet() {
        let frame = [0, 4, 0x03, 0x38, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2];
        assert_eq!(Link::Cooked.to_ethernet(&frame), Err(Reason::UnsupportedL2));
    }
}
