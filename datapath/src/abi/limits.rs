//! What a rule asks of a connection beyond who may open it: TLS, an end, a rate, an answer; and what an identity may have,
//! whatever rule lets its connections pass.

use super::policy::versions;
use bytemuck::{Pod, Zeroable};

/// Bits of [`super::Decision::limits`], and those of an identity. They say what has to be looked at, so that a rule or an
/// identity without limits costs nothing.
#[derive(Clone, Copy, Debug)]
pub struct Limits;

impl Limits {
    /// A TCP connection has to begin with a TLS ClientHello.
    pub const TLS_REQUIRED: u32 = 1 << 0;
    /// A connection ends [`RuleSettings::lifetime_ns`] after it was opened, or with its rule: [`RuleSettings::timed`].
    pub const LIFETIME: u32 = 1 << 1;
    /// Packets, bytes or new connections are counted against [`RuleSettings::rates`].
    pub const RATE: u32 = 1 << 2;
    /// What is dropped is answered: by a TCP reset, or by ICMP.
    pub const REJECT: u32 = 1 << 3;
    /// The limits only audit: what they would drop passes with verdict AUDIT.
    pub const AUDIT: u32 = 1 << 4;
    /// No rule's: the packet's flow was judged, and a candidate policy may be asked too.
    pub const SHADOW: u32 = 1 << 5;
    /// Connections that the originator's identity has at once are counted against [`RuleSettings::max_attempts`] and
    /// [`RuleSettings::max_connections`].
    pub const IDENTITY_HELD: u32 = 1 << 6;
    /// Packets or bytes of the originator's identity are counted against [`RuleSettings::rates`].
    pub const IDENTITY_RATE: u32 = 1 << 7;
    /// New connections of the originator's identity are. Not kept with the connection, and so beyond a byte.
    pub const IDENTITY_OPENS: u32 = 1 << 8;
    /// All three of an identity.
    pub const IDENTITY: u32 = Self::IDENTITY_HELD | Self::IDENTITY_RATE | Self::IDENTITY_OPENS;
    /// Where the bits of an identity's limits begin: see [`super::Binding::limits`].
    pub const IDENTITY_SHIFT: u32 = 6;
    /// No rule's: the packet opened a connection that has been told all of it. Beyond a byte, too.
    pub const FOLLOWED: u32 = 1 << 9;
    /// No rule's: connections of one of its identities that were opened before some time are over ([`LimitOf::cut`]). Beyond a
    /// byte, too.
    pub const CUT: u32 = 1 << 10;
    /// Those that have to be looked at when a connection opens.
    pub const AT_OPEN: u32 =
        Self::LIFETIME | Self::RATE | Self::IDENTITY_HELD | Self::IDENTITY_OPENS | Self::CUT;
    /// Those that have to be looked at packet by packet, before the packet changes its connection.
    pub const BY_PACKET: u32 = Self::TLS_REQUIRED | Self::RATE | Self::IDENTITY_RATE;
}

/// What a token bucket counts: the index into [`RuleSettings::rates`] and [`Bucket::full_ns`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Packets.
    Packets = 0,
    /// IP bytes.
    Bytes = 1,
    /// New connections.
    Connections = 2,
}

impl Unit {
    /// How many there are.
    pub const COUNT: usize = 3;
}

/// How much passes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Rate {
    /// So many in a period; 0 for no limit.
    pub units: u64,
    /// Length of the period.
    pub period_ns: u64,
    /// How long an empty bucket takes to fill.
    pub burst_ns: u64,
}

impl Rate {
    /// No limit.
    pub const NONE: Self = Self { units: 0, period_ns: 0, burst_ns: 0 };

    /// So many a period, and at most `burst` at once.
    pub fn new(units: u64, period_ns: u64, burst: u64) -> Self {
        let ns = u128::from(burst) * u128::from(period_ns) / u128::from(units.max(1));
        Self { units, period_ns, burst_ns: u64::try_from(ns).unwrap_or(u64::MAX).min(u64::MAX / 4) }
    }

    /// How long the bucket takes to regain so many units, rounded down: the error is below a nanosecond a packet.
    #[inline(always)]
    pub fn cost_ns(&self, units: u32) -> u64 {
        (u64::from(units) * self.period_ns).checked_div(self.units).unwrap_or(0)
    }
}

