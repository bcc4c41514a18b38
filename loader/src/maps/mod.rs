//! The maps, typed. Reads take `&self` and may run while another thread writes.

mod attempts;
mod batch;
mod cells;
mod devices;
mod events;
mod flows;
mod tables;

pub use attempts::Attempts;
pub(crate) use batch::first_value;
pub use cells::{Cell, PerCpuCells};
pub use devices::Devices;
pub use events::Events;
pub use flows::{Flow, Flows};
pub use tables::{PerCpuTable, Table, Trie};

use crate::aside;
use crate::error::{Error, Result};
use crate::shape::SHAPES;
use aya::maps::{Map, MapData};
use datapath::abi::packet::Trace;
use datapath::abi::*;
use std::collections::HashMap;
use std::path::Path;

/// All maps of one instance.
pub struct Maps {
    /// The configuration.
    pub config: Cell<Config>,
    /// Flow records of both levels.
    pub flows: Flows,
    /// Answered connections.
    pub connections: Table<FlowKey, Connection>,
    /// Connections that nobody has answered yet.
    pub half_open: Attempts,
    /// Identities by prefix.
    pub bindings: Trie<Addr, BindingVersions>,
    /// Those that do not hold everywhere.
    pub scoped: Trie<ScopedKey, BindingVersions>,
    /// Blocks by prefix.
    pub blocklist: Trie<Addr, BlockVersions>,
    /// Blocks and quarantines by list, peer's class, protocol and port.
    pub guards: Trie<PolicyKey, BlockVersions>,
    /// Decisions by classes, protocol and port.
    pub policy: Trie<PolicyKey, DecisionVersions>,
    /// What holds for interfaces with settings of their own, by index.
    pub interfaces: Trie<u32, InterfaceVersions>,
    /// Flows that two epochs judged, by what they said.
    pub shadow: PerCpuTable<ShadowKey, u64>,
    /// Limits of rules that have some, by the rule's number.
    pub rules: Trie<u32, RuleVersions>,
    /// Token buckets.
    pub buckets: Table<BucketKey, Bucket>,
    /// Which limit is an identity's.
    pub limits: Trie<u32, LimitVersions>,
    /// What identities have at once.
    pub holdings: Table<u32, Holdings>,
    /// Services that no policy may cut.
    pub failsafe: Table<FailsafeKey, u32>,
    /// Fragmented datagrams in flight.
    pub fragments: Table<FragmentKey, FragmentPorts>,
    /// Counters by interface slot.
    pub ports: PerCpuCells<PortCounters>,
    /// Handshake outcomes.
    pub handshakes: PerCpuTable<HandshakeKey, HandshakeStats>,
    /// Lost events.
    pub lost: PerCpuCells<u64>,
    /// The last packet and its verdict, where [`Config::TRACE`] is set.
    pub trace: PerCpuCells<Trace>,
    /// Interfaces that XDP judges.
    pub judged_ports: Table<u32, JudgedPort>,
    /// Interfaces by which XDP may send.
    pub redirect: Devices,
    events: MapData,
    hellos: MapData,
}

