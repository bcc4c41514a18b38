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
    Some(Record { content: h[0], length, first })
}
