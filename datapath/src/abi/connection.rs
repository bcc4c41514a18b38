//! What one CPU must see of another: the shared record of a connection.
//!
//! Only packets that open, shake hands or close touch it. Two CPUs may write one record at a time; every field is
//! a word that is written whole, so a lost race costs a history letter, never more.

use super::flow::FlowRecord;
use super::handshake::TlsState;
use super::key::{FlowKey, Side};
use bytemuck::{Pod, Zeroable};

/// The state of one endpoint of a TCP connection, in Zeek's terms.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Has sent nothing.
    Inactive = 0,
    /// Has sent a SYN.
    SynSent = 1,
    /// Has sent a SYN-ACK as the first packet of the connection.
    SynAckSent = 2,
    /// Seen in mid-stream.
    Partial = 3,
    /// Has completed its part of the handshake. UDP, ICMP and others: has sent something.
    Established = 4,
    /// Has sent a FIN.
    Closed = 5,
    /// Has sent a RST.
    Reset = 6,
}

impl Endpoint {
    /// From its number; numbers of no state are [`Endpoint::Inactive`].
    #[inline(always)]
    pub fn from_u8(n: u8) -> Self {
        match n {
            1 => Self::SynSent,
            2 => Self::SynAckSent,
            3 => Self::Partial,
            4 => Self::Established,
            5 => Self::Closed,
            6 => Self::Reset,
            _ => Self::Inactive,
        }
    }
}

/// A tracked connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Connection {
    /// Boot-clock time of the first packet.
    pub opened_ns: u64,
    /// Boot-clock time of the SYN-ACK, 0 if none.
    pub syn_ack_ns: u64,
    /// Boot-clock time at which the TCP handshake completed, 0 if it did not.
    pub established_ns: u64,
    /// Boot-clock time of the ClientHello, 0 if none.
    pub client_hello_ns: u64,
    /// Boot-clock time of the ServerHello, 0 if none.
    pub server_hello_ns: u64,
    /// Boot-clock time at which TLS reached its final state, 0 if it did not.
    pub tls_done_ns: u64,
    /// Boot-clock time of the last packet that touched this record.
    pub last_ns: u64,
    /// Boot-clock time of the FIN or RST that closed the connection, 0 while it is open.
    pub closed_ns: u64,
    /// Zeek's history, a letter a nibble, the first in the lowest: see [`mod@crate::track::history`].
    pub history: u64,
    /// Where the next TLS record of the originator, of the responder starts (TCP sequence number).
    pub tls_next_seq: [u32; 2],
    /// Initial sequence number of the originator's SYN.
    pub isn: u32,
    /// Counts the connections of one key, so that records of an earlier one are not taken for this one's.
    pub incarnation: u32,
    /// Identity of the originator, of the responder when the connection was judged last.
    pub identity: [u32; 2],
    /// The rule that decided last.
    pub rule: u32,
    /// TCP sequence number of the ClientHello's first byte.
    pub hello_seq: u32,
    /// Which letters the history has: bit n for letter n, plus 8 for the responder's.
    pub seen: u16,
    /// [`Endpoint`] of the originator, of the responder: the low half of the byte; the high half is the state before.
    pub state: [u8; 2],
    /// A [`TlsState`].
    pub tls: u8,
    /// Facts about the TLS handshake, the `TLS_` bits.
    pub tls_flags: u8,
    /// Level of the alert that was seen (RFC 8446, section 6), 0 if none was readable.
    pub alert_level: u8,
    /// Description of that alert.
    pub alert_description: u8,
    /// Which end of the key opened the connection: 0 for `a`, 1 for `b`.
    pub originator: u8,
    /// Facts about the connection, the `IS_` bits.
    pub flags: u8,
    /// What the last tracked packet brought about: [`crate::track::happened`].
    pub happened: u8,
    /// What the rule that decided last asks of its packets: the [`super::Limits`] bits.
    pub limits: u8,
    /// SYNs that the originator sent again.
    pub syn_retransmits: u8,
    /// Pieces of its ClientHello that were handed up.
    pub hello_segments: u8,
    /// 0x30 plus the minor version of the ServerHello's record (0x31: TLS 1.0), 0 if none was seen.
    pub tls_version: u8,
    /// QUIC: 1 or 2 for the version that was seen, 0 for none that is known.
    pub quic_version: u8,
    /// TCP sequence number of what follows the last tracked segment of the originator, of the responder. SCTP: the tag that
    /// packets of each carry.
    pub next_seq: [u32; 2],
    /// What each has acknowledged in its last tracked segment. SCTP: the tag that packets of each are to carry, by the INIT or
    /// INIT ACK of the other.
    pub acked: [u32; 2],
    /// The largest window that each has offered, scaled.
    pub window: [u32; 2],
    /// Length of the IP and TCP headers of each, by its first segment without SYN; 0 before it.
    pub header_bytes: [u8; 2],
    /// What the SYN of each said of a window scale: 0 before it, 1 for none, else the scale plus 2.
    pub window_scale: [u8; 2],
    /// What is known of both streams, and who has sent a reset that changed nothing: the `KNOWS_` and `ASKED_` bits.
    pub stream: u8,
    /// Padding.
    pub _pad: u8,
    /// Where it is counted among what its identity has: a [`super::Holding`], 0 where it is not.
    pub held: u16,
}
const _: () = assert!(size_of::<Connection>() == 152);

