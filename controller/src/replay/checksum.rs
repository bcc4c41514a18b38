//! Checksums of whole frames. On a gateway the network card has verified them; a capture may hold what no host took.

use datapath::abi::Packet;
use datapath::frame::SliceFrame;
use datapath::wire::{self, proto};

/// A packet with a wrong checksum.
#[derive(Clone, Copy, Debug)]
pub struct Wrong {
    /// What was read of it.
    pub packet: Packet,
    /// Whether the checksum is TCP's or UDP's, so that the rest says whose packet it was.
    pub is_of_ports: bool,
}

/// Whether a checksum that the frame has is wrong: of the IPv4 header (RFC 791, section 3.1), TCP (RFC 9293, section
/// 3.1), UDP (RFC 768) or ICMPv6 (RFC 4443, section 2.3), ICMP (RFC 792). What is cut off or a fragment is not asked.
pub fn wrong(frame: &[u8]) -> Option<Wrong> {
    let mut packet = Packet::default();
    let parsed = wire::parse(&SliceFrame { bytes: frame, ifindex: 0 }, &mut packet);
    if parsed.is_err() || !packet.has(Packet::HAS_IP) {
        return None;
    }
    let (l3, l4) = (usize::from(packet.l3_offset), usize::from(packet.l4_offset));
    let ip = frame.get(l3..l3 + packet.ip_bytes as usize)?;
    let header = ip.get(..l4.saturating_sub(l3)).unwrap_or_default();
    if packet.ip_version == 4 && sum(0, header) != 0xffff {
        return Some(Wrong { packet, is_of_ports: false });
    }
    let segment = ip.get(header.len()..).filter(|_| !packet.has(Packet::IS_FRAGMENT))?;
    let is_of_ports = matches!(packet.key.proto, proto::TCP | proto::UDP);
    is_transport_wrong(&packet, ip, segment).then_some(Wrong { packet, is_of_ports })
}

fn is_transport_wrong(packet: &Packet, ip: &[u8], segment: &[u8]) -> bool {
    let protocol = packet.key.proto;
    // UDP says its own length, and may have no checksum over IPv4.
    let segment = match (protocol, segment) {
        (proto::UDP, [_, _, _, _, _, _, 0, 0, ..]) => return false,
        (proto::UDP, [_, _, _, _, high, low, ..]) => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            if length == 0 { segment } else { segment.get(..length).unwrap_or(segment) }
        }
        _ => segment,
    };
    match protocol {
        proto::TCP | proto::UDP | proto::ICMPV6 => {
            let addresses = if packet.ip_version == 4 { ip.get(12..20) } else { ip.get(8..40) };
            // A route that is not at its end has another destination in the sum (RFC 8200, section 8.1).
            if packet.has(Packet::IS_SOURCE_ROUTED) {
                return false;
            }
            let length = (segment.len() as u32).to_be_bytes();
            let pseudo = sum(sum(0, addresses.unwrap_or_default()), &length);
            sum(sum(pseudo, &[0, protocol]), segment) != 0xffff
        }
        proto::ICMP => sum(0, segment) != 0xffff,
        _ => false,
    }
}

/// The ones' complement sum (RFC 1071), going on from `sum`.
pub(super) fn sum(sum: u32, bytes: &[u8]) -> u32 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum = u64::from(sum) + words.map(u64::from).sum::<u64>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u32
}

#[cfg(test)]
mod tests {
    use super::wrong;
    use etherparse::PacketBuilder;

    fn is_wrong(frame: &[u8]) -> bool {
        wrong(frame).is_some()
    }

    fn frames() -> Vec<Vec<u8>> {
        let v4 = || PacketBuilder::ethernet2([2; 6], [2; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        let v6 = || PacketBuilder::ethernet2([2; 6], [2; 6]).ipv6([1; 16], [2; 16], 64);
        let mut frames = vec![Vec::new(); 6];
        v4().tcp(1, 2, 3, 4).write(&mut frames[0], b"odd").unwrap();
        v4().udp(1, 2).write(&mut frames[1], b"even").unwrap();
        v4().icmpv4_echo_request(1, 2).write(&mut frames[2], b"ping").unwrap();
        v6().tcp(1, 2, 3, 4).write(&mut frames[3], b"odd").unwrap();
        v6().udp(1, 2).write(&mut frames[4], b"even").unwrap();
        v6().icmpv6_echo_request(1, 2).write(&mut frames[5], b"ping").unwrap();
        frames
    }

    #[test]
    fn every_bit_that_is_summed_counts() {
        for frame in frames() {
            assert!(!is_wrong(&frame));
            assert!(!is_wrong(&[&frame[..], &[0x55; 7]].concat()), "padding is not summed");
            let mut flipped = frame.clone();
            *flipped.last_mut().unwrap() ^= 4;
            assert!(is_wrong(&flipped), "{flipped:02x?}");
            let mut flipped = frame.clone();
            flipped[26] ^= 1; // an address
            assert!(is_wrong(&flipped), "{flipped:02x?}");
        }
    }

    #[test]
    fn what_has_no_checksum_or_is_cut_off_is_not_wrong() {
        let mut udp = frames().swap_remove(1);
        (udp[40], udp[41]) = (0, 0);
        assert!(!is_wrong(&udp));
        for frame in frames() {
            assert!(!is_wrong(&frame[..frame.len() - 1]));
        }
    }
}
