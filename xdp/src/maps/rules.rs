//! What the controller writes, and the clock.

use super::{
    TG_BINDINGS, TG_BLOCKLIST, TG_CONFIG, TG_FAILSAFE, TG_GUARDS, TG_INTERFACES, TG_LIMITS, TG_POLICY,
    TG_RULES, TG_SCOPED,
};
use crate::{memos, stages};
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_boot_ns};
use aya_ebpf::maps::lpm_trie;
use datapath::abi::{
    Addr, BindingVersions, BlockVersions, Config, Decision, DecisionVersions, EndMemo, FailsafeKey,
    InterfaceVersions, LimitVersions, PolicyKey, Question, RuleVersions, ScopedKey,
};
use datapath::guard::{Listed, Service};
use datapath::policy::{Judgement, Moment};
use datapath::scope;
use datapath::tables::Rules;

/// A trie's key, laid out so that no store to it crosses an eight-byte boundary of the stack: the verifier refuses
/// that ("misaligned stack access", 6.18), and a packed key begs for it.
#[repr(C, align(8))]
struct PrefixKey<const N: usize> {
    _pad: u32,
    prefix_len: u32,
    data: [u8; N],
}

impl PrefixKey<16> {
    #[inline(always)]
    fn address(addr: &Addr) -> Self {
        Self { _pad: 0, prefix_len: 128, data: addr.octets() }
    }
}

impl PrefixKey<4> {
    #[inline(always)]
    fn number(number: u32) -> Self {
        Self { _pad: 0, prefix_len: 32, data: number.to_ne_bytes() }
    }
}

impl PrefixKey<12> {
    #[inline(always)]
    fn policy(key: &PolicyKey) -> Self {
        Self { _pad: 0, prefix_len: PolicyKey::FULL_BITS, data: key.bytes }
    }
}

/// A [`ScopedKey`] in full behind its length, in words: as bytes its address would lie across two of the stack's.
#[repr(C)]
struct PlaceKey {
    prefix_len: u32,
    segment: u32,
    addr: Addr,
    service: u32,
    _pad: u32,
}

impl PlaceKey {
    #[inline(always)]
    fn new(segment: u32, addr: &Addr, service: u32) -> Self {
        let prefix_len = ScopedKey::FULL_BITS;
        Self { prefix_len, segment: segment.to_be(), addr: *addr, service: service.to_be(), _pad: 0 }
    }

    #[inline(always)]
    fn key(&self) -> &lpm_trie::Key<[u8; 24]> {
        let key = (&raw const self.prefix_len).cast::<lpm_trie::Key<[u8; 24]>>();
        // SAFETY: a Key is the length and the data, packed, and that is what lies there.
        unsafe { &*key }
    }
}

impl<const N: usize> PrefixKey<N> {
    #[inline(always)]
    fn key(&self) -> &lpm_trie::Key<[u8; N]> {
        let key = (&raw const self.prefix_len).cast::<lpm_trie::Key<[u8; N]>>();
        // SAFETY: a Key is the length and the data, packed, and that is what lies there.
        unsafe { &*key }
    }
}

/// What the controller writes, and the clock.
pub struct KernelRules;

impl Rules for KernelRules {
    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        TG_CONFIG.get(0)
    }

    #[inline(always)]
    fn coarse_ns(&self, config: &Config) -> u64 {
        if config.has(Config::FIXED_CLOCK) {
            return config.fixed_now_ns;
        }
        // SAFETY: the helper takes no argument and only reads a clock.
        let ticks = unsafe { bpf_jiffies64() };
        ticks.wrapping_mul(config.tick_ns).wrapping_add(config.boot_offset_ns)
    }

    #[inline(always)]
    fn now_ns(&self, config: &Config) -> u64 {
        if config.has(Config::FIXED_CLOCK) {
            return config.fixed_now_ns;
        }
        // SAFETY: the helper takes no argument and only reads a clock.
        unsafe { bpf_ktime_get_boot_ns() }
    }

    #[inline(always)] // in a function of its own
    fn binding(&self, addr: &Addr) -> Option<&BindingVersions> {
        TG_BINDINGS.get(PrefixKey::address(addr).key())
    }

    #[inline(always)] // in a function of its own
    fn scoped(&self, segment: u32, addr: &Addr, service: u32) -> Option<&BindingVersions> {
        TG_SCOPED.get(PlaceKey::new(segment, addr, service).key())
    }

    #[inline(never)] // its key has a stack of its own
    fn narrowed(&self, addr: &Addr, moment: &Moment, asks: u32, service: u32) -> Option<&BindingVersions> {
        scope::narrowest(self, addr, moment, asks, service)
    }

    #[inline(always)] // in a function of its own
    fn block(&self, addr: &Addr) -> Option<&BlockVersions> {
        TG_BLOCKLIST.get(PrefixKey::address(addr).key())
    }

    #[inline(always)] // in a stage of its own
    fn guard(&self, key: &PolicyKey) -> Option<&BlockVersions> {
        TG_GUARDS.get(PrefixKey::policy(key).key())
    }

    #[inline(always)]
    fn blocked(&self, list: u32, service: Service, moment: &Moment, j: &mut Judgement) -> u32 {
        stages::tg_blocked(list, u32::from(service.proto), u32::from(service.port), moment, j)
    }

    #[inline(always)]
    fn about<T>(&self, addr: &Addr, moment: &Moment, then: impl FnOnce(&EndMemo) -> T) -> Option<T> {
        memos::about(addr, moment, then)
    }

    #[inline(always)]
    fn remembered(&self, addr: &Addr, config: &Config) -> Option<&EndMemo> {
        memos::remembered(addr, config)
    }

    #[inline(always)]
    fn decided(&self, asked: &Question, moment: &Moment) -> Decision {
        memos::decided(asked, moment)
    }

    #[inline(always)]
    fn is_listed(&self, listed: &Listed, service: Service, moment: &Moment, j: &mut Judgement) -> bool {
        stages::tg_listed(listed, u32::from(service.proto), u32::from(service.port), moment, j) != 0
    }

    #[inline(always)]
    fn restrict(&self, proto: u8, moment: &Moment, j: &mut Judgement) {
        stages::tg_restrict(u32::from(proto), moment, j);
    }

    #[inline(always)] // in a function of its own
    fn decision(&self, key: &PolicyKey) -> Option<&DecisionVersions> {
        TG_POLICY.get(PrefixKey::policy(key).key())
    }

    #[inline(never)] // its key has a stack of its own
    fn interface(&self, ifindex: u32) -> Option<&InterfaceVersions> {
        TG_INTERFACES.get(PrefixKey::number(ifindex).key())
    }

    #[inline(never)] // its key has a stack of its own
    fn rule(&self, number: u32) -> Option<&RuleVersions> {
        TG_RULES.get(PrefixKey::number(number).key())
    }

    #[inline(never)] // its key has a stack of its own
    fn limit(&self, identity: u32) -> Option<&LimitVersions> {
        TG_LIMITS.get(PrefixKey::number(identity).key())
    }

    #[inline(never)] // its key has a stack of its own
    fn is_failsafe(&self, addr: &Addr, service: Service) -> bool {
        TG_FAILSAFE.get_ptr(&FailsafeKey::new(*addr, service.proto, service.port)).is_some()
    }
}
