//! Handshake outcomes and latencies, per pair of identities.

use bytemuck::{Pod, Zeroable};

/// Which handshake.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HandshakeKind {
    /// SYN to the ACK that completes it (RFC 9293, section 3.5).
    Tcp = 0,
    /// ClientHello to the first proof that both sides hold keys.
    Tls = 1,
    /// QUIC's first packet to packets under 1-RTT keys both ways (RFC 9001, section 4.1; RFC 9369). Always inferred.
    Quic = 2,
}

/// Which part of a handshake a duration is of.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HandshakeStage {
    /// From its first packet to its end: counted once a handshake.
    Whole = 0,
    /// From its first packet to the responder's answer: SYN to SYN-ACK, ClientHello to ServerHello, Initial to Initial.
    Answer = 1,
    /// From the answer to completion.
    Completion = 2,
}

impl HandshakeStage {
    /// From its number.
    pub fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            0 => Self::Whole,
            1 => Self::Answer,
            2 => Self::Completion,
            _ => return None,
        })
    }

    /// The label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Answer => "answer",
            Self::Completion => "completion",
        }
    }
}

/// How it ended.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HandshakeOutcome {
    /// Both sides completed it.
    Completed = 0,
    /// TCP: the SYN was answered by a reset.
    Refused = 1,
    /// TCP: the SYN was never answered. User space says so when the attempt has timed out.
    NoAnswer = 2,
    /// TLS: an alert ended it. Inferred in TLS 1.3, where alerts are encrypted.
    Alert = 3,
    /// TLS: the connection was closed or reset before the handshake completed.
    Aborted = 4,
    /// TCP: the SYN was answered, and the answer never acknowledged. User space says so.
    HalfOpen = 5,
    /// TLS and QUIC: it began and came to no end. User space says so.
    TimedOut = 6,
    /// TCP: a SYN was sent again. Counted besides the outcome of the attempt.
    Retransmitted = 7,
    /// QUIC: the server asked for the address to be proved (RFC 9000, section 8.1.2). Counted besides the outcome.
    Retry = 8,
    /// QUIC: the server does not speak the version (RFC 9000, section 6). Counted besides the outcome.
    VersionNegotiation = 9,
    /// TLS: policy wants it, and the connection began with something else.
    NotTls = 10,
}

impl HandshakeOutcome {
    /// From its number.
    pub fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            0 => Self::Completed,
            1 => Self::Refused,
            2 => Self::NoAnswer,
            3 => Self::Alert,
            4 => Self::Aborted,
            5 => Self::HalfOpen,
            6 => Self::TimedOut,
            7 => Self::Retransmitted,
            8 => Self::Retry,
            9 => Self::VersionNegotiation,
            10 => Self::NotTls,
            _ => return None,
        })
    }

    /// The label in metrics and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Refused => "refused",
            Self::NoAnswer => "no_answer",
            Self::Alert => "alert",
            Self::Aborted => "aborted",
            Self::HalfOpen => "half_open",
            Self::TimedOut => "timed_out",
            Self::Retransmitted => "retransmitted",
            Self::Retry => "retry",
            Self::VersionNegotiation => "version_negotiation",
            Self::NotTls => "not_tls",
        }
    }
}

impl HandshakeKind {
    /// From its number.
    pub fn from_u8(n: u8) -> Option<Self> {
        match n {
            0 => Some(Self::Tcp),
            1 => Some(Self::Tls),
            2 => Some(Self::Quic),
            _ => None,
        }
    }

    /// The label in metrics and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Quic => "quic",
        }
    }
}

/// Whose handshake.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct HandshakeKey {
    /// Identity of the originator, 0 for none.
    pub orig_identity: u32,
    /// Identity of the responder, 0 for none.
    pub resp_identity: u32,
    /// A [`HandshakeKind`].
    pub kind: u8,
    /// A [`HandshakeOutcome`].
    pub outcome: u8,
    /// A [`HandshakeStage`].
    pub stage: u8,
    /// 1 where the outcome is inferred, because what would prove it is encrypted.
    pub inferred: u8,
}

/// How often, and how long it took.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct HandshakeStats {
    /// Handshakes.
    pub count: u64,
    /// Sum of their durations.
    pub sum_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// Log-linear: bucket 0 counts durations below 16.384 µs (2^14 ns); then each power of two is cut into
    /// [`HandshakeStats::SUB`] equal parts, so that a bucket is at most a quarter wide; the last has no bound.
    pub buckets: [u64; HandshakeStats::BUCKETS],
}

