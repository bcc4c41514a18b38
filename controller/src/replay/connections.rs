//! From what an engine holds to connections: counts of the flow records, stories of the connection records, joined by
//! key and incarnation.

use super::clock::ReplayClock;
use super::connection_record::{ConnectionRecord, Decided, Flow, Story};
use super::engine::Tables;
use super::observed::Observed;
use super::rules::RuleNames;
use crate::hello::{ClientHello, Hellos};
use datapath::abi::packet::Trace;
use datapath::abi::{
    Action, ClosedEvent, Connection, FlowKey, FlowRecord, HelloSegment, Packet, Reason, Side,
};
use datapath::track::stream;
use std::collections::HashMap;

/// Gathers what connections leave while a capture is replayed.
pub struct Connections {
    first_packets: HashMap<FlowKey, FirstPacket>,
    closed: Vec<(FlowKey, Connection, Option<Observed>)>,
    observed: HashMap<FlowKey, Observed>,
    hellos: Hellos,
    /// Hellos of connections whose key has had a later one since.
    read: HashMap<(FlowKey, u64), ClientHello>,
    flows: HashMap<(FlowKey, u32), FlowRecord>,
}

/// A packet that the engine was given.
pub struct Judged<'t> {
    /// What it made of it.
    pub trace: &'t Trace,
    /// The engine's time.
    pub now_ns: u64,
    /// Whether the capture has not all of it.
    pub is_cut: bool,
    /// IP bytes beyond what the header says, where that is to be counted.
    pub unsaid_bytes: u64,
}

/// All that is known of a flow that was dropped before it was tracked.
#[derive(Clone, Copy)]
struct FirstPacket {
    side: Side,
    is_syn: bool,
    /// The verdict on its latest packet: a flow that policy allows may still have packets that are dropped.
    verdict: Decided,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            first_packets: HashMap::new(),
            closed: Vec::new(),
            observed: HashMap::new(),
            // What was read is kept here; the book holds what is not whole yet.
            hellos: Hellos::with_room(1),
            read: HashMap::new(),
            flows: HashMap::new(),
        }
    }
}

impl Connections {
    /// Takes a piece of a ClientHello.
    pub fn hello(&mut self, piece: &HelloSegment) {
        if self.read.contains_key(&(piece.key, piece.hello_ns)) {
            return;
        }
        for found in self.hellos.take(piece) {
            self.read.insert((found.segment.key, found.segment.hello_ns), (*found.hello).clone());
        }
    }

    /// Remembers how a flow began, and what of it the engine does not keep.
    pub fn packet(&mut self, judged: &Judged<'_>) {
        let trace = judged.trace;
        let packet = &trace.packet;
        if !packet.has(Packet::HAS_IP) {
            return;
        }
        if trace.action() != Action::Dropped {
            let now_ns = judged.now_ns;
            let observed = self.observed.entry(packet.key).or_insert_with(|| Observed::new(packet, now_ns));
            observed.packet(packet, judged.is_cut, now_ns);
            observed.unsaid_bytes[packet.side().index()] += judged.unsaid_bytes;
        }
        let is_syn = packet.has(Packet::HAS_TCP) && packet.flag(Packet::SYN) && !packet.flag(Packet::ACK);
        let verdict = Decided { action: trace.action(), reason: trace.reason(), rule: trace.rule };
        self.first_packets
            .entry(packet.key)
            .and_modify(|first| first.verdict = verdict)
            .or_insert(FirstPacket { side: packet.side(), is_syn, verdict });
    }

    /// Notes a packet with a wrong checksum of TCP or UDP, which the engine was not given.
    pub fn wrong_checksum(&mut self, packet: &Packet, now_ns: u64) {
        let observed = self.observed.entry(packet.key).or_insert_with(|| Observed::new(packet, now_ns));
        observed.wrong_checksum(packet.side());
    }

    /// Takes a connection that gave way to another of its key. The packet that opened the other is not noted yet.
    pub fn closed(&mut self, closed: &ClosedEvent) {
        let key = closed.event.key;
        self.first_packets.remove(&key);
        self.closed.push((key, closed.connection, self.observed.remove(&key)));
        // A record that was not this connection's says nothing of it.
        if closed.flow.incarnation == closed.connection.incarnation {
            self.count(key, &closed.flow);
        }
    }

    fn count(&mut self, key: FlowKey, record: &FlowRecord) {
        if record.packets == [0, 0] {
            return; // a place for counts that are elsewhere
        }
        self.flows.entry((key, record.incarnation)).and_modify(|sum| merge(sum, record)).or_insert(*record);
    }

