//! The mark of a socket buffer: bits that tell netfilter and routing who sent the packet (docs/adr/0023-marks.md).

/// The bits of `mask`, which are next to each other, that say a number; none of them for 0 and for what they have no room for.
#[inline(always)]
pub fn bits(mask: u32, identity: u32) -> u32 {
    let lowest = mask & mask.wrapping_neg();
    let bits = u64::from(identity) * u64::from(lowest);
    if bits & !u64::from(mask) == 0 { bits as u32 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::bits;

    #[test]
    fn a_number_has_the_bits_of_the_mask_if_they_have_room_for_it() {
        let all = [bits(0xff00, 1), bits(0xff00, 0x1ff), bits(0xff00, 0xff), bits(0xff00, 0)];
        assert_eq!(all, [0x100, 0, 0xff00, 0]);
        assert_eq!((bits(u32::MAX, u32::MAX), bits(1 << 31, 1), bits(1 << 31, 2)), (u32::MAX, 1 << 31, 0));
        assert_eq!(bits(0, 7), 0);
    }
}