impl Connection {
    /// The originator has sent a ChangeCipherSpec.
    pub const TLS_ORIG_CCS: u8 = 1 << 0;
    /// The responder has sent a ChangeCipherSpec.
    pub const TLS_RESP_CCS: u8 = 1 << 1;
    /// The originator has sent records under keys.
    pub const TLS_ORIG_KEYED: u8 = 1 << 2;
    /// The responder has sent records under keys.
    pub const TLS_RESP_KEYED: u8 = 1 << 3;
    /// The handshake runs as TLS 1.3 does: the responder sends encrypted records right after its hello.
    pub const TLS_1_3: u8 = 1 << 4;
    /// The outcome is inferred: what would prove it is encrypted.
    pub const TLS_INFERRED: u8 = 1 << 5;
    /// A record of the size of an encrypted alert came last from the responder, or from the originator.
    pub const TLS_ALERT_SIZED: u8 = 1 << 6;
    /// A segment was missing or a header was split: records are no longer followed.
    pub const TLS_LOST: u8 = 1 << 7;

    /// QUIC: the server has sent a Retry. QUIC has bits of its own in `tls_flags`, beside [`Connection::TLS_INFERRED`].
    pub const QUIC_RETRY: u8 = 1 << 0;
    /// QUIC: the server has sent a Version Negotiation.
    pub const QUIC_VERSIONS: u8 = 1 << 1;
    /// QUIC: the originator has sent Handshake packets.
    pub const QUIC_ORIG_HANDSHAKE: u8 = 1 << 2;
    /// QUIC: the responder has sent Handshake packets.
    pub const QUIC_RESP_HANDSHAKE: u8 = 1 << 3;
    /// QUIC: the originator has sent packets with a short header after Handshake packets.
    pub const QUIC_ORIG_SHORT: u8 = 1 << 4;
    /// QUIC: the responder has sent packets with a short header after the Handshake packets of both.
    pub const QUIC_RESP_SHORT: u8 = 1 << 6;

    /// The TCP handshake was counted as an outcome.
    pub const IS_HANDSHAKE_COUNTED: u8 = 1 << 0;
    /// The TLS handshake was counted as an outcome.
    pub const IS_TLS_COUNTED: u8 = 1 << 1;
    /// The first packet seen was none that opens a connection.
    pub const IS_MIDSTREAM: u8 = 1 << 2;
    /// The first packet seen was taken for the responder's.
    pub const IS_FLIPPED: u8 = 1 << 3;
    /// A limit of its rule ended it: its packets are dropped, and a new SYN opens another connection.
    pub const IS_CUT: u8 = 1 << 4;
    /// Taken up in mid-stream, and its first payload was a TLS record under keys.
    pub const IS_TLS_MIDSTREAM: u8 = 1 << 5;
    /// A packet of it was over a rate.
    pub const IS_THROTTLED: u8 = 1 << 6;

    /// QUIC: `tls`, the times of the hellos and `tls_flags` tell of its handshake.
    pub const IS_QUIC: u8 = 1 << 7;

    /// A segment of the originator was tracked.
    pub const KNOWS_ORIG_SEQ: u8 = 1 << 0;
    /// A segment of the responder was tracked.
    pub const KNOWS_RESP_SEQ: u8 = 1 << 1;
    /// One with ACK of the originator was.
    pub const KNOWS_ORIG_ACK: u8 = 1 << 2;
    /// One with ACK of the responder was.
    pub const KNOWS_RESP_ACK: u8 = 1 << 3;
    /// The originator has sent a reset that changed nothing, and nobody has said anything since.
    pub const ORIG_ASKED_RESET: u8 = 1 << 4;
    /// The responder has.
    pub const RESP_ASKED_RESET: u8 = 1 << 5;
    /// Of datagrams: it went on after its first answer.
    pub const IS_WANTED: u8 = 1 << 6;

