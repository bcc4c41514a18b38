//! The tables as plain hash maps: replay, benches, tests and fuzzing run the same path on them.

use crate::abi::config::PortCounters;
use crate::abi::{
    Addr, Answered, Attempt, BindingVersions, BlockVersions, BucketKey, ClosedEvent, Config, Connection,
    DecisionVersions, Direction, Event, EventBudget, FailsafeKey, FlowKey, FlowRecord, FlowSlot, FragmentKey,
    FragmentPorts, HandshakeKey, HandshakeStats, HelloSegment, Holdings, InterfaceVersions, LimitVersions,
    Lost, PolicyKey, RuleVersions, ScopedKey, ShadowKey, Tally, Unit,
};
use crate::frame::Frame;
use crate::guard::Service;
use crate::holdings::Wheel;
use crate::limits::{Claim, take};
use crate::stage::Stages;
use crate::tables::{Attempts, Buckets, Draft, Plane, Rules, Sink, Slots, Spill, Table, Tables, whereabouts};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::atomic::AtomicU64;

/// The engine that runs natively.
#[derive(Debug, Default)]
pub struct Host;

impl Tables for Host {
    type Slots = HostSlots;
    type Spill = HostTable<FlowKey, FlowRecord>;
    type Connections = HostTable<FlowKey, Connection>;
    type HalfOpen = HostAttempts;
    type Fragments = HostTable<FragmentKey, FragmentPorts>;
    type Rules = HostRules;
    type Buckets = HostBuckets;
    type Sink = HostSink;
    type Draft = HostDraft;
}

// Natively a stage is a plain call.
impl<F: Frame> Stages<Host> for F {}

/// Empty tables with a configuration. Its flow mask says how many first-level slots there are.
pub fn plane(config: Config) -> Plane<Host> {
    let slots = vec![bytemuck::Zeroable::zeroed(); config.flow_mask as usize + 1];
    Plane {
        slots: HostSlots { slots },
        spill: HostTable::default(),
        connections: HostTable::default(),
        half_open: HostAttempts::default(),
        fragments: HostTable::default(),
        rules: HostRules { config, ..HostRules::empty() },
        buckets: HostBuckets::default(),
        sink: HostSink::default(),
        draft: HostDraft { attempt: bytemuck::Zeroable::zeroed() },
    }
}

/// First-level slots.
#[derive(Debug, Default)]
pub struct HostSlots {
    /// The slots.
    pub slots: Vec<FlowSlot>,
}

impl Slots for HostSlots {
    fn slot(&mut self, index: u32) -> Option<&mut FlowSlot> {
        self.slots.get_mut(index as usize)
    }

    fn slot_of(&mut self, cpu: u32, index: u32) -> Option<&FlowSlot> {
        if cpu == 0 { self.slots.get(index as usize) } else { None }
    }
}

impl Spill for HostTable<FlowKey, FlowRecord> {
    fn of(&mut self, cpu: u32, key: &FlowKey) -> Option<&FlowRecord> {
        if cpu == 0 { self.entries.get(key) } else { None }
    }
}

/// A hash map without a bound: what a full table does is for the kernel's tests.
#[derive(Debug)]
pub struct HostTable<K, V> {
    /// The entries.
    pub entries: HashMap<K, V>,
}

impl<K, V> Default for HostTable<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new() }
    }
}

impl<K: Copy + Eq + Hash, V: Copy> Table<K, V> for HostTable<K, V> {
    fn get(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    fn insert(&mut self, key: &K, value: &V) -> bool {
        self.entries.insert(*key, *value);
        true
    }

    fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }
}

/// Connections that were not answered yet.
#[derive(Debug, Default)]
pub struct HostAttempts {
    /// The attempts.
    pub entries: HashMap<FlowKey, Attempt>,
    answered: HashSet<FlowKey>,
}

impl Table<FlowKey, Attempt> for HostAttempts {
    fn get(&mut self, key: &FlowKey) -> Option<&mut Attempt> {
        self.entries.get_mut(key)
    }

    fn insert(&mut self, key: &FlowKey, attempt: &Attempt) -> bool {
        self.entries.insert(*key, *attempt);
        true
    }

    fn remove(&mut self, key: &FlowKey) {
        self.entries.remove(key);
    }
}

impl Attempts for HostAttempts {
    fn whereabouts(&mut self, key: &FlowKey) -> u64 {
        let unanswered = if self.entries.contains_key(key) { whereabouts::UNANSWERED } else { 0 };
        let answered = if self.answered.contains(key) { whereabouts::ANSWERED } else { 0 };
        unanswered | answered
    }

