//! What the controller sets for the programs, and what they count by interface.

use super::key::HashKeys;
use super::reason::{Direction, Reason};
use bytemuck::{Pod, Zeroable};

/// The one entry of the configuration map. A commit changes `epoch` alone, which is written whole.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Config {
    /// [`super::ABI_VERSION`] of the controller that wrote it.
    pub abi_version: u32,
    /// The epoch by which packets are judged, read once a packet.
    pub epoch: u32,
    /// The `Config::` flag bits.
    pub flags: u32,
    /// Number of first-level slots a CPU minus one; a power of two minus one.
    pub flow_mask: u32,
    /// Secrets of the flow hash, chosen when the maps are made and never changed.
    pub hash_keys: HashKeys,
    /// Length of a kernel tick.
    pub tick_ns: u64,
    /// Boot-clock time of tick 0: `now = boot_offset_ns + ticks * tick_ns`.
    pub boot_offset_ns: u64,
    /// Where [`Config::FIXED_CLOCK`] is set, the time, for replay and tests.
    pub fixed_now_ns: u64,
    /// A SYN unanswered for this long is over; the next one opens a new connection.
    pub attempt_timeout_ns: u64,
    /// An established TCP connection idle for this long is over.
    pub tcp_idle_timeout_ns: u64,
    /// A closed TCP connection is remembered for this long.
    pub close_linger_ns: u64,
    /// A UDP flow that was answered, or one of a protocol that has no time of its own, idle for this long is over.
    pub datagram_timeout_ns: u64,
    /// A TCP connection whose SYN-ACK was not acknowledged, idle for this long is over.
    pub handshake_timeout_ns: u64,
    /// A TCP connection of which one side has sent a FIN, idle for this long is over.
    pub half_closed_timeout_ns: u64,
    /// A UDP flow without an answer, idle for this long is over.
    pub unreplied_timeout_ns: u64,
    /// An ICMP or ICMPv6 flow idle for this long is over.
    pub icmp_timeout_ns: u64,
    /// An SCTP association idle for this long is over.
    pub sctp_timeout_ns: u64,
    /// A closed TCP connection is shown for this long at least.
    pub closed_kept_ns: u64,
    /// The shortest of the idle times: see [`Config::with_idle_times`].
    pub shortest_idle_ns: u64,
    /// Events a second and CPU of one kind, reason and identity; what is over is counted, not sent. 0 for no limit.
    pub event_limit: u32,
    /// The flags by which the next epoch would judge, where [`Config::SHADOW`] is set.
    pub shadow_flags: u32,
    /// Flows whose hash is no larger are judged by the next epoch too.
    pub shadow_threshold: u32,
    /// Number of sets of attempts minus one; a power of two minus one.
    pub attempt_mask: u32,
    /// Counts how often somebody changed within an epoch what the epoch says: see [`Config::stamp`].
    pub generation: u32,
    /// Which of the two filters of an [`super::AttemptFilter`] is asked: 0 for the lower, 32 for the upper. The other is filled
    /// anew meanwhile.
    pub answered_shift: u32,
    /// Bits of a socket buffer's mark that say who sent the packet, next to each other: see [`crate::mark`]. 0 for none.
    pub mark_mask: u32,
    /// Padding.
    pub _pad: u32,
}
const _: () = assert!(size_of::<Config>() == 200);

impl Config {
    /// Drop what is judged so. Without it (monitor mode) everything passes with verdict AUDIT.
    pub const ENFORCE: u32 = 1 << 0;
    /// What no rule decides passes. Set while no policy is loaded.
    pub const DEFAULT_ALLOW: u32 = 1 << 1;
    /// Time is `fixed_now_ns`.
    pub const FIXED_CLOCK: u32 = 1 << 2;
    /// Leave every packet and its verdict in the trace map.
    pub const TRACE: u32 = 1 << 3;
    /// What no rule decides is answered where it is dropped.
    pub const REJECT: u32 = 1 << 4;
    /// TCP connections whose beginning was not seen are dropped.
    pub const MIDSTREAM_DENY: u32 = 1 << 5;
    /// They pass with verdict AUDIT.
    pub const MIDSTREAM_ALERT: u32 = 1 << 6;
    /// Some interface has settings of its own: see [`super::Interface`].
    pub const BY_INTERFACE: u32 = 1 << 7;
    /// Some flows are judged by the next epoch too, and differences counted.
    pub const SHADOW: u32 = 1 << 8;
    /// XDP itself forwards what passes and is plain; see [`crate::forward`].
    pub const FORWARD: u32 = 1 << 9;
    /// There are failsafe services.
    pub const FAILSAFE: u32 = 1 << 10;
    /// Some bindings do not hold everywhere: see [`crate::scope`].
    pub const SCOPED: u32 = 1 << 11;
    /// No rule speaks of who has no class: nothing need be looked up for them. Never set while an epoch may count that has one.
    pub const NOBODY_NAMED: u32 = 1 << 12;
    /// Packets to UDP port 4789 are judged by what they carry.
    pub const INSPECT_VXLAN: u32 = 1 << 16;
    /// Packets to UDP port 6081 are judged by what they carry.
    pub const INSPECT_GENEVE: u32 = 1 << 17;
    /// GRE packets are judged by what they carry.
    pub const INSPECT_GRE: u32 = 1 << 18;
    /// Packets that carry IPv4 or IPv6 right behind their IP header are judged by it.
    pub const INSPECT_IPIP: u32 = 1 << 19;
    /// All four. They may only change where the epoch does, for records of tunnels hold until then.
    pub const INSPECT: u32 =
        Self::INSPECT_VXLAN | Self::INSPECT_GENEVE | Self::INSPECT_GRE | Self::INSPECT_IPIP;

