//! A frame as XDP shows it: the first buffer directly, the rest by copy.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::programs::XdpContext;
use datapath::abi::Direction;
use datapath::frame::Frame;

/// Beyond this no header is read: it tells the verifier that an offset is small. No power of two, for which LLVM tests a
/// bit from which the verifier learns nothing ("offset is outside of the packet", 6.18).
const MAX_OFFSET: usize = 20_000;

/// What the kernel hands to the program.
pub type Context = xdp_md;
/// The frame of this program.
pub type HookFrame = XdpFrame;
/// The way that this program judges.
pub const DIRECTION: Direction = Direction::Ingress;

/// The frame of a context.
pub struct XdpFrame(XdpContext);

impl XdpFrame {
    /// Of the context that the kernel passed in.
    #[inline(always)]
    pub fn new(ctx: *mut Context) -> Self {
        Self(XdpContext::new(ctx))
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
        let start = self.0.data();
        if offset > MAX_OFFSET || start + offset + N > self.0.data_end() {
            return None;
        }
        // SAFETY: the N bytes lie between data and data_end, which was just checked, and bytes have no alignment.
        Some(unsafe { &*((start + offset) as *const [u8; N]) })
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
        // One less, and hidden from LLVM, so that the verifier sees the bounds ("invalid zero-sized read", 6.18).
        let less = core::hint::black_box(u64::from(len).wrapping_sub(1));
        if less >= N as u64 {
            return false;
        }
        // SAFETY: the context is the one the kernel passed in; it writes less + 1 bytes, and into has room for as many.
        let failed = unsafe {
            bpf_xdp_load_bytes(self.0.ctx, offset as u32, into.as_mut_ptr().cast(), (less + 1) as u32)
        };
        failed == 0
    }

    #[inline(always)]
    fn len(&self) -> usize {
        // SAFETY: the context is the one the kernel passed in.
        unsafe { bpf_xdp_get_buff_len(self.0.ctx) as usize }
    }

    #[inline(always)]
    fn holds(&self, end: usize) -> bool {
        self.0.data_end() - self.0.data() >= end || self.len() >= end
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context is the one the kernel passed in.
        unsafe { (*self.0.ctx).ingress_ifindex }
    }
}