    /// Whether it is QUIC.
    #[inline(always)]
    pub fn is_quic(&self) -> bool {
        self.flags & Self::IS_QUIC != 0
    }

    /// The side that opened the connection.
    #[inline(always)]
    pub fn originator_side(&self) -> Side {
        Side::of(u32::from(self.originator))
    }

    /// Whether `side` opened the connection.
    #[inline(always)]
    pub fn is_originator(&self, side: Side) -> bool {
        self.originator_side() == side
    }

    /// The TLS state.
    #[inline(always)]
    pub fn tls_state(&self) -> TlsState {
        TlsState::from_u8(self.tls)
    }

    /// State of the originator's end.
    #[inline(always)]
    pub fn orig(&self) -> Endpoint {
        Endpoint::from_u8(self.state[0] & 0x0f)
    }

    /// State of the responder's end.
    #[inline(always)]
    pub fn resp(&self) -> Endpoint {
        Endpoint::from_u8(self.state[1] & 0x0f)
    }
}

/// A connection that was not answered yet, and what was counted of it by all CPUs.
///
/// It has no slot in the first level of the flow table: a flood of attempts would push out the flows that live there.
/// Who answers gives it one. Two CPUs that count packets of one side at the same moment may lose one of them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Attempt {
    /// The connection.
    pub connection: Connection,
    /// Its flow's record.
    pub record: FlowRecord,
}
const _: () = assert!(size_of::<Attempt>() == 240);

/// Attempts whose keys share a part of their hash: an entry of `TG_HALF_OPEN`. A page holds two sets, so that a new
/// connection costs one cold page.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct AttemptSet {
    /// Who has each place: [`AttemptSet::tag`], 0 for nobody.
    pub tags: [u64; AttemptSet::WAYS],
    /// Rounds the tags up to a cache line.
    pub _line: u64,
    /// The attempts.
    pub places: [AttemptPlace; AttemptSet::WAYS],
    /// Rounds the set up to half a page.
    pub _tail: [u64; 3],
}
const _: () = assert!(size_of::<AttemptSet>() == 2048);

/// What is certain not to be tracked of the keys of a set: an entry of `TG_WHEREABOUTS`. Those of all sets stay in a cache that
/// the sets have no room in, and most SYNs of a flood ask for nothing else.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct AttemptFilter {
    /// Which connections may be among the answered: two filters of 32 bits, [`AttemptFilter::answered`].
    pub answered: u64,
    /// Of who took each place of the set last, [`AttemptFilter::mark`]; the last byte is of nobody.
    pub marks: [u8; 8],
}
const _: () = assert!(size_of::<AttemptFilter>() == 16 && AttemptSet::WAYS < 8);

impl AttemptFilter {
    /// The bits of a key with this hash in both filters of answered connections. By bits of the hash that choose no set
    /// of a table of fewer than 2^27.
    #[inline(always)]
    pub fn answered(hash: u32) -> u64 {
        0x1_0000_0001 << Self::bit(hash)
    }

    /// Which bit of either filter is that.
    #[inline(always)]
    pub fn bit(hash: u32) -> u32 {
        hash >> 27
    }

    /// The mark of a key with this hash. Never 0, which is of nobody.
    #[inline(always)]
    pub fn mark(hash: u32) -> u8 {
        (hash >> 24) as u8 | 1
    }

    /// Whether one of the marks is of a key with this hash. Without a branch a mark: those would multiply the verifier's work.
    #[inline(always)]
    pub fn has_mark(marks: u64, hash: u32) -> bool {
        const ONES: u64 = u64::from_ne_bytes([1; 8]);
        let differs = marks ^ (ONES * u64::from(Self::mark(hash)));
        // A byte that is zero borrows where no other does first.
        differs.wrapping_sub(ONES) & !differs & (ONES << 7) != 0
    }
}

/// A place in an [`AttemptSet`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct AttemptPlace {
    /// Whose it is.
    pub key: FlowKey,
    /// The attempt.
    pub attempt: Attempt,
}

impl AttemptSet {
    /// Attempts in a set.
    pub const WAYS: usize = 7;

    /// Set in every tag: it is of somebody.
    const TAKEN: u32 = 1 << 0;
    /// Set in the tag of an attempt whose originator has no identity.
    const STRANGER: u32 = 1 << 1;

