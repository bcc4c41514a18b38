//! Values that policy, identities and blocklists put before a packet, in two versions each.
//!
//! A commit writes the second version with the epoch from which it counts, then flips the epoch: no packet sees a
//! mixture. In a longest-prefix trie both versions are what a lookup of that prefix has to answer in its epoch,
//! so an entry that is not there in one epoch repeats what the next shorter prefix says (see docs/policy.md).

use super::NEVER;
use bytemuck::{Pod, Zeroable};

/// What a prefix is bound to: an identity and the class that policy is keyed by.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Binding {
    /// Number of the SPIFFE ID, 0 for none (a CIDR selector has a class and no identity).
    pub identity: u32,
    /// Identity class, 0 for unidentified.
    pub class: u32,
    /// Lease: the boot-clock time from which the binding no longer holds; [`NEVER`] for none.
    pub not_after_ns: u64,
    /// What its end means, a [`LeaseEnd`], in the low half. In the high half, of a binding that holds everywhere: the
    /// [`Binding::ASKS`] bits, which say what other bindings there are of addresses in it.
    pub on_expiry: u8,
    /// What is asked of connections that it opens, whatever rule lets them pass: the `Limits::IDENTITY_` bits, shifted down
    /// by [`super::Limits::IDENTITY_SHIFT`]. [`super::LimitOf`] has the number. Beside them [`Binding::RESTRICTED`].
    pub limits: u8,
    /// Seconds from the end of the lease in which traffic goes on and is audited, where its end means [`LeaseEnd::Grace`].
    pub grace_s: u16,
    /// The list of blocks and quarantines that concern the identity, 0 for none: see [`super::GuardKey`].
    pub guards: u32,
}

impl Binding {
    /// No identity, the class of strangers.
    pub const NONE: Self =
        Self { identity: 0, class: 0, not_after_ns: NEVER, on_expiry: 0, limits: 0, grace_s: 0, guards: 0 };
    /// In the tables of those that do not hold everywhere: none here, the next wider one is asked.
    pub const NOT_HERE: Self = Self { class: u32::MAX, ..Self::NONE };
    /// Some hold on an interface and a VLAN.
    pub const ASKS_BOTH: u8 = 1 << 4;
    /// Some hold on an interface.
    pub const ASKS_INTERFACE: u8 = 1 << 5;
    /// Some hold on a VLAN.
    pub const ASKS_VLAN: u8 = 1 << 6;
    /// Some hold everywhere for some ports.
    pub const ASKS_PORTS: u8 = 1 << 7;
    /// Those of a place.
    pub const ASKS_WHERE: u8 = Self::ASKS_BOTH | Self::ASKS_INTERFACE | Self::ASKS_VLAN;
    /// All of them.
    pub const ASKS: u8 = Self::ASKS_WHERE | Self::ASKS_PORTS;
    /// Of [`Binding::limits`]: those of limits.
    pub const LIMITS: u8 = 0b111;
    /// Of [`Binding::limits`]: more holds for a while for connections that it opens or answers, as [`super::LimitOf`] says.
    pub const RESTRICTED: u8 = 1 << 7;
    /// The number of no identity: several claim the address, and nobody knows whose it is.
    pub const AMBIGUOUS: u32 = u32::MAX;
}

/// What the end of a lease means.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseEnd {
    /// Traffic of that end is dropped with `LEASE_EXPIRED`.
    Deny = 0,
    /// Traffic goes on and is audited.
    Alert = 1,
    /// Traffic goes on and is audited for [`Binding::grace_s`] more, and is dropped then.
    Grace = 2,
}

/// What is said of a prefix, or of what a guard list holds: that connections from it and to it are cut.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Block {
    /// Number of the entry in the rule table, 0 where none cuts everything.
    pub rule: u32,
    /// The list of blocks by protocol and port that concern the prefix, 0 for none: see [`super::GuardKey`].
    pub guards: u32,
    /// Boot-clock time at which the block ends; [`NEVER`] for none.
    pub not_after_ns: u64,
}

impl Block {
    /// No entry.
    pub const NONE: Self = Self { rule: 0, guards: 0, not_after_ns: NEVER };
}

/// What the policy says of (source class, destination class, protocol, port).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Decision {
    /// Number of the rule in the rule table; 0 where no rule decides.
    pub rule: u32,
    /// One of [`Decision::DEFAULT`], [`Decision::ALLOW`], [`Decision::DENY`].
    pub action: u8,
    /// 1 where the rule only audits: a deny is let through with verdict AUDIT.
    pub audit: u8,
    /// What the rule asks of the packets that it decides on: the `Limits` bits.
    pub limits: u8,
    /// Padding.
    pub _pad: [u8; 1],
}

impl Decision {
    /// No rule decides: the default applies.
    pub const DEFAULT: u8 = 0;
    /// Let pass.
    pub const ALLOW: u8 = 1;
    /// Drop with `POLICY_DENY`.
    pub const DENY: u8 = 2;
    /// No rule decides.
    pub const NONE: Self = Self { rule: 0, action: Self::DEFAULT, audit: 0, limits: 0, _pad: [0] };
}

macro_rules! versions {
    ($(#[$doc:meta])* $name:ident of $value:ident, size $size:literal) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
        pub struct $name {
            /// The epoch from which `new` counts.
            pub since: u32,
            /// Padding.
            pub _pad: u32,
            /// What counts before `since`.
            pub old: $value,
            /// What counts from `since` on.
            pub new: $value,
        }
        const _: () = assert!(size_of::<$name>() == $size);

        impl $name {
            /// The version that counts in `epoch`. Epochs wrap (RFC 1982 serial arithmetic).
            #[inline(always)]
            pub fn at(&self, epoch: u32) -> &$value {
                if (epoch.wrapping_sub(self.since) as i32) < 0 { &self.old } else { &self.new }
            }
        }
    };
}
pub(super) use versions;

versions! {
    /// Two versions of a [`Binding`].
    BindingVersions of Binding, size 56
}
versions! {
    /// Two versions of a [`Block`].
    BlockVersions of Block, size 40
}
versions! {
    /// Two versions of a [`Decision`].
    DecisionVersions of Decision, size 24
}
