//! `TG_HALF_OPEN`: sets of seven places, found by hash, and `TG_WHEREABOUTS`: what is certain not to be there. The TC program includes this same file.
//!
//! An LRU hash map asks for a free element, a bucket and a list of its own, each in memory that a flood of SYNs has never
//! warmed; a set lies in one page. In a full set, the attempt that was looked at longest ago gives way;
//! where strangers have most places, the oldest of theirs.
//!
//! Places are taken by compare-and-swap of their tags. Who has looked an attempt up while another CPU gives its place
//! away writes into the new one: like every lost race here that costs a fact of an attempt, not memory.

use crate::maps::{SharedWord, TG_CONFIG, TG_HALF_OPEN, TG_WHEREABOUTS};
use aya_ebpf::helpers::generated::bpf_jiffies64;
use datapath::abi::{Attempt, AttemptFilter, AttemptPlace, AttemptSet, FlowKey};
use datapath::limits::Word;
use datapath::tables::{Attempts, Table, whereabouts};

/// The table.
pub struct KernelHalfOpen;

/// Where a set is, and the hash of the key that it was found by.
struct Found {
    set: *mut AttemptSet,
    index: u32,
    hash: u32,
}

/// The set of a key.
#[inline(always)]
fn set(key: &FlowKey) -> Option<Found> {
    let config = TG_CONFIG.get(0)?;
    let hash = key.hash(&config.hash_keys);
    let index = hash & config.attempt_mask;
    Some(Found { set: TG_HALF_OPEN.get_ptr_mut(index)?, index, hash })
}

#[inline(always)]
fn tick() -> u32 {
    // SAFETY: the helper takes no argument and only reads a clock.
    unsafe { bpf_jiffies64() as u32 }
}

/// The tag of a place.
#[inline(always)]
fn tag(set: *mut AttemptSet, way: usize) -> SharedWord {
    // SAFETY: an element of the array lives as long as the map; the address of a field is taken, nothing is read.
    SharedWord(unsafe { &raw mut (*set).tags[way] })
}

/// A place. Another CPU may write it too: its fields are words, and a lost race costs a fact (see abi).
#[inline(always)]
fn place<'a>(set: *mut AttemptSet, way: usize) -> &'a mut AttemptPlace {
    // SAFETY: an element of the array lives as long as the map.
    unsafe { &mut (*set).places[way] }
}

impl Table<FlowKey, Attempt> for KernelHalfOpen {
    #[inline(always)]
    fn get(&mut self, key: &FlowKey) -> Option<&mut Attempt> {
        let at = tg_find_attempt(key);
        let set = TG_HALF_OPEN.get_ptr_mut((at >> 8) as u32)?;
        let way = (at & 0xff) as usize;
        if way >= AttemptSet::WAYS {
            return None;
        }
        Some(&mut place(set, way).attempt)
    }

    #[inline(always)]
    fn insert(&mut self, key: &FlowKey, attempt: &Attempt) -> bool {
        tg_put_attempt(key, attempt) != 0
    }

    #[inline(always)]
    fn remove(&mut self, key: &FlowKey) {
        let at = tg_find_attempt(key);
        let way = (at & 0xff) as usize;
        if let Some(set) = TG_HALF_OPEN.get_ptr_mut((at >> 8) as u32)
            && way < AttemptSet::WAYS
        {
            let word = tag(set, way);
            let _other_was_quicker = word.replace(word.load(), 0);
        }
    }
}

impl Attempts for KernelHalfOpen {
    #[inline(always)]
    fn whereabouts(&mut self, key: &FlowKey) -> u64 {
        let (Some(config), Some((filter, hash))) = (TG_CONFIG.get(0), filter(key)) else {
            return whereabouts::ANYWHERE;
        };
        // SAFETY: an element of the array lives as long as the map; two aligned words are read.
        let (answered, marks) = unsafe {
            (
                (&raw const (*filter).answered).read_volatile(),
                (&raw const (*filter).marks).cast::<u64>().read_volatile(),
            )
        };
        // A branch less for the verifier.
        let is_answered = answered >> (AttemptFilter::bit(hash) + (config.answered_shift & 32)) & 1;
        let may_be = is_answered * whereabouts::ANSWERED;
        if AttemptFilter::has_mark(marks, hash) { may_be | tg_has_tag(key) } else { may_be }
    }

    #[inline(always)]
    fn is_full(&mut self, key: &FlowKey) -> bool {
        tg_is_full(key) != 0
    }

    #[inline(always)]
    fn answered(&mut self, key: &FlowKey) {
        let Some((filter, hash)) = filter(key) else {
            return;
        };
        // SAFETY: as above; the instruction (Linux 5.12) changes one aligned word.
        unsafe {
            core::arch::asm!(
                "lock *(u64 *)({at} + 0) |= {bits}",
                at = in(reg) &raw mut (*filter).answered,
                bits = in(reg) AttemptFilter::answered(hash),
                options(nostack),
            );
        }
    }
}

/// The filter of a key's set, and the key's hash.
#[inline(always)]
fn filter(key: &FlowKey) -> Option<(*mut AttemptFilter, u32)> {
    let config = TG_CONFIG.get(0)?;
    let hash = key.hash(&config.hash_keys);
    Some((TG_WHEREABOUTS.get_ptr_mut(hash & config.attempt_mask)?, hash))
}

