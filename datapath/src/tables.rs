//! What the path needs of its tables. BPF maps implement it in xdp/ and tc/, hash maps in [`crate::host`].
//!
//! Each table is a field of its own, so that a record of one can be held while another is asked.

use crate::abi::{
    Addr, Answered, Attempt, BindingVersions, BlockVersions, BucketKey, ClosedEvent, Config, Connection,
    Decision, DecisionVersions, Direction, EndMemo, Event, EventBudget, FlowKey, FlowRecord, FlowSlot,
    FragmentKey, FragmentPorts, HandshakeKey, HelloSegment, Holding, InterfaceVersions, LimitVersions, Lost,
    PolicyKey, Question, RuleVersions, ShadowKey, Tally, Unit,
};
use crate::frame::Frame;
use crate::guard::{self, Listed, Service};
use crate::holdings::Wheel;
use crate::identity;
use crate::limits::Claim;
use crate::policy::{self, Judgement, Moment};
use crate::scope;

/// A keyed table.
pub trait Table<K, V> {
    /// The value of `key`, in place.
    fn get(&mut self, key: &K) -> Option<&mut V>;
    /// Sets the value of `key`. Returns whether the table took it.
    fn insert(&mut self, key: &K, value: &V) -> bool;
    /// Forgets `key`.
    fn remove(&mut self, key: &K);
}

/// The direct-mapped first level of the flow table, this CPU's.
pub trait Slots {
    /// The slot `index`; `None` beyond the end.
    fn slot(&mut self, index: u32) -> Option<&mut FlowSlot>;
    /// The same slot of another CPU, which may be writing to it; `None` where there is no such CPU.
    fn slot_of(&mut self, cpu: u32, index: u32) -> Option<&FlowSlot>;
    /// Whether the slot `index` may be that of the key with this `hash`. Where it is not, the slot need not be read, which is cold
    /// memory where every packet has a flow of its own.
    fn may_be_of(&mut self, _hash: u32, _index: u32) -> bool {
        true
    }
    /// Notes that the slot of `key` is now its own. Where that is left out, its packets are judged and counted as if it had none.
    fn given_to(&mut self, _key: &FlowKey) {}
}

/// The second level of the flow table, this CPU's.
pub trait Spill: Table<FlowKey, FlowRecord> {
    /// The record of `key` on another CPU, which may be writing to it.
    fn of(&mut self, cpu: u32, key: &FlowKey) -> Option<&FlowRecord>;
}

/// Where a connection may be; a bit that is not set is certain.
pub mod whereabouts {
    /// Among those that were not answered.
    pub const UNANSWERED: u64 = 1 << 0;
    /// Among the answered.
    pub const ANSWERED: u64 = 1 << 1;
    /// Nobody knows.
    pub const ANYWHERE: u64 = UNANSWERED | ANSWERED;
}

/// Connections that were not answered yet. They know which may be elsewhere, so that what opens one need not look there.
pub trait Attempts: Table<FlowKey, Attempt> {
    /// Where the connection may be: [`whereabouts`].
    fn whereabouts(&mut self, key: &FlowKey) -> u64;
    /// Whether one more of its kind would push another out: then it may have been pushed out itself.
    fn is_full(&mut self, _key: &FlowKey) -> bool {
        false
    }
    /// Notes that it is about to be among the answered.
    fn answered(&mut self, key: &FlowKey);
}

/// What the controller says, and the clock.
pub trait Rules {
    /// The configuration.
    fn config(&self) -> Option<&Config>;
    /// Boot-clock time in steps of a tick: cheap, for every packet.
    fn coarse_ns(&self, config: &Config) -> u64;
    /// Boot-clock time: for packets that are judged or tracked.
    fn now_ns(&self, config: &Config) -> u64;
    /// Both versions of what the longest prefix that holds `addr` is bound to.
    fn binding(&self, addr: &Addr) -> Option<&BindingVersions>;
    /// Both versions of a binding that does not hold everywhere, by the parts of a [`crate::abi::ScopedKey`].
    fn scoped(&self, segment: u32, addr: &Addr, service: u32) -> Option<&BindingVersions>;
    /// [`scope::narrowest`]; a function of its own in BPF.
    fn narrowed(&self, addr: &Addr, moment: &Moment, asks: u32, service: u32) -> Option<&BindingVersions>
    where
        Self: Sized,
    {
        scope::narrowest(self, addr, moment, asks, service)
    }
    /// Both versions of the blocklist entry with the longest prefix that holds `addr`.
    fn block(&self, addr: &Addr) -> Option<&BlockVersions>;
    /// Both versions of what a guard list says of `key`, which is a [`crate::abi::GuardKey`]'s.
    fn guard(&self, key: &PolicyKey) -> Option<&BlockVersions>;
    /// [`guard::blocked`]; a stage of its own in BPF.
    fn blocked(&self, list: u32, service: Service, moment: &Moment, j: &mut Judgement) -> u32
    where
        Self: Sized,
    {
        guard::blocked(self, list, service, moment, j)
    }
    /// Shows what the epoch of `moment` says of an address; a CPU may remember it. `None` without the room for it, which is
    /// made with the maps.
    fn about<T>(&self, addr: &Addr, moment: &Moment, then: impl FnOnce(&EndMemo) -> T) -> Option<T>
    where
        Self: Sized,
    {
        let mut memo = bytemuck::Zeroable::zeroed();
        policy::look_up(self, addr, moment.epoch, &mut memo);
        Some(then(&memo))
    }
    /// What this CPU remembers of an address, if it does.
    fn remembered(&self, _addr: &Addr, _config: &Config) -> Option<&EndMemo> {
        None
    }
    /// What the epoch of `moment` decides; a CPU may remember it.
    fn decided(&self, asked: &Question, moment: &Moment) -> Decision
    where
        Self: Sized,
    {
        policy::look_up_decision(self, asked, moment.epoch)
    }
    /// [`guard::is_listed`]; a stage of its own in BPF.
    fn is_listed(&self, listed: &Listed, service: Service, moment: &Moment, j: &mut Judgement) -> bool
    where
        Self: Sized,
    {
        guard::is_listed(self, listed, service, moment, j)
    }
    /// [`identity::restrict`]; a stage of its own in BPF.
    fn restrict(&self, proto: u8, moment: &Moment, j: &mut Judgement)
    where
        Self: Sized,
    {
        identity::restrict(self, proto, moment, j);
    }
    /// Both versions of what the policy says of `key`.
    fn decision(&self, key: &PolicyKey) -> Option<&DecisionVersions>;
    /// Both versions of what holds for an interface.
    fn interface(&self, ifindex: u32) -> Option<&InterfaceVersions>;
    /// Both versions of the numbers of a rule's limits.
    fn rule(&self, number: u32) -> Option<&RuleVersions>;
    /// Both versions of which limit is an identity's.
    fn limit(&self, identity: u32) -> Option<&LimitVersions>;
    /// Whether it is a failsafe service of the gateway itself.
    fn is_failsafe(&self, addr: &Addr, service: Service) -> bool;
}

