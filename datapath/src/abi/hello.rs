//! ClientHellos and queries of DNS on their way to user space, which parses them.

use super::key::FlowKey;
use bytemuck::{Pod, Zeroable};

/// A piece of what the originator of a connection sends first, as it lay in a segment; or a query of DNS. In a ring buffer of its own, so
/// that hellos and events cannot crowd each other out.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct HelloSegment {
    /// The connection.
    pub key: FlowKey,
    /// When the hello began: `client_hello_ns` of the connection, which tells it from others of the same key. 0 of a query.
    pub hello_ns: u64,
    /// When this piece came.
    pub time_ns: u64,
    /// Where the piece starts: TLS, counted from the first byte of the hello's first record; QUIC, in its datagram.
    pub offset: u32,
    /// How many of `bytes` there are. 0: a handshake of QUIC began whose version, and so its keys, nobody knows.
    pub length: u32,
    /// Identities of originator and responder.
    pub identity: [u32; 2],
    /// The interface.
    pub ifindex: u32,
    /// Which end of the key opened the connection: 0 for `a`, 1 for `b`.
    pub originator: u8,
    /// A [`super::HandshakeKind`], or [`HelloSegment::QUERY`].
    pub kind: u8,
    /// Counts the pieces of the connection.
    pub number: u8,
    /// Padding.
    pub _pad: u8,
    /// The bytes. Those behind `length` are whatever was there.
    pub bytes: [u8; HelloSegment::BYTES],
}
const _: () = assert!(size_of::<HelloSegment>() == 80 + HelloSegment::BYTES);

impl HelloSegment {
    /// Room for a segment of an Ethernet of 1,500 bytes.
    pub const BYTES: usize = 1488;
    /// Pieces of one connection: enough for a record of the greatest length (16 KiB, RFC 8446, section 5.1).
    pub const MAX: u8 = 12;

    /// In place of a kind of handshake: a query of DNS over UDP (RFC 1035, section 4.2.1), as far as there is room for it.
    pub const QUERY: u8 = 53;
    /// Queries of an identity that a CPU hands up in a second; those beyond are counted as events that were limited.
    pub const QUERIES: u32 = 256;

    /// The bytes that are there.
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(..self.length as usize).unwrap_or(&self.bytes)
    }
}
