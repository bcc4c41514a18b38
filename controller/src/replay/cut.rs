//! Frames that the capture cut (`tcpdump -s`), at their length on the wire.
//!
//! Lengths in headers are held against the frame, so a frame that is shorter than its headers say is refused. Here what
//! was cut off is zeros; a frame of which a header was cut stays as it is, and is refused.

use super::engine::MAX_FRAME_BYTES;
use datapath::abi::Packet;
use datapath::frame::SliceFrame;
use datapath::wire;
use std::borrow::Cow;

/// The frame with `missing` bytes of zeros behind it, if its headers are there whole.
pub fn filled(frame: Cow<'_, [u8]>, missing: u32) -> Cow<'_, [u8]> {
    if missing == 0 {
        return frame;
    }
    let captured = frame.len();
    let length = captured.saturating_add(missing as usize).min(MAX_FRAME_BYTES).max(captured);
    let mut whole = frame.to_vec();
    whole.resize(length, 0);
    if headers_end(&whole).is_some_and(|end| end <= captured) { Cow::Owned(whole) } else { frame }
}

/// Where the headers end of a frame that can be judged by them.
fn headers_end(frame: &[u8]) -> Option<usize> {
    let mut packet = Packet::default();
    wire::parse(&SliceFrame { bytes: frame, ifindex: 0 }, &mut packet).ok()?;
    packet.has(Packet::HAS_IP).then(|| usize::from(packet.l4_offset.max(packet.payload_offset)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    fn segment() -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [2; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        builder.tcp(1, 2, 3, 4).write(&mut frame, &[7; 100]).unwrap();
        frame
    }

    #[test]
    fn what_was_cut_off_behind_the_headers_is_zeros() {
        let frame = segment();
        for captured in [54, 55, 100, 153] {
            let filled = filled(Cow::Borrowed(&frame[..captured]), (154 - captured) as u32);
            assert_eq!(filled[..captured], frame[..captured]);
            assert_eq!(filled[captured..], vec![0; 154 - captured], "{captured}");
        }
        assert_eq!(filled(Cow::Borrowed(&frame), 0), frame);
    }

    #[test]
    fn a_frame_of_which_a_header_was_cut_stays_as_it_is() {
        let frame = segment();
        for captured in 0..54 {
            let filled = filled(Cow::Borrowed(&frame[..captured]), 154 - captured as u32);
            assert_eq!(filled[..], frame[..captured], "{captured}");
        }
    }

    #[test]
    fn a_length_that_nobody_can_have_sent_is_not_allocated() {
        let frame = segment();
        assert_eq!(filled(Cow::Borrowed(&frame[..100]), u32::MAX).len(), MAX_FRAME_BYTES);
    }
}