    /// A tag: the key's hash, the kernel's tick in which the attempt was looked at last, to four ticks, and whether its originator has
    /// an `identity`. Never 0.
    #[inline(always)]
    pub fn tag(hash: u32, tick: u32, identity: u32) -> u64 {
        let stranger = if identity == 0 { Self::STRANGER } else { 0 };
        (u64::from(hash) << 32) | u64::from(Self::low(tick) | stranger)
    }

    /// The tag of the same attempt that was looked at again.
    #[inline(always)]
    pub fn renewed(tag: u64, tick: u32) -> u64 {
        let kept = tag & !u64::from(u32::MAX) | tag & u64::from(Self::STRANGER);
        kept | u64::from(Self::low(tick))
    }

    #[inline(always)]
    fn low(tick: u32) -> u32 {
        tick & !(Self::TAKEN | Self::STRANGER) | Self::TAKEN
    }

    /// Whether a tag may be of a key with this hash.
    #[inline(always)]
    pub fn is_of(tag: u64, hash: u32) -> bool {
        tag != 0 && (tag >> 32) as u32 == hash
    }

    /// 1 for the tag of an attempt whose originator has no identity, 0 for any other.
    #[inline(always)]
    pub fn strangers(tag: u64) -> u32 {
        (tag as u32 & Self::STRANGER) / Self::STRANGER
    }

    /// Whether so many strangers have most places of a set: then one of theirs gives way, so that a flood from sources that nobody knows
    /// pushes out its own.
    #[inline(always)]
    pub fn is_flooded(strangers: u32) -> bool {
        strangers > Self::WAYS as u32 / 2
    }

    /// Who gives way first: a place that is free, then whose attempt was looked at longest ago; in a flooded set strangers before others.
    #[inline(always)]
    pub fn gives_way(tag: u64, tick: u32, is_flooded: bool) -> u32 {
        const FIRST: u32 = 1 << 31;
        if tag == 0 {
            return u32::MAX;
        }
        let tag = tag as u32;
        let age = Self::low(tick).wrapping_sub(tag & !Self::STRANGER);
        let age = if age > i32::MAX as u32 { 0 } else { age }; // another CPU looked at it after us
        if is_flooded && tag & Self::STRANGER != 0 { age | FIRST } else { age }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_places_give_way_before_the_oldest_and_in_a_flooded_set_strangers_before_others() {
        let (stranger, known) = (|tick| AttemptSet::tag(7, tick, 0), |tick| AttemptSet::tag(7, tick, 5));
        for (is_flooded, order) in [
            (true, [0, stranger(100), stranger(900), known(100), known(900), known(2_000)]),
            (false, [0, known(100), stranger(200), known(300), stranger(900), known(2_000)]),
        ] {
            let ranks = order.map(|tag| AttemptSet::gives_way(tag, 1_000, is_flooded));
            assert!(ranks.is_sorted_by(|a, b| a > b), "{ranks:?}");
        }
        assert_eq!([0, stranger(5), known(5)].map(AttemptSet::strangers), [0, 1, 0]);
        assert_eq!([3, 4].map(AttemptSet::is_flooded), [false, true]);
        // Looked at by another CPU after us: as good as now.
        assert_eq!(AttemptSet::gives_way(known(1_004), 1_000, true), 0);
        for tag in [stranger(100), known(100)] {
            let anew = AttemptSet::renewed(tag, 900);
            assert_eq!(anew, if tag == stranger(100) { stranger(900) } else { known(900) });
            assert!(AttemptSet::is_of(anew, 7) && !AttemptSet::is_of(anew, 8));
        }
        // A tick that has gone round.
        assert_eq!(AttemptSet::gives_way(known(u32::MAX - 3), 4, true), 8);
    }

    #[test]
    fn a_mark_is_found_wherever_it_is_and_no_other_is() {
        for top in 0..=u8::MAX {
            let hash = u32::from(top) << 24 | 0x1234;
            let own = AttemptFilter::mark(hash);
            assert_ne!(own, 0);
            assert!(!AttemptFilter::has_mark(0, hash));
            for place in 0..AttemptSet::WAYS {
                for other in 0..=u8::MAX {
                    let mut marks = [other; 8];
                    marks[7] = 0;
                    assert_eq!(AttemptFilter::has_mark(u64::from_ne_bytes(marks), hash), other == own);
                    marks[place] = own;
                    assert!(AttemptFilter::has_mark(u64::from_ne_bytes(marks), hash));
                }
            }
        }
    }
}
