//! The XDP program: judges every frame that enters the gateway.
#![no_std]
#![no_main]

mod maps;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_boot_ns, bpf_xdp_get_buff_len};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use datapath::abi::{Action, Direction};
use datapath::frame::Frame;
use datapath::judge::judge;

/// Beyond this no header is read: it tells the verifier that an offset is small. No power of two, for which LLVM tests a
/// bit from which the verifier learns nothing ("offset is outside of the packet", 6.18).
const MAX_OFFSET: usize = 20_000;

struct XdpFrame(XdpContext);

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

/// Judges what enters.
#[xdp(frags)]
#[inline(always)]
pub fn tidegate_xdp(ctx: XdpContext) -> u32 {
    let action = judge(&XdpFrame(ctx), Direction::Ingress, &mut maps::plane(), maps::trace);
    match action {
        Action::Dropped => XDP_DROP,
        Action::Forwarded | Action::Audit => XDP_PASS,
    }
}

/// Writes ticks and boot clock into the first 16 bytes, so that the loader can hold one against the other.
#[xdp]
pub fn tidegate_clock(ctx: XdpContext) -> u32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + 16 <= end {
        let out = start as *mut [u64; 2];
        // SAFETY: sixteen bytes lie between data and data_end; the helpers only read clocks.
        unsafe { out.write_unaligned([bpf_jiffies64(), bpf_ktime_get_boot_ns()]) };
    }
    XDP_PASS
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
