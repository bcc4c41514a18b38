//! The BPF maps, and the packet path's tables on top of them. The TC program includes this same file.
//!
//! Here and in the frame of each program is the only `unsafe` of the kernel side: a map hands out a pointer, the path
//! wants a reference.

use crate::attempts::KernelHalfOpen;
use crate::{memos, stages};
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_NOEXIST};
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_boot_ns, bpf_map_lookup_percpu_elem};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{
    Array, HashMap, LpmTrie, LruHashMap, LruPerCpuHashMap, PerCpuArray, PerCpuHashMap, RingBuf, lpm_trie,
};
use datapath::abi::config::PortCounters;
use datapath::abi::packet::Trace;
use datapath::abi::{
    Addr, Answered, Attempt, AttemptSet, BindingVersions, BlockVersions, Bucket, BucketKey, ClosedEvent,
    Config, Connection, Decision, DecisionMemo, DecisionVersions, Direction, EndMemo, Event, EventBudget,
    FailsafeKey, FlowKey, FlowRecord, FlowSlot, FragmentKey, FragmentPorts, HandshakeKey, HandshakeStats,
    HelloSegment, Holding, Holdings, InterfaceVersions, JudgedPort, LimitVersions, Lost, PolicyKey, Question,
    RuleVersions, ShadowKey, Tally, Unit,
};
use datapath::frame::Frame;
use datapath::guard::{Listed, Service};
use datapath::holdings::Wheel;
use datapath::limits::{Claim, Word, take};
use datapath::policy::{Judgement, Moment};
use datapath::tables::{Buckets, Draft, Plane, Rules, Sink, Slots, Spill, Table, Tables};

/// Configuration: one entry.
#[map]
pub(crate) static TG_CONFIG: Array<Config> = Array::pinned(1, 0);
/// First level of the flow table, direct-mapped by hash.
#[map]
static TG_FLOW_SLOTS: PerCpuArray<FlowSlot> = PerCpuArray::pinned(65_536, 0);
/// Second level: records that gave way in the first.
#[map]
static TG_FLOW_SPILL: LruPerCpuHashMap<FlowKey, FlowRecord> = LruPerCpuHashMap::pinned(131_072, 0);
/// Connections that were answered.
#[map]
static TG_CONNECTIONS: LruHashMap<FlowKey, Connection> = LruHashMap::pinned(262_144, 0);
/// Connections that were not answered yet. User space maps it into its memory.
#[map]
pub(crate) static TG_HALF_OPEN: Array<AttemptSet> = Array::pinned(16_384, BPF_F_MMAPABLE);
/// Interfaces that are judged as packets come in: TC does not judge these again on their way out.
#[map]
pub(crate) static TG_JUDGED_PORTS: HashMap<u32, JudgedPort> = HashMap::pinned(1024, 0);
/// Prefix to identity.
#[map]
static TG_BINDINGS: LpmTrie<[u8; 16], BindingVersions> = LpmTrie::pinned(262_144, 0);
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

/// A trie's key, laid out so that no store to it crosses an eight-byte boundary of the stack: the verifier refuses
/// that ("misaligned stack access", 6.18), and a packed key begs for it.
#[repr(C, align(8))]
struct PrefixKey<const N: usize> {
    _pad: u32,
    prefix_len: u32,
    data: [u8; N],
}

impl PrefixKey<16> {
    #[inline(always)]
    fn address(addr: &Addr) -> Self {
        Self { _pad: 0, prefix_len: 128, data: addr.octets() }
    }
}

impl PrefixKey<4> {
    #[inline(always)]
    fn number(number: u32) -> Self {
        Self { _pad: 0, prefix_len: 32, data: number.to_ne_bytes() }
    }
}

impl PrefixKey<12> {
    #[inline(always)]
    fn policy(key: &PolicyKey) -> Self {
        Self { _pad: 0, prefix_len: PolicyKey::FULL_BITS, data: key.bytes }
    }
}