    fn answered(&mut self, key: &FlowKey) {
        self.answered.insert(*key);
    }
}

/// Longest-prefix match over byte strings, by trying every length that occurs, the longest first.
#[derive(Clone, Debug)]
pub struct PrefixMap<const N: usize, V> {
    by_length: BTreeMap<u32, HashMap<[u8; N], V>>,
}

impl<const N: usize, V> Default for PrefixMap<N, V> {
    fn default() -> Self {
        Self { by_length: BTreeMap::new() }
    }
}

impl<const N: usize, V> PrefixMap<N, V> {
    /// Sets the value of the first `bits` of `key`.
    pub fn insert(&mut self, key: [u8; N], bits: u32, value: V) {
        self.by_length.entry(bits).or_default().insert(masked(key, bits), value);
    }

    /// Forgets the first `bits` of `key`.
    pub fn remove(&mut self, key: [u8; N], bits: u32) {
        if let Some(entries) = self.by_length.get_mut(&bits) {
            entries.remove(&masked(key, bits));
        }
    }

    /// The value with the longest prefix of `key` that is no longer than `bits`.
    pub fn get(&self, key: [u8; N], bits: u32) -> Option<&V> {
        self.by_length.range(..=bits).rev().find_map(|(&n, entries)| entries.get(&masked(key, n)))
    }
}

fn masked<const N: usize>(mut key: [u8; N], bits: u32) -> [u8; N] {
    for (i, byte) in key.iter_mut().enumerate() {
        let kept = bits.saturating_sub(i as u32 * 8).min(8);
        *byte &= !(0xffu32 >> kept) as u8;
    }
    key
}

/// Policy, identities, blocklists and the clock.
#[derive(Clone, Debug)]
pub struct HostRules {
    /// The configuration; time is its `fixed_now_ns`.
    pub config: Config,
    /// Identity bindings.
    pub bindings: PrefixMap<16, BindingVersions>,
    /// Those that do not hold everywhere.
    pub scoped: PrefixMap<24, BindingVersions>,
    /// Blocklist.
    pub blocklist: PrefixMap<16, BlockVersions>,
    /// Guard lists.
    pub guards: PrefixMap<12, BlockVersions>,
    /// Policy.
    pub policy: PrefixMap<12, DecisionVersions>,
    /// What holds for interfaces.
    pub interfaces: HashMap<u32, InterfaceVersions>,
    /// Numbers of the rules' limits.
    pub rules: HashMap<u32, RuleVersions>,
    /// Which limit is an identity's.
    pub limits: HashMap<u32, LimitVersions>,
    /// Failsafe services.
    pub failsafe: HashSet<FailsafeKey>,
}

impl HostRules {
    fn empty() -> Self {
        Self {
            config: Config::new(1, 0),
            bindings: PrefixMap::default(),
            scoped: PrefixMap::default(),
            blocklist: PrefixMap::default(),
            guards: PrefixMap::default(),
            policy: PrefixMap::default(),
            interfaces: HashMap::new(),
            rules: HashMap::new(),
            limits: HashMap::new(),
            failsafe: HashSet::new(),
        }
    }
}

impl Default for HostRules {
    fn default() -> Self {
        Self::empty()
    }
}

impl Rules for HostRules {
    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn coarse_ns(&self, config: &Config) -> u64 {
        config.fixed_now_ns
    }

    fn now_ns(&self, config: &Config) -> u64 {
        config.fixed_now_ns
    }

    fn binding(&self, addr: &Addr) -> Option<&BindingVersions> {
        self.bindings.get(addr.octets(), 128)
    }

    fn scoped(&self, segment: u32, addr: &Addr, service: u32) -> Option<&BindingVersions> {
        let key = ScopedKey::new(segment, addr, service);
        self.scoped.get(bytemuck::cast(key), ScopedKey::FULL_BITS)
    }

    fn block(&self, addr: &Addr) -> Option<&BlockVersions> {
        self.blocklist.get(addr.octets(), 128)
    }

    fn guard(&self, key: &PolicyKey) -> Option<&BlockVersions> {
        self.guards.get(key.bytes, PolicyKey::FULL_BITS)
    }

    fn decision(&self, key: &PolicyKey) -> Option<&DecisionVersions> {
        self.policy.get(key.bytes, PolicyKey::FULL_BITS)
    }

    fn interface(&self, ifindex: u32) -> Option<&InterfaceVersions> {
        self.interfaces.get(&ifindex)
    }

    fn rule(&self, number: u32) -> Option<&RuleVersions> {
        self.rules.get(&number)
    }

