//! The pieces of one hello, put together: TCP segments first, then TLS records, which a message may span too.

use super::ClientHello;
use std::collections::BTreeMap;

const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;
/// The top bit of a length in the form of SSL 2.0.
const SSLV2_LENGTH: u8 = 0x80;

/// Pieces by their offset. Bytes that come twice count once, the first time.
#[derive(Debug, Default)]
pub struct Assembly {
    pieces: BTreeMap<u32, Vec<u8>>,
    bytes: usize,
}

impl Assembly {
    /// Adds a piece.
    pub fn add(&mut self, offset: u32, piece: &[u8]) {
        if let std::collections::btree_map::Entry::Vacant(place) = self.pieces.entry(offset) {
            place.insert(piece.to_vec());
            self.bytes += piece.len();
        }
    }

    /// What it holds in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The hello, if it is there whole.
    pub fn whole(&self) -> Option<ClientHello> {
        let (message, is_whole) = message(&self.stream());
        is_whole.then(|| message.hello(true))
    }

    /// The hello as far as it is there.
    pub fn partial(&self) -> ClientHello {
        let (message, is_whole) = message(&self.stream());
        message.hello(is_whole)
    }

    /// The bytes from the first up to the first that is missing.
    fn stream(&self) -> Vec<u8> {
        let mut stream = Vec::with_capacity(self.bytes);
        for (offset, piece) in &self.pieces {
            let Some(known) = stream.len().checked_sub(*offset as usize) else { break };
            stream.extend_from_slice(piece.get(known..).unwrap_or_default());
        }
        stream
    }
}

/// The first handshake message.
enum Message {
    /// Behind its header.
    Tls(Vec<u8>),
    /// The version in a hello of SSL 2.0's form.
    SslV2(u16),
    /// Too little to tell.
    None,
}

impl Message {
    fn hello(&self, is_whole: bool) -> ClientHello {
        match self {
            Self::Tls(body) => ClientHello::parse(body, is_whole),
            Self::SslV2(version) => ClientHello::of_sslv2(*version, is_whole),
            Self::None => ClientHello { tls_hello_partial: Some(true), ..ClientHello::default() },
        }
    }
}

/// The message in a stream of records, and whether it is there whole.
fn message(stream: &[u8]) -> (Message, bool) {
    if let [high, low, CLIENT_HELLO, major, minor, ..] = stream
        && high & SSLV2_LENGTH != 0
    {
        let length = usize::from(u16::from_be_bytes([high & !SSLV2_LENGTH, *low]));
        let version = u16::from_be_bytes([*major, *minor]);
        return (Message::SslV2(version), stream.len() >= 2 + length);
    }
    let mut message = Vec::new();
    let mut rest = stream;
    while let Some((header, behind)) = rest.split_at_checked(RECORD_HEADER) {
        if header[0] != HANDSHAKE_RECORD {
            break;
        }
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        message.extend_from_slice(&behind[..behind.len().min(length)]);
        rest = behind.get(length..).unwrap_or_default();
    }
    let [CLIENT_HELLO, a, b, c, ..] = message[..] else { return (Message::None, false) };
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    let body = message.split_off(MESSAGE_HEADER);
    let is_whole = body.len() >= length;
    let body = body.into_iter().take(length).collect();
    (Message::Tls(body), is_whole)
}
