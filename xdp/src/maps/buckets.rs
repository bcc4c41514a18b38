//! Token buckets and counts of connections: words that CPUs share.

use super::{TG_BUCKETS, TG_HOLDINGS, TG_NOTHING_HELD};
use crate::stages;
use aya_ebpf::bindings::BPF_NOEXIST;
use datapath::abi::{Bucket, BucketKey, Holding, Holdings, Unit};
use datapath::holdings::Wheel;
use datapath::limits::{Claim, Word, take};
use datapath::tables::Buckets;

/// `TG_BUCKETS`.
pub struct KernelBuckets;

impl KernelBuckets {
    #[inline(always)]
    fn get(key: &BucketKey) -> Option<*mut Bucket> {
        if let Some(bucket) = TG_BUCKETS.get_ptr_mut(key) {
            return Some(bucket);
        }
        // Another CPU may be quicker: then its bucket is the one.
        let _was_there = TG_BUCKETS.insert(key, &Bucket::default(), u64::from(BPF_NOEXIST));
        TG_BUCKETS.get_ptr_mut(key)
    }
}

impl Buckets for KernelBuckets {
    #[inline(always)]
    fn take(&mut self, key: &BucketKey, unit: Unit, claim: &Claim) -> bool {
        let Some(bucket) = Self::get(key) else {
            return false; // no memory: a limit is not exceeded for want of it
        };
        // SAFETY: the element lives until the program returns; the address of a field is taken, nothing is read.
        take(&SharedWord(unsafe { &raw mut (*bucket).full_ns[unit as usize] }), claim)
    }

    #[inline(always)]
    fn until(&self, is_answered: bool, now_ns: u64, end_ns: u64) -> Holding {
        Holding(stages::tg_until(u32::from(is_answered), now_ns, end_ns) as u16)
    }

    #[inline(always)]
    fn holdings(&mut self, identity: u32) -> Option<impl Wheel> {
        if let Some(found) = TG_HOLDINGS.get_ptr_mut(identity) {
            return Some(KernelWheel(found));
        }
        // Another CPU may be quicker: then its wheel is the one.
        let _was_there = TG_HOLDINGS.insert(identity, TG_NOTHING_HELD.get(0)?, u64::from(BPF_NOEXIST));
        TG_HOLDINGS.get_ptr_mut(identity).map(KernelWheel)
    }
}

/// An element of `TG_HOLDINGS`.
struct KernelWheel(*mut Holdings);

impl Wheel for KernelWheel {
    type Word = SharedWord;

    #[inline(always)]
    fn word(&self, at: usize) -> Option<SharedWord> {
        // Hidden from LLVM, or it drops the comparison that shows the verifier the bound.
        let at = core::hint::black_box(at);
        if at >= Holdings::WORDS {
            return None;
        }
        // SAFETY: the element lives until the program returns; the address of a word is taken, nothing is read.
        Some(SharedWord(unsafe { &raw mut (*self.0).words[at] }))
    }
}

/// A word of a map's element that other CPUs change too.
pub(crate) struct SharedWord(pub *mut u64);

impl Word for SharedWord {
    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: an aligned word of an element that lives until the program returns.
        unsafe { self.0.read_volatile() }
    }

    #[inline(always)]
    fn replace(&self, seen: u64, next: u64) -> bool {
        let found: u64;
        // SAFETY: as above; the instruction (Linux 5.12) compares with r0 and leaves there what it found.
        unsafe {
            core::arch::asm!(
                "r0 = cmpxchg_64({at} + 0, r0, {next})",
                at = in(reg) self.0,
                next = in(reg) next,
                inout("r0") seen => found,
                options(nostack),
            );
        }
        found == seen
    }
}
