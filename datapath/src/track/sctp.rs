//! The state of both ends of an SCTP association (RFC 9260, section 4), as an observer between them sees it, in the words that
//! Zeek has for TCP.
//!
//! Each end chooses a tag that the packets to it carry. `next_seq` holds the tags that packets of the originator and of the
//! responder have to carry, `acked` those that an INIT or INIT ACK has announced and nobody has used yet: an INIT carries no
//! tag, so that anybody may send one, and what it says counts only when a COOKIE ECHO confirms it.

use super::{happened, history};
use crate::abi::{Connection, Endpoint, Packet};

/// What a packet may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    /// It carries a tag of its side, or opens an association.
    Fits,
    /// No tag of its side is known.
    Unknown,
    /// It carries another (RFC 9260, section 8.5).
    Invalid,
}

/// Holds a packet's tag against those of its association. An ABORT and a SHUTDOWN COMPLETE may carry that of the other side
/// instead, and say so (section 8.5.1).
#[inline(always)]
pub(crate) fn tag(conn: &Connection, packet: &Packet) -> Tag {
    if packet.sctp(Packet::SCTP_INIT) {
        return Tag::Fits;
    }
    let is_orig = conn.is_originator(packet.side());
    let is_reflected = packet.sctp(Packet::SCTP_REFLECTED);
    let side = usize::from(is_orig == is_reflected);
    let (used, announced) = (conn.next_seq[side & 1], conn.acked[side & 1]);
    // Once there is an association, what was announced is for its start alone.
    let starts = used == 0 || packet.sctp(Packet::SCTP_INIT_ACK | Packet::SCTP_COOKIE_ECHO);
    if used | announced == 0 {
        Tag::Unknown
    } else if packet.seq == used || packet.seq == announced && starts {
        Tag::Fits
    } else {
        Tag::Invalid
    }
}

/// Changes the record by a packet whose tag was looked at.
///
/// A function of its own in BPF, as [`super::tcp::segment`] is.
#[inline(never)]
pub fn packet(conn: &mut Connection, packet: &Packet, is_orig: bool, now_ns: u64) {
    let (mine, theirs) = if is_orig { (0, 1) } else { (1, 0) };
    let before = is_answered(conn);
    if packet.sctp(Packet::SCTP_INIT) {
        history::note(conn, history::SYN, is_orig);
        conn.acked[theirs] = packet.ack;
        if conn.state == [0, 0] {
            set(conn, mine, Endpoint::SynSent);
        }
        return;
    }
    if packet.sctp(Packet::SCTP_INIT_ACK) {
        history::note(conn, history::HANDSHAKE, is_orig);
        conn.acked[theirs] = packet.ack;
        if !is_orig && conn.syn_ack_ns == 0 {
            conn.syn_ack_ns = now_ns;
        }
        if conn.orig() == Endpoint::SynSent {
            set(conn, 0, Endpoint::Established);
        }
        if !is_orig && conn.resp() == Endpoint::Inactive {
            set(conn, 1, Endpoint::Established);
        }
        return;
    }
    later(conn, packet, is_orig, now_ns);
    if !before && is_answered(conn) {
        conn.happened |= happened::ANSWERED;
    }
}

#[inline(always)]
fn later(conn: &mut Connection, packet: &Packet, is_orig: bool, now_ns: u64) {
    let mine = usize::from(!is_orig);
    if packet.sctp(Packet::SCTP_COOKIE_ECHO) {
        for side in 0..2 {
            if conn.acked[side] != 0 {
                conn.next_seq[side] = conn.acked[side];
            }
        }
    }
    if packet.sctp(Packet::SCTP_COOKIE_ECHO | Packet::SCTP_COOKIE_ACK) {
        history::note(conn, history::ACK, is_orig);
    }
    if packet.sctp(Packet::SCTP_COOKIE_ACK) && !is_orig && conn.established_ns == 0 {
        conn.established_ns = now_ns;
    }
    if packet.sctp(Packet::SCTP_DATA) {
        history::note(conn, history::DATA, is_orig);
    }
    let tag_is_known = conn.next_seq[mine] | conn.acked[mine] != 0;
    if packet.sctp(Packet::SCTP_ABORT) {
        // Of an association that was taken up in mid-stream, and whose tag nobody knows, an ABORT proves nothing.
        if tag_is_known || packet.sctp(Packet::SCTP_REFLECTED) {
            history::note(conn, history::RST, is_orig);
            set(conn, mine, Endpoint::Reset);
        }
    } else {
        if !tag_is_known && !packet.sctp(Packet::SCTP_REFLECTED) {
            conn.next_seq[mine] = packet.seq;
        }
        if conn.state[mine] & 0x0f == Endpoint::Inactive as u8 {
            set(conn, mine, Endpoint::Established);
        }
        if packet.sctp(Packet::SCTP_SHUTDOWN | Packet::SCTP_SHUTDOWN_ACK | Packet::SCTP_SHUTDOWN_COMPLETE) {
            history::note(conn, history::FIN, is_orig);
            set(conn, mine, Endpoint::Closed);
        }
    }
    let (orig, resp) = (conn.orig(), conn.resp());
    let over = orig == Endpoint::Reset
        || resp == Endpoint::Reset
        || orig == Endpoint::Closed && resp == Endpoint::Closed;
    if over && conn.closed_ns == 0 {
        conn.closed_ns = now_ns;
    }
}

#[inline(always)]
fn set(conn: &mut Connection, side: usize, to: Endpoint) {
    conn.state[side & 1] = to as u8;
}

/// Whether the association belongs among the established. An INIT ACK alone is no answer: the server keeps nothing for it
/// either (RFC 9260, section 5.1.3).
#[inline(always)]
pub(super) fn is_answered(conn: &Connection) -> bool {
    let was_opened = conn.flags & Connection::IS_MIDSTREAM == 0;
    if was_opened && conn.resp() != Endpoint::Reset {
        return conn.established_ns != 0 || history::has(conn, history::DATA, false);
    }
    conn.resp() != Endpoint::Inactive
}

/// Whether the association is established, as far as anybody has seen.
#[inline(always)]
pub(super) fn is_established(conn: &Connection) -> bool {
    conn.established_ns != 0 || conn.flags & Connection::IS_MIDSTREAM != 0
}

/// Whether packets of a side that have no control chunk have nothing left to tell.
#[inline(always)]
pub(crate) fn is_settled(conn: &Connection, is_orig: bool) -> bool {
    is_established(conn) && conn.state[usize::from(!is_orig)] != Endpoint::Inactive as u8
}
