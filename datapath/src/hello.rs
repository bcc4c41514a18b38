//! Handing up ClientHellos and queries of DNS: user space reassembles and parses them, the path only copies.

use crate::abi::{Connection, EventBudget, EventKind, HandshakeKind, HelloSegment, Lost, Packet, TlsState};
use crate::frame::Frame;
use crate::tables::Sink;
use crate::track::happened;
use crate::wire::proto;

/// In place of an offset: says only that a handshake began whose hello is under keys that nobody knows.
pub(crate) const NOTICE: u32 = u32::MAX;

/// Where name servers answer (RFC 1035, section 4.2).
const DOMAIN: u16 = 53;
/// In place of a reason: queries have budgets of their own. No reason has this number.
const OF_QUERIES: u8 = u8::MAX;

/// Whether a datagram goes to where name servers answer. What it says, user space finds out.
#[inline(always)]
pub(crate) fn is_query(conn: &Connection, packet: &Packet) -> bool {
    packet.key.proto == proto::UDP && packet.dst().1 == DOMAIN && conn.is_originator(packet.side())
}

/// How much of the packet's payload, which was tracked, may be part of a ClientHello that nobody answered yet: all or none.
///
/// QUIC's is under keys that follow from the packet itself (RFC 9001, section 5.2), if its version is known. There a
/// server's first Initial may only acknowledge a part of the hello; with all of it, it has Handshake packets to send. Only
/// Initial packets have parts of it: early data would use up the pieces of a connection before they come.
///
/// A function of its own in BPF: its branches would be walked for every piece.
#[inline(never)]
pub(crate) fn part(conn: &Connection, packet: &Packet) -> u32 {
    if is_query(conn, packet) {
        // One piece: what is longer came over TCP, or is no query.
        let all = packet.payload_bytes;
        return if all > HelloSegment::BYTES as u32 { HelloSegment::BYTES as u32 } else { all };
    }
    let is_part = if conn.is_quic() {
        conn.quic_version != 0
            && conn.happened & happened::INITIAL != 0
            && conn.tls != TlsState::Established as u8
            && conn.tls_flags & Connection::QUIC_RESP_HANDSHAKE == 0
    } else {
        packet.has(Packet::HAS_TCP) && conn.tls == TlsState::ClientHello as u8 && conn.server_hello_ns == 0
    };
    if is_part && conn.is_originator(packet.side()) { packet.payload_bytes } else { 0 }
}

/// Copies one piece of the payload up, from `done` bytes behind its start.
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
        });
        return;
    }
    let is_query = is_query(conn, packet);
    if is_query && !may_ask(sink, conn.identity[0], now_ns) {
        return;
    }
    // A SYN takes a sequence number before its data (RFC 9293, section 3.4).
    let seq = packet.seq.wrapping_add(u32::from(packet.flag(Packet::SYN)));
    let start = if conn.is_quic() || is_query { 0 } else { seq.wrapping_sub(conn.hello_seq) };
    let offset = start.wrapping_add(done);
    let kind = if is_query {
        HelloSegment::QUERY
    } else if conn.is_quic() {
        HandshakeKind::Quic as u8
    } else {
        HandshakeKind::Tls as u8
    };
    let left = packet.payload_bytes.wrapping_sub(done);
    let length = if left > HelloSegment::BYTES as u32 { HelloSegment::BYTES as u32 } else { left };
    let number = conn.hello_segments;
    conn.hello_segments = number.wrapping_add(u8::from(!is_query));
    let from = usize::from(packet.payload_offset) + done as usize;
    sink.hello(frame, from, length, |segment| {
        describe(segment, frame, conn, packet, now_ns);
        segment.kind = kind;
        segment.offset = offset;
        segment.number = number;
    });
}

/// Whether there is budget for one more query of an identity: who asks for everything crowds out nobody else.
#[inline(always)]
fn may_ask<S: Sink>(sink: &mut S, identity: u32, now_ns: u64) -> bool {
    let budget = sink.budget(EventBudget::index(EventKind::Verdict, OF_QUERIES, identity));
    let within = budget.is_some_and(|budget| budget.take(now_ns, HelloSegment::QUERIES));
    if !within {
        sink.lost(Lost::Queries);
    }
    within
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
    segment.number = 0;
    segment._pad = 0;
}
