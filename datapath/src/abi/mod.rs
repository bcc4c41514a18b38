//! All that the kernel programs and user space share: keys, values, events, reasons, map names.
//!
//! Every type is `repr(C)` without implicit padding (the `Pod` derive refuses it) and its size is asserted, so
//! that a kernel object and a controller of different builds cannot disagree in silence.

pub mod config;
pub mod connection;
pub mod event;
pub mod flow;
pub mod gateway;
pub mod handshake;
pub mod hello;
pub mod holdings;
mod host;
pub mod key;
pub mod limits;
pub mod memo;
pub mod packet;
pub mod policy;
pub mod reason;

pub use config::{Answered, Config, MapName, PortCounters};
pub use connection::{Attempt, AttemptFilter, AttemptPlace, AttemptSet, Connection, Endpoint};
pub use event::{ClosedEvent, Event, EventBudget, EventKind, Lost, Tally};
pub use flow::{FlowRecord, FlowSlot, FlowTags, Settled};
pub use gateway::{Interface, InterfaceVersions, JudgedPort, ShadowKey};
pub use handshake::{
    HandshakeKey, HandshakeKind, HandshakeOutcome, HandshakeStage, HandshakeStats, TlsState,
};
pub use hello::HelloSegment;
pub use holdings::{Holding, Holdings};
pub use host::{CGROUP_LEVELS, Deed, Did, HostCount, HostEvent};
pub use key::{
    Addr, FailsafeKey, FlowKey, FragmentKey, FragmentPorts, GuardKey, HashKeys, PolicyKey, ScopedKey, Side,
};
pub use limits::{
    Bucket, BucketKey, LimitOf, LimitVersions, Limits, Rate, Restriction, RuleSettings, RuleVersions, Unit,
};
pub use memo::{DecisionMemo, EndMemo, Question};
pub use packet::Packet;
pub use policy::{Binding, BindingVersions, Block, BlockVersions, Decision, DecisionVersions};
pub use reason::{Action, Direction, Reason};

/// The version of everything in this module. A loader replaces pinned maps of an older version, and refuses those of a newer one. So it only
/// ever grows, and is the first word of the configuration in every version.
pub const ABI_VERSION: u32 = 12;

/// A time that never comes: the not-after of what does not expire.
pub const NEVER: u64 = u64::MAX;
