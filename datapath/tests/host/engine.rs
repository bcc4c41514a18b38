//! The native path as an engine of the fixture table.

use crate::fixtures::segments::TakesSegments;
use crate::fixtures::told::Told;
use crate::fixtures::{self, EPOCH, Engine, Setup};
use datapath::abi::config::PortCounters;
use datapath::abi::packet::Trace;
use datapath::abi::{
    Action, BindingVersions, BlockVersions, Connection, DecisionVersions, Direction, EventBudget, FlowKey,
    FlowRecord, HandshakeKey, Interface, LimitOf, LimitVersions, Reason, RuleVersions,
};
use datapath::frame::{Frame, SliceFrame};
use datapath::host::{self, Host};
use datapath::judge::judge;
use datapath::tables::{Plane, Sink};
use datapath::weight::Gso;
use std::collections::BTreeMap;

/// A socket buffer of many segments.
#[derive(Clone, Copy)]
pub struct Segmented<'a> {
    pub bytes: SliceFrame<'a>,
    pub gso: Gso,
}

impl Frame for Segmented<'_> {
    fn header<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.bytes.header(offset)
    }

    fn copy_to<const N: usize>(&self, offset: usize, len: u32, into: &mut [u8; N]) -> bool {
        self.bytes.copy_to(offset, len, into)
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn holds(&self, end: usize) -> bool {
        self.bytes.holds(end)
    }

    fn ifindex(&self) -> u32 {
        self.bytes.ifindex
    }

    fn gso(&self) -> Gso {
        self.gso
    }
}

pub struct HostEngine {
    pub plane: Plane<Host>,
    pub ifindex: u32,
    pub direction: Direction,
    pub dropped: bool,
}

impl HostEngine {
    pub fn new() -> Self {
        Self {
            plane: host::plane(fixtures::config(&Setup::default(), true)),
            ifindex: 1,
            direction: Direction::Ingress,
            dropped: false,
        }
    }
}

impl HostEngine {
    fn judge_frame(&mut self, frame: &impl Frame, at_ns: u64) -> Trace {
        self.plane.rules.config.fixed_now_ns = at_ns;
        let mut trace = Trace::default();
        let action = judge(frame, self.direction, &mut self.plane, || Some(&mut trace));
        self.dropped = action == Action::Dropped;
        trace
    }

    /// The records of one connection, of all levels of the flow table.
    fn records(&self, key: &FlowKey, incarnation: u32) -> impl Iterator<Item = &FlowRecord> {
        let slots = self.plane.slots.slots.iter().filter(|slot| slot.key == *key).map(|slot| &slot.record);
        let spilled = self.plane.spill.entries.get(key);
        let attempt = self.plane.half_open.entries.get(key).map(|attempt| &attempt.record);
        slots.chain(spilled).chain(attempt).filter(move |record| record.incarnation == incarnation)
    }
}

impl TakesSegments for HostEngine {
    fn judge_segments(&mut self, frame: &[u8], gso: Gso, at_ns: u64) -> Trace {
        let bytes = SliceFrame { bytes: frame, ifindex: self.ifindex };
        self.judge_frame(&Segmented { bytes, gso }, at_ns)
    }

    fn bytes(&mut self, key: &FlowKey, incarnation: u32) -> [u64; 2] {
        self.records(key, incarnation).fold([0, 0], |sum, r| [sum[0] + r.bytes[0], sum[1] + r.bytes[1]])
    }
}

