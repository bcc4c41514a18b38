//! What goes up the ring buffer.

use super::connection::Connection;
use super::flow::FlowRecord;
use super::key::FlowKey;
use super::reason::{Action, Direction, Reason};
use bytemuck::{Pod, Zeroable};

/// What an event tells.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A flow was judged for the first time, or otherwise than before.
    Verdict = 1,
    /// A packet was dropped before it had a flow (malformed, orphan fragment, unsupported).
    Drop = 2,
    /// A TCP or TLS handshake ended.
    Handshake = 3,
    /// A connection gives way to a new one of the same key, or was closed: a [`ClosedEvent`].
    Closed = 4,
}

/// The head of every event; the whole of all but [`EventKind::Closed`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Event {
    /// Boot-clock time.
    pub time_ns: u64,
    /// [`EventKind::Handshake`]: how long it took.
    pub duration_ns: u64,
    /// The flow; family 0 where the packet had none.
    pub key: FlowKey,
    /// Identity of `a`, of `b`; 0 for none.
    pub identity: [u32; 2],
    /// The interface.
    pub ifindex: u32,
    /// The rule that decided, 0 for the default.
    pub rule: u32,
    /// The epoch by which it was judged.
    pub epoch: u32,
    /// Length of the frame in bytes.
    pub frame_bytes: u32,
    /// An [`EventKind`].
    pub kind: u8,
    /// An [`Action`].
    pub action: u8,
    /// A [`Reason`].
    pub reason: u8,
    /// A [`Direction`].
    pub direction: u8,
    /// 0 if `a` sent the packet, 1 if `b` did.
    pub from_b: u8,
    /// 0 if `a` opened the connection, 1 if `b` did.
    pub originator: u8,
    /// [`EventKind::Handshake`]: a [`super::HandshakeKind`].
    pub handshake: u8,
    /// [`EventKind::Handshake`]: a [`super::HandshakeOutcome`].
    pub outcome: u8,
    /// TLS alert level, 0 if none was readable.
    pub alert_level: u8,
    /// TLS alert description.
    pub alert_description: u8,
    /// 1 where the outcome is inferred.
    pub inferred: u8,
    /// Padding.
    pub _pad: u8,
    /// TCP flags of the packet.
    pub tcp_flags: u16,
    /// EtherType after VLAN tags.
    pub eth_type: u16,
}
const _: () = assert!(size_of::<Event>() == 96);

impl Event {
    /// What the event tells; `None` for a kind of another version.
    pub fn kind(&self) -> Option<EventKind> {
        Some(match self.kind {
            1 => EventKind::Verdict,
            2 => EventKind::Drop,
            3 => EventKind::Handshake,
            4 => EventKind::Closed,
            _ => return None,
        })
    }

    /// The verdict.
    pub fn action(&self) -> Action {
        Action::from_u8(self.action)
    }

    /// The reason.
    pub fn reason(&self) -> Reason {
        Reason::from_u8(self.reason)
    }

    /// The direction.
    pub fn direction(&self) -> Direction {
        Direction::from_u8(self.direction)
    }
}

/// Why an event was not sent: the index into the map that counts them.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The ring buffer had no room.
    NoRoom = 0,
    /// There were more of its kind than [`super::Config::event_limit`].
    Limited = 1,
    /// A piece of a ClientHello that its ring buffer had no room for.
    Hello = 2,
    /// There were more queries for names than [`super::HelloSegment::QUERIES`]. Behind the tallies: a number means the same in maps of a build before.
    Queries = 6,
}

impl Lost {
    /// How many there are before the tallies.
    pub const COUNT: u32 = 3;
}

/// Connections that came and went: further indices into the map that counts lost events.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// Connections that were opened.
    Opened = Lost::COUNT,
    /// Those that gave way to another of their key, and were reported.
    Replaced = Lost::COUNT + 1,
    /// Those that user space found over, reported and removed. No program writes it.
    Expired = Lost::COUNT + 2,
    /// Outcomes of handshakes that user space had no place for: lost events too. No program writes it.
    Unplaced = Lost::COUNT + 4,
}

impl Tally {
    /// How many there are, lost events among them.
    pub const END: u32 = Lost::COUNT + 5;
}
// Each has a place of its own: [`Lost::Queries`] lies among the tallies.
const _: () = assert!(Tally::Expired as u32 + 1 == Lost::Queries as u32);
const _: () =
    assert!(Lost::Queries as u32 + 1 == Tally::Unplaced as u32 && Tally::Unplaced as u32 + 1 == Tally::END);

/// What this CPU has sent in this second of the events of one kind, reason and identity.
///
/// Direct-mapped: two that share one share its limit, which costs events of a storm and no count.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct EventBudget {
    /// When the second began, boot-clock time.
    pub began_ns: u64,
    /// Events sent since.
    pub sent: u32,
    /// Padding.
    pub _pad: u32,
}

impl EventBudget {
    /// Budgets a CPU; a power of two.
    pub const COUNT: u32 = 1024;
    const SECOND_NS: u64 = 1_000_000_000;

    /// Which one.
    #[inline(always)]
    pub fn index(kind: EventKind, reason: u8, identity: u32) -> u32 {
        let key = (kind as u32) << 8 | u32::from(reason);
        let mixed = key.wrapping_mul(0x9e37_79b1) ^ identity.wrapping_mul(0x85eb_ca6b);
        (mixed >> 16) & (Self::COUNT - 1)
    }

    /// Whether none of `limit` a second is left.
    #[inline(always)]
    pub fn is_spent(&self, now_ns: u64, limit: u32) -> bool {
        now_ns.wrapping_sub(self.began_ns) < Self::SECOND_NS && self.sent >= limit
    }

    /// Takes one of `limit` a second; `false` where none is left.
    #[inline(always)]
    pub fn take(&mut self, now_ns: u64, limit: u32) -> bool {
        if now_ns.wrapping_sub(self.began_ns) >= Self::SECOND_NS {
            self.began_ns = now_ns;
            self.sent = 0;
        }
        if self.sent >= limit {
            return false;
        }
        self.sent += 1;
        true
    }
}

/// A connection that is over, with what this CPU counted of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ClosedEvent {
    /// The head, of kind [`EventKind::Closed`].
    pub event: Event,
    /// What the CPU that says so counted; other CPUs' records carry the same incarnation.
    pub flow: FlowRecord,
    /// The connection.
    pub connection: Connection,
}
const _: () = assert!(size_of::<ClosedEvent>() == 336);