impl Maps {
    /// Opens what is pinned under `pin_dir`, without loading a program.
    pub fn open(pin_dir: &Path) -> Result<Self> {
        if pin_dir.metadata().is_err_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied) {
            return Err(Error::NotPermitted { what: format!("read {}", pin_dir.display()) });
        }
        aside::check(pin_dir)?;
        let mut found = Vec::new();
        for shape in &SHAPES {
            let data =
                shape.open(pin_dir)?.ok_or_else(|| Error::NotPinned { pin_dir: pin_dir.to_owned() })?;
            found.push((shape.name, data));
        }
        Self::from_source(|name| {
            let at = found.iter().position(|(n, _)| *n == name)?;
            Map::from_map_data(found.swap_remove(at).1).ok()
        })
    }

    /// Takes each map by its name from wherever it is.
    pub(crate) fn from_source(mut take: impl FnMut(&str) -> Option<Map>) -> Result<Self> {
        let mut take = |name: &'static str| {
            take(name).map(|map| (name, map)).ok_or_else(|| Error::Missing { what: format!("map {name}") })
        };
        Ok(Self {
            config: Cell::new(take(MapName::CONFIG)?)?,
            flows: Flows::new(take(MapName::FLOW_SLOTS)?, take(MapName::FLOW_SPILL)?)?,
            connections: Table::new(take(MapName::CONNECTIONS)?)?,
            half_open: Attempts::new(take(MapName::HALF_OPEN)?, take(MapName::WHEREABOUTS)?)?,
            bindings: Trie::new(take(MapName::BINDINGS)?)?,
            scoped: Trie::new(take(MapName::SCOPED)?)?,
            blocklist: Trie::new(take(MapName::BLOCKLIST)?)?,
            guards: Trie::new(take(MapName::GUARDS)?)?,
            policy: Trie::new(take(MapName::POLICY)?)?,
            interfaces: Trie::new(take(MapName::INTERFACES)?)?,
            shadow: PerCpuTable::new(take(MapName::SHADOW)?)?,
            rules: Trie::new(take(MapName::RULES)?)?,
            buckets: Table::new(take(MapName::BUCKETS)?)?,
            limits: Trie::new(take(MapName::LIMITS)?)?,
            holdings: Table::new(take(MapName::HOLDINGS)?)?,
            failsafe: Table::new(take(MapName::FAILSAFE)?)?,
            fragments: Table::new(take(MapName::FRAGMENTS)?)?,
            ports: PerCpuCells::new(take(MapName::PORTS)?)?,
            handshakes: PerCpuTable::new(take(MapName::HANDSHAKES)?)?,
            lost: PerCpuCells::new(take(MapName::LOST)?)?,
            trace: PerCpuCells::new(take(MapName::TRACE)?)?,
            judged_ports: Table::new(take(MapName::JUDGED_PORTS)?)?,
            redirect: Devices::new(take(MapName::REDIRECT)?)?,
            events: ring(take(MapName::EVENTS)?)?,
            hellos: ring(take(MapName::HELLOS)?)?,
        })
    }

    /// Has the CPUs forget what they looked up: for who writes bindings, blocks or policy within an epoch.
    pub fn forget_lookups(&self) -> Result<()> {
        self.config.update(|config| config.generation = config.generation.wrapping_add(1))?;
        Ok(())
    }

    /// Makes the filters of answered connections forget those that are no more ([`datapath::abi::AttemptFilter`]). Until then a SYN that
    /// has the bit of one looks for it in vain, which costs time and nothing else.
    pub fn filter_answered_anew(&self) -> Result<()> {
        let config = self.config.get()?;
        self.half_open.clear_spare_filters(&config);
        // Whose bit was set before that, and cleared by it, is in the table when this is over.
        crate::wait_for_programs()?;
        for key in self.connections.keys()? {
            self.half_open.note_answered(&key, &config);
        }
        self.config.update(|config| config.answered_shift ^= 32)?;
        Ok(())
    }

    /// Every flow that has counted a packet.
    pub fn flow_records(&self) -> Result<Vec<Flow>> {
        let config = self.config.get()?;
        let attempts = self.half_open.entries(&config);
        self.flows.all(&config, attempts.into_iter().map(|(key, attempt)| (key, attempt.record)))
    }

    /// The records of one flow, by incarnation.
    pub fn flow(&self, key: &FlowKey) -> Result<Vec<Flow>> {
        let config = self.config.get()?;
        self.flows.of(key, &config, self.half_open.get(key, &config).map(|attempt| attempt.record))
    }

    /// Every connection, answered or not. One is in both tables for the moment in which it is answered, never longer.
    pub fn tracked(&self) -> Result<HashMap<FlowKey, Connection>> {
        let attempts = self.half_open.entries(&self.config.get()?).into_iter();
        let mut all: HashMap<_, _> = attempts.map(|(key, attempt)| (key, attempt.connection)).collect();
        all.extend(self.connections.entries()?);
        Ok(all)
    }

    /// A connection, answered or not.
    pub fn connection(&self, key: &FlowKey) -> Result<Option<Connection>> {
        match self.connections.get(key)? {
            Some(connection) => Ok(Some(connection)),
            None => Ok(self.half_open.get(key, &self.config.get()?).map(|attempt| attempt.connection)),
        }
    }

    /// Counters of every slot that an interface has, and of the shared one, all CPUs together.
    pub fn port_counters(&self) -> Result<Vec<PortCounters>> {
        let mut ports = Vec::new();
        for slot in 0..PortCounters::SLOTS {
            let mut per_cpu = self.ports.get(slot)?.into_iter();
            let Some(mut sum) = per_cpu.next() else { continue };
            for cpu in per_cpu {
                sum.ifindex = sum.ifindex.max(cpu.ifindex);
                for (mine, theirs) in sum.answers.iter_mut().zip(cpu.answers) {
                    *mine += theirs;
                }
                for (mine, theirs) in sum.counts.iter_mut().flatten().zip(cpu.counts.iter().flatten()) {
                    mine.packets += theirs.packets;
                    mine.bytes += theirs.bytes;
                }
            }
            if sum.ifindex != 0 || slot == PortCounters::SHARED {
                ports.push(sum);
            }
        }
        Ok(ports)
    }

    /// Handshake outcomes of all CPUs together.
    pub fn handshake_stats(&self) -> Result<Vec<(HandshakeKey, HandshakeStats)>> {
        let mut all = Vec::new();
        for (key, per_cpu) in self.handshakes.entries()? {
            let merged = per_cpu.into_iter().reduce(|mut sum, cpu| {
                sum.merge(&cpu);
                sum
            });
            all.extend(merged.map(|stats| (key, stats)));
        }
        all.sort_by_key(|(key, _)| *key);
        Ok(all)
    }

    /// Events that were not sent.
    pub fn lost_events(&self, why: Lost) -> Result<u64> {
        let by_user_space = if why == Lost::NoRoom { self.tally(Tally::Unplaced)? } else { 0 };
        Ok(self.lost.get(why as u32)?.iter().sum::<u64>() + by_user_space)
    }

    /// Connections that came or went.
    pub fn tally(&self, what: Tally) -> Result<u64> {
        Ok(self.lost.get(what as u32)?.iter().sum())
    }

    /// Counts connections that user space removed after it reported them.
    pub fn expired(&self, count: u64) -> Result<()> {
        self.lost.update_first(Tally::Expired as u32, |sum| *sum += count)
    }

    /// Counts outcomes of handshakes that [`MapName::HANDSHAKES`] had no place for.
    pub fn unplaced(&self, count: u64) -> Result<()> {
        self.lost.update_first(Tally::Unplaced as u32, |sum| *sum += count)
    }

    /// What the last packet on `cpu` was and what became of it; see [`Config::TRACE`] and [`crate::CpuPin`].
    pub fn trace_of(&self, cpu: usize) -> Result<Option<Trace>> {
        Ok(self.trace.get(0)?.get(cpu).copied())
    }

    /// A reader of the ring buffer. There must be one at a time, or each sees a part of the events.
    pub fn events(&self) -> Result<Events> {
        Events::new(MapName::EVENTS, &self.events)
    }

    /// A reader of the ring buffer of ClientHellos ([`HelloSegment`]). There must be one at a time.
    pub fn hellos(&self) -> Result<Events> {
        Events::new(MapName::HELLOS, &self.hellos)
    }
}

fn ring((name, map): (&'static str, Map)) -> Result<MapData> {
    match map {
        Map::RingBuf(data) => Ok(data),
        _ => Err(Error::Missing { what: format!("ring buffer {name}") }),
    }
}
