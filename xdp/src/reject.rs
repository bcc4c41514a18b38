//! Answers to rejected packets: the frame is made its own answer and sent back the way it came.

use crate::frame::{Context, XdpFrame};
use crate::maps::{plane, trace};
use aya_ebpf::helpers::generated::{
    bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
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
        Some(trace) => u32::from(answer(&mut XdpFrame::new(ctx), &mut plane(), trace)),
        None => 0,
    }
}

impl Answer for XdpFrame {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize, into: &mut [u8; N]) -> bool {
        let to = into.as_mut_ptr().cast();
        // SAFETY: the context is the one the kernel passed in; it writes N bytes, which is what there is room for.
        unsafe { bpf_xdp_load_bytes(self.context(), offset as u32, to, N as u32) == 0 }
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: usize, bytes: &[u8; N]) -> bool {
        let from = bytes.as_ptr().cast_mut().cast();
        // SAFETY: the context is the one the kernel passed in; it reads N bytes, which is what there is.
        unsafe { bpf_xdp_store_bytes(self.context(), offset as u32, from, N as u32) == 0 }
    }

    #[inline(always)]
    fn grow(&mut self, bytes: usize) -> bool {
        // SAFETY: the context is the one the kernel passed in, and pointers into the frame are taken anew from it.
        unsafe { bpf_xdp_adjust_head(self.context(), -(bytes as i32)) == 0 }
    }

    #[inline(always)]
    fn cut(&mut self, len: usize) -> bool {
        let change = len as i32 - self.len() as i32;
        // SAFETY: as above.
        change <= 0 && unsafe { bpf_xdp_adjust_tail(self.context(), change) == 0 }
    }
}
