//! Counts of what an identity has at once, in words that CPUs share: see [`crate::abi::Holdings`].
//!
//! Nothing here can drift for long: a count that is lost or taken twice is wrong until its slice has passed.

use crate::abi::{Holding, Holdings};
use crate::limits::Word;

/// A wheel whose words CPUs share.
pub trait Wheel {
    /// One word.
    type Word: Word;
    /// The word at `at`; `None` beyond the end.
    fn word(&self, at: usize) -> Option<Self::Word>;
}

/// What an identity has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Connections that nobody has answered.
    pub attempts: u64,
    /// Connections that were answered.
    pub answered: u64,
}

const TAG_SHIFT: u32 = 40;
const ATTEMPTS_SHIFT: u32 = 20;
const TAG_MASK: u64 = (1 << (64 - TAG_SHIFT)) - 1;
/// Who loses a word so often to other CPUs gives up.
const MAX_RACES: usize = 8;

/// The word of a holding, what it is tagged with, and what counts one.
struct At {
    index: usize,
    tag: u64,
    one: u64,
}

/// `None` where its slice has passed.
#[inline(always)]
fn at(holding: Holding, now_ns: u64) -> Option<At> {
    let level = holding.level();
    let now = now_ns >> Holdings::shift(level);
    let ahead = holding.slice().wrapping_sub(now) & Holding::SLICE_MASK;
    if ahead >= u64::from(Holdings::SLICES) {
        return None;
    }
    let slice = now + ahead;
    let index = level * Holdings::SLICES + (slice as u32 & (Holdings::SLICES - 1));
    let one = if holding.is_answered() { 1 } else { 1 << ATTEMPTS_SHIFT };
    Some(At { index: index as usize, tag: slice & TAG_MASK, one })
}

#[inline(always)]
fn counted(word: u64, one: u64) -> u64 {
    (if one == 1 { word } else { word >> ATTEMPTS_SHIFT }) & Holdings::MAX
}

/// Counts a connection. Returns whether there was room for it.
#[inline(always)]
pub fn add<W: Wheel>(wheel: &W, holding: Holding, now_ns: u64) -> bool {
    let Some(At { index, tag, one }) = at(holding, now_ns) else {
        return false;
    };
    let Some(word) = wheel.word(index) else {
        return false;
    };
    for _ in 0..MAX_RACES {
        let seen = word.load();
        let from = if seen >> TAG_SHIFT == tag { seen } else { tag << TAG_SHIFT };
        if counted(from, one) == Holdings::MAX {
            return false;
        }
        if word.replace(seen, from + one) {
            return true;
        }
    }
    false
}

/// Takes a connection back that was counted; nothing where its slice has passed.
#[inline(always)]
pub fn remove<W: Wheel>(wheel: &W, holding: Holding, now_ns: u64) {
    let Some(At { index, tag, one }) = at(holding, now_ns) else {
        return;
    };
    let Some(word) = wheel.word(index) else {
        return;
    };
    for _ in 0..MAX_RACES {
        let seen = word.load();
        if seen >> TAG_SHIFT != tag || counted(seen, one) == 0 || word.replace(seen, seen - one) {
            return;
        }
    }
}

/// What is counted now.
#[inline(always)]
pub fn held<W: Wheel>(wheel: &W, now_ns: u64) -> Held {
    let mut held = Held::default();
    for index in 0..Holdings::WORDS {
        let Some(word) = wheel.word(index) else {
            return held;
        };
        let word = word.load();
        if word == 0 {
            continue; // levels that no timeout needs
        }
        let now = now_ns >> Holdings::shift(index as u32 / Holdings::SLICES);
        if (word >> TAG_SHIFT).wrapping_sub(now) & TAG_MASK < u64::from(Holdings::SLICES) {
            held.attempts += counted(word, 1 << ATTEMPTS_SHIFT);
            held.answered += counted(word, 1);
        }
    }
    held
}

/// A wheel that was copied: nobody changes it.
#[cfg(feature = "host")]
impl Holdings {
    /// What is counted at a time of the boot clock.
    pub fn at(&self, now_ns: u64) -> Held {
        let words: Vec<_> = self.words.iter().copied().map(std::sync::atomic::AtomicU64::new).collect();
        held(&words.as_slice(), now_ns)
    }
}
