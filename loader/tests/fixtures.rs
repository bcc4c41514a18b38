//! The packet path's fixture table, run by the loaded programs: XDP by test-run, TC by test-run.

#[path = "../../datapath/tests/fixtures/mod.rs"]
mod fixtures;

use datapath::abi::config::PortCounters;
use datapath::abi::packet::Trace;
use datapath::abi::{
    Binding, BindingVersions, Block, BlockVersions, Connection, Decision, DecisionVersions, Direction,
    FlowKey, HandshakeKey, Reason, RuleSettings, RuleVersions,
};
use fixtures::{Counts, EPOCH, Engine, START, Setup};
use loader::maps::{Table, Trie};
use loader::{CpuPin, Kernel, LoadOptions, RunResult, Sizes};
use std::collections::BTreeMap;

struct KernelEngine {
    kernel: Kernel,
    direction: Direction,
    pin: CpuPin,
    last_dropped: bool,
    counts_before: Counts,
    handshakes_before: BTreeMap<HandshakeKey, u64>,
}

impl KernelEngine {
    fn new(direction: Direction) -> Self {
        let options = LoadOptions {
            sizes: Sizes { flow_slots: 64, ..Sizes::small() },
            fixed_now_ns: Some(START),
            hash_seed: Some(0x5eed),
            ..LoadOptions::default()
        };
        let kernel = Kernel::load(&options).expect("the programs load");
        let pin = CpuPin::here().expect("a CPU");
        Self {
            kernel,
            direction,
            pin,
            last_dropped: false,
            counts_before: BTreeMap::new(),
            handshakes_before: BTreeMap::new(),
        }
    }

    /// Runs the XDP program, which leaves every byte as it was.
    fn run_xdp(&self, frame: &[u8]) -> loader::Result<RunResult> {
        let mut out = vec![0; frame.len() + 64];
        let run = self.kernel.run_xdp_out(frame, &mut out)?;
        assert_eq!(&out[..run.frame_bytes], frame);
        Ok(run)
    }

    /// What the counters say since the maps were made.
    fn all_counts(&self) -> Counts {
        let mut counts = Counts::new();
        for port in self.kernel.maps().port_counters().expect("counters") {
            for reason in Reason::ALL {
                for audited in [false, true] {
                    let c = port.counts[self.direction as usize][PortCounters::index(*reason as u8, audited)];
                    let sum = counts.entry((reason.name(), audited)).or_default();
                    sum.0 += c.packets;
                    sum.1 += c.bytes;
                }
            }
        }
        counts
    }

    fn all_handshakes(&self) -> BTreeMap<HandshakeKey, u64> {
        let stats = self.kernel.maps().handshake_stats().expect("handshakes");
        stats.into_iter().map(|(key, stats)| (key, stats.count)).collect()
    }

    fn clear(&self) {
        let maps = self.kernel.maps();
        empty(&maps.connections);
        empty(&maps.half_open);
        empty(&maps.failsafe);
        empty_trie(&maps.rules);
        empty(&maps.buckets);
        empty(&maps.fragments);
        empty_trie(&maps.bindings);
        empty_trie(&maps.blocklist);
        empty_trie(&maps.policy);
        for slot in 0..maps.flows.slots.len() {
            maps.flows.slots.set_all(slot, &bytemuck::Zeroable::zeroed()).expect("slots");
        }
        for (key, _) in maps.flows.spill.entries().expect("spill") {
            maps.flows.spill.remove(&key).expect("removed");
        }
    }
}

fn empty<K: bytemuck::Pod + Eq + std::hash::Hash, V: bytemuck::Pod>(table: &Table<K, V>) {
    for (key, _) in table.entries().expect("entries") {
        table.remove(&key).expect("removed");
    }
}

fn empty_trie<K: bytemuck::Pod + Ord, V: bytemuck::Pod>(trie: &Trie<K, V>) {
    for ((key, bits), _) in trie.entries().expect("entries") {
        trie.remove(&key, bits).expect("removed");
    }
}

