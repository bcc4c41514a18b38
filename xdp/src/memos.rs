//! What this CPU remembers of look-ups: `TG_ENDS` and `TG_DECISIONS`. The TC program includes this same file.
//!
//! An array is read without a call; a trie is a call and a walk. What an epoch says does not change while it counts, so
//! what was looked up under it holds until the next (docs/adr/0013-memory-of-lookups.md).

use crate::maps::{KernelRules, TG_CONFIG, TG_DECISIONS, TG_ENDS};
use datapath::abi::{Addr, Config, Decision, DecisionMemo, EndMemo, Question};
use datapath::policy::{self, Moment};

/// The configuration, where it still says that the epoch of `moment` counts. A candidate is judged by the next epoch, which may
/// still change: nothing of it is remembered.
#[inline(always)]
fn counting(moment: &Moment) -> Option<&'static Config> {
    TG_CONFIG.get(0).filter(|config| config.epoch == moment.epoch)
}

/// Shows what is remembered of an address, or else what is looked up now.
#[inline(always)]
pub fn about<T>(addr: &Addr, moment: &Moment, then: impl FnOnce(&EndMemo) -> T) -> Option<T> {
    let (index, stamp) = match counting(moment) {
        Some(config) => (addr.hash(&config.hash_keys) & (EndMemo::COUNT - 1), config.stamp()),
        None => (EndMemo::SCRATCH, 0),
    };
    let memo = TG_ENDS.get_ptr_mut(index)?;
    // SAFETY: this CPU's element, and nothing else runs on this CPU until the program returns.
    if stamp == 0 || !unsafe { &*memo }.is_of(addr, stamp) {
        tg_look_up(addr, moment.epoch, index);
        // SAFETY: as above; the call is over.
        unsafe { ((*memo).addr, (*memo).stamp) = (*addr, stamp) };
    }
    // SAFETY: as above; the call is over.
    Some(then(unsafe { &*memo }))
}

/// What is remembered of an address.
#[inline(always)]
pub fn remembered(addr: &Addr, config: &Config) -> Option<&'static EndMemo> {
    let memo = TG_ENDS.get_ptr_mut(addr.hash(&config.hash_keys) & (EndMemo::COUNT - 1))?;
    // SAFETY: this CPU's element, and nothing else runs on this CPU until the program returns.
    let memo = unsafe { &*memo };
    if memo.is_of(addr, config.stamp()) { Some(memo) } else { None }
}

/// Fills a place of `TG_ENDS`.
///
/// A global function, as the stages are (docs/adr/0004-stages.md).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_look_up(addr: *const Addr, epoch: u32, index: u32) -> u32 {
    // SAFETY: the caller's reference; this CPU's element, which nobody else refers to meanwhile.
    if let (Some(addr), Some(memo)) =
        unsafe { (addr.as_ref(), TG_ENDS.get_ptr_mut(index).and_then(|memo| memo.as_mut())) }
    {
        policy::look_up(&KernelRules, addr, epoch, memo);
    }
    0
}

/// What is remembered of a decision, or else what is looked up now.
#[inline(always)]
pub fn decided(asked: &Question, moment: &Moment) -> Decision {
    let (index, stamp) = match counting(moment) {
        Some(config) => (asked.hash(&config.hash_keys) & (DecisionMemo::COUNT - 1), config.stamp()),
        None => (DecisionMemo::SCRATCH, 0),
    };
    let Some(memo) = TG_DECISIONS.get_ptr_mut(index) else {
        return Decision::NONE;
    };
    // SAFETY: this CPU's element, and nothing else runs on this CPU until the program returns.
    if stamp == 0 || !unsafe { &*memo }.is_of(asked, stamp) {
        tg_look_up_decision(asked.from, asked.to, asked.service, moment.epoch, index);
        // SAFETY: as above; the call is over.
        unsafe { ((*memo).question, (*memo).stamp) = (*asked, stamp) };
    }
    // SAFETY: as above.
    unsafe { (*memo).decision }
}

/// Fills a place of `TG_DECISIONS`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_look_up_decision(from: u32, to: u32, service: u32, epoch: u32, index: u32) -> u32 {
    let asked = Question { from, to, service };
    // SAFETY: this CPU's element, which nobody else refers to meanwhile.
    if let Some(memo) = TG_DECISIONS.get_ptr_mut(index).and_then(|memo| unsafe { memo.as_mut() }) {
        memo.decision = policy::look_up_decision(&KernelRules, &asked, epoch);
    }
    0
}
