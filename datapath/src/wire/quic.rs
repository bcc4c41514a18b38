//! QUIC packet headers: long and short (RFC 9000, section 17; RFC 9369, section 3.2).

use crate::frame::Frame;

/// QUIC version 1.
pub const V1: u32 = 1;
/// QUIC version 2.
pub const V2: u32 = 0x6b33_43cf;

const LONG: u8 = 0x80;
const FIXED: u8 = 0x40;
/// RFC 9000, section 17.2.
const MAX_CONNECTION_ID: u8 = 20;

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A long header of version 0.
    VersionNegotiation,
    /// Begins a connection.
    Initial,
    /// Early data.
    ZeroRtt,
    /// Under handshake keys.
    Handshake,
    /// Asks for a token.
    Retry,
    /// A short header: under 1-RTT keys.
    Short,
    /// A long header of a version that is not known.
    Unknown,
}

/// A packet of a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// 1 or 2, 0 where that is not known.
    pub version: u8,
    /// Where the next packet of the datagram starts (RFC 9000, section 12.2), 0 if this one goes to the end.
    pub next: usize,
}

/// Reads the header at `at`. `None` if there is none.
#[inline(always)]
pub fn header<F: Frame>(frame: &F, at: usize) -> Option<Header> {
    let [first] = frame.copy::<1>(at)?;
    if first & LONG == 0 {
        let short = Header { kind: Kind::Short, version: 0, next: 0 };
        return if first & FIXED != 0 { Some(short) } else { None };
    }
    let h = frame.copy::<6>(at)?;
    let version = match u32::from_be_bytes([h[1], h[2], h[3], h[4]]) {
        0 => return Some(Header { kind: Kind::VersionNegotiation, version: 0, next: 0 }),
        V1 => 1,
        V2 => 2,
        _ => return Some(Header { kind: Kind::Unknown, version: 0, next: 0 }),
    };
    if first & FIXED == 0 || h[5] > MAX_CONNECTION_ID {
        return None;
    }
    // Version 2 has the types one further on.
    let kind = match (first >> 4).wrapping_sub(version - 1) & 3 {
        0 => Kind::Initial,
        1 => Kind::ZeroRtt,
        2 => Kind::Handshake,
        _ => return Some(Header { kind: Kind::Retry, version, next: 0 }),
    };
    let source_id = at + 6 + usize::from(h[5]);
    let [length] = frame.copy::<1>(source_id)?;
    if length > MAX_CONNECTION_ID {
        return None;
    }
    let mut offset = source_id + 1 + usize::from(length);
    if matches!(kind, Kind::Initial) {
        let (token, behind) = varint(frame, offset)?;
        offset = behind + token;
    }
    let (rest, behind) = varint(frame, offset)?;
    Some(Header { kind, version, next: behind + rest })
}

/// A number of variable length (RFC 9000, section 16) that fits into a datagram, and where it ends.
#[inline(always)]
fn varint<F: Frame>(frame: &F, at: usize) -> Option<(usize, usize)> {
    let [first] = frame.copy::<1>(at)?;
    match first >> 6 {
        0 => Some((usize::from(first & 0x3f), at + 1)),
        1 => {
            let h = frame.copy::<2>(at)?;
            Some((usize::from(u16::from_be_bytes(h) & 0x3fff), at + 2))
        }
        2 => {
            let h = frame.copy::<4>(at)?;
            let n = u32::from_be_bytes(h) & 0x3fff_ffff;
            if n > 0xffff { None } else { Some((n as usize, at + 4)) }
        }
        _ => None,
    }
}
