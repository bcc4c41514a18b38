//! The state of both ends of a TCP connection (RFC 9293, section 3.3.2), as an observer between them sees it.
//!
//! The states and their meanings are Zeek's, so that records can be held against Zeek's logs.

use super::{happened, history};
use crate::abi::{Connection, Endpoint, Packet};

/// Changes the record by a segment.
///
/// A function of its own in BPF, which answers by the record: see [`super::tls::payload`].
#[inline(never)]
pub fn segment(conn: &mut Connection, packet: &Packet, is_orig: bool, now_ns: u64) {
    note(conn, packet, is_orig);
    let (mine, theirs) = if is_orig { (0, 1) } else { (1, 0) };
    let before = Ends { mine: state(conn, mine), theirs: state(conn, theirs) };
    let answered_before = is_answered(conn);
    let is_syn = packet.flag(Packet::SYN) && !packet.flag(Packet::ACK);
    if is_syn && is_orig && before.mine == Endpoint::SynSent && packet.seq == conn.isn {
        conn.syn_retransmits = conn.syn_retransmits.saturating_add(1);
        conn.happened |= happened::RETRANSMITTED;
    }
    match before.mine {
        Endpoint::Inactive => first(conn, packet, is_orig, &before),
        Endpoint::SynSent | Endpoint::SynAckSent | Endpoint::Established | Endpoint::Partial => {
            later(conn, packet, mine, theirs);
        }
        Endpoint::Closed => {
            // A reset after the FINs of both sides changes nothing.
            if packet.flag(Packet::RST) && before.theirs != Endpoint::Closed {
                set(conn, mine, Endpoint::Reset);
            }
        }
        Endpoint::Reset => {}
    }
    times(conn, packet, is_orig, now_ns);
    if !answered_before && is_answered(conn) {
        conn.happened |= happened::ANSWERED;
    }
    let first_answer = before.mine == Endpoint::Inactive && !is_orig;
    if first_answer && packet.flag(Packet::RST) && before.theirs == Endpoint::SynSent {
        conn.happened |= happened::REFUSED;
    }
}

/// What [`segment`] makes of the SYN that begins a record.
#[inline(always)]
pub fn opened(conn: &mut Connection) {
    history::note(conn, history::SYN, true);
    conn.state[0] = Endpoint::SynSent as u8;
}

/// Whether the connection belongs among the established. A SYN-ACK alone is no answer: it is what a flood of SYNs from
/// addresses that are not the sender's gets, and it must not push out the living.
#[inline(always)]
pub(super) fn is_answered(conn: &Connection) -> bool {
    conn.resp() != Endpoint::Inactive
        && (conn.syn_ack_ns == 0 || conn.established_ns != 0 || history::has(conn, history::DATA, false))
}

struct Ends {
    mine: Endpoint,
    theirs: Endpoint,
}

/// The low half of a state byte is the state, the high half the one before.
#[inline(always)]
fn state(conn: &Connection, i: usize) -> Endpoint {
    Endpoint::from_u8(conn.state[i & 1] & 0x0f)
}

#[inline(always)]
fn previous(conn: &Connection, i: usize) -> Endpoint {
    Endpoint::from_u8(conn.state[i & 1] >> 4)
}

#[inline(always)]
fn set(conn: &mut Connection, i: usize, to: Endpoint) {
    let old = conn.state[i & 1] & 0x0f;
    conn.state[i & 1] = old << 4 | to as u8;
}

#[inline(always)]
fn note(conn: &mut Connection, packet: &Packet, is_orig: bool) {
    let (syn, fin, rst) = (packet.flag(Packet::SYN), packet.flag(Packet::FIN), packet.flag(Packet::RST));
    let letter = if fin && rst {
        history::INCONSISTENT
    } else if syn && (fin || rst) {
        history::MULTI_FLAG
    } else if syn {
        if packet.flag(Packet::ACK) { history::HANDSHAKE } else { history::SYN }
    } else if fin {
        history::FIN
    } else if rst {
        history::RST
    } else if packet.payload_bytes != 0 {
        history::DATA
    } else if packet.flag(Packet::ACK) {
        history::ACK
    } else {
        return;
    };
    history::note(conn, letter, is_orig);
}

/// The first segment of an end.
#[inline(always)]
fn first(conn: &mut Connection, packet: &Packet, is_orig: bool, before: &Ends) {
    let (mine, theirs) = if is_orig { (0, 1) } else { (1, 0) };
    if packet.flag(Packet::SYN) {
        if is_orig {
            let sent = if packet.flag(Packet::ACK) { Endpoint::SynAckSent } else { Endpoint::SynSent };
            set(conn, mine, sent);
        } else {
            // A SYN-ACK, or the SYN of a simultaneous open (RFC 9293, figure 7).
            if before.theirs == Endpoint::SynSent {
                set(conn, theirs, Endpoint::Established);
            }
            set(conn, mine, Endpoint::Established);
        }
    }
    if packet.flag(Packet::FIN) {
        set(conn, mine, Endpoint::Closed);
    }
    if packet.flag(Packet::RST) {
        set(conn, mine, Endpoint::Reset);
    }
    if state(conn, mine) != Endpoint::Inactive {
        return;
    }
    if !is_orig && packet.payload_bytes == 0 && before.theirs == Endpoint::SynSent {
        return; // an ACK ahead of the SYN-ACK says nothing
    }
    // An ACK to a SYN-ACK whose SYN was missed completes the handshake; all else is mid-stream.
    let completes = packet.flag(Packet::ACK) && before.theirs == Endpoint::Established;
    set(conn, mine, if completes { Endpoint::Established } else { Endpoint::Partial });
}

#[inline(always)]
fn later(conn: &mut Connection, packet: &Packet, mine: usize, theirs: usize) {
    if packet.flag(Packet::SYN)
        && !packet.flag(Packet::ACK)
        && state(conn, mine) == Endpoint::Partial
        && state(conn, theirs) == Endpoint::Inactive
    {
        set(conn, mine, Endpoint::SynSent);
    }
    if packet.flag(Packet::FIN) && !packet.flag(Packet::RST) {
        set(conn, mine, Endpoint::Closed);
        // FIN, then RST, then the other side's FIN: it ended as it should.
        if state(conn, theirs) == Endpoint::Reset && previous(conn, theirs) == Endpoint::Closed {
            set(conn, theirs, Endpoint::Closed);
        }
    }
    if packet.flag(Packet::RST) {
        set(conn, mine, Endpoint::Reset);
    }
}

#[inline(always)]
fn times(conn: &mut Connection, packet: &Packet, is_orig: bool, now_ns: u64) {
    if packet.flag(Packet::SYN) && packet.flag(Packet::ACK) && !is_orig && conn.syn_ack_ns == 0 {
        conn.syn_ack_ns = now_ns;
    }
    // The handshake is complete when the originator acknowledges the SYN-ACK.
    if is_orig
        && conn.established_ns == 0
        && conn.syn_ack_ns != 0
        && packet.flag(Packet::ACK)
        && !packet.flag(Packet::SYN | Packet::RST)
    {
        conn.established_ns = now_ns;
        conn.happened |= happened::ESTABLISHED;
    }
    let (orig, resp) = (state(conn, 0), state(conn, 1));
    let over = orig == Endpoint::Reset
        || resp == Endpoint::Reset
        || orig == Endpoint::Closed && matches!(resp, Endpoint::Closed | Endpoint::Inactive)
        || resp == Endpoint::Closed && orig == Endpoint::Inactive;
    if over && conn.closed_ns == 0 {
        conn.closed_ns = now_ns;
    }
}
