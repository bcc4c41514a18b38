//! QUIC handshakes as the packet types show them (RFC 9000, section 17; RFC 9001, section 4).
//!
//! All but the types is encrypted: a handshake counts as completed when both ends have sent Handshake packets and then
//! packets under 1-RTT keys, and that is inferred. A close, under keys too, is not seen; nor is a connection that goes on
//! from another address.

use super::happened;
use crate::abi::{Connection, Packet, TlsState};
use crate::frame::Frame;
use crate::wire::proto;
use crate::wire::quic::{self, Kind};

/// Packets that are looked at in one datagram: Initial, Handshake, 0-RTT and 1-RTT.
const MAX_PACKETS: usize = 4;
/// The port on which a version that is not known is QUIC all the same.
const HTTPS: u16 = 443;
/// A handshake that takes longer is not followed any more.
const PATIENCE_NS: u64 = 30_000_000_000;

/// Whether the datagram may tell something; `is_first` if nothing of the connection was seen before.
#[inline(always)]
pub fn may_tell(conn: &Connection, packet: &Packet, is_first: bool) -> bool {
    packet.key.proto == proto::UDP && packet.payload_bytes != 0 && (is_first || !is_settled(conn))
}

/// Whether datagrams have nothing left to tell.
#[inline(always)]
pub fn is_settled(conn: &Connection) -> bool {
    !conn.is_quic()
        || conn.tls_state().is_final()
        || conn.last_ns.saturating_sub(conn.client_hello_ns) > PATIENCE_NS
}

/// Changes the record by a datagram.
#[inline(always)]
pub fn datagram<F: Frame>(conn: &mut Connection, frame: &F, packet: &Packet, now_ns: u64) {
    let is_orig = conn.is_originator(packet.side());
    let mut at = usize::from(packet.payload_offset);
    let end = at + packet.payload_bytes as usize;
    for _ in 0..MAX_PACKETS {
        let Some(header) = quic::header(frame, at) else {
            return;
        };
        if !conn.is_quic() && !begin(conn, packet, header.kind, now_ns) {
            return;
        }
        if header.version != 0 {
            conn.quic_version = header.version;
        }
        step(conn, header.kind, is_orig, now_ns);
        if header.next <= at || header.next >= end {
            return;
        }
        at = header.next;
    }
}

/// A connection is QUIC if its first packet is an Initial, or early data that overtook it (RFC 9001, section 5.7), or on the
/// port of HTTPS one of a version that is not known.
#[inline(always)]
fn begin(conn: &mut Connection, packet: &Packet, kind: Kind, now_ns: u64) -> bool {
    let is_quic = match kind {
        Kind::Initial | Kind::ZeroRtt => true,
        Kind::Unknown => packet.dst().1 == HTTPS,
        _ => false,
    };
    if is_quic {
        conn.flags |= Connection::IS_QUIC;
        conn.happened |= happened::QUIC;
        conn.client_hello_ns = now_ns;
        conn.tls = TlsState::ClientHello as u8;
    }
    is_quic
}

#[inline(always)]
fn step(conn: &mut Connection, kind: Kind, is_orig: bool, now_ns: u64) {
    let both = Connection::QUIC_ORIG_HANDSHAKE | Connection::QUIC_RESP_HANDSHAKE;
    let seen = conn.tls_flags;
    // 1 where it is an Initial. By arithmetic, and hidden from LLVM: a branch more for each packet of a datagram, and the verifier
    // has a million instructions to walk (6.18).
    let is_initial = core::hint::black_box(kind as u64 ^ Kind::Initial as u64).wrapping_sub(1) >> 63;
    conn.happened |= happened::INITIAL * is_initial as u8;
    match (kind, is_orig) {
        (Kind::VersionNegotiation, false) => {
            note(conn, Connection::QUIC_VERSIONS, happened::VERSIONS);
        }
        (Kind::Retry, false) => note(conn, Connection::QUIC_RETRY, happened::RETRY),
        (Kind::Initial, false) => answered(conn, now_ns),
        (Kind::Handshake, true) => conn.tls_flags |= Connection::QUIC_ORIG_HANDSHAKE,
        (Kind::Handshake, false) => {
            answered(conn, now_ns);
            conn.tls_flags |= Connection::QUIC_RESP_HANDSHAKE;
        }
        (Kind::Short, true) if seen & Connection::QUIC_ORIG_HANDSHAKE != 0 => {
            conn.tls_flags |= Connection::QUIC_ORIG_SHORT;
        }
        // Before the originator's Handshake packets it proves nothing: a server may send early (RFC 9001, section 5.7).
        (Kind::Short, false) if seen & both == both => conn.tls_flags |= Connection::QUIC_RESP_SHORT,
        _ => {}
    }
    let done = both | Connection::QUIC_ORIG_SHORT | Connection::QUIC_RESP_SHORT;
    if conn.tls_flags & done == done && conn.tls != TlsState::Established as u8 {
        conn.tls = TlsState::Established as u8;
        conn.tls_flags |= Connection::TLS_INFERRED;
        conn.tls_done_ns = now_ns;
    }
}

#[inline(always)]
fn answered(conn: &mut Connection, now_ns: u64) {
    if conn.server_hello_ns == 0 {
        conn.server_hello_ns = now_ns;
        conn.tls = TlsState::ServerHello as u8;
    }
}

#[inline(always)]
fn note(conn: &mut Connection, bit: u8, news: u8) {
    if conn.tls_flags & bit == 0 {
        conn.tls_flags |= bit;
        conn.happened |= news;
    }
}

/// The word for the state of a QUIC handshake in records.
pub fn state_name(conn: &Connection) -> &'static str {
    match conn.tls_state() {
        TlsState::Established => "established",
        TlsState::ServerHello => "handshake",
        _ => "initial",
    }
}
