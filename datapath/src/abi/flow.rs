//! Per-CPU flow records: only facts that merge without order, so that user space adds them up and no CPU waits.

use super::key::{FlowKey, Side};
use bytemuck::{Pod, Zeroable};

/// Which packets of a flow need nothing but counting.
///
/// A bit says that this kind of packet, from this side, has nothing left to tell: the connection's history has its
/// letter, its handshake is over, its verdict is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled(pub u16);

impl Settled {
    /// Nothing is settled.
    pub const NOTHING: Self = Self(0);
    /// Segments without payload and without SYN, FIN or RST.
    pub const ACK: u16 = 0b001;
    /// Packets with payload.
    pub const DATA: u16 = 0b010;
    /// SYN, FIN and RST: settled only where the flow is dropped.
    pub const CONTROL: u16 = 0b100;
    /// Every kind of one side.
    pub const ALL: u16 = 0b111;

    /// The bit of one kind of packet from one side.
    #[inline(always)]
    pub fn bit(kinds: u16, side: Side) -> u16 {
        kinds << (side.index() * 3)
    }

    /// The bits of these kinds of packets from both sides.
    #[inline(always)]
    pub fn both(kinds: u16) -> u16 {
        Self::bit(kinds, Side::A) | Self::bit(kinds, Side::B)
    }
}

/// What one CPU knows of a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct FlowRecord {
    /// Packets from `a`, from `b`.
    pub packets: [u64; 2],
    /// IP bytes (total length of the IP packet) from `a`, from `b`.
    pub bytes: [u64; 2],
    /// Boot-clock time of the first packet on this CPU.
    pub first_ns: u64,
    /// Boot-clock time of the last packet on this CPU, in steps of a tick.
    pub last_ns: u64,
    /// The verdict holds until this boot-clock time: the earliest lease that it rests on.
    pub fresh_until_ns: u64,
    /// The epoch in which the flow was judged.
    pub epoch: u32,
    /// The rule that decided, 0 for the default.
    pub rule: u32,
    /// Identity of `a`, of `b`; 0 for none.
    pub identity: [u32; 2],
    /// Which connection of this key the record belongs to; see [`super::Connection::incarnation`].
    pub incarnation: u32,
    /// Payload that was counted of `a`, of `b` when a segment of it was tracked last: see [`crate::track::stream`].
    pub counted: [u32; 2],
    /// What needs no tracking any more, a [`Settled`].
    pub settled: u16,
    /// An [`super::Action`].
    pub action: u8,
    /// A [`super::Reason`].
    pub reason: u8,
}
const _: () = assert!(size_of::<FlowRecord>() == 88);

/// A slot of the direct-mapped first level, two cache lines: the record of whichever flow hashed here last.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct FlowSlot {
    /// Whose record it is; family 0 for nobody's.
    pub key: FlowKey,
    /// The record.
    pub record: FlowRecord,
}
const _: () = assert!(size_of::<FlowSlot>() == 128);

/// A byte of the hash of who has each of 64 slots: an entry of `TG_FLOW_TAGS`. Those of all slots stay in a near cache, where the
/// slots do not (docs/adr/0037-tags-of-slots.md).
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct FlowTags {
    /// By slot.
    pub tags: [u8; 64],
}
const _: () = assert!(size_of::<FlowTags>() == 64);

impl FlowTags {
    /// Slots of an entry.
    pub const SLOTS: u32 = 64;

    /// The entry of a slot, and which of its tags.
    #[inline(always)]
    pub fn place(slot: u32) -> (u32, usize) {
        (slot / Self::SLOTS, (slot % Self::SLOTS) as usize)
    }

    /// The tag of a key with this hash: the end that no slot's index is cut from.
    #[inline(always)]
    pub fn tag(hash: u32) -> u8 {
        (hash >> 24) as u8
    }
}
