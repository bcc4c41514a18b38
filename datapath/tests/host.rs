//! The fixture table, run by the native path.

mod fixtures;

use datapath::abi::config::PortCounters;
use datapath::abi::packet::Trace;
use datapath::abi::{
    BindingVersions, BlockVersions, Connection, DecisionVersions, Direction, FlowKey, HandshakeKey, Reason,
};
use datapath::frame::SliceFrame;
use datapath::host::{self, Host};
use datapath::judge::judge;
use datapath::tables::Plane;
use fixtures::{EPOCH, Engine, Setup};
use std::collections::BTreeMap;

struct HostEngine {
    plane: Plane<Host>,
}

impl Engine for HostEngine {
    fn prepare(&mut self, setup: &Setup) {
        self.plane = host::plane(fixtures::config(setup));
        let rules = &mut self.plane.rules;
        for (addr, bits, new) in &setup.bindings {
            let versions =
                BindingVersions { since: EPOCH, _pad: 0, old: datapath::abi::Binding::NONE, new: *new };
            rules.bindings.insert(addr.octets(), *bits, versions);
        }
        for (addr, bits, new) in &setup.blocklist {
            let versions =
                BlockVersions { since: EPOCH, _pad: 0, old: datapath::abi::Block::NONE, new: *new };
            rules.blocklist.insert(addr.octets(), *bits, versions);
        }
        for (key, bits, new) in &setup.policy {
            let versions =
                DecisionVersions { since: EPOCH, _pad: 0, old: datapath::abi::Decision::NONE, new: *new };
            rules.policy.insert(key.bytes, *bits, versions);
        }
        rules.failsafe.extend(setup.failsafe.iter().copied());
    }

    fn judge(&mut self, frame: &[u8], at_ns: u64) -> Trace {
        self.plane.rules.config.fixed_now_ns = at_ns;
        let mut trace = Trace::default();
        judge(&SliceFrame { bytes: frame, ifindex: 1 }, Direction::Ingress, &mut self.plane, || Some(&mut trace));
        trace
    }

    fn connections(&mut self) -> Vec<(FlowKey, Connection)> {
        let (established, half_open) = (&self.plane.connections.entries, &self.plane.half_open.entries);
        established.iter().chain(half_open).map(|(k, v)| (*k, *v)).collect()
    }

    fn packets(&mut self, key: &FlowKey, incarnation: u32) -> [u64; 2] {
        let slots = self.plane.slots.slots.iter().filter(|s| s.key == *key).map(|s| &s.record);
        let spilled = self.plane.spill.entries.get(key);
        let mut sum = [0, 0];
        for record in slots.chain(spilled).filter(|r| r.incarnation == incarnation) {
            sum[0] += record.packets[0];
            sum[1] += record.packets[1];
        }
        sum
    }

    fn handshakes(&mut self) -> Vec<(HandshakeKey, u64)> {
        self.plane.sink.handshakes.iter().map(|(k, v)| (*k, v.count)).collect()
    }

    fn counts(&mut self) -> BTreeMap<(&'static str, bool), (u64, u64)> {
        let mut counts = BTreeMap::new();
        for port in self.plane.sink.ports.values() {
            for reason in Reason::ALL {
                for audited in [false, true] {
                    let c = port.counts[0][PortCounters::index(*reason as u8, audited)];
                    if c.packets != 0 {
                        counts.insert((reason.name(), audited), (c.packets, c.bytes));
                    }
                }
            }
        }
        counts
    }
}

#[test]
fn every_fixture_on_the_native_path() {
    let rows = fixtures::all();
    assert!(rows.len() >= 60, "only {} rows", rows.len());
    let mut engine = HostEngine { plane: host::plane(fixtures::config(&Setup::default())) };
    for fixture in &rows {
        fixtures::run(fixture, &mut engine);
    }
}

/// The reasons that no fixture can bring about, each with why.
const OUT_OF_REACH: [Reason; 3] = [
    Reason::CtMapFull,       // a hash map on the host takes everything; an LRU evicts
    Reason::NoConfiguration, // the configuration map always has its entry
    Reason::JudgedAtIngress, // TC says it for what came in by XDP
];

#[test]
fn every_reason_has_a_fixture() {
    let mut seen: Vec<Reason> =
        fixtures::all().iter().flat_map(|f| f.steps.iter().map(|s| s.reason)).chain(OUT_OF_REACH).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen, Reason::ALL);
}

#[test]
fn a_settled_flow_is_answered_from_its_record() {
    use fixtures::frames::Talk;
    let talk = Talk::new().handshake().c("PA", b"GET /").s("PA", b"200").c("A", b"").s("A", b"");
    let talk = talk.c("PA", b"GET /again").s("PA", b"200 again").c("A", b"").s("A", b"");
    let mut engine = HostEngine { plane: host::plane(fixtures::config(&Setup::default())) };
    engine.prepare(&fixtures::open_gateway());
    let settled: Vec<u8> =
        talk.steps.iter().map(|step| engine.judge(&step.frame, step.at_ns).settled).collect();
    // Handshake, first data and first bare ACK of each side have something to tell; nothing after them has.
    assert_eq!(settled, [0, 0, 0, 0, 0, 1, 0, 1, 1, 1, 1]);
}
