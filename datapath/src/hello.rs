//! Handing up ClientHellos: user space reassembles and parses them, the path only copies.

use crate::abi::{Connection, HandshakeKind, HelloSegment, Packet, TlsState};
use crate::frame::Frame;
use crate::tables::Sink;

/// In place of an offset: says only that a handshake began whose hello is under keys.
pub(crate) const NOTICE: u32 = u32::MAX;

/// Whether the packet, which was tracked, may hold a part of a ClientHello that nobody answered yet.
#[inline(always)]
pub(crate) fn is_part(conn: &Connection, packet: &Packet) -> bool {
    packet.has(Packet::HAS_TCP)
        && conn.tls == TlsState::ClientHello as u8
        && conn.server_hello_ns == 0
        && conn.is_originator(packet.side())
        && conn.hello_segments < HelloSegment::MAX
}

/// Copies one piece of the segment's payload up, from `done` bytes behind its start.
///
/// Where the hello ends is not asked: what follows it before the responder has answered (early data, RFC 8446,
/// section 2.3) goes up with it, up to [`HelloSegment::MAX`] pieces a connection.
#[inline(always)]
pub fn hand_up<F: Frame, S: Sink>(
    frame: &F,
    sink: &mut S,
    conn: &mut Connection,
    packet: &Packet,
    now_ns: u64,
    done: u32,
) {
    if done == NOTICE {
        sink.hello(frame, 0, 0, |segment| {
            describe(segment, frame, conn, packet, now_ns);
            segment.kind = HandshakeKind::Quic as u8;
            segment.offset = 0;
        });
        return;
    }
    // A SYN takes a sequence number before its data (RFC 9293, section 3.4).
    let seq = packet.seq.wrapping_add(u32::from(packet.flag(Packet::SYN)));
    let offset = seq.wrapping_sub(conn.hello_seq).wrapping_add(done);
    let left = packet.payload_bytes.wrapping_sub(done);
    let length = if left > HelloSegment::BYTES as u32 { HelloSegment::BYTES as u32 } else { left };
    conn.hello_segments = conn.hello_segments.wrapping_add(1);
    let from = usize::from(packet.payload_offset) + done as usize;
    sink.hello(frame, from, length, |segment| {
        describe(segment, frame, conn, packet, now_ns);
        segment.kind = HandshakeKind::Tls as u8;
        segment.offset = offset;
    });
}

/// What every piece says of its connection.
#[inline(always)]
pub(crate) fn describe<F: Frame>(
    segment: &mut HelloSegment,
    frame: &F,
    conn: &Connection,
    packet: &Packet,
    now_ns: u64,
) {
    segment.key = packet.key;
    segment.hello_ns = conn.client_hello_ns;
    segment.time_ns = now_ns;
    segment.offset = 0;
    segment.identity = conn.identity;
    segment.ifindex = frame.ifindex();
    segment.originator = conn.originator;
    segment._pad = [0; 2];
}
