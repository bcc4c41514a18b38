//! A frame as TC shows it: the linear part directly, the rest by copy.

use crate::DIRECTION;
use crate::buffer;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_skb_load_bytes, bpf_skb_pull_data};
use datapath::abi::Direction;
use datapath::frame::Frame;
use datapath::mark;
use datapath::weight::Gso;

/// Headers and a TLS record's start, which must lie in the linear part.
const WANTED: u32 = 256;

/// What the kernel hands to the program.
pub type Context = __sk_buff;
/// The frame of this program.
pub type HookFrame = SkbFrame;

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
    #[allow(dead_code)] // who judges what enters knows
    #[inline(always)]
    pub fn came_in_by(&self) -> u32 {
        // SAFETY: the context is the one the kernel passed in.
        unsafe { (*self.0).ingress_ifindex }
    }

    /// Segments may keep all but the link header in pages: pull in what the slow path reads.
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
        // SAFETY: the context is the one the kernel passed in, and the frame lives as long as it.
        unsafe { buffer::header(self.data(), self.data_end(), offset) }
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
        let Some(len) = buffer::within(len, N) else {
            return false;
        };
        // SAFETY: the context is the one the kernel passed in; it writes len bytes, and into has room for as many.
        let failed =
            unsafe { bpf_skb_load_bytes(self.0.cast(), offset as u32, into.as_mut_ptr().cast(), len) };
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

    #[inline(always)]
    fn tag_beside(&self) -> Option<u16> {
        // SAFETY: the context is the one the kernel passed in.
        let (there, tag) = unsafe { ((*self.0).vlan_present, (*self.0).vlan_tci) };
        if there != 0 { Some(tag as u16) } else { None }
    }

    #[inline(always)]
    fn note_sender(&self, mask: u32, identity: u32) {
        if mask != 0 && matches!(DIRECTION, Direction::Ingress) {
            // SAFETY: the context is the one the kernel passed in, and the program may write the mark.
            unsafe { (*self.0).mark = (*self.0).mark & !mask | mark::bits(mask, identity) };
        }
    }

    #[inline(always)]
    fn gso(&self) -> Gso {
        // SAFETY: the context is the one the kernel passed in.
        unsafe { Gso { segments: (*self.0).gso_segs, size: (*self.0).gso_size } }
    }
}
