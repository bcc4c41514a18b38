//! How many entries each map takes.

use datapath::abi::{AttemptSet, FlowTags, MapName};

/// Capacity of every map that has one to choose. Pinned maps keep the sizes they were made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// First-level flow slots a CPU; rounded up to a power of two.
    pub flow_slots: u32,
    /// Flow records that gave way in the first level.
    pub flow_spill: u32,
    /// Answered connections.
    pub connections: u32,
    /// Connections not answered yet: as many sets of seven as would hold them in eights, rounded up to a power of two.
    pub half_open: u32,
    /// Identity bindings.
    pub bindings: u32,
    /// Bindings that do not hold everywhere.
    pub scoped: u32,
    /// Blocklist entries.
    pub blocklist: u32,
    /// Blocks by port or identity, and quarantines.
    pub guards: u32,
    /// Policy entries.
    pub policy: u32,
    /// Interfaces with settings of their own.
    pub interfaces: u32,
    /// What a candidate policy would change, by pair of rules.
    pub shadow: u32,
    /// Rules that have limits.
    pub rules: u32,
    /// Token buckets: one for a rule, or one for a rule and identity.
    pub buckets: u32,
    /// Identities that have limits.
    pub limits: u32,
    /// Identities whose connections are counted.
    pub holdings: u32,
    /// Failsafe services.
    pub failsafe: u32,
    /// Fragmented datagrams in flight.
    pub fragments: u32,
    /// Handshake outcomes, per pair of identities.
    pub handshakes: u32,
    /// The ring buffer; rounded up to a power of two.
    pub event_bytes: u32,
    /// The ring buffer of ClientHellos; rounded up to a power of two.
    pub hello_bytes: u32,
    /// Interfaces.
    pub judged_ports: u32,
    /// Interfaces that XDP may send by.
    pub redirect: u32,
}

impl Default for Sizes {
    /// For a gateway: about 100 MB of kernel memory on two CPUs, tries grow as they fill.
    fn default() -> Self {
        Self {
            flow_slots: 65_536,
            flow_spill: 65_536,
            connections: 131_072,
            half_open: 65_536,
            bindings: 1_048_576,
            scoped: 262_144,
            blocklist: 1_048_576,
            guards: 65_536,
            policy: 262_144,
            interfaces: 1_024,
            shadow: 4_096,
            rules: 16_384,
            buckets: 65_536,
            limits: 262_144,
            holdings: 8_192,
            failsafe: 1_024,
            fragments: 8_192,
            handshakes: 8_192,
            event_bytes: 4 << 20,
            hello_bytes: 1 << 20,
            judged_ports: 1_024,
            redirect: 1_024,
        }
    }
}

impl Sizes {
    /// For replays and tests: made and read in milliseconds.
    pub fn small() -> Self {
        Self {
            flow_slots: 1_024,
            flow_spill: 4_096,
            connections: 4_096,
            half_open: 4_096,
            bindings: 16_384,
            scoped: 16_384,
            blocklist: 16_384,
            guards: 1_024,
            policy: 65_536,
            interfaces: 1_024,
            shadow: 4_096,
            rules: 1_024,
            buckets: 1_024,
            limits: 1_024,
            holdings: 256,
            failsafe: 64,
            fragments: 1_024,
            handshakes: 1_024,
            event_bytes: 1 << 20,
            hello_bytes: 256 << 10,
            judged_ports: 64,
            redirect: 64,
        }
    }

    /// The capacity of a map by its name; `None` for maps whose size is fixed.
    pub fn of(&self, map: &str) -> Option<u32> {
        Some(match map {
            MapName::FLOW_SLOTS => self.flow_slots.next_power_of_two(),
            MapName::FLOW_TAGS => self.flow_slots.next_power_of_two().div_ceil(FlowTags::SLOTS),
            MapName::FLOW_SPILL => self.flow_spill,
            MapName::CONNECTIONS => self.connections,
            MapName::HALF_OPEN | MapName::WHEREABOUTS => {
                self.half_open.div_ceil(AttemptSet::WAYS as u32 + 1).next_power_of_two()
            }
            MapName::BINDINGS => self.bindings,
            MapName::SCOPED => self.scoped,
            MapName::BLOCKLIST => self.blocklist,
            MapName::GUARDS => self.guards,
            MapName::POLICY => self.policy,
            MapName::INTERFACES => self.interfaces,
            MapName::SHADOW => self.shadow,
            MapName::RULES => self.rules,
            MapName::BUCKETS => self.buckets,
            MapName::LIMITS => self.limits,
            MapName::HOLDINGS => self.holdings,
            MapName::FAILSAFE => self.failsafe,
            MapName::FRAGMENTS => self.fragments,
            MapName::HANDSHAKES => self.handshakes,
            MapName::EVENTS => self.event_bytes.next_power_of_two(),
            MapName::HELLOS => self.hello_bytes.next_power_of_two(),
            MapName::JUDGED_PORTS => self.judged_ports,
            MapName::REDIRECT => self.redirect,
            _ => return None,
        })
    }
}