impl Engine for HostEngine {
    fn prepare(&mut self, setup: &Setup, traced: bool) {
        self.plane = host::plane(fixtures::config(setup, traced));
        let rules = &mut self.plane.rules;
        for (addr, bits, new) in &setup.bindings {
            let versions =
                BindingVersions { since: EPOCH, _pad: 0, old: datapath::abi::Binding::NONE, new: *new };
            rules.bindings.insert(addr.octets(), *bits, versions);
        }
        for (key, bits, new) in &setup.scoped {
            let old = datapath::abi::Binding::NOT_HERE;
            let versions = BindingVersions { since: EPOCH, _pad: 0, old, new: *new };
            rules.scoped.insert(bytemuck::cast(*key), *bits, versions);
        }
        for (addr, bits, new) in &setup.blocklist {
            let versions =
                BlockVersions { since: EPOCH, _pad: 0, old: datapath::abi::Block::NONE, new: *new };
            rules.blocklist.insert(addr.octets(), *bits, versions);
        }
        for (key, bits, new) in &setup.guards {
            let versions =
                BlockVersions { since: EPOCH, _pad: 0, old: datapath::abi::Block::NONE, new: *new };
            rules.guards.insert(key.bytes, *bits, versions);
        }
        for (key, bits, new) in &setup.policy {
            let versions =
                DecisionVersions { since: EPOCH, _pad: 0, old: datapath::abi::Decision::NONE, new: *new };
            rules.policy.insert(key.bytes, *bits, versions);
        }
        for (number, new) in &setup.rules {
            let versions =
                RuleVersions { since: EPOCH, _pad: 0, old: datapath::abi::RuleSettings::NONE, new: *new };
            rules.rules.insert(*number, versions);
        }
        for (identity, new) in &setup.limits {
            let versions = LimitVersions { since: EPOCH, _pad: 0, old: LimitOf::NONE, new: *new };
            rules.limits.insert(*identity, versions);
        }
        for (key, bits, new) in &setup.candidate {
            let versions = fixtures::shadow::candidate(setup, key, *bits, *new);
            rules.policy.insert(key.bytes, *bits, versions);
        }
        if let Some(new) = &setup.interface {
            let versions =
                datapath::abi::InterfaceVersions { since: EPOCH, _pad: 0, old: Interface::NONE, new: *new };
            rules.interfaces.insert(self.ifindex, versions);
        }
        rules.failsafe.extend(setup.failsafe.iter().copied());
    }

    fn prepare_in_a_storm(&mut self, setup: &Setup) {
        let budget = |index| *self.plane.sink.budget(index).expect("a budget");
        let sent: Vec<_> = (0..EventBudget::COUNT).map(budget).collect();
        self.prepare(setup, false);
        self.plane.rules.config.event_limit = 1;
        for (index, budget) in (0..).zip(sent) {
            *self.plane.sink.budget(index).expect("a budget") = budget;
        }
    }

    fn judge(&mut self, frame: &[u8], at_ns: u64) -> Trace {
        self.judge_frame(&SliceFrame { bytes: frame, ifindex: self.ifindex }, at_ns)
    }

    fn dropped(&self) -> bool {
        self.dropped
    }

    fn connections(&mut self) -> Vec<(FlowKey, Connection)> {
        let attempts = self.plane.half_open.entries.iter().map(|(k, v)| (*k, v.connection));
        self.plane.connections.entries.iter().map(|(k, v)| (*k, *v)).chain(attempts).collect()
    }

    fn packets(&mut self, key: &FlowKey, incarnation: u32) -> [u64; 2] {
        self.records(key, incarnation).fold([0, 0], |sum, r| [sum[0] + r.packets[0], sum[1] + r.packets[1]])
    }

    fn shadow(&mut self) -> Vec<(datapath::abi::ShadowKey, u64)> {
        self.plane.sink.shadow.iter().map(|(k, v)| (*k, *v)).collect()
    }

    fn told(&mut self) -> Told {
        let plane = &mut self.plane;
        let mut told = Told {
            connections: plane.connections.entries.iter().map(|(k, v)| (*k, *v)).collect(),
            events: plane.sink.events.drain(..).collect(),
            closed: plane.sink.closed.drain(..).collect(),
            lost: plane.sink.lost,
            ..Told::default()
        };
        plane.sink.hellos.drain(..).for_each(|piece| told.hello(piece));
        for (key, attempt) in &plane.half_open.entries {
            told.connections.insert(*key, attempt.connection);
            told.add(*key, attempt.record);
        }
        plane.slots.slots.iter().for_each(|slot| told.add(slot.key, slot.record));
        plane.spill.entries.iter().for_each(|(key, record)| told.add(*key, *record));
        told
    }

    fn handshakes(&mut self) -> Vec<(HandshakeKey, (u64, u64))> {
        self.plane.sink.handshakes.iter().map(|(k, v)| (*k, (v.count, v.sum_ns))).collect()
    }

    fn counts(&mut self) -> BTreeMap<(&'static str, bool), (u64, u64)> {
        let mut counts = BTreeMap::new();
        for port in self.plane.sink.ports.values() {
            for reason in Reason::ALL {
                for audited in [false, true] {
                    let c = port.counts[self.direction as usize][PortCounters::index(*reason as u8, audited)];
                    if c.packets != 0 {
                        counts.insert((reason.name(), audited), (c.packets, c.bytes));
                    }
                }
            }
        }
        counts
    }
}
