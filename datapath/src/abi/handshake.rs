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
        }
    }
}

impl HandshakeKind {
    /// From its number.
    pub fn from_u8(n: u8) -> Option<Self> {
        match n {
            0 => Some(Self::Tcp),
            1 => Some(Self::Tls),
            _ => None,
        }
    }

    /// The label in metrics and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
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
    /// Padding.
    pub _pad: [u8; 2],
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
    /// Bucket `i` counts durations below `16.384 µs << i` (2^14 ns) that no smaller bucket counts; the last has no bound.
    pub buckets: [u64; HandshakeStats::BUCKETS],
}

impl HandshakeStats {
    /// The number of buckets.
    pub const BUCKETS: usize = 20;

    /// The bucket of a duration.
    #[inline(always)]
    pub fn bucket(duration_ns: u64) -> usize {
        let mut units = duration_ns >> 14; // of 16.384 µs
        let mut i = 0;
        while units != 0 && i < Self::BUCKETS - 1 {
            units >>= 1;
            i += 1;
        }
        i
    }

    /// The bound of a bucket in nanoseconds, `None` for the last.
    pub fn bound_ns(bucket: usize) -> Option<u64> {
        (bucket < Self::BUCKETS - 1).then(|| 1u64 << (14 + bucket))
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
