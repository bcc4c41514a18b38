//! Where both streams of a TCP connection are, and what that says of a reset (RFC 5961, section 3).
//!
//! Packets that the fast lane settles are counted and not looked at. So the end of a stream is what the last tracked
//! segment said, plus the payload that was counted since (docs/adr/0007-resets.md).

use super::history;
use crate::abi::{Connection, Endpoint, FlowRecord, Packet, Side};
use crate::weight::Weight;

/// What a reset does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// It names the place at which its receiver waits: the connection is closed.
    Closes = 0,
    /// It may be in the window, or nothing is known: its receiver will ask (a challenge ACK), and the answer closes.
    Asks = 1,
    /// It is beyond the window: nobody who takes part in the connection sends it.
    Invalid = 2,
}

/// Beyond the largest window that was seen: windows grow while nobody looks.
const SLACK: u32 = 0x1_0000;
/// The scale of a connection whose SYNs were not seen: the largest there is (RFC 7323, section 2.3).
const MAX_SCALE: u32 = 14;

/// Notes where the sender of a tracked segment is. `record` is this CPU's, which has counted it.
#[inline(always)]
pub fn note(conn: &mut Connection, packet: &Packet, record: &mut FlowRecord) {
    let side = packet.side();
    let is_orig = conn.is_originator(side);
    let i = usize::from(!is_orig);
    let is_syn = packet.flag(Packet::SYN);
    // A SYN in the midst of a connection says nothing of it (RFC 5961, section 4).
    if packet.flag(Packet::RST) || is_syn && conn.established_ns != 0 {
        return;
    }
    let sent = packet.payload_bytes + u32::from(is_syn) + u32::from(packet.flag(Packet::FIN));
    let next = packet.seq.wrapping_add(sent);
    if is_orig {
        conn.next_seq[0] = next;
        conn.stream |= Connection::KNOWS_ORIG_SEQ;
    } else {
        conn.next_seq[1] = next;
        conn.stream |= Connection::KNOWS_RESP_SEQ;
    }
    if packet.flag(Packet::ACK) {
        conn.acked[i] = packet.ack;
        conn.stream |= if is_orig { Connection::KNOWS_ORIG_ACK } else { Connection::KNOWS_RESP_ACK };
    }
    conn.stream &= !(Connection::ORIG_ASKED_RESET | Connection::RESP_ASKED_RESET);
    if is_syn {
        conn.window_scale[i] =
            if packet.has(Packet::HAS_WINDOW_SCALE) { 2 + packet.tcp_window_scale } else { 1 };
    } else if conn.header_bytes[i] == 0 {
        conn.header_bytes[i] = packet.ip_bytes.wrapping_sub(packet.payload_bytes) as u8;
    }
    // The window in a SYN is not scaled (RFC 7323, section 2.2).
    let shift = if is_syn { 0 } else { scale(conn, i) };
    let window = u32::from(packet.tcp_window) << shift;
    if window > conn.window[i] {
        conn.window[i] = window;
    }
    if !is_syn {
        let payload = payload(record, side, conn.header_bytes[i]);
        match side {
            Side::A => record.counted[0] = payload,
            Side::B => record.counted[1] = payload,
        }
    }
}

/// Both have to announce a scale for one to count (RFC 7323, section 2.2).
#[inline(always)]
fn scale(conn: &Connection, i: usize) -> u32 {
    match conn.window_scale {
        [0, _] | [_, 0] => MAX_SCALE,
        [1, _] | [_, 1] => 0,
        announced => u32::from(announced[i] - 2) & 15,
    }
}

/// What a record has counted of a side without headers, if all were as long as its first.
#[inline(always)]
fn payload(record: &FlowRecord, side: Side, header_bytes: u8) -> u32 {
    let (bytes, packets) = match side {
        Side::A => (record.bytes[0], record.packets[0]),
        Side::B => (record.bytes[1], record.packets[1]),
    };
    (bytes as u32).wrapping_sub((packets as u32).wrapping_mul(u32::from(header_bytes)))
}

/// What a record has counted of the sender's stream since a segment of it was tracked on that CPU.
#[inline(always)]
pub fn since(conn: &Connection, record: &FlowRecord, side: Side) -> u32 {
    let packets = match side {
        Side::A => record.packets[0],
        Side::B => record.packets[1],
    };
    // The first on each CPU was tracked; a SYN's header has another length.
    if record.incarnation != conn.incarnation || packets <= 1 {
        return 0;
    }
    let header_bytes = conn.header_bytes[usize::from(!conn.is_originator(side))];
    let counted = match side {
        Side::A => record.counted[0],
        Side::B => record.counted[1],
    };
    payload(record, side, header_bytes).wrapping_sub(counted)
}

/// Takes a reset out of what [`since`] says: it is no part of the stream.
#[inline(always)]
pub fn pass_over(conn: &Connection, record: &mut FlowRecord, packet: &Packet) {
    let side = packet.side();
    let header_bytes = conn.header_bytes[usize::from(!conn.is_originator(side))];
    let payload = Weight::of(packet).payload(header_bytes);
    let i = side.index() & 1;
    record.counted[i] = record.counted[i].wrapping_add(payload);
}

