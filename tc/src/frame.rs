//! A frame as TC shows it: the linear part directly, the rest by copy.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_skb_load_bytes, bpf_skb_pull_data};
use datapath::abi::Direction;
use datapath::frame::Frame;

/// Beyond this no header is read: it tells the verifier that an offset is small. No power of two, for which LLVM tests a
/// bit from which the verifier learns nothing ("offset is outside of the packet", 6.18).
const MAX_OFFSET: usize = 20_000;
/// Headers and a TLS record's start, which must lie in the linear part.
const WANTED: u32 = 256;

/// What the kernel hands to the program.
pub type Context = __sk_buff;
/// The frame of this program.
pub type HookFrame = SkbFrame;
/// The way that this program judges.
pub const DIRECTION: Direction = Direction::Egress;

/// The frame of an skb.
pub struct SkbFrame(*mut Context);

impl SkbFrame {
    /// Of the context that the kernel passed in.
    #[inline(always)]
    pub fn new(ctx: *mut Context) -> Self {
        Self(ctx)
    }

    /// The context.
    #[inline(always)]
    pub fn context(&self) -> *mut Context {
        self.0
    }

    #[inline(always)]
    fn data(&self) -> usize {
        // SAFETY: the context is the one the kernel passed in.
        unsafe { (*self.0).data as usize }
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        // SAFETY: the context is the one the kernel passed in.
        unsafe { (*self.0).data_end as usize }
    }

    /// The interface by which the packet came into the host, 0 if the host sends it.
    #[inline(always)]
    pub fn came_in_by(&self) -> u32 {
        // SAFETY: the context is the one the kernel passed in.
        unsafe { (*self.0).ingress_ifindex }
    }

    /// Segments that the host sends may keep all but the link header in pages: pull in what the path reads.
    #[inline(always)]
    pub fn linearize(&self) {
        let len = self.len() as u32;
        let wanted = if len < WANTED { len } else { WANTED };
        if self.data_end() - self.data() < wanted as usize {
            // SAFETY: the context is the one the kernel passed in. On failure the path sees a shorter frame.
            let _short_frame = unsafe { bpf_skb_pull_data(self.0, wanted) };
        }
    }
}

impl Frame for SkbFrame {
    #[inline(always)]
    fn header<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        let start = self.data();
        if offset > MAX_OFFSET || start + offset + N > self.data_end() {
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
            unsafe { bpf_skb_load_bytes(self.0.cast(), offset as u32, bytes.as_mut_ptr().cast(), N as u32) };
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
            bpf_skb_load_bytes(self.0.cast(), offset as u32, into.as_mut_ptr().cast(), (less + 1) as u32)
        };
        failed == 0
    }

    #[inline(always)]
    fn len(&self) -> usize {
        // SAFETY: the context is the one the kernel passed in.
        unsafe { (*self.0).len as usize }
    }

    #[inline(always)]
    fn holds(&self, end: usize) -> bool {
        self.len() >= end
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context is the one the kernel passed in.
        unsafe { (*self.0).ifindex }
    }
}