    /// Defaults: monitor, everything allowed, Zeek's timeouts.
    pub fn new(flow_slots: u32, hash_seed: u64) -> Self {
        Self {
            abi_version: super::ABI_VERSION,
            epoch: 1,
            flags: Self::DEFAULT_ALLOW,
            flow_mask: flow_slots.next_power_of_two() - 1,
            hash_keys: HashKeys::new(hash_seed),
            tick_ns: 0,
            boot_offset_ns: 0,
            fixed_now_ns: 0,
            attempt_timeout_ns: 5_000_000_000,
            tcp_idle_timeout_ns: 300_000_000_000,
            close_linger_ns: 5_000_000_000,
            datagram_timeout_ns: 60_000_000_000,
            handshake_timeout_ns: 60_000_000_000,
            half_closed_timeout_ns: 300_000_000_000,
            unreplied_timeout_ns: 60_000_000_000,
            icmp_timeout_ns: 60_000_000_000,
            sctp_timeout_ns: 300_000_000_000,
            closed_kept_ns: 60_000_000_000,
            shortest_idle_ns: 60_000_000_000,
            event_limit: 0,
            shadow_flags: 0,
            shadow_threshold: 0,
            attempt_mask: flow_slots.next_power_of_two().div_ceil(8) - 1,
            generation: 0,
            answered_shift: 0,
            mark_mask: 0,
            _pad: 0,
        }
    }

    /// Has to follow a change of an idle time: verdicts hold for a quarter of the shortest.
    pub fn with_idle_times(mut self) -> Self {
        let times = [
            self.tcp_idle_timeout_ns,
            self.datagram_timeout_ns,
            self.half_closed_timeout_ns,
            self.unreplied_timeout_ns,
            self.icmp_timeout_ns,
            self.sctp_timeout_ns,
        ];
        self.shortest_idle_ns = times.into_iter().fold(u64::MAX, u64::min);
        self
    }

    /// What a CPU that remembers a look-up remembers with it: it holds while this is the same. Never 0.
    #[inline(always)]
    pub fn stamp(&self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.epoch)
    }

    /// Whether a flag is set.
    #[inline(always)]
    pub fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// Packets and bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes of the frames from the Ethernet header to the end of the IP packet, without padding.
    pub bytes: u64,
}

/// How a packet was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// By a TCP reset.
    Reset = 0,
    /// By ICMP or ICMPv6, administratively prohibited.
    Icmp = 1,
}

impl Answered {
    /// How many there are.
    pub const COUNT: usize = 2;
    /// Every way, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [Self::Reset, Self::Icmp];

    /// As in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reset => "tcp_reset",
            Self::Icmp => "icmp_prohibited",
        }
    }
}

/// Counters of one interface on one CPU, by direction and reason. Forwarded packets count under
/// [`Reason::Forwarded`] and its kin. What passed with verdict AUDIT counts under the reason for it plus
/// [`PortCounters::AUDITED`], so that drops and audits stay apart.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct PortCounters {
    /// The interface that the controller gave this slot to; 0 for none.
    pub ifindex: u32,
    /// Padding.
    pub _pad: u32,
    /// Packets that were rejected with an answer, by [`Answered`]. They were dropped, and count as that too.
    pub answers: [u64; Answered::COUNT],
    /// `counts[direction][reason]`.
    pub counts: [[Count; PortCounters::REASONS]; Direction::COUNT],
}

