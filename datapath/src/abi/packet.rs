//! A parsed packet: what the judge works on, and what the trace map shows of it.

use super::key::{Addr, FlowKey, Side};
use super::reason::{Action, Reason};
use bytemuck::{Pod, Zeroable};

/// What was read from a frame. A field is meaningful where the `HAS_` bit for it is set.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Packet {
    /// The flow, both directions under one key. Ports are 0 without [`Packet::HAS_PORTS`] or an ICMP type.
    pub key: FlowKey,
    /// Length of the IP packet in bytes: the header's, or the frame's where the header says 0.
    pub ip_bytes: u32,
    /// Transport payload in bytes, by the IP length.
    pub payload_bytes: u32,
    /// TCP sequence number; SCTP verification tag.
    pub seq: u32,
    /// TCP acknowledgement number; the tag that an SCTP INIT or INIT ACK announces.
    pub ack: u32,
    /// Identification of a fragmented datagram.
    pub fragment_id: u32,
    /// Where the IP header starts in the frame.
    pub l3_offset: u16,
    /// Where the transport header starts.
    pub l4_offset: u16,
    /// Where the transport payload starts.
    pub payload_offset: u16,
    /// Offset of a fragment in its datagram, in bytes.
    pub fragment_offset: u16,
    /// EtherType after VLAN tags.
    pub eth_type: u16,
    /// VLAN IDs, the outermost first.
    pub vlans: [u16; 3],
    /// The twelve bits of TCP flags and reserved bits, FIN lowest (RFC 9293, section 3.1).
    pub tcp_flags: u16,
    /// The window field of TCP, not scaled.
    pub tcp_window: u16,
    /// The maximum segment size that a SYN announces, 0 for none (RFC 9293, section 3.7.1).
    pub tcp_mss: u16,
    /// The `HAS_` bits.
    pub has: u16,
    /// How many VLAN tags the frame has.
    pub vlan_count: u8,
    /// 4, 6 or 0.
    pub ip_version: u8,
    /// 0 if `a` sent the packet, 1 if `b` did.
    pub from_b: u8,
    /// ICMP or ICMPv6 type.
    pub icmp_type: u8,
    /// ICMP or ICMPv6 code.
    pub icmp_code: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// The shift that a SYN announces, where [`Packet::HAS_WINDOW_SCALE`] is set (RFC 7323, section 2.2).
    pub tcp_window_scale: u8,
    /// Type of the first SCTP chunk, where [`Packet::HAS_SCTP`] is set.
    pub sctp_chunk: u8,
    /// How many segments the frame holds beside the first: see [`crate::weight`].
    pub more_segments: u16,
    /// The chunks of an SCTP packet, the `SCTP_` bits.
    pub sctp_chunks: u16,
}
const _: () = assert!(size_of::<Packet>() == 96);

impl Packet {
    /// An IP header was read: addresses and protocol are there.
    pub const HAS_IP: u16 = 1 << 0;
    /// A transport header with ports was read, or its ports are known from the first fragment.
    pub const HAS_PORTS: u16 = 1 << 1;
    /// A TCP header was read.
    pub const HAS_TCP: u16 = 1 << 2;
    /// An ICMP or ICMPv6 header was read.
    pub const HAS_ICMP: u16 = 1 << 3;
    /// The packet is a fragment.
    pub const IS_FRAGMENT: u16 = 1 << 4;
    /// More fragments follow.
    pub const MORE_FRAGMENTS: u16 = 1 << 5;
    /// An Ethernet header was read.
    pub const HAS_ETHERNET: u16 = 1 << 6;
    /// An IPv6 fragment header was read, also one of a packet that is whole (RFC 6946).
    pub const HAS_FRAGMENT_HEADER: u16 = 1 << 7;
    /// A SYN announced a window scale.
    pub const HAS_WINDOW_SCALE: u16 = 1 << 8;
    /// An SCTP header and its first chunk's header were read.
    pub const HAS_SCTP: u16 = 1 << 9;
    /// The packet names its own way: where it ends is not its destination address.
    pub const IS_SOURCE_ROUTED: u16 = 1 << 10;
    /// The packet came in a tunnel: all but the VLAN tags is of the inner packet.
    pub const IS_CARRIED: u16 = 1 << 11;