/// The numbers of the limits of a rule, or of the identities that a limit is for. A rule without any has no entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct RuleSettings {
    /// How long a connection may last; where the rule is [`RuleSettings::timed`], the boot-clock time at which the rule ends.
    pub lifetime_ns: u64,
    /// Packets, bytes, new connections, by [`Unit`].
    pub rates: [Rate; Unit::COUNT],
    /// 1 where every originating identity has buckets of its own, 0 where all share the rule's.
    pub per_identity: u32,
    /// Of identities: 1 where what is over only passes with verdict AUDIT. A rule says that with [`Limits::AUDIT`].
    pub audit: u16,
    /// Not 0 where the rule itself ends: what it lets pass, it lets pass until then, however old the connection.
    /// [`RuleSettings::GRANT`] or [`RuleSettings::HOURS`].
    pub timed: u16,
    /// Of identities: how many unanswered connections one may have at once, 0 for no limit.
    pub max_attempts: u32,
    /// Of identities: how many connections one may have at once, answered or not; 0 for no limit.
    pub max_connections: u32,
}

impl RuleSettings {
    /// It is a grant.
    pub const GRANT: u16 = 1;
    /// It is a rule whose hours are over then.
    pub const HOURS: u16 = 2;
    /// No limits.
    pub const NONE: Self = Self {
        lifetime_ns: 0,
        rates: [Rate::NONE; Unit::COUNT],
        per_identity: 0,
        audit: 0,
        timed: 0,
        max_attempts: 0,
        max_connections: 0,
    };

    /// When a connection that was opened then is let pass no longer.
    #[inline(always)]
    pub fn end_ns(&self, opened_ns: u64) -> u64 {
        if self.timed != 0 { self.lifetime_ns } else { opened_ns.saturating_add(self.lifetime_ns) }
    }
}

versions! {
    /// Two versions of [`RuleSettings`].
    RuleVersions of RuleSettings, size 200
}

/// What holds for an identity for a while.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Restriction {
    /// Its number in the rule table; 0 for none.
    pub rule: u32,
    /// Padding.
    pub _pad: u32,
    /// Boot-clock time from which it no longer holds.
    pub not_after_ns: u64,
}

impl Restriction {
    /// None.
    pub const NONE: Self = Self { rule: 0, _pad: 0, not_after_ns: 0 };

    /// Until `not_after_ns` of the boot clock.
    pub fn new(rule: u32, not_after_ns: u64) -> Self {
        Self { rule, _pad: 0, not_after_ns }
    }

    /// Whether there is one that is not over.
    #[inline(always)]
    pub fn holds(&self, now_ns: u64) -> bool {
        self.rule != 0 && now_ns < self.not_after_ns
    }
}

/// Which limit is an identity's, and what holds for it for a while.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct LimitOf {
    /// Its number in the rule table, where its numbers are too; 0 for none.
    pub rule: u32,
    /// Padding.
    pub _pad: u32,
    /// The limit that stands in the place of that one meanwhile.
    pub rate: Restriction,
    /// Its TCP connections have to begin with a TLS ClientHello, whoever opens them.
    pub tls: Restriction,
    /// Its connections that were opened before [`LimitOf::opened_before_ns`] are over.
    pub cut: Restriction,
    /// Boot-clock time.
    pub opened_before_ns: u64,
}

impl LimitOf {
    /// No limit.
    pub const NONE: Self = Self {
        rule: 0,
        _pad: 0,
        rate: Restriction::NONE,
        tls: Restriction::NONE,
        cut: Restriction::NONE,
        opened_before_ns: 0,
    };

    /// A limit that holds for as long as the identity has it.
    pub fn of(rule: u32) -> Self {
        Self { rule, ..Self::NONE }
    }

    /// The number of the limit that holds now, 0 for none.
    #[inline(always)]
    pub fn now(&self, now_ns: u64) -> u32 {
        if self.rate.holds(now_ns) { self.rate.rule } else { self.rule }
    }
}

versions! {
    /// Two versions of a [`LimitOf`].
    LimitVersions of LimitOf, size 136
}

/// Whose buckets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct BucketKey {
    /// The rule; 0 for the answers to rejected packets.
    pub rule: u32,
    /// The originator's identity, 0 where the rule's buckets are shared.
    pub identity: u32,
}

/// Token buckets, each as the boot-clock time at which it is full again. All zeroes is full.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Bucket {
    /// Packets, bytes, new connections, by [`Unit`].
    pub full_ns: [u64; Unit::COUNT],
}
const _: () = assert!(size_of::<Bucket>() == 24);