impl Engine for KernelEngine {
    fn prepare(&mut self, setup: &Setup, traced: bool) {
        self.clear();
        let maps = self.kernel.maps();
        for (addr, bits, new) in &setup.bindings {
            let versions = BindingVersions { since: EPOCH, _pad: 0, old: Binding::NONE, new: *new };
            maps.bindings.insert(addr, *bits, &versions).expect("binding");
        }
        for (addr, bits, new) in &setup.blocklist {
            let versions = BlockVersions { since: EPOCH, _pad: 0, old: Block::NONE, new: *new };
            maps.blocklist.insert(addr, *bits, &versions).expect("block");
        }
        for (key, bits, new) in &setup.policy {
            let versions = DecisionVersions { since: EPOCH, _pad: 0, old: Decision::NONE, new: *new };
            maps.policy.insert(key, *bits, &versions).expect("policy");
        }
        for (number, new) in &setup.rules {
            let versions = RuleVersions { since: EPOCH, _pad: 0, old: RuleSettings::NONE, new: *new };
            maps.rules.insert(number, 32, &versions).expect("rule");
        }
        for key in &setup.failsafe {
            maps.failsafe.insert(key, &1).expect("failsafe");
        }
        maps.config.set(&fixtures::config(setup, traced)).expect("config");
        self.counts_before = self.all_counts();
        self.handshakes_before = self.all_handshakes();
    }

    fn judge(&mut self, frame: &[u8], at_ns: u64) -> Trace {
        self.kernel.set_now(at_ns).expect("the time");
        let (run, dropped, passed) = match self.direction {
            Direction::Ingress => (self.run_xdp(frame), RunResult::XDP_DROP, RunResult::XDP_PASS),
            Direction::Egress => (self.kernel.run_tc(frame, 0, 1), RunResult::TC_SHOT, RunResult::TC_NEXT),
        };
        let returned = run.expect("test-run").action;
        assert!(returned == dropped || returned == passed, "the program returned {returned}");
        self.last_dropped = returned == dropped;
        self.kernel.maps().trace_of(self.pin.cpu()).expect("trace").expect("this CPU's")
    }

    fn dropped(&self) -> bool {
        self.last_dropped
    }

    fn connections(&mut self) -> Vec<(FlowKey, Connection)> {
        let maps = self.kernel.maps();
        let mut all: Vec<_> = maps.connections.entries().expect("connections").into_iter().collect();
        all.extend(maps.half_open.entries().expect("half-open"));
        all
    }

    fn packets(&mut self, key: &FlowKey, incarnation: u32) -> [u64; 2] {
        let flows = self.kernel.maps().flow(key).expect("flows");
        flows.iter().find(|f| f.record.incarnation == incarnation).map_or([0, 0], |f| f.record.packets)
    }

    fn handshakes(&mut self) -> Vec<(HandshakeKey, u64)> {
        let before = |key: &HandshakeKey| self.handshakes_before.get(key).copied().unwrap_or_default();
        let new = self.all_handshakes().into_iter().map(|(key, n)| (key, n - before(&key)));
        new.filter(|(_, n)| *n != 0).collect()
    }

    fn counts(&mut self) -> Counts {
        let before = &self.counts_before;
        let new = self.all_counts().into_iter().map(|(k, n)| (k, (n.0 - before[&k].0, n.1 - before[&k].1)));
        new.filter(|(_, n)| n.0 != 0).collect()
    }
}

/// The kernel takes no frame without a whole Ethernet header (EINVAL).
fn is_ethernet(frame: &[u8]) -> bool {
    frame.len() >= 14
}

/// It makes an skb of the frame first, and refuses one that does not fit a page (jumbo frames) or whose network header is
/// cut off right behind the Ethernet header (EINVAL).
fn is_skb(frame: &[u8]) -> bool {
    let network = match frame.get(12..14) {
        Some([0x08, 0x00]) => 20,
        Some([0x86, 0xdd]) => 40,
        _ => 0,
    };
    (14 + network..=3_500).contains(&frame.len())
}

fn taken(takes: impl Fn(&[u8]) -> bool) -> Vec<fixtures::Fixture> {
    let mut taken = fixtures::all();
    taken.retain(|fixture| fixture.steps.iter().all(|step| takes(&step.frame)));
    taken
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn every_fixture_by_xdp_test_run() {
    let mut engine = KernelEngine::new(Direction::Ingress);
    let fixtures = taken(is_ethernet);
    assert!(fixtures.len() >= 200, "only {}", fixtures.len());
    for fixture in fixtures {
        fixtures::run(&fixture, &mut engine);
    }
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn every_fixture_by_tc_test_run() {
    let mut engine = KernelEngine::new(Direction::Egress);
    let fixtures = taken(is_skb);
    assert!(fixtures.len() >= 190, "only {}", fixtures.len());
    for fixture in fixtures {
        fixtures::run(&fixture, &mut engine);
    }
}
