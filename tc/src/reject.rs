//! Answers to rejected packets: the socket buffer is made its own answer and sent back the way it came.

use crate::frame::{Context, SkbFrame};
use crate::maps::{plane, trace};
use aya_ebpf::helpers::generated::{
    bpf_l4_csum_replace, bpf_skb_change_head, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes,
};
use datapath::frame::Frame;
use datapath::reject::{self, Answer, answer};

/// [`datapath::reject::is_asked`], of the packet of the trace.
#[inline(always)]
pub fn is_asked() -> bool {
    trace().is_some_and(|trace| reject::is_asked(trace))
}

/// [`answer`], for the packet of the trace. Returns 1 if the frame is to be sent back.
///
/// A global function, as the stages are.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_reject(ctx: *mut Context) -> u32 {
    match trace() {
        Some(trace) => u32::from(answer(&mut SkbFrame::new(ctx), &mut plane(), trace)),
        None => 0,
    }
}

impl Answer for SkbFrame {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize, into: &mut [u8; N]) -> bool {
        let to = into.as_mut_ptr().cast();
        // SAFETY: the context is the one the kernel passed in; it writes N bytes, which is what there is room for.
        unsafe { bpf_skb_load_bytes(self.context().cast(), offset as u32, to, N as u32) == 0 }
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: usize, bytes: &[u8; N]) -> bool {
        let from = bytes.as_ptr().cast();
        // SAFETY: the context is the one the kernel passed in; it reads N bytes, which is what there is.
        unsafe { bpf_skb_store_bytes(self.context(), offset as u32, from, N as u32, 0) == 0 }
    }

    #[inline(always)]
    fn grow(&mut self, bytes: usize) -> bool {
        // SAFETY: the context is the one the kernel passed in, and pointers into the frame are taken anew from it.
        unsafe { bpf_skb_change_head(self.context(), bytes as u32, 0) == 0 }
    }

    #[inline(always)]
    fn cut(&mut self, len: usize) -> bool {
        // SAFETY: as above.
        len <= self.len() && unsafe { bpf_skb_change_tail(self.context(), len as u32, 0) == 0 }
    }

    /// No helper tells `CHECKSUM_PARTIAL`, but one leaves such a checksum as it is where it changes any other.
    #[inline(always)]
    fn owes_checksum(&mut self, at: usize) -> bool {
        let mut before = [0; 2];
        let mut after = [0; 2];
        if !self.load(at, &mut before) {
            return false;
        }
        // SAFETY: the context is the one the kernel passed in, and pointers into the frame are taken anew from it.
        let failed = unsafe { bpf_l4_csum_replace(self.context(), at as u32, 0, 1, 2) != 0 };
        if failed || !self.load(at, &mut after) {
            return false;
        }
        before == after || !self.store(at, &before)
    }
}
