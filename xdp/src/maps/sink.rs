//! Counters and events.

use super::{TG_EVENT_BUDGET, TG_EVENTS, TG_HANDSHAKES, TG_HELLOS, TG_LOST, TG_PORTS, TG_SHADOW, TG_ZERO};
use datapath::abi::config::PortCounters;
use datapath::abi::{
    Answered, ClosedEvent, Direction, Event, EventBudget, HandshakeKey, HelloSegment, Lost, ShadowKey, Tally,
};
use datapath::frame::Frame;
use datapath::tables::Sink;

/// Counters and events.
pub struct KernelSink;

impl KernelSink {
    #[inline(always)]
    fn port(ifindex: u32) -> Option<*mut PortCounters> {
        let port = TG_PORTS.get_ptr_mut(PortCounters::slot(ifindex))?;
        // SAFETY: a per-CPU element, alive until the program returns; one aligned word is read.
        if unsafe { (*port).ifindex } == ifindex {
            return Some(port);
        }
        TG_PORTS.get_ptr_mut(PortCounters::SHARED)
    }
}

impl Sink for KernelSink {
    #[inline(always)]
    fn count(
        &mut self,
        ifindex: u32,
        direction: Direction,
        reason: u8,
        audited: bool,
        packets: u32,
        bytes: u64,
    ) {
        let Some(port) = Self::port(ifindex) else {
            return;
        };
        // SAFETY: this CPU's element, and nothing else runs on this CPU until the program returns.
        let port = unsafe { &mut *port };
        let count = &mut port.counts[direction as usize][PortCounters::index(reason, audited)];
        count.packets += u64::from(packets);
        count.bytes += bytes;
    }

    #[inline(always)]
    fn answered(&mut self, ifindex: u32, how: Answered) {
        if let Some(port) = Self::port(ifindex) {
            // SAFETY: this CPU's element, and nothing else runs on this CPU until the program returns.
            unsafe { (*port).answers[how as usize] += 1 };
        }
    }

    #[inline(always)]
    fn handshake(&mut self, key: &HandshakeKey, duration_ns: u64) {
        if TG_HANDSHAKES.get_ptr_mut(key).is_none() {
            let Some(zero) = TG_ZERO.get(0) else {
                return;
            };
            let _full_counts_as_lost = TG_HANDSHAKES.insert(key, zero, 0);
        }
        match TG_HANDSHAKES.get_ptr_mut(key) {
            // SAFETY: this CPU's element, and nothing else runs on this CPU until the program returns.
            Some(stats) => unsafe { (*stats).record(duration_ns) },
            None => self.lost(Lost::NoRoom),
        }
    }

    #[inline(always)]
    fn budget(&mut self, index: u32) -> Option<&mut EventBudget> {
        let budget = TG_EVENT_BUDGET.get_ptr_mut(index)?;
        // SAFETY: this CPU's element, and nothing else runs on this CPU until the program returns.
        Some(unsafe { &mut *budget })
    }

    #[inline(always)]
    fn shadow(&mut self, key: &ShadowKey) {
        if TG_SHADOW.get_ptr_mut(key).is_none() {
            let _full_counts_as_lost = TG_SHADOW.insert(key, &0, 0);
        }
        match TG_SHADOW.get_ptr_mut(key) {
            // SAFETY: this CPU's element, and nothing else runs on this CPU until the program returns.
            Some(count) => unsafe { *count += 1 },
            None => self.lost(Lost::NoRoom),
        }
    }

    #[inline(always)]
    fn lost(&mut self, why: Lost) {
        if let Some(lost) = TG_LOST.get_ptr_mut(why as u32) {
            // SAFETY: a per-CPU element, alive until the program returns.
            unsafe { *lost += 1 };
        }
    }

    #[inline(always)]
    fn tally(&mut self, what: Tally) {
        if let Some(count) = TG_LOST.get_ptr_mut(what as u32) {
            // SAFETY: a per-CPU element, alive until the program returns.
            unsafe { *count += 1 };
        }
    }

    #[inline(always)]
    fn event(&mut self, fill: impl FnOnce(&mut Event)) {
        match TG_EVENTS.reserve::<Event>(0) {
            Some(mut entry) => {
                // SAFETY: reserved memory of the right size and alignment, and all zeroes are an Event (it is Pod).
                fill(unsafe { zeroed(entry.as_mut_ptr()) });
                entry.submit(0);
            }
            None => self.lost(Lost::NoRoom),
        }
    }

    #[inline(always)]
    fn closed(&mut self, fill: impl FnOnce(&mut ClosedEvent)) {
        match TG_EVENTS.reserve::<ClosedEvent>(0) {
            Some(mut entry) => {
                // SAFETY: as above, for a ClosedEvent.
                fill(unsafe { zeroed(entry.as_mut_ptr()) });
                entry.submit(0);
            }
            None => self.lost(Lost::NoRoom),
        }
    }

    #[inline(always)]
    fn hello<F: Frame>(&mut self, frame: &F, from: usize, length: u32, fill: impl FnOnce(&mut HelloSegment)) {
        let Some(mut entry) = TG_HELLOS.reserve::<HelloSegment>(0) else {
            return self.lost(Lost::Hello);
        };
        // SAFETY: reserved memory of the right size and alignment, and any bytes are a HelloSegment (it is Pod).
        let segment = unsafe { &mut *entry.as_mut_ptr() };
        fill(segment);
        segment.length = length;
        if length == 0 || frame.copy_to(from, length, &mut segment.bytes) {
            entry.submit(0);
        } else {
            entry.discard(0);
        }
    }
}

/// # Safety
/// `at` points to memory for a `T` that nobody else uses, and a `T` may be all zeroes.
#[inline(always)]
unsafe fn zeroed<'a, T>(at: *mut T) -> &'a mut T {
    // SAFETY: by the caller's word.
    unsafe {
        core::ptr::write_bytes(at, 0, 1);
        &mut *at
    }
}