impl PortCounters {
    /// Reasons that a slot has room for; a power of two, so that an index is masked.
    pub const REASONS: usize = 128;
    /// Added to the reason's number where the verdict was AUDIT.
    pub const AUDITED: usize = 64;
    /// Slots: interface n has slot `n % 256`; slot 0 counts for interfaces whose slot another one has, or is 0.
    pub const SLOTS: u32 = 256;
    /// The slot that counts for interfaces without one of their own.
    pub const SHARED: u32 = 0;

    /// Where a reason counts.
    #[inline(always)]
    pub fn index(reason: u8, audited: bool) -> usize {
        (usize::from(reason) & (Self::AUDITED - 1)) + if audited { Self::AUDITED } else { 0 }
    }

    /// The slot that an interface has if the controller gave it to it.
    #[inline(always)]
    pub fn slot(ifindex: u32) -> u32 {
        ifindex & (Self::SLOTS - 1)
    }
}
const _: () =
    assert!(Reason::COUNT <= PortCounters::AUDITED && PortCounters::REASONS == 2 * PortCounters::AUDITED);

/// Names of the maps, as `bpftool map` shows them and as they are pinned. At most 15 bytes: the kernel cuts the rest.
#[derive(Clone, Copy, Debug)]
pub struct MapName;

#[allow(missing_docs)] // each is described beside its definition in xdp/src/maps/mod.rs
impl MapName {
    pub const CONFIG: &str = "TG_CONFIG";
    pub const FLOW_SLOTS: &str = "TG_FLOW_SLOTS";
    /// Whose each of them may be.
    pub const FLOW_TAGS: &str = "TG_FLOW_TAGS";
    pub const FLOW_SPILL: &str = "TG_FLOW_SPILL";
    pub const CONNECTIONS: &str = "TG_CONNECTIONS";
    pub const HALF_OPEN: &str = "TG_HALF_OPEN";
    pub const WHEREABOUTS: &str = "TG_WHEREABOUTS";
    pub const BINDINGS: &str = "TG_BINDINGS";
    pub const SCOPED: &str = "TG_SCOPED";
    pub const BLOCKLIST: &str = "TG_BLOCKLIST";
    pub const GUARDS: &str = "TG_GUARDS";
    pub const POLICY: &str = "TG_POLICY";
    pub const INTERFACES: &str = "TG_INTERFACES";
    pub const SHADOW: &str = "TG_SHADOW";
    pub const RULES: &str = "TG_RULES";
    pub const BUCKETS: &str = "TG_BUCKETS";
    pub const LIMITS: &str = "TG_LIMITS";
    pub const HOLDINGS: &str = "TG_HOLDINGS";
    pub const FAILSAFE: &str = "TG_FAILSAFE";
    pub const FRAGMENTS: &str = "TG_FRAGMENTS";
    pub const PORTS: &str = "TG_PORTS";
    pub const HANDSHAKES: &str = "TG_HANDSHAKES";
    pub const EVENTS: &str = "TG_EVENTS";
    pub const HELLOS: &str = "TG_HELLOS";
    pub const LOST: &str = "TG_LOST";
    pub const EVENT_BUDGET: &str = "TG_EVENT_BUDGET";
    pub const TRACE: &str = "TG_TRACE";
    pub const ENDS: &str = "TG_ENDS";
    pub const DECISIONS: &str = "TG_DECISIONS";
    pub const JUDGED_PORTS: &str = "TG_JUDGED_PORTS";
    pub const REDIRECT: &str = "TG_REDIRECT";

    pub const ALL: [&str; 31] = [
        Self::CONFIG,
        Self::FLOW_SLOTS,
        Self::FLOW_TAGS,
        Self::FLOW_SPILL,
        Self::CONNECTIONS,
        Self::HALF_OPEN,
        Self::WHEREABOUTS,
        Self::BINDINGS,
        Self::SCOPED,
        Self::BLOCKLIST,
        Self::GUARDS,
        Self::POLICY,
        Self::INTERFACES,
        Self::SHADOW,
        Self::RULES,
        Self::BUCKETS,
        Self::LIMITS,
        Self::HOLDINGS,
        Self::FAILSAFE,
        Self::FRAGMENTS,
        Self::PORTS,
        Self::HANDSHAKES,
        Self::EVENTS,
        Self::HELLOS,
        Self::LOST,
        Self::EVENT_BUDGET,
        Self::TRACE,
        Self::ENDS,
        Self::DECISIONS,
        Self::JUDGED_PORTS,
        Self::REDIRECT,
    ];
}
