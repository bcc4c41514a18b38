//! What an identity has at once: a wheel of counts that end by themselves.
//!
//! A connection is counted in the slice of time in which it would be over if nothing more were heard of it, and moves to a
//! later slice as it lives. Slices that have passed count no more: what nobody takes back, because the daemon is gone or a
//! full table forgot it, ends on time. Levels of the wheel have slices of different lengths, as timeouts have.

use bytemuck::{Pod, Zeroable};

/// The wheel of one identity: the value of `TG_HOLDINGS`. A word is the number of its slice, 24 bits, then the unanswered and
/// the answered connections that are counted there, 20 bits each.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Holdings {
    /// Eight slices of each level.
    pub words: [u64; Holdings::WORDS],
}
const _: () = assert!(size_of::<Holdings>() == 512);

impl Holdings {
    /// Levels of the wheel.
    pub const LEVELS: u32 = 8;
    /// Slices of a level that have words. The last one begins seven slices from now.
    pub const SLICES: u32 = 8;
    /// Words of a wheel.
    pub const WORDS: usize = (Self::LEVELS * Self::SLICES) as usize;
    /// Slices of level 0 are 2^30 ns long, of each further level four times as long: from a second to five hours.
    pub const SHIFT: u32 = 30;
    /// The largest count that a word holds of either kind.
    pub const MAX: u64 = (1 << 20) - 1;

    /// How long the slices of a level are, as a shift of nanoseconds.
    #[inline(always)]
    pub fn shift(level: u32) -> u32 {
        Self::SHIFT + 2 * level
    }
}

/// Where a connection is counted, as it is kept with the connection: the level, the low bits of its slice's number, and
/// whether it is counted among the answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding(pub u16);

impl Holding {
    /// Nowhere.
    pub const NONE: Self = Self(0);
    const COUNTED: u16 = 1 << 15;
    const ANSWERED: u16 = 1 << 14;
    const LEVEL: u32 = 11;
    /// The bits of a slice's number that are kept: those that are alive differ in less.
    pub const SLICE_MASK: u64 = (1 << Self::LEVEL) - 1;

    /// A connection whose time is over at `end_ns` if nothing more is heard of it: on the lowest level that reaches so
    /// far. Beyond the last level's reach, a day and a half, it ends there.
    #[inline(always)]
    pub fn until(is_answered: bool, now_ns: u64, end_ns: u64) -> Self {
        let left = end_ns.saturating_sub(now_ns);
        let reach = |level| u64::from(Holdings::SLICES - 1) << Holdings::shift(level);
        let mut level = 0;
        while level < Holdings::LEVELS - 1 && left > reach(level) {
            level += 1;
        }
        let left = if left > reach(level) { reach(level) } else { left };
        let slice = (now_ns + left) >> Holdings::shift(level);
        let kind = if is_answered { Self::ANSWERED } else { 0 };
        Self(Self::COUNTED | kind | (level << Self::LEVEL) as u16 | (slice & Self::SLICE_MASK) as u16)
    }

    /// Its level.
    #[inline(always)]
    pub fn level(self) -> u32 {
        u32::from(self.0) >> Self::LEVEL & (Holdings::LEVELS - 1)
    }

    /// The low bits of its slice's number.
    #[inline(always)]
    pub fn slice(self) -> u64 {
        u64::from(self.0) & Self::SLICE_MASK
    }

    /// Whether it is counted among the answered.
    #[inline(always)]
    pub fn is_answered(self) -> bool {
        self.0 & Self::ANSWERED != 0
    }
}