impl<const N: usize> PrefixKey<N> {
    #[inline(always)]
    fn key(&self) -> &lpm_trie::Key<[u8; N]> {
        let key = (&raw const self.prefix_len).cast::<lpm_trie::Key<[u8; N]>>();
        // SAFETY: a Key is the length and the data, packed, and that is what lies there.
        unsafe { &*key }
    }
}

/// What the controller writes, and the clock.
pub struct KernelRules;

impl Rules for KernelRules {
    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        TG_CONFIG.get(0)
    }

    #[inline(always)]
    fn coarse_ns(&self, config: &Config) -> u64 {
        if config.has(Config::FIXED_CLOCK) {
            return config.fixed_now_ns;
        }
        // SAFETY: the helper takes no argument and only reads a clock.
        let ticks = unsafe { bpf_jiffies64() };
        ticks.wrapping_mul(config.tick_ns).wrapping_add(config.boot_offset_ns)
    }

    #[inline(always)]
    fn now_ns(&self, config: &Config) -> u64 {
        if config.has(Config::FIXED_CLOCK) {
            return config.fixed_now_ns;
        }
        // SAFETY: the helper takes no argument and only reads a clock.
        unsafe { bpf_ktime_get_boot_ns() }
    }

    #[inline(always)] // in a function of its own
    fn binding(&self, addr: &Addr) -> Option<&BindingVersions> {
        TG_BINDINGS.get(PrefixKey::address(addr).key())
    }

    #[inline(always)] // in a function of its own
    fn block(&self, addr: &Addr) -> Option<&BlockVersions> {
        TG_BLOCKLIST.get(PrefixKey::address(addr).key())
    }

    #[inline(always)] // in a stage of its own
    fn guard(&self, key: &PolicyKey) -> Option<&BlockVersions> {
        TG_GUARDS.get(PrefixKey::policy(key).key())
    }

    #[inline(always)]
    fn blocked(&self, list: u32, service: Service, moment: &Moment, j: &mut Judgement) -> u32 {
        stages::tg_blocked(list, u32::from(service.proto), u32::from(service.port), moment, j)
    }

    #[inline(always)]
    fn about<T>(&self, addr: &Addr, moment: &Moment, then: impl FnOnce(&EndMemo) -> T) -> Option<T> {
        memos::about(addr, moment, then)
    }

    #[inline(always)]
    fn remembered(&self, addr: &Addr, config: &Config) -> Option<&EndMemo> {
        memos::remembered(addr, config)
    }

    #[inline(always)]
    fn decided(&self, asked: &Question, moment: &Moment) -> Decision {
        memos::decided(asked, moment)
    }

    #[inline(always)]
    fn is_listed(&self, listed: &Listed, service: Service, moment: &Moment, j: &mut Judgement) -> bool {
        stages::tg_listed(listed, u32::from(service.proto), u32::from(service.port), moment, j) != 0
    }

    #[inline(always)] // in a function of its own
    fn decision(&self, key: &PolicyKey) -> Option<&DecisionVersions> {
        TG_POLICY.get(PrefixKey::policy(key).key())
    }

    #[inline(never)] // its key has a stack of its own
    fn interface(&self, ifindex: u32) -> Option<&InterfaceVersions> {
        TG_INTERFACES.get(PrefixKey::number(ifindex).key())
    }

    #[inline(never)] // its key has a stack of its own
    fn rule(&self, number: u32) -> Option<&RuleVersions> {
        TG_RULES.get(PrefixKey::number(number).key())
    }

    #[inline(never)] // its key has a stack of its own
    fn limit(&self, identity: u32) -> Option<&LimitVersions> {
        TG_LIMITS.get(PrefixKey::number(identity).key())
    }

    #[inline(never)] // its key has a stack of its own
    fn is_failsafe(&self, addr: &Addr, service: Service) -> bool {
        TG_FAILSAFE.get_ptr(&FailsafeKey::new(*addr, service.proto, service.port)).is_some()
    }
}

/// `TG_BUCKETS`.
pub struct KernelBuckets;

