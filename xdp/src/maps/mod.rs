//! The BPF maps, and the packet path's tables on top of them. The TC programs include this same file.
//!
//! Here and in the frame of each program is the only `unsafe` of the kernel side: a map hands out a pointer, the path
//! wants a reference.

mod buckets;
mod rules;
mod sink;

pub use buckets::KernelBuckets;
pub(crate) use buckets::SharedWord;
pub use rules::KernelRules;
pub use sink::KernelSink;

use crate::attempts::KernelHalfOpen;
use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::helpers::generated::bpf_map_lookup_percpu_elem;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{
    Array, HashMap, LpmTrie, LruHashMap, LruPerCpuHashMap, PerCpuArray, PerCpuHashMap, RingBuf,
};
use datapath::abi::config::PortCounters;
use datapath::abi::packet::Trace;
use datapath::abi::{
    Attempt, AttemptFilter, AttemptSet, BindingVersions, BlockVersions, Bucket, BucketKey, Config,
    Connection, DecisionMemo, DecisionVersions, EndMemo, EventBudget, FailsafeKey, FlowKey, FlowRecord,
    FlowSlot, FlowTags, FragmentKey, FragmentPorts, HandshakeKey, HandshakeStats, Holdings,
    InterfaceVersions, JudgedPort, LimitVersions, RuleVersions, ShadowKey, Tally,
};
use datapath::tables::{Draft, Plane, Slots, Spill, Table, Tables};

/// Configuration: one entry.
#[map]
pub(crate) static TG_CONFIG: Array<Config> = Array::pinned(1, 0);
/// First level of the flow table, direct-mapped by hash.
#[map]
static TG_FLOW_SLOTS: PerCpuArray<FlowSlot> = PerCpuArray::pinned(65_536, 0);
/// Whose each slot may be.
#[map]
static TG_FLOW_TAGS: PerCpuArray<FlowTags> = PerCpuArray::pinned(1_024, 0);
/// Second level: records that gave way in the first.
#[map]
static TG_FLOW_SPILL: LruPerCpuHashMap<FlowKey, FlowRecord> = LruPerCpuHashMap::pinned(131_072, 0);
/// Connections that were answered.
#[map]
static TG_CONNECTIONS: LruHashMap<FlowKey, Connection> = LruHashMap::pinned(262_144, 0);
/// Connections that were not answered yet. User space maps it into its memory.
#[map]
pub(crate) static TG_HALF_OPEN: Array<AttemptSet> = Array::pinned(16_384, BPF_F_MMAPABLE);
/// What is certain not to be tracked of the keys of each set there. User space maps it into its memory.
#[map]
pub(crate) static TG_WHEREABOUTS: Array<AttemptFilter> = Array::pinned(16_384, BPF_F_MMAPABLE);
/// Interfaces that are judged as packets come in: TC does not judge these again on their way out.
#[map]
pub(crate) static TG_JUDGED_PORTS: HashMap<u32, JudgedPort> = HashMap::pinned(1024, 0);
/// Prefix to identity.
#[map]
static TG_BINDINGS: LpmTrie<[u8; 16], BindingVersions> = LpmTrie::pinned(262_144, 0);
/// Segment, prefix, protocol and port to identity, for bindings that do not hold everywhere.
#[map]
static TG_SCOPED: LpmTrie<[u8; 24], BindingVersions> = LpmTrie::pinned(262_144, 0);
/// Prefix to blocklist entry.
#[map]
static TG_BLOCKLIST: LpmTrie<[u8; 16], BlockVersions> = LpmTrie::pinned(1_048_576, 0);
/// Blocks and quarantines that need more than a prefix, by list, peer's class, protocol and port.
#[map]
static TG_GUARDS: LpmTrie<[u8; 12], BlockVersions> = LpmTrie::pinned(65_536, 0);
/// Pair of classes, protocol and port to decision.
#[map]
static TG_POLICY: LpmTrie<[u8; 12], DecisionVersions> = LpmTrie::pinned(262_144, 0);
/// What holds for interfaces with settings of their own, by index, in full; a trie for the reason below.
#[map]
static TG_INTERFACES: LpmTrie<[u8; 4], InterfaceVersions> = LpmTrie::pinned(1024, 0);
/// Flows that two epochs judged, by what they said.
#[map]
static TG_SHADOW: PerCpuHashMap<ShadowKey, u64> =
    PerCpuHashMap::pinned(4096, aya_ebpf::bindings::BPF_F_NO_PREALLOC);
