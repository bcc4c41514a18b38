//! Packets that are not settled, second half: what they change in their connection.

use crate::abi::packet::Trace;
use crate::abi::{
    Connection, Direction, FlowRecord, HandshakeKind, HandshakeOutcome, HelloSegment, Packet, TlsState,
};
use crate::admit::find;
use crate::event;
use crate::frame::Frame;
use crate::hello;
use crate::policy::Moment;
use crate::record;
use crate::stage::Stages;
use crate::tables::{Plane, Rules, Sink, Slots, Table, Tables};
use crate::track::{self, happened};

/// Tracks a packet that goes on: changes its connection, settles its record, counts handshakes that ended.
#[inline(always)]
pub fn follow<F: Stages<T>, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    trace: &Trace,
    index: u32,
) {
    let packet = &trace.packet;
    let (Some(config), Some(slot)) = (plane.rules.config(), plane.slots.slot(index)) else {
        return;
    };
    let moment = Moment::now(&plane.rules, config);
    let Some(conn) = find(&mut plane.connections, &mut plane.half_open, &packet.key) else {
        return; // another CPU took it away since; the next packet opens it anew
    };
    let record = if slot.key == packet.key {
        Some(&mut slot.record)
    } else if packet.has(Packet::HAS_TCP) && !packet.flag(Packet::SYN) {
        plane.spill.get(&packet.key)
    } else {
        None
    };
    track_packet::<F, T>(frame, packet, conn, record, moment.now_ns);
    for piece in 0..u32::from(HelloSegment::MAX) {
        let done = piece * HelloSegment::BYTES as u32;
        if done >= packet.payload_bytes || !hello::is_part(conn, packet) {
            break;
        }
        frame.hello(&mut plane.sink, conn, packet, moment.now_ns, done);
    }
    if slot.key == packet.key {
        record::settle(&mut slot.record, conn, packet);
    }
    if conn.happened & happened::QUIC != 0 {
        frame.hello(&mut plane.sink, conn, packet, moment.now_ns, hello::NOTICE);
    }
    if conn.happened != 0 || may_have_ended(conn) {
        frame.account(direction, &mut plane.sink, conn, packet, &moment);
    }
    if conn.happened & happened::ANSWERED != 0 {
        establish(plane, packet);
    }
}

/// Changes the connection by the packet.
#[inline(always)]
fn track_packet<F: Stages<T>, T: Tables>(
    frame: &F,
    packet: &Packet,
    conn: &mut Connection,
    record: Option<&mut FlowRecord>,
    now_ns: u64,
) {
    let is_orig = conn.is_originator(packet.side());
    conn.last_ns = now_ns;
    conn.happened = 0;
    if !packet.has(Packet::HAS_TCP) {
        let is_first = conn.state == [0, 0];
        track::datagram(conn, is_orig);
        if track::quic::may_tell(conn, packet, is_first) {
            frame.quic(conn, packet, now_ns);
        }
        return;
    }
    track::tcp::segment(conn, packet, is_orig, now_ns);
    F::stream(conn, packet, record);
    if packet.payload_bytes != 0 && !packet.flag(Packet::RST) {
        frame.tls(conn, packet, now_ns);
    }
    if packet.flag(Packet::FIN | Packet::RST) {
        track::tls::close(conn, packet.flag(Packet::RST), now_ns);
    }
}

/// Moves an answered connection among the established. If these are full it stays where it is.
#[inline(always)]
fn establish<T: Tables>(plane: &mut Plane<T>, packet: &Packet) {
    let Some(conn) = plane.half_open.get(&packet.key) else {
        return;
    };
    if plane.connections.insert(&packet.key, conn) {
        plane.half_open.remove(&packet.key);
    }
}

/// Whether the TLS or QUIC handshake has an outcome that was not counted.
#[inline(always)]
fn may_have_ended(conn: &Connection) -> bool {
    conn.tls_state().is_final() && conn.flags & Connection::IS_TLS_COUNTED == 0
}

/// Counts and reports what the packet brought about in handshakes.
#[inline(always)]
pub fn account<F: Frame, S: Sink>(
    frame: &F,
    direction: Direction,
    sink: &mut S,
    conn: &mut Connection,
    packet: &Packet,
    moment: &Moment,
) {
    let (kind, outcome, times) = if conn.happened & (happened::ESTABLISHED | happened::REFUSED) != 0
        && conn.flags & Connection::IS_HANDSHAKE_COUNTED == 0
    {
        conn.flags |= Connection::IS_HANDSHAKE_COUNTED;
        let outcome = if conn.happened & happened::REFUSED != 0 {
            HandshakeOutcome::Refused
        } else {
            HandshakeOutcome::Completed
        };
        (HandshakeKind::Tcp, outcome, [conn.opened_ns, conn.syn_ack_ns, moment.now_ns])
    } else if conn.happened & happened::RETRANSMITTED != 0 {
        (HandshakeKind::Tcp, HandshakeOutcome::Retransmitted, [conn.opened_ns, 0, moment.now_ns])
    } else if conn.happened & (happened::RETRY | happened::VERSIONS) != 0 {
        let outcome = if conn.happened & happened::RETRY != 0 {
            HandshakeOutcome::Retry
        } else {
            HandshakeOutcome::VersionNegotiation
        };
        (HandshakeKind::Quic, outcome, [conn.client_hello_ns, 0, moment.now_ns])
    } else {
        let outcome = match conn.tls_state() {
            TlsState::Established => HandshakeOutcome::Completed,
            TlsState::Alert => HandshakeOutcome::Alert,
            TlsState::Aborted => HandshakeOutcome::Aborted,
            _ => return,
        };
        if conn.flags & Connection::IS_TLS_COUNTED != 0 {
            return;
        }
        conn.flags |= Connection::IS_TLS_COUNTED;
        let kind = if conn.is_quic() { HandshakeKind::Quic } else { HandshakeKind::Tls };
        (kind, outcome, [conn.client_hello_ns, conn.server_hello_ns, conn.tls_done_ns])
    };
    event::handshake(sink, frame, direction, packet, moment, conn, (kind, outcome, times));
}
