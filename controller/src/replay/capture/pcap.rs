//! The pcap format (draft-ietf-opsawg-pcap).

use super::{CaptureError, CapturedFrame, LinkType, MAX_RECORD_BYTES, Order, Source};
use std::io::Read;

/// What the file header says.
pub(super) struct Pcap {
    order: Order,
    ns_per_fraction: u64,
    record_header_bytes: u32,
    pub link: LinkType,
}

impl Pcap {
    /// Reads the rest of the file header; `None` where the magic number is none of pcap's.
    pub fn open<R: Read>(magic: [u8; 4], source: &mut Source<R>) -> Result<Option<Self>, CaptureError> {
        let (order, ns_per_fraction, record_header_bytes) = match u32::from_be_bytes(magic) {
            0xa1b2_c3d4 => (Order::Big, 1000, 16),
            0xd4c3_b2a1 => (Order::Little, 1000, 16),
            0xa1b2_3c4d => (Order::Big, 1, 16),
            0x4d3c_b2a1 => (Order::Little, 1, 16),
            // Kuznetsov's variant of the nineties: eight more bytes before each frame.
            0xa1b2_cd34 => (Order::Big, 1000, 24),
            0x34cd_b2a1 => (Order::Little, 1000, 24),
            _ => return Ok(None),
        };
        let header = source.exactly(20, "pcap file header", 0)?;
        let major = order.u16(&header, 0);
        if major != 2 {
            return Err(CaptureError::Damaged {
                offset: 4,
                what: format!("pcap version {major}, where only 2 is known"),
            });
        }
        // The upper six bits tell of frame check sequences.
        let link = LinkType(order.u32(&header, 16) & 0x03ff_ffff);
        Ok(Some(Self { order, ns_per_fraction, record_header_bytes, link }))
    }

    /// The next frame.
    pub fn next_frame<R: Read>(
        &mut self,
        source: &mut Source<R>,
    ) -> Result<Option<CapturedFrame>, CaptureError> {
        let start = source.offset();
        let Some(header) = source.header(self.record_header_bytes, "packet header")? else { return Ok(None) };
        let captured = self.order.u32(&header, 8);
        if captured > MAX_RECORD_BYTES {
            return Err(CaptureError::Damaged {
                offset: start,
                what: format!("a packet of {captured} bytes is longer than any frame"),
            });
        }
        let seconds = u64::from(self.order.u32(&header, 0));
        let fraction = u64::from(self.order.u32(&header, 4));
        Ok(Some(CapturedFrame {
            number: 0,
            time_ns: seconds * 1_000_000_000 + fraction * self.ns_per_fraction,
            link: self.link,
            wire_bytes: self.order.u32(&header, 12),
            data: source.exactly(captured, "packet", start)?,
        }))
    }
}
