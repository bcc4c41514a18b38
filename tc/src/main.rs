//! The TC program: judges what the gateway itself sends, and leaves alone what XDP has judged on its way in.
#![no_std]
#![no_main]

#[path = "../../xdp/src/maps.rs"]
mod maps;

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::generated::bpf_skb_pull_data;
use aya_ebpf::macros::{classifier, map};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::TcContext;
use datapath::abi::{Action, Direction, Reason};
use datapath::frame::Frame;
use datapath::judge::judge;
use datapath::tables::Sink;

/// Interfaces on which XDP judges: what came in there is not judged again on its way out.
#[map]
static TG_JUDGED_PORTS: HashMap<u32, u32> = HashMap::pinned(1024, 0);

/// Beyond this no header is read: it tells the verifier that an offset is small. No power of two, for which LLVM tests a
/// bit from which the verifier learns nothing ("offset is outside of the packet", 6.18).
const MAX_OFFSET: usize = 20_000;
/// Headers and a TLS record's start, which must lie in the linear part.
const WANTED: u32 = 256;

struct SkbFrame(*mut __sk_buff);

impl SkbFrame {
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

    /// Segments that the host sends may keep all but the link header in pages: pull in what the path reads.
    #[inline(always)]
    fn linearize(&self) {
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

/// Judges what leaves.
#[classifier]
#[inline(always)]
pub fn tidegate_tc(ctx: TcContext) -> i32 {
    let frame = SkbFrame(ctx.skb.skb);
    // SAFETY: the context is the one the kernel passed in.
    let came_in_by = unsafe { (*frame.0).ingress_ifindex };
    if came_in_by != 0 && TG_JUDGED_PORTS.get_ptr(came_in_by).is_some() {
        let bytes = frame.len() as u64;
        maps::plane().sink.count(
            frame.ifindex(),
            Direction::Egress,
            Reason::JudgedAtIngress as u8,
            false,
            bytes,
        );
        return TC_ACT_UNSPEC;
    }
    frame.linearize();
    let action = judge(&frame, Direction::Egress, &mut maps::plane(), maps::trace);
    match action {
        Action::Dropped => TC_ACT_SHOT,
        Action::Forwarded | Action::Audit => TC_ACT_UNSPEC,
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
