//! TLS handshakes as the record layer shows them (RFC 8446, RFC 5246).
//!
//! Up to TLS 1.2 the outcome is on the wire: both sides change the cipher and send a record under it, or one sends an
//! alert in the clear. TLS 1.3 encrypts that, so the outcome is inferred: after the originator's first record under
//! keys, a record of the responder that is not of an alert's size means that it accepted; one of an alert's size
//! followed by a close means that it did not.

use crate::abi::{Connection, Packet, TlsState};
use crate::frame::Frame;
use crate::wire::tls::{self, Record};

/// Records that are looked at in one segment; a flight has fewer.
const MAX_RECORDS: usize = 8;
/// An alert under TLS 1.3 keys: two bytes, the content type, a tag of 16 (RFC 8446, section 5.2).
const ENCRYPTED_ALERT: u16 = 19;
/// What every version since SSL 3.0 has above its minor one.
const SSL_MAJOR: u8 = 0x30;
/// close_notify is no failure (RFC 8446, section 6.1).
const CLOSE_NOTIFY: u8 = 0;

/// Changes the record by a segment with payload. Does nothing once the state is final.
///
/// `record_at` is a function of its own in BPF, which answers by memory: what the verifier knows on each of its paths is
/// forgotten on return, where it would otherwise multiply ("BPF program is too large. Processed 1000001 insn", 6.18).
#[inline(always)]
pub fn payload<F: Frame>(conn: &mut Connection, frame: &F, packet: &Packet, now_ns: u64) {
    let is_orig = conn.is_originator(packet.side());
    if is_settled(conn) {
        return;
    }
    if conn.tls_state() == TlsState::Unknown {
        begin(conn, frame, packet, is_orig, now_ns);
        // Early data may be in the same segment (RFC 8446, section 2.3).
        if conn.tls_state() != TlsState::ClientHello || packet.flag(Packet::SYN) {
            return;
        }
    }
    let i = usize::from(!is_orig);
    if !is_orig && conn.server_hello_ns == 0 && conn.tls_next_seq[1] == 0 {
        conn.tls_next_seq[1] = packet.seq;
    }
    for _ in 0..MAX_RECORDS {
        let ahead = conn.tls_next_seq[i & 1].wrapping_sub(packet.seq);
        if ahead as i32 >= packet.payload_bytes as i32 {
            return; // the record goes on beyond this segment, or this is a retransmission
        }
        record_at(conn, frame, packet, is_orig, now_ns);
        if conn.tls_flags & Connection::TLS_LOST != 0 {
            return;
        }
    }
}

/// Takes in the record that starts in this segment.
#[inline(never)]
fn record_at<F: Frame>(conn: &mut Connection, frame: &F, packet: &Packet, is_orig: bool, now_ns: u64) {
    let i = usize::from(!is_orig);
    let next = conn.tls_next_seq[i & 1];
    let ahead = next.wrapping_sub(packet.seq);
    let record = if (ahead as i32) < 0 {
        None // a segment is missing
    } else {
        tls::record(frame, usize::from(packet.payload_offset) + ahead as usize)
    };
    let Some(record) = record else {
        conn.tls_flags |= Connection::TLS_LOST;
        return;
    };
    step(conn, &record, is_orig, now_ns);
    conn.tls_next_seq[i & 1] = next.wrapping_add(tls::HEADER as u32 + u32::from(record.length));
}

/// Whether segments with payload have nothing left to tell.
#[inline(always)]
pub fn is_settled(conn: &Connection) -> bool {
    conn.tls_state().is_final() || conn.tls_flags & Connection::TLS_LOST != 0
}

/// The first payload of a connection: a ClientHello of the originator, or no TLS.
#[inline(always)]
fn begin<F: Frame>(conn: &mut Connection, frame: &F, packet: &Packet, is_orig: bool, now_ns: u64) {
    let offset = usize::from(packet.payload_offset);
    let length = match tls::record(frame, offset) {
        Some(Record { content: tls::HANDSHAKE, length, first: [tls::CLIENT_HELLO, _], .. }) => {
            tls::HEADER as u32 + u32::from(length)
        }
        Some(_) => 0,
        None => u32::from(tls::sslv2_hello(frame, offset).unwrap_or(0)),
    };
    if !is_orig || length == 0 {
        conn.tls = TlsState::NotTls as u8;
        return;
    }
    // A SYN takes a sequence number (RFC 9293, section 3.4); with data it is a Fast Open (RFC 7413).
    let seq = packet.seq.wrapping_add(u32::from(packet.flag(Packet::SYN)));
    conn.client_hello_ns = now_ns;
    conn.hello_seq = seq;
    conn.tls_next_seq[0] = seq.wrapping_add(length);
    conn.tls = TlsState::ClientHello as u8;
}

