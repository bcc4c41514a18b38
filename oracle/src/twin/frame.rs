//! Frames, built by hand, with checksums that conntrack accepts.

use crate::net::{GATEWAY_MAC, HOST_MAC};
use std::fmt;
use std::net::IpAddr;

/// TCP flag bits.
pub mod flag {
    /// FIN
    pub const F: u8 = 1;
    /// SYN
    pub const S: u8 = 2;
    /// RST
    pub const R: u8 = 4;
    /// PSH
    pub const P: u8 = 8;
    /// ACK
    pub const A: u8 = 16;
}

/// What is above IP.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A TCP segment.
    Tcp {
        /// Source and destination port.
        ports: (u16, u16),
        /// Flags.
        flags: u8,
        /// Sequence and acknowledgement number.
        seq: (u32, u32),
        /// Bytes of payload.
        len: u16,
    },
    /// A UDP datagram.
    Udp {
        /// Source and destination port.
        ports: (u16, u16),
    },
    /// Echo request or reply, of the family's ICMP.
    Echo {
        /// Reply, else request.
        reply: bool,
        /// Identifier.
        id: u16,
    },
    /// Destination unreachable, port unreachable, about this IP packet.
    Unreachable(Vec<u8>),
}

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Sender.
    pub src: IpAddr,
    /// Receiver.
    pub dst: IpAddr,
    /// The rest.
    pub transport: Transport,
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {} {:?}", self.src, self.dst, self.transport)
    }
}

impl Spec {
    /// As a frame to the gateway. `id` is found again in what comes out: the IPv4 identification or the flow label.
    pub fn frame(&self, id: u16) -> Vec<u8> {
        let mut frame = Vec::with_capacity(128);
        frame.extend(GATEWAY_MAC);
        frame.extend(HOST_MAC);
        frame.extend(if self.src.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] });
        frame.extend(self.packet(id));
        frame
    }

    /// As an IP packet.
    pub fn packet(&self, id: u16) -> Vec<u8> {
        let (protocol, mut segment, at) = self.transport();
        let length = segment.len() as u32;
        let mut packet = Vec::with_capacity(40 + segment.len());
        let mut pseudo = Vec::new();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                packet.extend([0x45, 0]);
                packet.extend((20 + length as u16).to_be_bytes());
                packet.extend(id.to_be_bytes());
                packet.extend([0, 0, 64, protocol, 0, 0]);
                packet.extend(src.octets());
                packet.extend(dst.octets());
                let sum = checksum(&[&packet]);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
                // ICMP's checksum has no pseudo header (RFC 792).
                if protocol != 1 {
                    pseudo.extend(src.octets().iter().chain(&dst.octets()));
                    pseudo.extend([0, protocol]);
                    pseudo.extend((length as u16).to_be_bytes());
                }
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                packet.extend([0x60, 0]);
                packet.extend(id.to_be_bytes());
                packet.extend((length as u16).to_be_bytes());
                packet.extend([protocol, 64]);
                packet.extend(src.octets());
                packet.extend(dst.octets());
                pseudo.extend(src.octets().iter().chain(&dst.octets()));
                pseudo.extend(length.to_be_bytes());
                pseudo.extend([0, 0, 0, protocol]);
            }
            _ => {} // no packet has ends of two families
        }
        let sum = checksum(&[&pseudo, &segment]);
        segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        packet.extend(segment);
        packet
    }

    /// Protocol number, bytes, and where the checksum goes.
    fn transport(&self) -> (u8, Vec<u8>, usize) {
        let v4 = self.src.is_ipv4();
        let mut bytes = Vec::new();
        match &self.transport {
            Transport::Tcp { ports, flags, seq, len } => {
                bytes.extend(ports.0.to_be_bytes());
                bytes.extend(ports.1.to_be_bytes());
                bytes.extend(seq.0.to_be_bytes());
                bytes.extend(seq.1.to_be_bytes());
                bytes.extend([0x50, *flags, 0xfa, 0xf0, 0, 0, 0, 0]);
                bytes.resize(20 + usize::from(*len), b'x');
                (6, bytes, 16)
            }
            Transport::Udp { ports } => {
                bytes.extend(ports.0.to_be_bytes());
                bytes.extend(ports.1.to_be_bytes());
                bytes.extend([0, 16, 0, 0]);
                bytes.extend(b"datagram");
                (17, bytes, 6)
            }
            Transport::Echo { reply, id } => {
                let kind = match (v4, reply) {
                    (true, false) => 8,
                    (true, true) => 0,
                    (false, false) => 128,
                    (false, true) => 129,
                };
                bytes.extend([kind, 0, 0, 0]);
                bytes.extend(id.to_be_bytes());
                bytes.extend(1u16.to_be_bytes());
                (if v4 { 1 } else { 58 }, bytes, 2)
            }
            Transport::Unreachable(quoted) => {
                let kind: [u8; 2] = if v4 { [3, 3] } else { [1, 4] };
                bytes.extend(kind);
                bytes.extend([0; 6]);
                bytes.extend(quoted);
                (if v4 { 1 } else { 58 }, bytes, 2)
            }
        }
    }
}