    /// All connections, oldest first.
    pub fn finish(
        mut self,
        tables: &Tables,
        clock: &ReplayClock,
        rules: &RuleNames,
    ) -> Vec<ConnectionRecord> {
        for (key, record) in &tables.flows {
            self.count(*key, record);
        }
        for partial in self.hellos.give_up(u64::MAX) {
            self.read.insert((partial.segment.key, partial.segment.hello_ns), (*partial.hello).clone());
        }
        let mut found = Vec::new();
        let mut tracked = std::mem::take(&mut self.closed);
        tracked.extend(tables.connections.iter().map(|(key, conn)| (*key, *conn, self.observed.remove(key))));
        for (key, conn, observed) in &tracked {
            let record = self.flows.remove(&(*key, conn.incarnation)).unwrap_or_else(|| uncounted(conn));
            let originator = conn.originator_side();
            let verdict = decided(&record);
            let mut conn = *conn;
            stream::obey(&mut conn); // the capture has nothing after it
            let hello = self.read.remove(&(*key, conn.client_hello_ns)).unwrap_or_default();
            let (story, observed) = (Story::Tracked(conn), observed.clone());
            found.push(Flow { key: *key, record, originator, verdict, story, hello, observed });
        }
        let flows = std::mem::take(&mut self.flows);
        found.extend(flows.iter().map(|((key, _), record)| self.untracked(*key, *record)));
        found.extend(self.observed.into_iter().filter_map(|(key, observed)| refused(key, observed)));
        let mut records: Vec<_> =
            found.iter().map(|flow| ConnectionRecord::new(flow, clock, rules)).collect();
        // Hash tables have an order of their own, which is not the reader's business.
        records.sort_by(|x, y| order(x).cmp(&order(y)));
        records
    }

    fn untracked(&mut self, key: FlowKey, record: FlowRecord) -> Flow {
        let first = self.first_packets.get(&key).copied();
        let originator = match first {
            Some(first) => first.side,
            None if record.packets[Side::A.index()] == 0 => Side::B,
            None => Side::A,
        };
        let (conn_state, history) = match first {
            Some(FirstPacket { is_syn: true, .. }) => ("S0", Some("S")),
            _ if key.proto == datapath::wire::proto::UDP => ("S0", Some("D")),
            _ => ("OTH", None),
        };
        let verdict = first.map_or_else(|| decided(&record), |first| first.verdict);
        Flow {
            key,
            record,
            originator,
            verdict,
            story: Story::Untracked { conn_state, history },
            hello: ClientHello::default(),
            observed: self.observed.remove(&key),
        }
    }
}

/// A connection of which there is nothing but packets with wrong checksums: it counts none.
fn refused(key: FlowKey, observed: Observed) -> Option<Flow> {
    let has_letters = !observed.history("", observed.originator).is_empty();
    let mut record: FlowRecord = bytemuck::Zeroable::zeroed();
    (record.first_ns, record.last_ns) = (observed.first_ns, observed.first_ns);
    let verdict = Decided { action: Action::Dropped, reason: Reason::InvalidPacket, rule: 0 };
    has_letters.then(|| Flow {
        key,
        record,
        originator: observed.originator,
        verdict,
        story: Story::Untracked { conn_state: "OTH", history: None },
        hello: ClientHello::default(),
        observed: Some(observed),
    })
}

/// What the flow's record says. Of a whole connection "an earlier packet was allowed" says no more than "allowed".
fn decided(record: &FlowRecord) -> Decided {
    let reason = match Reason::from_u8(record.reason) {
        Reason::Established => Reason::Forwarded,
        reason => reason,
    };
    Decided { action: Action::from_u8(record.action), reason, rule: record.rule }
}

fn order(record: &ConnectionRecord) -> impl Ord {
    (record.ts, record.orig_h, record.orig_p, record.resp_h, record.resp_p, record.ip_proto, record.orig_pkts)
}

/// Adds what another record of the same connection counted: counts add up, the later verdict holds.
fn merge(sum: &mut FlowRecord, other: &FlowRecord) {
    for side in 0..2 {
        sum.packets[side] += other.packets[side];
        sum.bytes[side] += other.bytes[side];
    }
    if other.last_ns > sum.last_ns {
        sum.last_ns = other.last_ns;
        (sum.action, sum.reason, sum.rule) = (other.action, other.reason, other.rule);
    }
    sum.first_ns = sum.first_ns.min(other.first_ns);
}

/// The flow record was evicted: no counts, but the connection happened.
fn uncounted(conn: &Connection) -> FlowRecord {
    let mut record: FlowRecord = bytemuck::Zeroable::zeroed();
    record.first_ns = conn.opened_ns;
    record.last_ns = conn.last_ns;
    record.rule = conn.rule;
    record.action = Action::Forwarded as u8;
    record
}