#[inline(always)]
fn step(conn: &mut Connection, record: &Record, is_orig: bool, now_ns: u64) {
    match record.content {
        tls::HANDSHAKE => handshake(conn, record, is_orig, now_ns),
        tls::CHANGE_CIPHER_SPEC => {
            conn.tls_flags |= if is_orig { Connection::TLS_ORIG_CCS } else { Connection::TLS_RESP_CCS };
        }
        tls::ALERT => alert(conn, record, now_ns),
        _ => application_data(conn, record, is_orig, now_ns),
    }
    // RFC 5246, section 7.1: a record after the ChangeCipherSpec of each side is what proves keys up to TLS 1.2.
    let keyed = Connection::TLS_ORIG_KEYED | Connection::TLS_RESP_KEYED;
    if conn.tls_flags & keyed == keyed && conn.tls_flags & Connection::TLS_1_3 == 0 {
        finish(conn, TlsState::Established, false, now_ns);
    }
}

#[inline(always)]
fn handshake(conn: &mut Connection, record: &Record, is_orig: bool, now_ns: u64) {
    if is_orig {
        // A second ClientHello, after a HelloRetryRequest, may follow a ChangeCipherSpec (RFC 8446, section D.4).
        if conn.tls_flags & Connection::TLS_ORIG_CCS != 0 && !is_hello(record, tls::CLIENT_HELLO) {
            conn.tls_flags |= Connection::TLS_ORIG_KEYED;
        }
        return;
    }
    if is_hello(record, tls::SERVER_HELLO) {
        conn.tls_version = SSL_MAJOR | record.minor;
        if conn.server_hello_ns == 0 {
            conn.server_hello_ns = now_ns;
        }
        if conn.tls_state() == TlsState::ClientHello {
            conn.tls = TlsState::ServerHello as u8;
        }
    } else if conn.tls_flags & Connection::TLS_RESP_CCS != 0 {
        conn.tls_flags |= Connection::TLS_RESP_KEYED;
    }
}

/// Whether a record begins with a hello: by its type and the upper byte of its length, which no hello comes to. The first byte of an
/// encrypted Finished is any.
#[inline(always)]
fn is_hello(record: &Record, kind: u8) -> bool {
    record.first[0] == kind && record.first[1] == 0
}

#[inline(always)]
fn alert(conn: &mut Connection, record: &Record, now_ns: u64) {
    let readable = record.length == 2;
    if readable {
        if record.first[1] == CLOSE_NOTIFY {
            return;
        }
        conn.alert_level = record.first[0];
        conn.alert_description = record.first[1];
    }
    finish(conn, TlsState::Alert, !readable, now_ns);
}

#[inline(always)]
fn application_data(conn: &mut Connection, record: &Record, is_orig: bool, now_ns: u64) {
    if conn.tls_state() != TlsState::ServerHello {
        return; // early data (RFC 8446, section 2.3) proves nothing
    }
    let alert_sized = record.length == ENCRYPTED_ALERT;
    if alert_sized {
        conn.tls_flags |= Connection::TLS_ALERT_SIZED;
    } else {
        conn.tls_flags &= !Connection::TLS_ALERT_SIZED;
    }
    if is_orig {
        if !alert_sized {
            conn.tls_flags |= Connection::TLS_ORIG_KEYED;
        }
        return;
    }
    if conn.tls_flags & Connection::TLS_RESP_KEYED == 0 {
        conn.tls_flags |= Connection::TLS_1_3;
    }
    if conn.tls_flags & Connection::TLS_1_3 != 0 {
        let accepted = conn.tls_flags & Connection::TLS_ORIG_KEYED != 0 && !alert_sized;
        conn.tls_flags |= Connection::TLS_RESP_KEYED;
        if accepted {
            finish(conn, TlsState::Established, true, now_ns);
        }
    }
}

/// A FIN or RST while the handshake is open decides its outcome.
#[inline(always)]
pub fn close(conn: &mut Connection, is_reset: bool, now_ns: u64) {
    if !matches!(conn.tls_state(), TlsState::ClientHello | TlsState::ServerHello) {
        return;
    }
    let keyed = Connection::TLS_ORIG_KEYED | Connection::TLS_RESP_KEYED;
    if conn.tls_flags & Connection::TLS_ALERT_SIZED != 0 {
        finish(conn, TlsState::Alert, true, now_ns);
    } else if conn.tls_flags & keyed == keyed && !is_reset {
        // The originator sent its last flight and the responder had nothing to say: no alert, so it accepted.
        finish(conn, TlsState::Established, true, now_ns);
    } else if conn.tls_flags & Connection::TLS_LOST == 0 {
        finish(conn, TlsState::Aborted, false, now_ns);
    }
}

#[inline(always)]
fn finish(conn: &mut Connection, state: TlsState, inferred: bool, now_ns: u64) {
    if conn.tls_state().is_final() {
        return;
    }
    conn.tls = state as u8;
    conn.tls_done_ns = now_ns;
    if inferred {
        conn.tls_flags |= Connection::TLS_INFERRED;
    }
}
