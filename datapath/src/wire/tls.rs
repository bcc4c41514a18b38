//! The TLS record header (RFC 8446, section 5.1; RFC 5246, section 6.2.1).

use super::be16;
use crate::frame::Frame;

/// change_cipher_spec.
pub const CHANGE_CIPHER_SPEC: u8 = 20;
/// alert.
pub const ALERT: u8 = 21;
/// handshake.
pub const HANDSHAKE: u8 = 22;
/// application_data; in TLS 1.3 also everything else under keys.
pub const APPLICATION_DATA: u8 = 23;

/// Handshake message ClientHello.
pub const CLIENT_HELLO: u8 = 1;
/// Handshake message ServerHello, also a HelloRetryRequest.
pub const SERVER_HELLO: u8 = 2;

/// Bytes of a record header.
pub const HEADER: usize = 5;
/// RFC 5246, section 6.2.3: ciphertext may be longer than plaintext by 2048 bytes.
const MAX_LENGTH: u16 = 16384 + 2048;

/// A record header and the two bytes behind it.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Content type.
    pub content: u8,
    /// Minor version: 1 for TLS 1.0, 3 for TLS 1.2 and 1.3.
    pub minor: u8,
    /// Length of the fragment behind the header.
    pub length: u16,
    /// The fragment's first two bytes, 0 where the frame ends before: a handshake message's type, an alert's level and
    /// description.
    pub first: [u8; 2],
}

/// Reads the header at `offset`. `None` if it is not there whole, or is none.
#[inline(always)]
pub fn record<F: Frame>(frame: &F, offset: usize) -> Option<Record> {
    let h = frame.copy::<HEADER>(offset)?;
    let length = be16(h[3], h[4]);
    let is_record = matches!(h[0], CHANGE_CIPHER_SPEC..=APPLICATION_DATA)
        && h[1] == 3
        && h[2] <= 4
        && length != 0
        && length <= MAX_LENGTH;
    if !is_record {
        return None;
    }
    let first = frame.copy::<2>(offset + HEADER).unwrap_or_default();
    Some(Record { content: h[0], minor: h[2], length, first })
}

/// The length of a ClientHello in the form of SSL 2.0 at `offset` that offers SSL 3.0 or later (RFC 5246, section E.2),
/// with its two bytes of header. `None` if there is none.
#[inline(always)]
pub fn sslv2_hello<F: Frame>(frame: &F, offset: usize) -> Option<u16> {
    let h = frame.copy::<5>(offset)?;
    let length = be16(h[0] & !SSLV2_LENGTH, h[1]);
    let is_hello = h[0] & SSLV2_LENGTH != 0
        && h[2] == CLIENT_HELLO
        && h[3] == 3
        && h[4] <= 4
        && (SSLV2_SMALLEST..=SSLV2_LARGEST).contains(&length);
    if is_hello { Some(length + 2) } else { None }
}

/// The top bit of a length in the form of SSL 2.0.
const SSLV2_LENGTH: u8 = 0x80;
/// The fixed fields and one cipher.
const SSLV2_SMALLEST: u16 = 9 + 3;
/// More ciphers than there are.
const SSLV2_LARGEST: u16 = 4096;
