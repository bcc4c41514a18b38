//! Connections that are over: only the passing of time tells, so user space reports and removes them.

use super::lock;
use super::observe::Hub;
use crate::exit_code::Result;
use crate::view::flow::Moment;
use bytemuck::Zeroable;
use datapath::abi::{ClosedEvent, Config, Connection, Event, EventKind, FlowKey, FlowRecord, Side};
use datapath::track::{stream, timeout_ns};
use loader::Maps;
use std::time::{Duration, Instant};

/// Connections that are looked at in one sweep. A full table takes several.
const AT_A_TIME: usize = 20_000;
/// How long connections that are no more may stand in the filters.
const FILTERED_EVERY: Duration = Duration::from_secs(60);

/// Goes through the answered connections again and again.
#[derive(Default)]
pub struct Expiry {
    waiting: Vec<FlowKey>,
    filtered: Option<Instant>,
}

impl Expiry {
    /// Looks at the next connections; reports and removes those that are over.
    pub fn sweep(&mut self, maps: &Maps, hub: &Hub) -> Result<()> {
        if self.waiting.is_empty() {
            if self.filtered.is_none_or(|at| at.elapsed() >= FILTERED_EVERY) {
                maps.filter_answered_anew()?;
                self.filtered = Some(Instant::now());
            }
            self.waiting = maps.connections.keys()?;
        }
        let config = maps.config.get()?;
        let (now_ns, moment) = (loader::boot_ns(), Moment::now());
        let from = self.waiting.len().saturating_sub(AT_A_TIME);
        for key in self.waiting.split_off(from) {
            let Some(connection) = maps.connections.get(&key)? else { continue };
            let limit_ns = kept_ns(&connection, key.proto, &config);
            if now_ns.saturating_sub(connection.last_ns) <= limit_ns {
                continue;
            }
            // A busy flow looks at its connection now and then, an idle one may have had packets since.
            let record = counted(maps, &key, &connection)?;
            let last_ns = record.map_or(0, |record| record.last_ns);
            if now_ns.saturating_sub(last_ns) > limit_ns
                && remove(maps, hub, || Ok(maps.connections.remove(&key)?))?
            {
                report(hub, &key, connection, record, (now_ns, &moment));
            }
        }
        Ok(())
    }
}

/// One that is closed is shown for a while yet.
fn kept_ns(connection: &Connection, protocol: u8, config: &Config) -> u64 {
    let limit_ns = timeout_ns(connection, protocol, config);
    let is_closed = connection.closed_ns != 0;
    if is_closed { limit_ns.max(config.closed_kept_ns) } else { limit_ns }
}

/// What all CPUs have counted of a connection.
pub fn counted(maps: &Maps, key: &FlowKey, connection: &Connection) -> Result<Option<FlowRecord>> {
    let flows = maps.flow(key)?;
    Ok(flows.into_iter().map(|flow| flow.record).find(|record| record.incarnation == connection.incarnation))
}

/// Removes a connection, and counts it as one that is over. Says whether it was there.
pub fn remove(maps: &Maps, hub: &Hub, from_table: impl FnOnce() -> Result<bool>) -> Result<bool> {
    let _both = lock(&hub.ending);
    let is_removed = from_table()?;
    if is_removed {
        maps.expired(1)?;
    }
    Ok(is_removed)
}

/// Tells everybody of a connection that was removed.
pub fn report(
    hub: &Hub,
    key: &FlowKey,
    mut connection: Connection,
    record: Option<FlowRecord>,
    (now_ns, moment): (u64, &Moment),
) {
    stream::obey(&mut connection);
    let [orig, resp] = connection.identity;
    let event = Event {
        time_ns: now_ns,
        key: *key,
        identity: if connection.originator_side() == Side::A { [orig, resp] } else { [resp, orig] },
        rule: connection.rule,
        kind: EventKind::Closed as u8,
        originator: connection.originator,
        ..Event::zeroed()
    };
    let flow = record.unwrap_or_else(FlowRecord::zeroed);
    hub.publish(bytemuck::bytes_of(&ClosedEvent { event, flow, connection }), moment);
}