impl HandshakeStats {
    /// Buckets of a power of two.
    pub const SUB: usize = 4;
    /// Powers of two: up to 17 s.
    pub const OCTAVES: usize = 20;
    /// The number of buckets.
    pub const BUCKETS: usize = 1 + Self::OCTAVES * Self::SUB + 1;
    /// The first bucket ends at this power of two of nanoseconds.
    const FIRST: usize = 14;

    /// The bucket of a duration.
    #[inline(always)]
    pub fn bucket(duration_ns: u64) -> usize {
        let mut rest = duration_ns >> (Self::FIRST - 2); // the two bits below the highest choose the part
        if rest < Self::SUB as u64 {
            return 0;
        }
        let mut octave = 0;
        while rest >= 2 * Self::SUB as u64 && octave < Self::OCTAVES {
            rest >>= 1;
            octave += 1;
        }
        if octave >= Self::OCTAVES {
            return Self::BUCKETS - 1;
        }
        1 + octave * Self::SUB + (rest as usize & (Self::SUB - 1))
    }

    /// The bound of a bucket in nanoseconds, `None` for the last.
    pub fn bound_ns(bucket: usize) -> Option<u64> {
        let Some(i) = bucket.checked_sub(1) else { return Some(1 << Self::FIRST) };
        let (octave, part) = (i / Self::SUB, i % Self::SUB);
        (octave < Self::OCTAVES).then(|| ((Self::SUB + part + 1) as u64) << (Self::FIRST - 2 + octave))
    }

    /// Adds one handshake.
    #[inline(always)]
    pub fn record(&mut self, duration_ns: u64) {
        self.count += 1;
        self.sum_ns += duration_ns;
        if duration_ns > self.max_ns {
            self.max_ns = duration_ns;
        }
        if let Some(bucket) = self.buckets.get_mut(Self::bucket(duration_ns)) {
            *bucket += 1;
        }
    }

    /// Adds another CPU's.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += theirs;
        }
    }
}

/// How far a TLS handshake has come, as far as the wire shows.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsState {
    /// No payload seen yet.
    Unknown = 0,
    /// The originator's first payload is no TLS record.
    NotTls = 1,
    /// A ClientHello.
    ClientHello = 2,
    /// A ServerHello answered it.
    ServerHello = 3,
    /// Both sides hold keys. Inferred in TLS 1.3 (see docs/packet-path.md).
    Established = 4,
    /// An alert ended it. Inferred in TLS 1.3.
    Alert = 5,
    /// Closed or reset before it was established.
    Aborted = 6,
}

impl TlsState {
    /// From its number; numbers of no state are [`TlsState::Unknown`].
    #[inline(always)]
    pub fn from_u8(n: u8) -> Self {
        match n {
            1 => Self::NotTls,
            2 => Self::ClientHello,
            3 => Self::ServerHello,
            4 => Self::Established,
            5 => Self::Alert,
            6 => Self::Aborted,
            _ => Self::Unknown,
        }
    }

    /// The word in flow records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::NotTls => "not_tls",
            Self::ClientHello => "client_hello",
            Self::ServerHello => "server_hello",
            Self::Established => "established",
            Self::Alert => "alert",
            Self::Aborted => "aborted",
        }
    }

    /// Whether nothing more can come.
    #[inline(always)]
    pub fn is_final(self) -> bool {
        matches!(self, Self::NotTls | Self::Established | Self::Alert | Self::Aborted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_lies_between_the_bounds_of_its_bucket() {
        let bound = |bucket: usize| HandshakeStats::bound_ns(bucket).unwrap_or(u64::MAX);
        let mut durations: Vec<u64> =
            (0..64).flat_map(|bit| [1 << bit, (1 << bit) - 1, 3 << (bit / 2)]).collect();
        durations.extend((0..HandshakeStats::BUCKETS - 1).flat_map(|i| [bound(i) - 1, bound(i)]));
        for ns in durations {
            let bucket = HandshakeStats::bucket(ns);
            let below = bucket.checked_sub(1).map_or(0, bound);
            assert!(below <= ns && (ns < bound(bucket) || bucket == HandshakeStats::BUCKETS - 1), "{ns}");
        }
        assert_eq!([bound(0), bound(1), bound(4), bound(5)], [16_384, 20_480, 32_768, 40_960]);
        assert_eq!(HandshakeStats::bound_ns(HandshakeStats::BUCKETS - 2), Some(1 << 34));
    }
}
