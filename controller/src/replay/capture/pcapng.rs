//! The pcapng format (draft-ietf-opsawg-pcapng): sections of blocks, in which interfaces are described before
//! their packets.

use super::{CaptureError, CapturedFrame, LinkType, MAX_RECORD_BYTES, Order, Source};
use std::io::Read;

/// The type of a section header block, the same in both byte orders.
pub(super) const SECTION_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

const OPTION_END: u16 = 0;
const OPTION_TSRESOL: u16 = 9;
const OPTION_TSOFFSET: u16 = 14;

/// An interface of the section that is being read.
#[derive(Clone, Copy)]
struct Interface {
    link: LinkType,
    /// Frames are cut to this length; 0 for none.
    snap_bytes: u32,
    /// Units of a timestamp in a second, a power of 10 or of 2.
    units: u128,
    offset_s: i64,
}

/// State of the section that is being read.
pub(super) struct Pcapng {
    order: Order,
    interfaces: Vec<Interface>,
    last_time_ns: u64,
}

/// A section may not describe more interfaces than this: a file of nothing but descriptions stays small in memory.
const MAX_INTERFACES: usize = 65_536;

impl Pcapng {
    /// Reads the first section header, whose type has been read.
    pub fn open<R: Read>(source: &mut Source<R>) -> Result<Self, CaptureError> {
        let length = source.exactly(4, "section header", 0)?;
        let mut pcapng = Self { order: Order::Little, interfaces: Vec::new(), last_time_ns: 0 };
        pcapng.section(source, &length, 0)?;
        Ok(pcapng)
    }

    /// The next frame; blocks of other kinds are passed over.
    pub fn next_frame<R: Read>(
        &mut self,
        source: &mut Source<R>,
    ) -> Result<Option<CapturedFrame>, CaptureError> {
        loop {
            let start = source.offset();
            let Some(header) = source.header(8, "block header")? else { return Ok(None) };
            let kind = self.order.u32(&header, 0);
            if kind == SECTION_HEADER {
                self.section(source, &header[4..], start)?;
                continue;
            }
            let body = self.body(source, self.order.u32(&header, 4), start)?;
            let frame = match kind {
                INTERFACE => {
                    self.interface(&body, start)?;
                    None
                }
                ENHANCED_PACKET => Some(self.packet(&body, start, false)?),
                OBSOLETE_PACKET => Some(self.packet(&body, start, true)?),
                SIMPLE_PACKET => Some(self.simple_packet(&body, start)?),
                _ => None,
            };
            if frame.is_some() {
                return Ok(frame);
            }
        }
    }

    /// A section header, whose type and length were read. Byte order and interfaces begin anew.
    fn section<R: Read>(
        &mut self,
        source: &mut Source<R>,
        length: &[u8],
        start: u64,
    ) -> Result<(), CaptureError> {
        let magic = source.exactly(4, "section header", start)?;
        self.order = match self.order_of(&magic) {
            Some(order) => order,
            None => return Err(damaged(start, "a section header without its byte-order magic")),
        };
        self.interfaces.clear();
        let length = self.order.u32(length, 0);
        if !(28..=MAX_RECORD_BYTES).contains(&length) || !length.is_multiple_of(4) {
            return Err(damaged(start, format!("a section header of {length} bytes")));
        }
        let rest = source.exactly(length - 12, "section header", start)?;
        let major = self.order.u16(&rest, 0);
        if major != 1 {
            return Err(damaged(start, format!("pcapng version {major}, where only 1 is known")));
        }
        self.same_length(&rest, length, start)
    }

    fn order_of(&self, magic: &[u8]) -> Option<Order> {
        match magic {
            [0x4d, 0x3c, 0x2b, 0x1a] => Some(Order::Little),
            [0x1a, 0x2b, 0x3c, 0x4d] => Some(Order::Big),
            _ => None,
        }
    }

    /// The body of a block whose header was read, without the length that follows it.
    fn body<R: Read>(
        &self,
        source: &mut Source<R>,
        length: u32,
        start: u64,
    ) -> Result<Vec<u8>, CaptureError> {
        if !(12..=MAX_RECORD_BYTES).contains(&length) || !length.is_multiple_of(4) {
            return Err(damaged(start, format!("a block of {length} bytes")));
        }
        let mut body = source.exactly(length - 8, "block", start)?;
        self.same_length(&body, length, start)?;
        body.truncate(body.len() - 4);
        Ok(body)
    }