/// Token buckets and counts of connections, shared by all CPUs.
pub trait Buckets {
    /// Takes from one of the buckets of `key` if it holds so much; a bucket that was never asked is full. Returns
    /// whether it did.
    fn take(&mut self, key: &BucketKey, unit: Unit, claim: &Claim) -> bool;
    /// What an identity has at once; `None` where there is no memory for it.
    fn holdings(&mut self, identity: u32) -> Option<impl Wheel>;
    /// [`Holding::until`]; a stage of its own in BPF.
    fn until(&self, is_answered: bool, now_ns: u64, end_ns: u64) -> Holding {
        Holding::until(is_answered, now_ns, end_ns)
    }
}

/// Where counts and events go.
pub trait Sink {
    /// Counts what a frame counts for under its reason (a [`crate::abi::Reason`]), apart where the verdict was AUDIT.
    fn count(
        &mut self,
        ifindex: u32,
        direction: Direction,
        reason: u8,
        audited: bool,
        packets: u32,
        bytes: u64,
    );
    /// Counts one packet that was rejected with an answer.
    fn answered(&mut self, ifindex: u32, how: Answered);
    /// Counts one handshake of a pair of identities.
    fn handshake(&mut self, key: &HandshakeKey, duration_ns: u64);
    /// What was sent lately of the events that share budget `index`.
    fn budget(&mut self, index: u32) -> Option<&mut EventBudget>;
    /// Counts a flow of the sample that two epochs judged.
    fn shadow(&mut self, key: &ShadowKey);
    /// Counts an event that is not sent.
    fn lost(&mut self, why: Lost);
    /// Counts a connection that came or went.
    fn tally(&mut self, what: Tally);
    /// Hands up an event that `fill` writes. Without room for it the loss is counted.
    fn event(&mut self, fill: impl FnOnce(&mut Event));
    /// Hands up the record of a connection that gives way to another.
    fn closed(&mut self, fill: impl FnOnce(&mut ClosedEvent));
    /// Hands up `length` bytes of the frame from `from` on, which are part of a ClientHello; `fill` writes all else.
    /// Without room for it the loss is counted.
    fn hello<F: Frame>(&mut self, frame: &F, from: usize, length: u32, fill: impl FnOnce(&mut HelloSegment));
}

/// Room to write a new connection and its record before a table takes them: the kernel's stack has none.
pub trait Draft {
    /// The room, with whatever it held last.
    fn attempt(&mut self) -> Option<&mut Attempt>;
}

/// The types of the tables of one engine.
pub trait Tables {
    /// First level of the flow table.
    type Slots: Slots;
    /// Second level of the flow table.
    type Spill: Spill;
    /// Connections that were answered.
    type Connections: Table<FlowKey, Connection>;
    /// Connections that were not answered yet.
    type HalfOpen: Attempts;
    /// Ports of fragmented datagrams.
    type Fragments: Table<FragmentKey, FragmentPorts>;
    /// Policy, identities, blocklists, configuration, clock.
    type Rules: Rules;
    /// Token buckets.
    type Buckets: Buckets;
    /// Counters and events.
    type Sink: Sink;
    /// Room for a new connection.
    type Draft: Draft;
}

/// All the tables of one engine.
#[derive(Debug, Default)]
pub struct Plane<T: Tables> {
    /// First level of the flow table.
    pub slots: T::Slots,
    /// Second level of the flow table.
    pub spill: T::Spill,
    /// Connections that were answered.
    pub connections: T::Connections,
    /// Connections that were not answered yet. Apart, so that a flood of SYNs cannot evict the living.
    pub half_open: T::HalfOpen,
    /// Ports of fragmented datagrams.
    pub fragments: T::Fragments,
    /// Policy, identities, blocklists, configuration, clock.
    pub rules: T::Rules,
    /// Token buckets.
    pub buckets: T::Buckets,
    /// Counters and events.
    pub sink: T::Sink,
    /// Room for a new connection.
    pub draft: T::Draft,
}
