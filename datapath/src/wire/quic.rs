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
    let [first] = read::<F, 1>(frame, at)?;
    if first & LONG == 0 {
        let short = Header { kind: Kind::Short, version: 0, next: 0 };
        return if first & FIXED != 0 { Some(short) } else { None };
    }
    let version = read::<F, 4>(frame, at + 1)?;
    let version = match u32::from_be_bytes(version) {
        0 => return Some(Header { kind: Kind::VersionNegotiation, version: 0, next: 0 }),
        V1 => 1,
        V2 => 2,
        _ => return Some(Header { kind: Kind::Unknown, version: 0, next: 0 }),
    };
    let [id_length] = read::<F, 1>(frame, at + 5)?;
    if first & FIXED == 0 || id_length > MAX_CONNECTION_ID {
        return None;
    }
    // Version 2 has the types one further on.
    let kind = match (first >> 4).wrapping_sub(version - 1) & 3 {
        0 => Kind::Initial,
        1 => Kind::ZeroRtt,
        2 => Kind::Handshake,
        _ => return Some(Header { kind: Kind::Retry, version, next: 0 }),
    };
    let source_id = at + 6 + usize::from(id_length);
    let [length] = read::<F, 1>(frame, source_id)?;
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
    let [first] = read::<F, 1>(frame, at)?;
    match first >> 6 {
        0 => Some((usize::from(first & 0x3f), at + 1)),
        1 => {
            let h = read::<F, 2>(frame, at)?;
            Some((usize::from(u16::from_be_bytes(h) & 0x3fff), at + 2))
        }
        2 => {
            let h = read::<F, 4>(frame, at)?;
            let n = u32::from_be_bytes(h) & 0x3fff_ffff;
            if n > 0xffff { None } else { Some((n as usize, at + 4)) }
        }
        _ => None,
    }
}

/// By the kernel's helper alone: of a read of one byte at a variable offset the verifier loses track ("R1 offset is
/// outside of the packet", 6.18).
#[inline(always)]
fn read<F: Frame, const N: usize>(frame: &F, at: usize) -> Option<[u8; N]> {
    let mut word = Aligned([0; N]);
    if frame.copy_to(at, N as u32, &mut word.0) { Some(word.0) } else { None }
}

/// So that its bytes lie on the stack as one word is loaded ("misaligned stack access", 6.18).
#[repr(align(8))]
struct Aligned<const N: usize>([u8; N]);