    /// SCTP chunks (RFC 9260, section 3.2): the bit that their type counts.
    pub const SCTP_DATA: u16 = 1 << 0;
    /// SCTP chunks.
    pub const SCTP_INIT: u16 = 1 << 1;
    /// SCTP chunks.
    pub const SCTP_INIT_ACK: u16 = 1 << 2;
    /// SCTP chunks.
    pub const SCTP_ABORT: u16 = 1 << 6;
    /// SCTP chunks.
    pub const SCTP_SHUTDOWN: u16 = 1 << 7;
    /// SCTP chunks.
    pub const SCTP_SHUTDOWN_ACK: u16 = 1 << 8;
    /// SCTP chunks.
    pub const SCTP_COOKIE_ECHO: u16 = 1 << 10;
    /// SCTP chunks.
    pub const SCTP_COOKIE_ACK: u16 = 1 << 11;
    /// SCTP chunks.
    pub const SCTP_SHUTDOWN_COMPLETE: u16 = 1 << 14;
    /// An ABORT or SHUTDOWN COMPLETE carries the tag of the other side.
    pub const SCTP_REFLECTED: u16 = 1 << 15;
    /// Chunks that change an association.
    pub const SCTP_CONTROL: u16 = Self::SCTP_INIT
        | Self::SCTP_INIT_ACK
        | Self::SCTP_ABORT
        | Self::SCTP_SHUTDOWN
        | Self::SCTP_SHUTDOWN_ACK
        | Self::SCTP_COOKIE_ECHO
        | Self::SCTP_COOKIE_ACK
        | Self::SCTP_SHUTDOWN_COMPLETE;

    /// TCP flag bits.
    pub const FIN: u16 = 0x01;
    /// TCP flag bits.
    pub const SYN: u16 = 0x02;
    /// TCP flag bits.
    pub const RST: u16 = 0x04;
    /// TCP flag bits.
    pub const ACK: u16 = 0x10;

    /// Whether all the given `HAS_` bits are set.
    #[inline(always)]
    pub fn has(&self, bits: u16) -> bool {
        self.has & bits == bits
    }

    /// Whether any of the given TCP flags is set.
    #[inline(always)]
    pub fn flag(&self, bits: u16) -> bool {
        self.tcp_flags & bits != 0
    }

    /// Whether it is SCTP and has any of the given chunks.
    #[inline(always)]
    pub fn sctp(&self, chunks: u16) -> bool {
        self.sctp_chunks & chunks != 0
    }

    /// The side of the key that sent the packet.
    #[inline(always)]
    pub fn side(&self) -> Side {
        Side::of(u32::from(self.from_b))
    }

    /// Source address and port.
    #[inline(always)]
    pub fn src(&self) -> (Addr, u16) {
        self.key.end(self.side())
    }

    /// Destination address and port.
    #[inline(always)]
    pub fn dst(&self) -> (Addr, u16) {
        self.key.end(self.side().other())
    }
}

/// What a packet is judged by: read once, so that one packet never sees two epochs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Moment {
    /// The epoch.
    pub epoch: u32,
    /// [`super::Config`] flags.
    pub flags: u32,
    /// Boot-clock time.
    pub now_ns: u64,
    /// No verdict holds beyond this: a quarter of the shortest idle time from now.
    pub refresh_ns: u64,
    /// [`super::Config::event_limit`].
    pub event_limit: u32,
    /// Where the packet is, if some binding asks for that: see [`crate::scope`].
    pub segment: u32,
}

/// A packet and what became of it: the one entry of the trace map. The kernel programs keep a packet there that is
/// not settled; with [`super::Config::TRACE`] every packet is found there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Trace {
    /// The packet.
    pub packet: Packet,
    /// The rule that decided, 0 for none.
    pub rule: u32,
    /// An [`Action`].
    pub action: u8,
    /// A [`Reason`].
    pub reason: u8,
    /// 1 where the first-level flow record was settled and nothing else was looked at.
    pub settled: u8,
    /// What the rule asks of the packet beyond the verdict: the [`super::Limits`] bits.
    pub limits: u8,
    /// What an unsettled packet was judged by; zeroes for any other. It is here because the stack has no room for it.
    pub moment: Moment,
    /// 1 where the packet opened a connection that has been told all of it.
    pub followed: u32,
    /// Identity of who sent it, 0 for none.
    pub source: u32,
}
const _: () = assert!(size_of::<Trace>() == 144);

impl Trace {
    /// Notes a verdict.
    #[inline(always)]
    pub(crate) fn set(&mut self, verdict: crate::judge::Verdict) {
        self.rule = verdict.rule;
        self.action = verdict.action as u8;
        self.reason = verdict.reason as u8;
        self.settled = 0;
        self.limits = verdict.limits as u8;
        self.followed = u32::from(verdict.limits & super::Limits::FOLLOWED != 0);
    }

    /// The verdict.
    #[inline(always)]
    pub fn action(&self) -> Action {
        Action::from_u8(self.action)
    }

    /// The reason.
    pub fn reason(&self) -> Reason {
        Reason::from_u8(self.reason)
    }
}
