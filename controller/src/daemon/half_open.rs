//! Attempts that nobody answered: only the passing of time tells, so user space says it.

use super::observe::Hub;
use crate::exit_code::Result;
use crate::view::flow::Moment;
use bytemuck::Zeroable;
use datapath::abi::{
    Action, Connection, Endpoint, Event, EventKind, FlowKey, HandshakeKey, HandshakeKind, HandshakeOutcome,
    HandshakeStats, Reason, Side,
};
use loader::Maps;

const TCP: u8 = 6;

/// Counts, reports and removes attempts that are over.
pub fn sweep(maps: &Maps, hub: &Hub) -> Result<()> {
    let config = maps.config.get()?;
    let now_ns = loader::boot_ns();
    let moment = Moment::now();
    for (key, connection) in maps.half_open.entries()? {
        let idle_ns = now_ns.saturating_sub(connection.last_ns);
        let attempt = key.proto == TCP
            && connection.orig() == Endpoint::SynSent
            && connection.resp() == Endpoint::Inactive;
        let timeout_ns = match (attempt, key.proto) {
            (true, _) => config.attempt_timeout_ns,
            (false, TCP) => config.tcp_idle_timeout_ns,
            _ => config.datagram_timeout_ns,
        };
        if idle_ns <= timeout_ns {
            continue;
        }
        if attempt && !is_dropped(maps, &key, &connection)? {
            count(maps, &connection)?;
            hub.publish(bytemuck::bytes_of(&event(&key, &connection, now_ns)), &moment);
        }
        maps.half_open.remove(&key)?;
    }
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

/// The programs never write this outcome, so nobody else writes this entry.
fn count(maps: &Maps, connection: &Connection) -> Result<()> {
    let [orig_identity, resp_identity] = connection.identity;
    let (kind, outcome) = (HandshakeKind::Tcp as u8, HandshakeOutcome::NoAnswer as u8);
    let key = HandshakeKey { orig_identity, resp_identity, kind, outcome, ..HandshakeKey::default() };
    let mut per_cpu = match maps.handshakes.get(&key)? {
        Some(per_cpu) => per_cpu,
        None => vec![HandshakeStats::zeroed(); maps.lost.get(0)?.len()],
    };
    if let Some(first) = per_cpu.first_mut() {
        first.count += 1;
    }
    Ok(maps.handshakes.insert(&key, per_cpu)?)
}

fn event(key: &FlowKey, connection: &Connection, now_ns: u64) -> Event {
    let originator = connection.originator_side();
    let [orig, resp] = connection.identity;
    Event {
        time_ns: now_ns,
        duration_ns: now_ns.saturating_sub(connection.opened_ns),
        key: *key,
        identity: if originator == Side::A { [orig, resp] } else { [resp, orig] },
        rule: connection.rule,
        kind: EventKind::Handshake as u8,
        action: Action::Forwarded as u8,
        reason: Reason::Forwarded as u8,
        from_b: connection.originator,
        originator: connection.originator,
        handshake: HandshakeKind::Tcp as u8,
        outcome: HandshakeOutcome::NoAnswer as u8,
        ..Event::zeroed()
    }
}
