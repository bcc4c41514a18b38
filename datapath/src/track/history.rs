//! Zeek's words for a connection: `history` and `conn_state`.

use crate::abi::{Connection, Endpoint};
use crate::wire::proto;

/// A SYN without ACK.
pub const SYN: u8 = 0;
/// A SYN with ACK.
pub const HANDSHAKE: u8 = 1;
/// An ACK without payload.
pub const ACK: u8 = 2;
/// Payload.
pub const DATA: u8 = 3;
/// A FIN.
pub const FIN: u8 = 4;
/// A RST.
pub const RST: u8 = 5;
/// FIN and RST in one segment.
pub const INCONSISTENT: u8 = 6;
/// SYN with FIN or with RST in one segment.
pub const MULTI_FLAG: u8 = 7;

#[cfg(feature = "host")]
const LETTERS: [u8; 8] = *b"SHADFRIQ";

/// Adds a letter, unless the history has it.
#[inline(always)]
pub fn note(conn: &mut Connection, letter: u8, is_orig: bool) {
    let code = letter + if is_orig { 0 } else { 8 };
    let bit = 1u16 << (code & 15);
    if conn.seen & bit == 0 {
        conn.history |= u64::from(code) << ((length(conn.seen) * 4) & 63);
        conn.seen |= bit;
    }
}

/// How many letters there are: one a bit.
#[inline(always)]
fn length(seen: u16) -> u32 {
    // No popcount instruction in BPF: add neighbouring fields.
    let x = u32::from(seen);
    let x = x - ((x >> 1) & 0x5555);
    let x = (x & 0x3333) + ((x >> 2) & 0x3333);
    let x = (x + (x >> 4)) & 0x0f0f;
    (x + (x >> 8)) & 0x1f
}

/// Whether the history has a letter.
#[inline(always)]
pub fn has(conn: &Connection, letter: u8, is_orig: bool) -> bool {
    conn.seen >> (letter + if is_orig { 0 } else { 8 }) & 1 != 0
}

/// The history in Zeek's letters, in the order in which they first occurred: upper case for the originator.
///
/// Of Zeek's letters `S H A D F R I Q` are tracked, each noted once a side, and `^` where a mid-stream packet was
/// taken for the responder's. Retransmissions (`T`), bad checksums (`C`), gaps (`G`) and zero windows (`W`) are not.
#[cfg(feature = "host")]
pub fn history(conn: &Connection) -> String {
    let mut letters = String::new();
    for i in 0..length(conn.seen) {
        let code = (conn.history >> (i * 4) & 15) as usize;
        let letter = char::from(LETTERS[code & 7]);
        letters.push(if code < 8 { letter } else { letter.to_ascii_lowercase() });
    }
    if conn.flags & Connection::IS_FLIPPED != 0 {
        letters.insert(0, '^');
    }
    letters
}

/// Zeek's conn_state.
pub fn conn_state(conn: &Connection, protocol: u8) -> &'static str {
    let (orig, resp) = (conn.orig(), conn.resp());
    match protocol {
        proto::TCP | proto::SCTP => tcp_state(conn, orig, resp),
        proto::UDP => match (orig, resp) {
            (Endpoint::Established, Endpoint::Established) => "SF",
            (Endpoint::Established, _) => "S0",
            (_, Endpoint::Established) => "SHR",
            _ => "OTH",
        },
        _ => "OTH",
    }
}

/// Whether the originator began with a SYN and nothing but data lies between that and its reset, as in Zeek: a reset
/// after any other letter of its own, or alone, is of a connection of which the beginning was missed.
fn is_aborted_attempt(conn: &Connection) -> bool {
    let letters = (0..length(conn.seen)).map(|i| (conn.history >> (i * 4) & 15) as u8);
    let mut own = letters.filter(|code| *code < 8 && *code != DATA);
    conn.history & 15 == u64::from(SYN) && own.next() == Some(SYN) && own.next() == Some(RST)
}

fn tcp_state(conn: &Connection, orig: Endpoint, resp: Endpoint) -> &'static str {
    use Endpoint::{Closed, Established, Inactive, Partial, Reset, SynAckSent, SynSent};
    let empty = !has(conn, DATA, true) && !has(conn, DATA, false);
    let unseen = |end| matches!(end, Inactive | Partial);
    match (orig, resp) {
        (SynSent | SynAckSent, Reset) => "REJ",
        (Reset, Reset) if empty => "REJ",
        (_, Reset) => {
            if unseen(orig) {
                "RSTRH"
            } else {
                "RSTR"
            }
        }
        (Reset, _) if !unseen(resp) => "RSTO",
        (Reset, _) if is_aborted_attempt(conn) => "RSTOS0",
        (Reset, _) => "OTH",
        (Closed, Closed) => "SF",
        (Closed, _) => {
            if unseen(resp) {
                "SH"
            } else {
                "S2"
            }
        }
        (_, Closed) => {
            if unseen(orig) {
                "SHR"
            } else {
                "S3"
            }
        }
        (SynSent, Inactive) => "S0",
        (Established, Established) => "S1",
        _ => "OTH",
    }
}
