//! What a CPU remembers of look-ups that each new flow would repeat (docs/adr/0013-memory-of-lookups.md).

use super::key::{Addr, HashKeys, PolicyKey};
use super::policy::{Binding, Block, Decision};
use bytemuck::{Pod, Zeroable};

/// What one epoch says of an address: of its binding and of its block. A cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct EndMemo {
    /// The address.
    pub addr: Addr,
    /// [`super::Config::stamp`] of then; 0 where nothing is remembered.
    pub stamp: u64,
    /// [`Binding::class`].
    pub class: u32,
    /// [`Binding::identity`].
    pub identity: u32,
    /// [`Binding::guards`].
    pub guards: u32,
    /// [`Binding::on_expiry`].
    pub on_expiry: u8,
    /// [`Binding::limits`].
    pub limits: u8,
    /// [`Binding::grace_s`].
    pub grace_s: u16,
    /// [`Binding::not_after_ns`].
    pub lease_not_after_ns: u64,
    /// [`Block::not_after_ns`].
    pub block_not_after_ns: u64,
    /// [`Block::rule`].
    pub block_rule: u32,
    /// [`Block::guards`].
    pub block_guards: u32,
}
const _: () = assert!(size_of::<EndMemo>() == 64);

impl EndMemo {
    /// Addresses that a CPU remembers, each in the place that its hash names. Few: what a flood of new flows writes meanwhile
    /// would push more out of the nearest caches, and then a place costs as much as a look-up.
    pub const COUNT: u32 = 256;
    /// The place of what must not be remembered: what another epoch than the one that counts says.
    pub const SCRATCH: u32 = Self::COUNT;

    /// Notes what it is bound to.
    #[inline(always)]
    pub fn bind(&mut self, binding: &Binding) {
        self.class = binding.class;
        self.identity = binding.identity;
        self.guards = binding.guards;
        self.lease_not_after_ns = binding.not_after_ns;
        self.on_expiry = binding.on_expiry;
        self.limits = binding.limits;
        self.grace_s = binding.grace_s;
    }

    /// What other bindings there are of the address: the [`Binding::ASKS`] bits.
    #[inline(always)]
    pub fn asks(&self) -> u8 {
        self.on_expiry & Binding::ASKS
    }

    /// Notes what blocks it.
    #[inline(always)]
    pub fn block(&mut self, block: &Block) {
        self.block_not_after_ns = block.not_after_ns;
        self.block_rule = block.rule;
        self.block_guards = block.guards;
    }

    /// Whether it is what is said of `addr` while the stamp is this.
    #[inline(always)]
    pub fn is_of(&self, addr: &Addr, stamp: u64) -> bool {
        let words = &self.addr.words;
        (words[0] ^ addr.words[0]) | (words[1] ^ addr.words[1]) | (self.stamp ^ stamp) == 0
    }

    /// The number of the block that cuts everything of this address now, 0 for none.
    #[inline(always)]
    pub fn blocks(&self, now_ns: u64) -> u32 {
        if now_ns < self.block_not_after_ns { self.block_rule } else { 0 }
    }
}

/// A question to the policy: a pair of classes and a service. Words, so that they stay in registers.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Question {
    /// Class of the originator.
    pub from: u32,
    /// Class of the responder.
    pub to: u32,
    /// IP protocol number in the upper half, port in the lower.
    pub service: u32,
}

impl Question {
    /// About a service.
    #[inline(always)]
    pub fn new(from: u32, to: u32, proto: u8, port: u16) -> Self {
        Self { from, to, service: u32::from(proto) << 16 | u32::from(port) }
    }

    /// What the policy trie is asked.
    #[inline(always)]
    pub fn key(&self) -> PolicyKey {
        PolicyKey::new(self.from, self.to, (self.service >> 16) as u8, self.service as u16)
    }

    /// A keyed hash, for an index cut from its low end: as [`super::FlowKey::hash`].
    #[inline(always)]
    pub fn hash(&self, keys: &HashKeys) -> u32 {
        keys.of_two(u64::from(self.from) << 32 | u64::from(self.to), u64::from(self.service))
    }
}

/// What one epoch decides.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct DecisionMemo {
    /// What was asked.
    pub question: Question,
    /// Padding.
    pub _pad: u32,
    /// [`super::Config::stamp`] of then; 0 where nothing is remembered.
    pub stamp: u64,
    /// The answer.
    pub decision: Decision,
}
const _: () = assert!(size_of::<DecisionMemo>() == 32);

impl DecisionMemo {
    /// Decisions that a CPU remembers, each in the place that its hash names.
    pub const COUNT: u32 = 256;
    /// As [`EndMemo::SCRATCH`].
    pub const SCRATCH: u32 = Self::COUNT;

    /// Whether it is what is decided while the stamp is this.
    #[inline(always)]
    pub fn is_of(&self, asked: &Question, stamp: u64) -> bool {
        let mine = &self.question;
        (mine.from ^ asked.from) | (mine.to ^ asked.to) | (mine.service ^ asked.service) == 0
            && self.stamp == stamp
    }
}