/// The identification that [`Spec::frame`] was given, of a frame that came out of the gateway.
pub fn id_of(frame: &[u8]) -> Option<u16> {
    if frame.get(..6) != Some(&HOST_MAC) {
        return None; // sent by ourselves
    }
    let at = match frame.get(12..14)? {
        [0x08, 0x00] => 18,
        [0x86, 0xdd] => 16,
        _ => return None,
    };
    frame.get(at..at + 2).and_then(|bytes| bytes.first_chunk()).map(|bytes| u16::from_be_bytes(*bytes))
}

/// The Internet checksum (RFC 1071). Every part but the last has an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // A UDP checksum of 0 means none (RFC 768); for the others both forms of zero are the same.
    match !(sum as u16) {
        0 => 0xffff,
        sum => sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::SlicedPacket;

    fn spec(v6: bool, transport: Transport) -> Spec {
        let ends = if v6 { ["fd64::1", "fd65::2"] } else { ["10.64.0.1", "10.65.0.2"] };
        let [src, dst] = ends.map(|text| text.parse().expect("an address"));
        Spec { src, dst, transport }
    }

    #[test]
    fn frames_are_what_another_builder_says_they_are() {
        let tcp = Transport::Tcp { ports: (4000, 443), flags: flag::S, seq: (7, 0), len: 3 };
        for v6 in [false, true] {
            for transport in [tcp.clone(), Transport::Udp { ports: (4000, 53) }] {
                let frame = spec(v6, transport).frame(77);
                let sliced = SlicedPacket::from_ethernet(&frame).expect("a frame");
                let ip = sliced.net.expect("an IP header");
                match sliced.transport.expect("a transport header") {
                    etherparse::TransportSlice::Tcp(tcp) => {
                        let header = tcp.to_header();
                        let sum = match &ip {
                            etherparse::NetSlice::Ipv4(ip) => {
                                header.calc_checksum_ipv4(&ip.header().to_header(), tcp.payload())
                            }
                            etherparse::NetSlice::Ipv6(ip) => {
                                header.calc_checksum_ipv6(&ip.header().to_header(), tcp.payload())
                            }
                            other => panic!("{other:?}"),
                        };
                        assert_eq!(sum, Ok(header.checksum));
                    }
                    etherparse::TransportSlice::Udp(udp) => assert_eq!(udp.length(), 16),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn a_frame_is_found_again_by_its_identification() {
        for v6 in [false, true] {
            let mut frame = spec(v6, Transport::Udp { ports: (1, 2) }).frame(4242);
            assert_eq!(id_of(&frame), None);
            frame[..6].copy_from_slice(&HOST_MAC);
            assert_eq!(id_of(&frame), Some(4242));
        }
    }
}
