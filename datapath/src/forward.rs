//! Which packets XDP may route by itself, and what a hop changes in them.
//!
//! A packet is plain where a router has nothing to do for it but to send it on. Everything else is for Linux: what has
//! options or is a fragment, what nobody may forward, what the hop would end.

use crate::wire::{be16, bytes, proto};

/// Not the link's own addresses, no group, nobody's: RFC 1812, section 5.3.7; RFC 3927, section 7.
#[inline(always)]
fn is_routed_v4(address: [u8; 4]) -> bool {
    !matches!(address, [0 | 127 | 224..=255, ..] | [169, 254, ..])
}

/// The same of IPv6 (RFC 4291, section 2.5.6). What begins with a zero byte is unspecified, loopback, mapped or translated.
#[inline(always)]
fn is_routed_v6(address: [u8; 16]) -> bool {
    let link_local = address[0] == 0xfe && address[1] & 0xc0 == 0x80;
    address[0] != 0 && address[0] != 0xff && !link_local
}

/// Whether an IPv4 packet is plain. `room`: bytes of the frame behind the link header.
#[inline(always)]
pub fn is_plain_v4(h: &[u8; 20], room: usize) -> bool {
    let total = usize::from(be16(h[2], h[3]));
    let fragment = be16(h[6], h[7]) & 0x3fff;
    h[0] == 0x45
        && fragment == 0
        && h[8] > 1
        && total >= 20
        && total <= room
        && is_routed_v4(bytes::<12, 4, 20>(h))
        && is_routed_v4(bytes::<16, 4, 20>(h))
}

/// Whether an IPv6 packet is plain. Extension headers are for Linux: some of them are for routers (RFC 8200, section 4).
#[inline(always)]
pub fn is_plain_v6(h: &[u8; 40], room: usize) -> bool {
    let payload = usize::from(be16(h[4], h[5]));
    h[0] >> 4 == 6
        && matches!(h[6], proto::TCP | proto::UDP | proto::ICMPV6 | proto::SCTP | proto::ESP | proto::GRE)
        && h[7] > 1
        && payload != 0
        && 40 + payload <= room
        && is_routed_v6(bytes::<8, 16, 40>(h))
        && is_routed_v6(bytes::<24, 16, 40>(h))
}

/// An IPv4 header after one hop: TTL and checksum (RFC 1624, section 3). The TTL is not 0.
#[inline(always)]
pub fn hop_v4(h: &mut [u8; 20]) {
    h[8] = h[8].wrapping_sub(1);
    // Less in the high byte of a word is more in its complement, with the carry around.
    let sum = u32::from(be16(h[10], h[11])) + 0x0100;
    let [high, low] = ((sum + u32::from(sum >= 0xffff)) as u16).to_be_bytes();
    (h[10], h[11]) = (high, low);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4() -> [u8; 20] {
        let mut h = [0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 1, 0, 2, 10, 2, 0, 2];
        let [high, low] = checksum(&h).to_be_bytes();
        (h[10], h[11]) = (high, low);
        h
    }

    fn v6() -> [u8; 40] {
        let mut h = [0; 40];
        h[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 20, proto::TCP, 64]);
        (h[8], h[9], h[23]) = (0xfd, 0, 2);
        (h[24], h[25], h[39]) = (0x20, 0x01, 2);
        h
    }

    /// RFC 1071, over a header whose checksum counts as zero.
    fn checksum(h: &[u8; 20]) -> u16 {
        let words = (0..20).step_by(2).filter(|at| *at != 10).map(|at| u32::from(be16(h[at], h[at + 1])));
        let sum: u32 = words.sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        !((sum & 0xffff) + (sum >> 16)) as u16
    }

    #[test]
    fn a_hop_takes_one_and_keeps_the_checksum_right() {
        for ttl in 2..=255 {
            for id in 0..=0xffffu16 {
                let mut h = v4();
                h[8] = ttl;
                [h[4], h[5]] = id.to_be_bytes();
                let [high, low] = checksum(&h).to_be_bytes();
                (h[10], h[11]) = (high, low);
                hop_v4(&mut h);
                let (right, there) = (checksum(&h), be16(h[10], h[11]));
                assert_eq!(h[8], ttl - 1);
                // Zero has two forms in ones' complement, and both are right.
                assert!(
                    right == there || right.wrapping_add(there) == 0xffff && there % 0xffff == 0,
                    "{h:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_linux() {
        assert!(is_plain_v4(&v4(), 40) && is_plain_v4(&v4(), 46));
        assert!(is_plain_v6(&v6(), 60));
        let v4_but = |change: &dyn Fn(&mut [u8; 20])| {
            let mut h = v4();
            change(&mut h);
            is_plain_v4(&h, 46)
        };
        assert!(!v4_but(&|h| h[0] = 0x46), "options");
        assert!(!v4_but(&|h| h[0] = 0x65), "another version");
        assert!(!v4_but(&|h| h[6] = 0x20), "a first fragment");
        assert!(!v4_but(&|h| h[7] = 1), "a later fragment");
        assert!(!v4_but(&|h| h[8] = 1), "the last hop");
        assert!(!v4_but(&|h| h[8] = 0), "no hop left");
        assert!(!v4_but(&|h| h[3] = 47), "cut off");
        assert!(!v4_but(&|h| h[3] = 19), "shorter than its header");
        for wrong in [[0, 0, 0, 1], [127, 0, 0, 1], [224, 0, 0, 5], [255; 4], [169, 254, 1, 1]] {
            assert!(!v4_but(&|h| h[12..16].copy_from_slice(&wrong)), "from {wrong:?}");
            assert!(!v4_but(&|h| h[16..20].copy_from_slice(&wrong)), "to {wrong:?}");
        }
        let v6_but = |change: &dyn Fn(&mut [u8; 40])| {
            let mut h = v6();
            change(&mut h);
            is_plain_v6(&h, 60)
        };
        assert!(!v6_but(&|h| h[0] = 0x45), "another version");
        for extension in [0, 43, 44, 51, 60, 135] {
            assert!(!v6_but(&|h| h[6] = extension), "extension header {extension}");
        }
        assert!(!v6_but(&|h| h[7] = 1), "the last hop");
        assert!(!v6_but(&|h| h[5] = 21), "cut off");
        assert!(!v6_but(&|h| h[5] = 0), "a jumbogram");
        for first in [[0, 0], [0, 0x64], [0xff, 0x02], [0xfe, 0x80], [0xfe, 0xbf]] {
            assert!(!v6_but(&|h| h[8..10].copy_from_slice(&first)), "from {first:?}");
            assert!(!v6_but(&|h| h[24..26].copy_from_slice(&first)), "to {first:?}");
        }
    }
}
