//! Packets that are not settled, second half: what they change in their connection.

use crate::abi::packet::Trace;
use crate::abi::{
    Attempt, Connection, Direction, FlowKey, FlowRecord, FlowSlot, HandshakeKind, HandshakeOutcome,
    HelloSegment, Limits, Packet, TlsState,
};
use crate::event;
use crate::frame::Frame;
use crate::hello;
use crate::limits;
use crate::policy::Moment;
use crate::record;
use crate::stage::Stages;
use crate::tables::{Attempts, Plane, Sink, Slots, Table, Tables};
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
    let moment = &trace.moment;
    let slot = if record::opens(packet) { None } else { plane.slots.slot(index) };
    let Some((conn, record)) = tracked(&mut plane.connections, &mut plane.half_open, slot, &packet.key)
    else {
        return; // another CPU took it away since; the next packet opens it anew
    };
    track_packet::<F, T>(frame, packet, conn, record, moment.now_ns);
    let part = hello::part(conn, packet);
    for piece in 0..u32::from(HelloSegment::MAX) {
        let done = piece * HelloSegment::BYTES as u32;
        if done >= part || conn.hello_segments >= HelloSegment::MAX {
            break;
        }
        frame.hello(&mut plane.sink, conn, packet, moment.now_ns, done);
    }
    record::settle(record, conn, packet);
    if u32::from(conn.limits) & Limits::IDENTITY_HELD != 0 {
        frame.recount(&plane.rules, &mut plane.buckets, conn, packet, moment.now_ns, false);
    }
    let goes_on = record.settled != 0 && record.packets[0] + record.packets[1] > 1;
    if conn.happened & happened::QUIC != 0 && conn.quic_version == 0 {
        frame.hello(&mut plane.sink, conn, packet, moment.now_ns, hello::NOTICE);
    }
    if conn.happened != 0 || may_have_ended(conn) {
        frame.account(direction, &mut plane.sink, conn, packet, moment);
    }
    let is_answered = conn.happened & happened::ANSWERED != 0;
    if !is_answered && !goes_on {
        return;
    }
    let Some(slot) = plane.slots.slot(index) else {
        return;
    };
    if is_answered {
        establish(&mut plane.connections, &mut plane.half_open, &mut plane.spill, slot, &packet.key);
    } else if slot.key != packet.key && !record::is_living(slot, moment.now_ns) {
        take_slot(&mut plane.half_open, &mut plane.spill, slot, &packet.key);
    } else {
        return;
    }
    plane.slots.given_to(&packet.key);
}

/// The packet's connection and its flow's record. Whom this CPU gave no slot is an attempt.
#[inline(always)]
pub(crate) fn tracked<'t, 's, C, H>(
    connections: &'t mut C,
    half_open: &'t mut H,
    slot: Option<&'s mut FlowSlot>,
    key: &FlowKey,
) -> Option<(&'t mut Connection, &'s mut FlowRecord)>
where
    't: 's,
    C: Table<FlowKey, Connection>,
    H: Table<FlowKey, Attempt>,
{
    let owned = slot.filter(|slot| slot.key == *key);
    match owned {
        Some(slot) => match connections.get(key) {
            Some(conn) => Some((conn, &mut slot.record)),
            None => half_open.get(key).map(|attempt| (&mut attempt.connection, &mut slot.record)),
        },
        None => half_open.get(key).map(|attempt| (&mut attempt.connection, &mut attempt.record)),
    }
}

/// Changes the connection by the packet.
#[inline(always)]
fn track_packet<F: Stages<T>, T: Tables>(
    frame: &F,
    packet: &Packet,
    conn: &mut Connection,
    record: &mut FlowRecord,
    now_ns: u64,
) {
    let is_orig = conn.is_originator(packet.side());
    conn.last_ns = now_ns;
    conn.happened = 0;
    if packet.has(Packet::HAS_SCTP) {
        return track::sctp::packet(conn, packet, is_orig, now_ns);
    }
    if !packet.has(Packet::HAS_TCP) {
        let is_first = conn.state == [0, 0];
        track::datagram(conn, is_orig, now_ns);
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

/// The same for the SYN that opened the connection and carries nothing: it settles nothing and ends no handshake.
#[inline(always)]
pub(crate) fn track_syn(packet: &Packet, conn: &mut Connection, record: &mut FlowRecord) {
    track::tcp::opened(conn);
    track::stream::note(conn, packet, record);
}

/// Moves an answered connection among the established. If these are full it stays where it is.
#[inline(always)]
fn establish<C, H, S>(
    connections: &mut C,
    half_open: &mut H,
    spill: &mut S,
    slot: &mut FlowSlot,
    key: &FlowKey,
) where
    C: Table<FlowKey, Connection>,
    H: Attempts,
    S: Table<FlowKey, FlowRecord>,
{
    // First, or the next SYN could miss it.
    half_open.answered(key);
    let Some(attempt) = half_open.get(key) else {
        return;
    };
    if connections.insert(key, &attempt.connection) {
        record::settle_down(slot, spill, key, &mut attempt.record);
        half_open.remove(key);
    }
}

/// Gives a slot to who goes on without an answer: one datagram is no flow yet.
#[inline(always)]
fn take_slot<H, S>(half_open: &mut H, spill: &mut S, slot: &mut FlowSlot, key: &FlowKey)
where
    H: Table<FlowKey, Attempt>,
    S: Table<FlowKey, FlowRecord>,
{
    if let Some(attempt) = half_open.get(key) {
        record::settle_down(slot, spill, key, &mut attempt.record);
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
            TlsState::NotTls if limits::lacks_tls(conn) => HandshakeOutcome::NotTls,
            _ => return,
        };
        if conn.flags & Connection::IS_TLS_COUNTED != 0 {
            return;
        }
        conn.flags |= Connection::IS_TLS_COUNTED;
        let kind = if conn.is_quic() { HandshakeKind::Quic } else { HandshakeKind::Tls };
        if outcome as u8 == HandshakeOutcome::NotTls as u8 {
            // There is no hello: from when it could have come.
            let opened_ns = if conn.established_ns != 0 { conn.established_ns } else { conn.opened_ns };
            (kind, outcome, [opened_ns, 0, moment.now_ns])
        } else {
            (kind, outcome, [conn.client_hello_ns, conn.server_hello_ns, conn.tls_done_ns])
        }
    };
    event::handshake(sink, frame, direction, packet, moment, conn, (kind, outcome, times));
}