/// Numbers of the limits of rules that have some, by the rule's number, in full. A trie, because it frees what a commit
/// replaced only after the packets that read it, where a hash map gives the memory to the next key at once.
#[map]
static TG_RULES: LpmTrie<[u8; 4], RuleVersions> = LpmTrie::pinned(16_384, 0);
/// Token buckets, by rule and identity. When it is full, the bucket that was idle longest begins anew, full.
#[map]
static TG_BUCKETS: LruHashMap<BucketKey, Bucket> = LruHashMap::pinned(65_536, 0);
/// Which limit is an identity's, by its number, in full; a trie for the reason above.
#[map]
static TG_LIMITS: LpmTrie<[u8; 4], LimitVersions> = LpmTrie::pinned(262_144, 0);
/// What identities that have a limit of it have at once. When it is full, the one that was idle longest begins anew, at
/// nothing.
#[map]
static TG_HOLDINGS: LruHashMap<u32, Holdings> = LruHashMap::pinned(8192, 0);
/// An entry that stays zero: what a new one of `TG_HOLDINGS` begins with (the stack has no room for it).
#[map]
static TG_NOTHING_HELD: Array<Holdings> = Array::pinned(1, 0);
/// Services of the gateway itself that no policy cuts.
#[map]
static TG_FAILSAFE: HashMap<FailsafeKey, u32> = HashMap::pinned(1024, 0);
/// Ports of fragmented datagrams.
#[map]
static TG_FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts> = LruHashMap::pinned(16_384, 0);
/// Counters by interface, direction and reason.
#[map]
static TG_PORTS: PerCpuArray<PortCounters> = PerCpuArray::pinned(PortCounters::SLOTS, 0);
/// Handshakes by pair of identities and outcome.
#[map]
static TG_HANDSHAKES: PerCpuHashMap<HandshakeKey, HandshakeStats> =
    PerCpuHashMap::pinned(16_384, aya_ebpf::bindings::BPF_F_NO_PREALLOC);
/// An entry that stays zero: what a new one of `TG_HANDSHAKES` begins with (the stack has no room for it).
#[map]
static TG_ZERO: PerCpuArray<HandshakeStats> = PerCpuArray::pinned(1, 0);
/// Events for user space.
#[map]
static TG_EVENTS: RingBuf = RingBuf::pinned(4 << 20, 0);
/// Pieces of ClientHellos for user space.
#[map]
static TG_HELLOS: RingBuf = RingBuf::pinned(1 << 20, 0);
/// Events that were not sent, by why; connections that came and went.
#[map]
static TG_LOST: PerCpuArray<u64> = PerCpuArray::pinned(Tally::END, 0);
/// What was sent lately, by kind, reason and identity.
#[map]
static TG_EVENT_BUDGET: PerCpuArray<EventBudget> = PerCpuArray::pinned(EventBudget::COUNT, 0);
/// What this CPU remembers of addresses. The last place is a scratch.
#[map]
pub(crate) static TG_ENDS: PerCpuArray<EndMemo> = PerCpuArray::pinned(EndMemo::COUNT + 1, 0);
/// What this CPU remembers of decisions. The last place is a scratch.
#[map]
pub(crate) static TG_DECISIONS: PerCpuArray<DecisionMemo> = PerCpuArray::pinned(DecisionMemo::COUNT + 1, 0);
/// The packet that is being judged, then the last one, with its verdict. The stack has no room for it.
#[map]
static TG_TRACE: PerCpuArray<Trace> = PerCpuArray::pinned(1, 0);

/// A new connection and its record before a table takes them.
#[map]
static TG_DRAFT: PerCpuArray<Attempt> = PerCpuArray::pinned(1, 0);

/// The engine in the kernel.
pub struct Kernel;

impl Tables for Kernel {
    type Slots = KernelSlots;
    type Spill = KernelSpill;
    type Connections = KernelConnections;
    type HalfOpen = KernelHalfOpen;
    type Fragments = KernelFragments;
    type Rules = KernelRules;
    type Buckets = KernelBuckets;
    type Sink = KernelSink;
    type Draft = KernelDraft;
}

/// The tables: handles without content, the maps are statics.
#[inline(always)]
pub fn plane() -> Plane<Kernel> {
    Plane {
        slots: KernelSlots,
        spill: KernelSpill,
        connections: KernelConnections,
        half_open: KernelHalfOpen,
        fragments: KernelFragments,
        rules: KernelRules,
        buckets: KernelBuckets,
        sink: KernelSink,
        draft: KernelDraft,
    }
}

