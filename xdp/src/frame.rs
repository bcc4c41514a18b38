//! A frame as XDP shows it: the first buffer directly, the rest by copy.

use crate::buffer;
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::programs::XdpContext;
use datapath::frame::Frame;

/// What the kernel hands to the program.
pub type Context = xdp_md;
/// The frame of this program.
pub type HookFrame = XdpFrame;

/// The frame of a context.
pub struct XdpFrame(XdpContext);

impl XdpFrame {
    /// Of the context that the kernel passed in.
    #[inline(always)]
    pub fn new(ctx: *mut Context) -> Self {
        Self(XdpContext::new(ctx))
    }

    /// Bytes of the first buffer.
    #[inline(always)]
    pub fn linear(&self) -> usize {
        self.0.data_end() - self.0.data()
    }

    /// [`Frame::header`], to write to.
    #[inline(always)]
    pub fn header_mut<const N: usize>(&self, offset: usize) -> Option<&mut [u8; N]> {
        // SAFETY: as for header; nobody else has the frame while the program runs.
        unsafe { buffer::header_mut(self.0.data(), self.0.data_end(), offset) }
    }

    /// The context.
    #[inline(always)]
    pub fn context(&self) -> *mut Context {
        self.0.ctx
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn header<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        // SAFETY: the context is the one the kernel passed in, and the frame lives as long as it.
        unsafe { buffer::header(self.0.data(), self.0.data_end(), offset) }
    }

    #[inline(always)]
    fn copy<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if let Some(bytes) = self.header(offset) {
            return Some(*bytes);
        }
        let mut bytes = [0; N];
        // SAFETY: the context is the one the kernel passed in; it writes N bytes, which is what there is room for.
        let failed =
            unsafe { bpf_xdp_load_bytes(self.0.ctx, offset as u32, bytes.as_mut_ptr().cast(), N as u32) };
        if failed == 0 { Some(bytes) } else { None }
    }

    #[inline(always)]
    fn copy_to<const N: usize>(&self, offset: usize, len: u32, into: &mut [u8; N]) -> bool {
        let Some(len) = buffer::within(len, N) else {
            return false;
        };
        // SAFETY: the context is the one the kernel passed in; it writes len bytes, and into has room for as many.
        let failed = unsafe { bpf_xdp_load_bytes(self.0.ctx, offset as u32, into.as_mut_ptr().cast(), len) };
        failed == 0
    }

    #[inline(always)]
    fn len(&self) -> usize {
        // SAFETY: the context is the one the kernel passed in.
        unsafe { bpf_xdp_get_buff_len(self.0.ctx) as usize }
    }

    #[inline(always)]
    fn holds(&self, end: usize) -> bool {
        self.linear() >= end || self.len() >= end
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context is the one the kernel passed in.
        unsafe { (*self.0.ctx).ingress_ifindex }
    }
}