/// What a reset does by the numbers that tracked segments had. [`Reset::Invalid`] is no last word: see [`moved`].
#[inline(always)]
pub fn reset(conn: &Connection, packet: &Packet) -> Reset {
    let is_orig = conn.is_originator(packet.side());
    let (mine, theirs) = if is_orig { (0, 1) } else { (1, 0) };
    if conn.closed_ns != 0 {
        return Reset::Closes; // which it is
    }
    let is_attempt = conn.orig() == Endpoint::SynSent && conn.resp() == Endpoint::Inactive;
    if is_attempt && !is_orig {
        // RFC 9293, section 3.10.7.3: it acknowledges the SYN, or some of the data with it.
        let acked = packet.ack.wrapping_sub(conn.isn).wrapping_sub(1);
        let sent = conn.next_seq[0].wrapping_sub(conn.isn).wrapping_sub(1);
        return if packet.flag(Packet::ACK) && acked <= sent { Reset::Closes } else { Reset::Invalid };
    }
    let (knows_seq, knows_ack) = if is_orig {
        (conn.stream & Connection::KNOWS_ORIG_SEQ != 0, conn.stream & Connection::KNOWS_RESP_ACK != 0)
    } else {
        (conn.stream & Connection::KNOWS_RESP_SEQ != 0, conn.stream & Connection::KNOWS_ORIG_ACK != 0)
    };
    let is_exact = knows_seq && packet.seq == conn.next_seq[mine]
        || knows_ack && packet.seq == conn.acked[theirs]
        || !knows_seq && !knows_ack;
    if is_exact {
        Reset::Closes
    } else if knows_seq && (knows_ack || is_attempt) {
        Reset::Invalid
    } else {
        Reset::Asks // one direction alone is seen: what it acknowledges has moved on
    }
}

/// Whether segments of the sender may have been counted that were not tracked.
#[inline(always)]
pub fn may_have_moved(conn: &Connection, packet: &Packet) -> bool {
    conn.header_bytes[usize::from(!conn.is_originator(packet.side()))] != 0
}

/// Whether the sender's SYN was tracked and nothing after it: then nothing of its stream was counted either.
#[inline(always)]
pub fn is_only_opened(conn: &Connection, packet: &Packet) -> bool {
    let is_orig = conn.is_originator(packet.side());
    let known = if is_orig { Connection::KNOWS_ORIG_SEQ } else { Connection::KNOWS_RESP_SEQ };
    conn.stream & known != 0 && !may_have_moved(conn, packet)
}

/// The same, with `moved` bytes of the sender's stream counted since.
#[inline(always)]
pub fn moved(conn: &Connection, packet: &Packet, moved: u32) -> Reset {
    let is_orig = conn.is_originator(packet.side());
    let (mine, theirs) = if is_orig { (0, 1) } else { (1, 0) };
    let next = conn.next_seq[mine].wrapping_add(moved);
    if packet.seq == next {
        return Reset::Closes;
    }
    // Retransmissions count as payload: the end may lie before `next`, and the receiver waits at what it has
    // acknowledged or later.
    let margin = conn.window[theirs].saturating_add(SLACK);
    let behind = next.wrapping_sub(conn.acked[theirs]);
    let behind = if behind > margin { behind } else { margin };
    let span = u64::from(behind) + u64::from(margin);
    let offset = packet.seq.wrapping_sub(next.wrapping_sub(behind));
    if u64::from(offset) <= span { Reset::Asks } else { Reset::Invalid }
}

/// Whether a reset in the window acknowledges all that the other side has sent, `moved` bytes of it counted since: that
/// is as hard to guess as its place, and retransmissions of its own side do not blur it.
#[inline(always)]
pub fn knows_other(conn: &Connection, packet: &Packet, moved: u32) -> bool {
    let (knows_seq, next) = if conn.is_originator(packet.side()) {
        (conn.stream & Connection::KNOWS_RESP_SEQ != 0, conn.next_seq[1])
    } else {
        (conn.stream & Connection::KNOWS_ORIG_SEQ != 0, conn.next_seq[0])
    };
    knows_seq && packet.ack == next.wrapping_add(moved)
}

/// Notes a reset that changes nothing: if nobody says anything after it, it was obeyed.
#[inline(always)]
pub fn ask(conn: &mut Connection, packet: &Packet, now_ns: u64) {
    let is_orig = conn.is_originator(packet.side());
    conn.last_ns = now_ns;
    conn.stream |= if is_orig { Connection::ORIG_ASKED_RESET } else { Connection::RESP_ASKED_RESET };
    history::note(conn, history::RST, is_orig);
}

/// Whether the last that was heard of the connection is a reset that changed nothing.
#[inline(always)]
pub fn is_asked(conn: &Connection) -> bool {
    conn.closed_ns == 0 && conn.stream & (Connection::ORIG_ASKED_RESET | Connection::RESP_ASKED_RESET) != 0
}

/// Closes a connection in which nothing followed the reset that was asked for.
pub fn obey(conn: &mut Connection) {
    if is_asked(conn) {
        let i = usize::from(conn.stream & Connection::ORIG_ASKED_RESET == 0);
        conn.state[i] = conn.state[i] << 4 | Endpoint::Reset as u8;
        conn.closed_ns = conn.last_ns;
    }
}
