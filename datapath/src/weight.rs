//! What a frame counts for: as much as the wire carries of it.
//!
//! Behind XDP a socket buffer may hold many segments under one header (GSO, GRO). Each leaves as a frame of its own, and repeats
//! the headers up to the payload. Linux counts so in its queues (`qdisc_pkt_len_init`, net/core/dev.c).

use crate::abi::Packet;

/// What a socket buffer says of its segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gso {
    /// How many there are; 0 where nobody has counted them, as in what a guest sends.
    pub segments: u32,
    /// Payload of each but the last in bytes; 0 for a frame that is one.
    pub size: u32,
}

impl Gso {
    /// A frame that is one.
    pub const NONE: Self = Self { segments: 0, size: 0 };

    /// How many there are beside the first, with so much payload in all.
    #[inline(always)]
    pub fn more(self, payload_bytes: u32) -> u16 {
        let more = match self {
            Self { size: 0, .. } => 0,
            Self { segments: 0, size } => payload_bytes.saturating_sub(1) / size,
            Self { segments, .. } => segments - 1,
        };
        if more > u32::from(u16::MAX) { u16::MAX } else { more as u16 }
    }
}

/// What a frame counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Packets.
    pub packets: u32,
    /// Bytes of these IP packets.
    pub ip_bytes: u32,
}

impl Weight {
    /// Of an IP packet and of `more` that repeat its first `headers` bytes.
    #[inline(always)]
    pub fn new(ip_bytes: u32, headers: u16, more: u16) -> Self {
        let repeated = u32::from(more) * u32::from(headers); // below 2^32
        Self { packets: 1 + u32::from(more), ip_bytes: ip_bytes.wrapping_add(repeated) }
    }

    /// Of a packet that was read.
    #[inline(always)]
    pub fn of(packet: &Packet) -> Self {
        let headers = packet.payload_offset.wrapping_sub(packet.l3_offset);
        Self::new(packet.ip_bytes, headers, packet.more_segments)
    }

    /// Bytes with what is ahead of each IP packet.
    #[inline(always)]
    pub fn frame_bytes(&self, link: u32) -> u64 {
        u64::from(self.ip_bytes) + u64::from(self.packets) * u64::from(link)
    }

    /// Bytes without headers of this length.
    #[inline(always)]
    pub fn payload(&self, headers: u8) -> u32 {
        self.ip_bytes.wrapping_sub(self.packets.wrapping_mul(u32::from(headers)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_those_that_were_counted_or_else_follow_from_their_size() {
        let more = |segments, size, payload| Gso { segments, size }.more(payload);
        assert_eq!(more(0, 0, 1448), 0);
        assert_eq!(more(45, 0, 1448), 0, "a count without a size means nothing");
        assert_eq!(more(45, 1448, 64_000), 44);
        assert_eq!([1448, 1449, 2896, 2897].map(|payload| more(0, 1448, payload)), [0, 1, 1, 2]);
        assert_eq!(more(0, 1448, 0), 0);
        assert_eq!(more(0, 1, 200_000), u16::MAX);
    }

    #[test]
    fn each_segment_repeats_the_headers() {
        let weight = Weight::new(52 + 2 * 1448 + 100, 52, 2);
        assert_eq!(weight, Weight { packets: 3, ip_bytes: 3 * 52 + 2996 });
        assert_eq!((weight.frame_bytes(14), weight.payload(52)), (3 * 66 + 2996, 2996));
        assert_eq!(Weight::new(u32::MAX, u16::MAX, u16::MAX).packets, 0x1_0000, "whatever a frame says");
    }
}