impl KernelBuckets {
    #[inline(always)]
    fn get(key: &BucketKey) -> Option<*mut Bucket> {
        if let Some(bucket) = TG_BUCKETS.get_ptr_mut(key) {
            return Some(bucket);
        }
        // Another CPU may be quicker: then its bucket is the one.
        let _was_there = TG_BUCKETS.insert(key, &Bucket::default(), u64::from(BPF_NOEXIST));
        TG_BUCKETS.get_ptr_mut(key)
    }
}

impl Buckets for KernelBuckets {
    #[inline(always)]
    fn take(&mut self, key: &BucketKey, unit: Unit, claim: &Claim) -> bool {
        let Some(bucket) = Self::get(key) else {
            return false; // no memory: a limit is not exceeded for want of it
        };
        // SAFETY: the element lives until the program returns; the address of a field is taken, nothing is read.
        take(&SharedWord(unsafe { &raw mut (*bucket).full_ns[unit as usize] }), claim)
    }

    #[inline(always)]
    fn until(&self, is_answered: bool, now_ns: u64, end_ns: u64) -> Holding {
        Holding(stages::tg_until(u32::from(is_answered), now_ns, end_ns) as u16)
    }

    #[inline(always)]
    fn holdings(&mut self, identity: u32) -> Option<impl Wheel> {
        if let Some(found) = TG_HOLDINGS.get_ptr_mut(identity) {
            return Some(KernelWheel(found));
        }
        // Another CPU may be quicker: then its wheel is the one.
        let _was_there = TG_HOLDINGS.insert(identity, TG_NOTHING_HELD.get(0)?, u64::from(BPF_NOEXIST));
        TG_HOLDINGS.get_ptr_mut(identity).map(KernelWheel)
    }
}

/// An element of `TG_HOLDINGS`.
struct KernelWheel(*mut Holdings);

impl Wheel for KernelWheel {
    type Word = SharedWord;

    #[inline(always)]
    fn word(&self, at: usize) -> Option<SharedWord> {
        // Hidden from LLVM, or it drops the comparison that shows the verifier the bound.
        let at = core::hint::black_box(at);
        if at >= Holdings::WORDS {
            return None;
        }
        // SAFETY: the element lives until the program returns; the address of a word is taken, nothing is read.
        Some(SharedWord(unsafe { &raw mut (*self.0).words[at] }))
    }
}

/// A word of a map's element that other CPUs change too.
pub(crate) struct SharedWord(pub *mut u64);

impl Word for SharedWord {
    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: an aligned word of an element that lives until the program returns.
        unsafe { self.0.read_volatile() }
    }

    #[inline(always)]
    fn replace(&self, seen: u64, next: u64) -> bool {
        let found: u64;
        // SAFETY: as above; the instruction (Linux 5.12) compares with r0 and leaves there what it found.
        unsafe {
            core::arch::asm!(
                "r0 = cmpxchg_64({at} + 0, r0, {next})",
                at = in(reg) self.0,
                next = in(reg) next,
                inout("r0") seen => found,
                options(nostack),
            );
        }
        found == seen
    }
}

/// Counters and events.
pub struct KernelSink;

impl KernelSink {
    #[inline(always)]
    fn port(ifindex: u32) -> Option<*mut PortCounters> {
        let port = TG_PORTS.get_ptr_mut(PortCounters::slot(ifindex))?;
        // SAFETY: a per-CPU element, alive until the program returns; one aligned word is read.
        if unsafe { (*port).ifindex } == ifindex {
            return Some(port);
        }
        TG_PORTS.get_ptr_mut(PortCounters::SHARED)
    }
}

impl Sink for KernelSink {
    #[inline(always)]
    fn count(&mut self, ifindex: u32, direction: Direction, reason: u8, audited: bool, bytes: u64) {
        let Some(port) = Self::port(ifindex) else {
            return;
        };
        // SAFETY: this CPU's element, and nothing else runs on this CPU until the program returns.
        let port = unsafe { &mut *port };
        let count = &mut port.counts[direction as usize][PortCounters::index(reason, audited)];
        count.packets += 1;
        count.bytes += bytes;
    }

    #[inline(always)]
    fn answered(&mut self, ifindex: u32, how: Answered) {
        if let Some(port) = Self::port(ifindex) {
            // SAFETY: this CPU's element, and nothing else runs on this CPU until the program returns.
            unsafe { (*port).answers[how as usize] += 1 };
        }
    }

