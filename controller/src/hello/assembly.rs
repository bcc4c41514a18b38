//! The pieces of one hello, put together: TCP segments first, then TLS records, which a message may span too; or QUIC
//! datagrams, then the CRYPTO frames in them.

use super::ClientHello;
use super::ja4::Transport;
use super::quic::Flight;
use datapath::abi::{HandshakeKind, HelloSegment};
use std::collections::BTreeMap;

const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;
/// The top bit of a length in the form of SSL 2.0.
const SSLV2_LENGTH: u8 = 0x80;

/// The pieces of one hello.
#[derive(Debug)]
pub enum Assembly {
    /// Of TLS over TCP: the stream.
    Tls(Stream),
    /// Of QUIC: datagrams, and the stream of their CRYPTO frames.
    Quic(Flight),
}

impl Assembly {
    /// Of the kind of a piece.
    pub fn of(piece: &HelloSegment) -> Self {
        if piece.kind == HandshakeKind::Quic as u8 {
            Self::Quic(Flight::default())
        } else {
            Self::Tls(Stream::default())
        }
    }

    /// Adds a piece.
    pub fn add(&mut self, piece: &HelloSegment) {
        match self {
            Self::Tls(stream) => stream.add(piece.offset, piece.payload()),
            Self::Quic(flight) => flight.add(piece),
        }
    }

    /// What it holds in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Tls(stream) => stream.bytes,
            Self::Quic(flight) => flight.bytes(),
        }
    }

    /// The hello, if it is there whole.
    pub fn whole(&self) -> Option<ClientHello> {
        let (message, is_whole) = self.message();
        is_whole.then(|| message.hello(true))
    }

    /// The hello as far as it is there.
    pub fn partial(&self) -> ClientHello {
        let (message, is_whole) = self.message();
        message.hello(is_whole)
    }

    fn message(&self) -> (Message, bool) {
        match self {
            Self::Tls(stream) => message(&stream.start()),
            // CRYPTO frames hold messages without records (RFC 9001, section 4.1.3).
            Self::Quic(flight) => handshake(flight.stream().start(), Transport::Quic),
        }
    }
}

/// Pieces by their offset. Bytes that come twice count once, the first time.
#[derive(Debug, Default)]
pub struct Stream {
    pieces: BTreeMap<u32, Vec<u8>>,
    /// What it holds in memory.
    pub bytes: usize,
}

impl Stream {
    /// Adds a piece.
    pub fn add(&mut self, offset: u32, piece: &[u8]) {
        if let std::collections::btree_map::Entry::Vacant(place) = self.pieces.entry(offset) {
            place.insert(piece.to_vec());
            self.bytes += piece.len();
        }
    }

    /// The bytes from the first up to the first that is missing.
    fn start(&self) -> Vec<u8> {
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
    Tls(Vec<u8>, Transport),
    /// The version in a hello of SSL 2.0's form.
    SslV2(u16),
    /// Too little to tell.
    None,
}

impl Message {
    fn hello(&self, is_whole: bool) -> ClientHello {
        match self {
            Self::Tls(body, transport) => ClientHello::parse(body, *transport, is_whole),
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
    handshake(message, Transport::Tcp)
}

/// The ClientHello that handshake messages begin with.
fn handshake(mut messages: Vec<u8>, transport: Transport) -> (Message, bool) {
    let [CLIENT_HELLO, a, b, c, ..] = messages[..] else { return (Message::None, false) };
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    let mut body = messages.split_off(MESSAGE_HEADER);
    let is_whole = body.len() >= length;
    body.truncate(length);
    (Message::Tls(body, transport), is_whole)
}
