//! The maps of the programs that watch local workloads.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, LruHashMap, PerCpuArray, RingBuf};
use datapath::abi::{Deed, HostCount, HostEvent};

/// The watched cgroups, by id.
#[map]
pub static TG_WATCHED: HashMap<u64, u32> = HashMap::with_max_entries(4096, 0);
/// What was told. When it is full, what was done longest ago is told again when it is done again.
#[map]
static TG_DEEDS: LruHashMap<Deed, u32> = LruHashMap::with_max_entries(16_384, 0);
/// What is told.
#[map]
static TG_HOST_EVENTS: RingBuf = RingBuf::with_byte_size(256 << 10, 0);
/// By [`HostCount`].
#[map]
static TG_HOST_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(HostCount::COUNT, 0);
/// A deed is too large for the stack.
#[map]
static TG_DRAFT: PerCpuArray<Deed> = PerCpuArray::with_max_entries(1, 0);

/// Counts a deed, and tells of it where it is the first. `fill` writes it over zeroes, and says whether that went well.
#[inline(always)]
pub fn tell(time_ns: u64, pid: u32, fill: impl FnOnce(&mut Deed) -> bool) {
    let Some(draft) = TG_DRAFT.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's element; programs of this kind do not interrupt each other on a CPU, and at worst a name is another's.
    let deed = unsafe {
        core::ptr::write_bytes(draft, 0, 1);
        &mut *draft
    };
    if !fill(deed) {
        return;
    }
    count(HostCount::Seen);
    if TG_DEEDS.get_ptr(&*deed).is_some() {
        return;
    }
    let Some(mut entry) = TG_HOST_EVENTS.reserve::<HostEvent>(0) else {
        // Not noted: it is told when it is done again and there is room.
        return count(HostCount::Lost);
    };
    let event = entry.as_mut_ptr();
    // SAFETY: reserved memory of the right size and alignment; every byte is written.
    unsafe {
        (*event).time_ns = time_ns;
        (*event).pid = pid;
        (*event)._pad = 0;
        (*event).deed = *deed;
    }
    entry.submit(0);
    count(HostCount::Told);
    let _full_makes_room = TG_DEEDS.insert(&*deed, &1, 0);
}

#[inline(always)]
fn count(what: HostCount) {
    if let Some(count) = TG_HOST_COUNTS.get_ptr_mut(what as u32) {
        // SAFETY: a per-CPU element, alive until the program returns.
        unsafe { *count += 1 };
    }
}
