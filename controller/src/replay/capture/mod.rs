//! Reads captures: pcap and pcapng, one frame at a time, from files that nobody vouches for.
//!
//! No length that a file states is allocated before its bytes were read, every error says at which byte, and what
//! was whole before the damage has been handed out by then.

mod pcap;
mod pcapng;
mod source;

use source::Source;
use std::io::Read;

/// A link type as capture files number them (`LINKTYPE_` of tcpdump.org).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkType(pub u32);

/// A frame as it lies in the capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedFrame {
    /// Counts from 1.
    pub number: u64,
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// What the bytes begin with.
    pub link: LinkType,
    /// Length of the frame when it was on the wire; more than `data` holds where it was cut.
    pub wire_bytes: u32,
    /// What was captured of it.
    pub data: Vec<u8>,
}

/// What is wrong with a capture.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum CaptureError {
    #[error("not a capture: {0}; give a pcap or pcapng file, such as `tcpdump -w` writes")]
    NotACapture(String),
    #[error("the capture is cut off at byte {end}: the {what} at byte {start} is not whole")]
    Truncated { what: &'static str, start: u64, end: u64 },
    #[error("the capture is damaged at byte {offset}: {what}")]
    Damaged { offset: u64, what: String },
    #[error("cannot read the capture after byte {offset}: {error}")]
    Io { offset: u64, error: std::io::Error },
}

/// No frame and no block is longer: beyond it, a length is damage.
const MAX_RECORD_BYTES: u32 = 16 << 20;

/// An open capture.
pub struct Capture<R> {
    source: Source<R>,
    format: Format,
    frames: u64,
}

enum Format {
    Pcap(pcap::Pcap),
    Pcapng(pcapng::Pcapng),
}

impl<R: Read> Capture<R> {
    /// Reads as much as tells the format.
    pub fn open(input: R) -> Result<Self, CaptureError> {
        let mut source = Source::new(input);
        let magic = source.up_to(4)?;
        let magic: [u8; 4] = match magic.as_slice().try_into() {
            Ok(magic) => magic,
            Err(_) if magic.is_empty() => return Err(CaptureError::NotACapture("the file is empty".into())),
            Err(_) => return Err(CaptureError::NotACapture(format!("the file has {} bytes", magic.len()))),
        };
        let format = if magic == pcapng::SECTION_MAGIC {
            Format::Pcapng(pcapng::Pcapng::open(&mut source)?)
        } else if magic[..2] == [0x1f, 0x8b] {
            return Err(CaptureError::NotACapture("the file is compressed, run gunzip on it first".into()));
        } else if let Some(pcap) = pcap::Pcap::open(magic, &mut source)? {
            Format::Pcap(pcap)
        } else {
            let magic = u32::from_be_bytes(magic);
            return Err(CaptureError::NotACapture(format!("it begins with {magic:#010x}")));
        };
        Ok(Self { source, format, frames: 0 })
    }

    /// The one link type of all frames; `None` for pcapng, where each interface has its own.
    pub fn link(&self) -> Option<LinkType> {
        match &self.format {
            Format::Pcap(pcap) => Some(pcap.link),
            Format::Pcapng(_) => None,
        }
    }

    /// The next frame; `None` at the end of the file. After an error there is nothing more to come.
    pub fn next_frame(&mut self) -> Result<Option<CapturedFrame>, CaptureError> {
        let frame = match &mut self.format {
            Format::Pcap(pcap) => pcap.next_frame(&mut self.source)?,
            Format::Pcapng(pcapng) => pcapng.next_frame(&mut self.source)?,
        };
        Ok(frame.map(|mut frame| {
            self.frames += 1;
            frame.number = self.frames;
            frame
        }))
    }
}

/// Byte order of a file or section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

impl Order {
    /// The 16-bit number at `offset`; 0 beyond the end, which callers have excluded.
    fn u16(self, bytes: &[u8], offset: usize) -> u16 {
        let Some(&[a, b]) = bytes.get(offset..offset + 2).and_then(|b| b.as_array()) else { return 0 };
        match self {
            Self::Little => u16::from_le_bytes([a, b]),
            Self::Big => u16::from_be_bytes([a, b]),
        }
    }

    /// The 32-bit number at `offset`.
    fn u32(self, bytes: &[u8], offset: usize) -> u32 {
        let Some(&word) = bytes.get(offset..offset + 4).and_then(|b| b.as_array()) else { return 0 };
        match self {
            Self::Little => u32::from_le_bytes(word),
            Self::Big => u32::from_be_bytes(word),
        }
    }

    /// The 64-bit number at `offset`.
    fn u64(self, bytes: &[u8], offset: usize) -> u64 {
        let (first, second) = (self.u32(bytes, offset), self.u32(bytes, offset + 4));
        match self {
            Self::Little => u64::from(second) << 32 | u64::from(first),
            Self::Big => u64::from(first) << 32 | u64::from(second),
        }
    }
}

#[cfg(test)]
mod tests;
