//! Handshakes that came to no end: only the passing of time tells, so user space says it.

use super::expire;
use super::observe::Hub;
use crate::exit_code::Result;
use crate::view::flow::Moment;
use bytemuck::Zeroable;
use datapath::abi::{
    Action, Attempt, Connection, Endpoint, Event, EventKind, FlowKey, HandshakeKey, HandshakeKind,
    HandshakeOutcome, HandshakeStats, HelloSegment, Reason, Side,
};
use datapath::track::timeout_ns;
use loader::Maps;
use std::collections::{HashSet, VecDeque};

const TCP: u8 = 6;

/// Counts, reports and removes attempts that are over.
pub fn sweep(maps: &Maps, hub: &Hub) -> Result<()> {
    let config = maps.config.get()?;
    let now_ns = loader::boot_ns();
    let moment = Moment::now();
    for (key, Attempt { connection, .. }) in maps.half_open.entries(&config) {
        let idle_ns = now_ns.saturating_sub(connection.last_ns);
        let ended = ending(&key, &connection);
        if idle_ns <= timeout_ns(&connection, key.proto, &config) {
            continue;
        }
        let record = expire::counted(maps, &key, &connection)?;
        if let Some(ended) = ended
            && !is_dropped(maps, &key, &connection)?
        {
            tell(maps, hub, &key, &connection, ended, (now_ns, &moment))?;
        }
        if expire::remove(maps, hub, || Ok(maps.half_open.remove(&key, &config)))? {
            expire::report(hub, &key, connection, record, (now_ns, &moment));
        }
    }
    Ok(())
}

/// What an attempt that is over has come to.
fn ending(key: &FlowKey, connection: &Connection) -> Option<(HandshakeKind, HandshakeOutcome)> {
    let silent = connection.resp() == Endpoint::Inactive;
    if key.proto == TCP && connection.orig() == Endpoint::SynSent && silent {
        return Some((HandshakeKind::Tcp, HandshakeOutcome::NoAnswer));
    }
    let unacknowledged = connection.syn_ack_ns != 0 && connection.established_ns == 0;
    if key.proto == TCP && unacknowledged && connection.closed_ns == 0 {
        return Some((HandshakeKind::Tcp, HandshakeOutcome::HalfOpen));
    }
    (connection.is_quic() && silent).then_some((HandshakeKind::Quic, HandshakeOutcome::NoAnswer))
}

/// TLS and QUIC handshakes that began, in the order in which they did.
#[derive(Default)]
pub struct Begun {
    queue: VecDeque<(FlowKey, u64)>,
    waiting: HashSet<(FlowKey, u64)>,
}

/// When there are more, those that come are not watched: they time out uncounted.
const MAX_BEGUN: usize = 65_536;
/// A handshake of TLS or QUIC that takes longer has timed out.
const HANDSHAKE_TIMEOUT_NS: u64 = 30_000_000_000;

impl Begun {
    /// Notes a handshake by the first piece of its hello.
    pub fn note(&mut self, piece: &HelloSegment) {
        let id = (piece.key, piece.hello_ns);
        if piece.offset == 0 && self.queue.len() < MAX_BEGUN && self.waiting.insert(id) {
            self.queue.push_back(id);
        }
    }

    /// Takes those whose time is over.
    pub fn overdue(&mut self, now_ns: u64) -> Vec<(FlowKey, u64)> {
        let mut over = Vec::new();
        while let Some((_, began_ns)) = self.queue.front()
            && now_ns.saturating_sub(*began_ns) > HANDSHAKE_TIMEOUT_NS
        {
            over.extend(self.queue.pop_front().filter(|id| self.waiting.remove(id)));
        }
        over
    }
}

/// Counts and reports handshakes of TLS and QUIC that timed out. One that ends later is counted as that besides.
pub fn time_out(maps: &Maps, hub: &Hub) -> Result<()> {
    let now_ns = loader::boot_ns();
    for (key, began_ns) in hub.overdue(now_ns) {
        let same = |c: &Connection| {
            c.client_hello_ns == began_ns && !c.tls_state().is_final() && c.resp() != Endpoint::Inactive
        };
        let Some(connection) = maps.connection(&key)?.filter(same) else { continue };
        let is_quic = connection.is_quic();
        if !is_quic && connection.tls_flags & Connection::TLS_LOST != 0 {
            continue; // nobody knows what became of it
        }
        let kind = if is_quic { HandshakeKind::Quic } else { HandshakeKind::Tls };
        let moment = Moment::now();
        tell(maps, hub, &key, &connection, (kind, HandshakeOutcome::TimedOut), (now_ns, &moment))?;
    }
    Ok(())
}

fn tell(
    maps: &Maps,
    hub: &Hub,
    key: &FlowKey,
    connection: &Connection,
    ended: (HandshakeKind, HandshakeOutcome),
    (now_ns, moment): (u64, &Moment),
) -> Result<()> {
    count(maps, connection, ended)?;
    hub.publish(bytemuck::bytes_of(&event(key, connection, ended, now_ns)), moment);
    Ok(())
}

/// What we dropped ourselves has no answer to wait for.
fn is_dropped(maps: &Maps, key: &FlowKey, connection: &Connection) -> Result<bool> {
    let dropped = |flow: &loader::maps::Flow| {
        flow.record.incarnation == connection.incarnation
            && Action::from_u8(flow.record.action) == Action::Dropped
    };
    Ok(maps.flow(key)?.iter().any(dropped))
}

/// The programs never write these outcomes, so nobody else writes these entries. Where the table is full the outcome is counted as
/// lost, as the programs do it, and no attempt waits for it.
fn count(
    maps: &Maps,
    connection: &Connection,
    (kind, outcome): (HandshakeKind, HandshakeOutcome),
) -> Result<()> {
    let [orig_identity, resp_identity] = connection.identity;
    let (kind, outcome) = (kind as u8, outcome as u8);
    let key = HandshakeKey { orig_identity, resp_identity, kind, outcome, ..HandshakeKey::default() };
    let mut per_cpu = match maps.handshakes.get(&key)? {
        Some(per_cpu) => per_cpu,
        None => vec![HandshakeStats::zeroed(); maps.lost.get(0)?.len()],
    };
    if let Some(first) = per_cpu.first_mut() {
        first.count += 1;
    }
    match maps.handshakes.insert(&key, per_cpu) {
        Err(loader::Error::MapFull { .. }) => Ok(maps.unplaced(1)?),
        written => Ok(written?),
    }
}

fn event(
    key: &FlowKey,
    connection: &Connection,
    (kind, outcome): (HandshakeKind, HandshakeOutcome),
    now_ns: u64,
) -> Event {
    let began_ns = if kind == HandshakeKind::Tcp { connection.opened_ns } else { connection.client_hello_ns };
    let originator = connection.originator_side();
    let [orig, resp] = connection.identity;
    Event {
        time_ns: now_ns,
        duration_ns: now_ns.saturating_sub(began_ns),
        key: *key,
        identity: if originator == Side::A { [orig, resp] } else { [resp, orig] },
        rule: connection.rule,
        kind: EventKind::Handshake as u8,
        action: Action::Forwarded as u8,
        reason: Reason::Forwarded as u8,
        from_b: connection.originator,
        originator: connection.originator,
        handshake: kind as u8,
        outcome: outcome as u8,
        ..Event::zeroed()
    }
}