    fn limit(&self, identity: u32) -> Option<&LimitVersions> {
        self.limits.get(&identity)
    }

    fn is_failsafe(&self, addr: &Addr, service: Service) -> bool {
        self.failsafe.contains(&FailsafeKey::new(*addr, service.proto, service.port))
    }
}

/// Token buckets and counts of connections.
#[derive(Debug, Default)]
pub struct HostBuckets {
    buckets: HashMap<BucketKey, [AtomicU64; Unit::COUNT]>,
    holdings: HashMap<u32, Vec<AtomicU64>>,
}

impl<'a> Wheel for &'a [AtomicU64] {
    type Word = &'a AtomicU64;

    fn word(&self, at: usize) -> Option<&'a AtomicU64> {
        self.get(at)
    }
}

impl Buckets for HostBuckets {
    fn take(&mut self, key: &BucketKey, unit: Unit, claim: &Claim) -> bool {
        take(&&self.buckets.entry(*key).or_default()[unit as usize], claim)
    }

    fn holdings(&mut self, identity: u32) -> Option<impl Wheel> {
        let words = || (0..Holdings::WORDS).map(|_| AtomicU64::new(0)).collect();
        Some(self.holdings.entry(identity).or_insert_with(words).as_slice())
    }
}

/// Counters and events.
#[derive(Debug, Default)]
pub struct HostSink {
    /// Counters by interface.
    pub ports: HashMap<u32, PortCounters>,
    /// Handshakes by pair of identities and outcome.
    pub handshakes: BTreeMap<HandshakeKey, HandshakeStats>,
    /// What two epochs said of flows of the sample.
    pub shadow: BTreeMap<ShadowKey, u64>,
    /// Events in their order.
    pub events: VecDeque<Event>,
    /// Connections that gave way to others.
    pub closed: VecDeque<ClosedEvent>,
    /// Pieces of ClientHellos.
    pub hellos: VecDeque<HelloSegment>,
    /// Events not sent, by [`Lost`].
    pub lost: [u64; Tally::END as usize],
    budgets: HashMap<u32, EventBudget>,
}

impl Sink for HostSink {
    fn count(
        &mut self,
        ifindex: u32,
        direction: Direction,
        reason: u8,
        audited: bool,
        packets: u32,
        bytes: u64,
    ) {
        let port = self.ports.entry(ifindex).or_insert_with(bytemuck::Zeroable::zeroed);
        port.ifindex = ifindex;
        let count = &mut port.counts[direction as usize][PortCounters::index(reason, audited)];
        count.packets += u64::from(packets);
        count.bytes += bytes;
    }

    fn answered(&mut self, ifindex: u32, how: Answered) {
        let port = self.ports.entry(ifindex).or_insert_with(bytemuck::Zeroable::zeroed);
        port.answers[how as usize] += 1;
    }

    fn handshake(&mut self, key: &HandshakeKey, duration_ns: u64) {
        self.handshakes.entry(*key).or_insert_with(bytemuck::Zeroable::zeroed).record(duration_ns);
    }

    fn budget(&mut self, index: u32) -> Option<&mut EventBudget> {
        Some(self.budgets.entry(index).or_default())
    }

    fn shadow(&mut self, key: &ShadowKey) {
        *self.shadow.entry(*key).or_default() += 1;
    }

    fn lost(&mut self, why: Lost) {
        self.lost[why as usize] += 1;
    }

    fn tally(&mut self, what: Tally) {
        self.lost[what as usize] += 1;
    }

    fn event(&mut self, fill: impl FnOnce(&mut Event)) {
        let mut event = bytemuck::Zeroable::zeroed();
        fill(&mut event);
        self.events.push_back(event);
    }

    fn closed(&mut self, fill: impl FnOnce(&mut ClosedEvent)) {
        let mut closed = bytemuck::Zeroable::zeroed();
        fill(&mut closed);
        self.closed.push_back(closed);
    }

    fn hello<F: Frame>(&mut self, frame: &F, from: usize, length: u32, fill: impl FnOnce(&mut HelloSegment)) {
        let mut segment: HelloSegment = bytemuck::Zeroable::zeroed();
        fill(&mut segment);
        segment.length = length;
        if length == 0 || frame.copy_to(from, length, &mut segment.bytes) {
            self.hellos.push_back(segment);
        }
    }
}

/// Room for a new connection.
#[derive(Debug)]
pub struct HostDraft {
    attempt: Attempt,
}

impl Draft for HostDraft {
    fn attempt(&mut self) -> Option<&mut Attempt> {
        Some(&mut self.attempt)
    }
}