    #[inline(always)]
    fn handshake(&mut self, key: &HandshakeKey, duration_ns: u64) {
        if TG_HANDSHAKES.get_ptr_mut(key).is_none() {
            let Some(zero) = TG_ZERO.get(0) else {
                return;
            };
            let _full_counts_as_lost = TG_HANDSHAKES.insert(key, zero, 0);
        }
        match TG_HANDSHAKES.get_ptr_mut(key) {
            // SAFETY: this CPU's element, and nothing else runs on this CPU until the program returns.
            Some(stats) => unsafe { (*stats).record(duration_ns) },
            None => self.lost(Lost::NoRoom),
        }
    }

    #[inline(always)]
    fn budget(&mut self, index: u32) -> Option<&mut EventBudget> {
        let budget = TG_EVENT_BUDGET.get_ptr_mut(index)?;
        // SAFETY: this CPU's element, and nothing else runs on this CPU until the program returns.
        Some(unsafe { &mut *budget })
    }

    #[inline(always)]
    fn shadow(&mut self, key: &ShadowKey) {
        if TG_SHADOW.get_ptr_mut(key).is_none() {
            let _full_counts_as_lost = TG_SHADOW.insert(key, &0, 0);
        }
        match TG_SHADOW.get_ptr_mut(key) {
            // SAFETY: this CPU's element, and nothing else runs on this CPU until the program returns.
            Some(count) => unsafe { *count += 1 },
            None => self.lost(Lost::NoRoom),
        }
    }

    #[inline(always)]
    fn lost(&mut self, why: Lost) {
        if let Some(lost) = TG_LOST.get_ptr_mut(why as u32) {
            // SAFETY: a per-CPU element, alive until the program returns.
            unsafe { *lost += 1 };
        }
    }

    #[inline(always)]
    fn tally(&mut self, what: Tally) {
        if let Some(count) = TG_LOST.get_ptr_mut(what as u32) {
            // SAFETY: a per-CPU element, alive until the program returns.
            unsafe { *count += 1 };
        }
    }

    #[inline(always)]
    fn event(&mut self, fill: impl FnOnce(&mut Event)) {
        match TG_EVENTS.reserve::<Event>(0) {
            Some(mut entry) => {
                // SAFETY: reserved memory of the right size and alignment, and all zeroes are an Event (it is Pod).
                fill(unsafe { zeroed(entry.as_mut_ptr()) });
                entry.submit(0);
            }
            None => self.lost(Lost::NoRoom),
        }
    }

    #[inline(always)]
    fn closed(&mut self, fill: impl FnOnce(&mut ClosedEvent)) {
        match TG_EVENTS.reserve::<ClosedEvent>(0) {
            Some(mut entry) => {
                // SAFETY: as above, for a ClosedEvent.
                fill(unsafe { zeroed(entry.as_mut_ptr()) });
                entry.submit(0);
            }
            None => self.lost(Lost::NoRoom),
        }
    }

    #[inline(always)]
    fn hello<F: Frame>(&mut self, frame: &F, from: usize, length: u32, fill: impl FnOnce(&mut HelloSegment)) {
        let Some(mut entry) = TG_HELLOS.reserve::<HelloSegment>(0) else {
            return self.lost(Lost::Hello);
        };
        // SAFETY: reserved memory of the right size and alignment, and any bytes are a HelloSegment (it is Pod).
        let segment = unsafe { &mut *entry.as_mut_ptr() };
        fill(segment);
        segment.length = length;
        if length == 0 || frame.copy_to(from, length, &mut segment.bytes) {
            entry.submit(0);
        } else {
            entry.discard(0);
        }
    }
}

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

/// # Safety
/// `at` points to memory for a `T` that nobody else uses, and a `T` may be all zeroes.
#[inline(always)]
unsafe fn zeroed<'a, T>(at: *mut T) -> &'a mut T {
    // SAFETY: by the caller's word.
    unsafe {
        core::ptr::write_bytes(at, 0, 1);
        &mut *at
    }
}