    /// A block ends with its length once more.
    fn same_length(&self, rest: &[u8], length: u32, start: u64) -> Result<(), CaptureError> {
        let again = self.order.u32(rest, rest.len() - 4);
        if again != length {
            return Err(damaged(start, format!("a block that says {length} bytes first and {again} last")));
        }
        Ok(())
    }

    fn interface(&mut self, body: &[u8], start: u64) -> Result<(), CaptureError> {
        if body.len() < 8 {
            return Err(damaged(start, "an interface description without its fields"));
        }
        if self.interfaces.len() == MAX_INTERFACES {
            return Err(damaged(start, format!("more than {MAX_INTERFACES} interfaces")));
        }
        let mut interface = Interface {
            link: LinkType(u32::from(self.order.u16(body, 0))),
            snap_bytes: self.order.u32(body, 4),
            units: 1_000_000,
            offset_s: 0,
        };
        let mut options = &body[8..];
        while options.len() >= 4 {
            let (code, len) = (self.order.u16(options, 0), usize::from(self.order.u16(options, 2)));
            let Some(value) = options.get(4..4 + len) else {
                return Err(damaged(start, "an interface option that is longer than its block"));
            };
            match (code, value) {
                (OPTION_END, _) => break,
                (OPTION_TSRESOL, [resolution, ..]) => interface.units = units(*resolution),
                (OPTION_TSOFFSET, _) if len == 8 => interface.offset_s = self.order.u64(value, 0) as i64,
                _ => {}
            }
            options = options.get(4 + len.next_multiple_of(4)..).unwrap_or_default();
        }
        self.interfaces.push(interface);
        Ok(())
    }

    /// An enhanced packet, or the obsolete one, which differs in how it numbers its interface.
    fn packet(&mut self, body: &[u8], start: u64, obsolete: bool) -> Result<CapturedFrame, CaptureError> {
        if body.len() < 20 {
            return Err(damaged(start, "a packet block without its fields"));
        }
        let index = match obsolete {
            true => u32::from(self.order.u16(body, 0)),
            false => self.order.u32(body, 0),
        };
        let interface = self.known(index, start)?;
        let (high, low) = (self.order.u32(body, 4), self.order.u32(body, 8));
        self.last_time_ns = time_ns(u64::from(high) << 32 | u64::from(low), &interface);
        let captured = self.order.u32(body, 12) as usize;
        let Some(data) = body[20..].get(..captured) else {
            return Err(damaged(start, format!("a packet of {captured} bytes in a block that is shorter")));
        };
        Ok(CapturedFrame {
            number: 0,
            time_ns: self.last_time_ns,
            link: interface.link,
            wire_bytes: self.order.u32(body, 16),
            data: data.to_vec(),
        })
    }

    /// A packet without a time: it has that of the packet before it.
    fn simple_packet(&mut self, body: &[u8], start: u64) -> Result<CapturedFrame, CaptureError> {
        if body.len() < 4 {
            return Err(damaged(start, "a packet block without its fields"));
        }
        let interface = self.known(0, start)?;
        let wire_bytes = self.order.u32(body, 0);
        let snap = if interface.snap_bytes == 0 { u32::MAX } else { interface.snap_bytes };
        let data = &body[4..];
        let captured = (wire_bytes.min(snap) as usize).min(data.len());
        Ok(CapturedFrame {
            number: 0,
            time_ns: self.last_time_ns,
            link: interface.link,
            wire_bytes,
            data: data[..captured].to_vec(),
        })
    }

    fn known(&self, index: u32, start: u64) -> Result<Interface, CaptureError> {
        self.interfaces
            .get(index as usize)
            .copied()
            .ok_or_else(|| damaged(start, format!("a packet of interface {index}, which is not described")))
    }
}

/// `if_tsresol`: a negative power of 10, or of 2 where the highest bit is set. Powers beyond 2^63 and 10^19 leave
/// nothing of a 64-bit timestamp and count as those.
fn units(resolution: u8) -> u128 {
    let exponent = u32::from(resolution & 0x7f);
    match resolution & 0x80 {
        0 => 10u128.pow(exponent.min(19)),
        _ => 1u128 << exponent.min(63),
    }
}

/// Times before 1970 and after 2554 become the first and the last that there are.
fn time_ns(timestamp: u64, interface: &Interface) -> u64 {
    let ns = (u128::from(timestamp) * 1_000_000_000 / interface.units) as i128;
    let ns = ns + i128::from(interface.offset_s) * 1_000_000_000;
    ns.clamp(0, i128::from(u64::MAX)) as u64
}

fn damaged(offset: u64, what: impl Into<String>) -> CaptureError {
    CaptureError::Damaged { offset, what: what.into() }
}