/// `TG_FLOW_SLOTS`.
pub struct KernelSlots;

impl Slots for KernelSlots {
    #[inline(always)]
    fn slot(&mut self, index: u32) -> Option<&mut FlowSlot> {
        let slot = TG_FLOW_SLOTS.get_ptr_mut(index)?;
        // SAFETY: the element is this CPU's, and nothing else runs on this CPU until the program returns.
        Some(unsafe { &mut *slot })
    }

    #[inline(always)]
    fn slot_of(&mut self, cpu: u32, index: u32) -> Option<&FlowSlot> {
        // SAFETY: the kernel checks index and CPU, and keeps the element's memory as long as the map. Its CPU may be
        // writing to it: words of a count that is about to change.
        unsafe {
            let slot = bpf_map_lookup_percpu_elem(
                (&raw const TG_FLOW_SLOTS).cast_mut().cast(),
                (&raw const index).cast(),
                cpu,
            );
            slot.cast::<FlowSlot>().as_ref()
        }
    }

    #[inline(always)]
    fn may_be_of(&mut self, hash: u32, index: u32) -> bool {
        let (entry, at) = FlowTags::place(index);
        // SAFETY: this CPU's element, and nothing else runs on this CPU until the program returns.
        TG_FLOW_TAGS.get_ptr(entry).is_some_and(|tags| unsafe { (*tags).tags[at] } == FlowTags::tag(hash))
    }

    #[inline(always)]
    fn given_to(&mut self, key: &FlowKey) {
        let Some(config) = TG_CONFIG.get(0) else {
            return;
        };
        let hash = key.hash(&config.hash_keys);
        let (entry, at) = FlowTags::place(hash & config.flow_mask);
        if let Some(tags) = TG_FLOW_TAGS.get_ptr_mut(entry) {
            // SAFETY: as above.
            unsafe { (*tags).tags[at] = FlowTags::tag(hash) };
        }
    }
}

impl Spill for KernelSpill {
    #[inline(always)]
    fn of(&mut self, cpu: u32, key: &FlowKey) -> Option<&FlowRecord> {
        // SAFETY: as above.
        unsafe {
            let record = bpf_map_lookup_percpu_elem(
                (&raw const TG_FLOW_SPILL).cast_mut().cast(),
                (&raw const *key).cast(),
                cpu,
            );
            record.cast::<FlowRecord>().as_ref()
        }
    }
}

macro_rules! table {
    ($(#[$doc:meta])* $name:ident, $map:ident, $key:ty, $value:ty) => {
        $(#[$doc])*
        pub struct $name;

        impl Table<$key, $value> for $name {
            #[inline(always)]
            fn get(&mut self, key: &$key) -> Option<&mut $value> {
                let value = $map.get_ptr_mut(key)?;
                // SAFETY: the kernel keeps the element's memory until the program returns. Another CPU may write a
                // shared element too: its fields are words, and a lost race costs a fact, not memory (see abi).
                Some(unsafe { &mut *value })
            }

            #[inline(always)]
            fn insert(&mut self, key: &$key, value: &$value) -> bool {
                $map.insert(key, value, 0).is_ok()
            }

            #[inline(always)]
            fn remove(&mut self, key: &$key) {
                let _gone_already = $map.remove(key);
            }
        }
    };
}

table!(
    /// `TG_FLOW_SPILL`.
    KernelSpill, TG_FLOW_SPILL, FlowKey, FlowRecord
);
table!(
    /// `TG_CONNECTIONS`.
    KernelConnections, TG_CONNECTIONS, FlowKey, Connection
);
table!(
    /// `TG_FRAGMENTS`.
    KernelFragments, TG_FRAGMENTS, FragmentKey, FragmentPorts
);

/// `TG_DRAFT`.
pub struct KernelDraft;

impl Draft for KernelDraft {
    #[inline(always)]
    fn attempt(&mut self) -> Option<&mut Attempt> {
        let draft = TG_DRAFT.get_ptr_mut(0)?;
        // SAFETY: this CPU's element, and nothing else runs on this CPU until the program returns.
        Some(unsafe { &mut *draft })
    }
}

/// Where the packet that is being judged is kept.
#[inline(always)]
pub fn trace() -> Option<&'static mut Trace> {
    let trace = TG_TRACE.get_ptr_mut(0)?;
    // SAFETY: this CPU's element; each program asks for it once, and nothing else runs on this CPU until it returns.
    Some(unsafe { &mut *trace })
}
