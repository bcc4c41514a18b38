//! Attempts: `TG_HALF_OPEN` and `TG_WHEREABOUTS`, mapped into our memory, because the programs take and give away its places meanwhile and no
//! system call could change one place of a set and leave its neighbours alone.

use crate::error::{Error, Result};
use aya::maps::{Map, MapData};
use bytemuck::Zeroable;
use datapath::abi::{Attempt, AttemptFilter, AttemptPlace, AttemptSet, Config, FlowKey};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

const WORD: usize = size_of::<u64>();
const SET_WORDS: usize = size_of::<AttemptSet>() / WORD;
const PLACE_WORDS: usize = size_of::<AttemptPlace>() / WORD;
const FILTER_WORDS: usize = size_of::<AttemptFilter>() / WORD;
const ANSWERED: usize = core::mem::offset_of!(AttemptFilter, answered) / WORD;
const FIRST_PLACE: usize = core::mem::offset_of!(AttemptSet, places) / WORD;

/// Connections that were not answered yet.
pub struct Attempts {
    sets: Memory,
    filters: Memory,
}

/// A map's memory: words that the programs change too.
struct Memory {
    start: *mut core::ffi::c_void,
    words: usize,
    /// Keeps the map alive.
    _map: MapData,
}

// SAFETY: the memory is shared with the kernel anyway; it is only used as atomic words.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps an array of values of so many words.
    fn of((name, map): (&'static str, Map), value_words: usize) -> Result<Self> {
        let Map::Array(map) = map else {
            return Err(Error::Missing { what: format!("array {name}") });
        };
        let info = map.info().map_err(|source| Error::Map { map: name, source })?;
        let words = info.max_entries() as usize * value_words;
        // SAFETY: a mapping at an address that the kernel chooses; its memory is nobody else's.
        let mapped = unsafe {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            mmap(std::ptr::null_mut(), words * WORD, protection, MapFlags::SHARED, map.fd().as_fd(), 0)
        };
        let start =
            mapped.map_err(|errno| Error::Map { map: name, source: std::io::Error::from(errno).into() })?;
        Ok(Self { start, words, _map: map })
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: as many words are mapped until self is dropped, aligned to a page; atomics may be shared with others.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.words) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this length; nobody holds a slice of it any more.
        let _ = unsafe { munmap(self.start, self.words * WORD) };
    }
}

impl Attempts {
    pub(super) fn new(sets: (&'static str, Map), filters: (&'static str, Map)) -> Result<Self> {
        Ok(Self { sets: Memory::of(sets, SET_WORDS)?, filters: Memory::of(filters, FILTER_WORDS)? })
    }

    /// All attempts. One that comes or goes meanwhile may be missed.
    pub fn entries(&self, config: &Config) -> HashMap<FlowKey, Attempt> {
        self.places().filter_map(|place| place.read(config)).collect()
    }

    /// The attempt of a key.
    pub fn get(&self, key: &FlowKey, config: &Config) -> Option<Attempt> {
        let mut found = self.places_of(key, config).filter_map(|place| place.read(config));
        found.find(|(other, _)| other == key).map(|(_, attempt)| attempt)
    }

    /// Forgets the attempt of a key; returns whether it was there.
    pub fn remove(&self, key: &FlowKey, config: &Config) -> bool {
        self.places_of(key, config).any(|place| {
            let tag = place.tag.load(Ordering::Acquire);
            let is_its = place.read(config).is_some_and(|(other, _)| other == *key);
            is_its && place.tag.compare_exchange(tag, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.places().for_each(|place| place.tag.store(0, Ordering::Release));
    }

    /// Clears the filters that are not asked: see [`AttemptFilter::answered`].
    pub fn clear_spare_filters(&self, config: &Config) {
        let asked = u64::from(u32::MAX) << config.answered_shift;
        self.filters().for_each(|filters| _ = filters.fetch_and(asked, Ordering::AcqRel));
    }

    /// Notes an answered connection in both filters of its set.
    pub fn note_answered(&self, key: &FlowKey, config: &Config) {
        let hash = key.hash(&config.hash_keys);
        let mut filters = self.filters().skip((hash & config.attempt_mask) as usize);
        if let Some(filters) = filters.next() {
            filters.fetch_or(AttemptFilter::answered(hash), Ordering::AcqRel);
        }
    }

    /// Bits of the filters that are asked: at most one for each connection that was answered since they were made.
    pub fn answered_bits(&self, config: &Config) -> u32 {
        let bits = |filters: &AtomicU64| (filters.load(Ordering::Relaxed) >> config.answered_shift) as u32;
        self.filters().map(|filters| bits(filters).count_ones()).sum()
    }

    fn filters(&self) -> impl Iterator<Item = &AtomicU64> {
        self.filters.words().iter().skip(ANSWERED).step_by(FILTER_WORDS)
    }

    /// How many attempts there are.
    pub fn len(&self) -> usize {
        self.places().filter(|place| place.tag.load(Ordering::Relaxed) != 0).count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many fit.
    pub fn max_entries(&self) -> u32 {
        self.sets() * AttemptSet::WAYS as u32
    }

    /// How many sets there are.
    pub fn sets(&self) -> u32 {
        (self.sets.words / SET_WORDS) as u32
    }

    fn places(&self) -> impl Iterator<Item = Place<'_>> {
        self.sets.words().chunks_exact(SET_WORDS).flat_map(Place::all)
    }

    fn places_of(&self, key: &FlowKey, config: &Config) -> impl Iterator<Item = Place<'_>> {
        let set = (key.hash(&config.hash_keys) & config.attempt_mask) as usize;
        self.sets.words().chunks_exact(SET_WORDS).skip(set).take(1).flat_map(Place::all)
    }
}

/// A place, as words that others change.
struct Place<'a> {
    tag: &'a AtomicU64,
    words: &'a [AtomicU64],
}

impl<'a> Place<'a> {
    fn all(set: &'a [AtomicU64]) -> impl Iterator<Item = Self> {
        set.iter().zip(set[FIRST_PLACE..].chunks_exact(PLACE_WORDS)).map(|(tag, words)| Self { tag, words })
    }

    /// Who is there, unless it comes or goes at this moment.
    fn read(&self, config: &Config) -> Option<(FlowKey, Attempt)> {
        let tag = self.tag.load(Ordering::Acquire);
        if tag == 0 {
            return None;
        }
        let mut place = AttemptPlace::zeroed();
        let words: &mut [u64] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut place));
        for (mine, theirs) in words.iter_mut().zip(self.words) {
            *mine = theirs.load(Ordering::Relaxed);
        }
        let is_there = AttemptSet::is_of(self.tag.load(Ordering::Acquire), place.key.hash(&config.hash_keys));
        is_there.then_some((place.key, place.attempt))
    }
}