/// [`whereabouts::UNANSWERED`] where a tag of the set may be of the key.
///
/// A global function, as the stages are (docs/adr/0004-stages.md).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_has_tag(key: *const FlowKey) -> u64 {
    // SAFETY: the caller's reference.
    let Some(found) = (unsafe { key.as_ref() }).and_then(set) else {
        return whereabouts::UNANSWERED;
    };
    let mut may_be = 0;
    for way in 0..AttemptSet::WAYS {
        let differs = (tag(found.set, way).load() >> 32) ^ u64::from(found.hash);
        // 1 where it is zero. By arithmetic, and hidden from LLVM: seven branches would multiply the verifier's work.
        may_be |= core::hint::black_box(differs).wrapping_sub(1) >> 63;
    }
    may_be
}

/// 1 where every place of the key's set is taken.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_is_full(key: *const FlowKey) -> u64 {
    // SAFETY: the caller's reference.
    let Some(found) = (unsafe { key.as_ref() }).and_then(set) else {
        return 0;
    };
    let mut is_free = 0;
    for way in 0..AttemptSet::WAYS {
        // As in `tg_has_tag`; the tag of a place that is taken is odd.
        is_free |= core::hint::black_box(tag(found.set, way).load() ^ 1) & 1;
    }
    is_free ^ 1
}

/// Stands for a key that is nowhere: a way that there is not.
const NOWHERE: u64 = 0xff;

/// Where the attempt of `key` is: the set's index, and in the low byte the way. It was looked at now.
///
/// A global function, as the stages are (docs/adr/0004-stages.md).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_find_attempt(key: *const FlowKey) -> u64 {
    // SAFETY: the caller's reference.
    let Some(key) = (unsafe { key.as_ref() }) else {
        return NOWHERE;
    };
    let Some(found) = set(key) else {
        return NOWHERE;
    };
    for way in 0..AttemptSet::WAYS {
        let word = tag(found.set, way);
        let seen = word.load();
        if AttemptSet::is_of(seen, found.hash) && place(found.set, way).key == *key {
            let now = AttemptSet::renewed(seen, tick());
            if now != seen {
                let _other_was_quicker = word.replace(seen, now);
            }
            return (u64::from(found.index) << 8) | way as u64;
        }
    }
    NOWHERE
}

/// Takes a free place, or that of who gives way first. 0 if it could not: where another CPU was
/// quicker twice, the set is in great demand.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_put_attempt(key: *const FlowKey, attempt: *const Attempt) -> u32 {
    // SAFETY: the caller's references.
    let (Some(key), Some(attempt)) = (unsafe { (key.as_ref(), attempt.as_ref()) }) else {
        return 0;
    };
    let Some(found) = set(key) else {
        return 0;
    };
    let now = tick();
    for _ in 0..2 {
        let mut strangers = 0;
        for way in 0..AttemptSet::WAYS {
            strangers += AttemptSet::strangers(tag(found.set, way).load());
        }
        // Hidden from LLVM, or it gives each count a way of its own through what follows.
        let is_flooded = AttemptSet::is_flooded(core::hint::black_box(strangers));
        let (mut first, mut victim, mut seen) = (0, 0, 0);
        for way in 0..AttemptSet::WAYS {
            let tag = tag(found.set, way).load();
            let rank = AttemptSet::gives_way(tag, now, is_flooded);
            if rank >= first {
                (first, victim, seen) = (rank, way, tag);
            }
        }
        // Hidden from LLVM, or it drops the comparison that shows the verifier the bound.
        let victim = core::hint::black_box(victim);
        if victim >= AttemptSet::WAYS {
            return 0;
        }
        let own = AttemptSet::tag(found.hash, now, attempt.connection.identity[0]);
        if tag(found.set, victim).replace(seen, own) {
            // Whoever asks in between, or where two CPUs take the place at once, may miss the attempt and open it anew.
            if let Some(filter) = TG_WHEREABOUTS.get_ptr_mut(found.index) {
                // SAFETY: an element of the array lives as long as the map; one byte is written.
                unsafe { (&raw mut (*filter).marks[victim]).write_volatile(AttemptFilter::mark(found.hash)) };
            }
            let place = place(found.set, victim);
            copy::<KEY_WORDS>(bytemuck::cast_ref(key), bytemuck::cast_mut(&mut place.key));
            copy::<ATTEMPT_WORDS>(bytemuck::cast_ref(attempt), bytemuck::cast_mut(&mut place.attempt));
            return 1;
        }
    }
    0
}

const KEY_WORDS: usize = size_of::<FlowKey>() / size_of::<u64>();
const ATTEMPT_WORDS: usize = size_of::<Attempt>() / size_of::<u64>();

/// Word by word: LLVM would read all before it writes any, and the stack has no room for that.
#[inline(always)]
fn copy<const N: usize>(from: &[u64; N], into: &mut [u64; N]) {
    for (from, into) in from.iter().zip(into) {
        // SAFETY: references to words.
        unsafe { (&raw mut *into).write_volatile((&raw const *from).read_volatile()) };
    }
}
