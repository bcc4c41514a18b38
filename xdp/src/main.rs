//! The XDP program: judges every frame that enters the gateway.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod attempts;
mod buffer;
mod forward;
mod frame;
mod maps;
mod memos;
mod reject;
mod stages;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_boot_ns};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use datapath::abi::{Action, Direction};
use datapath::judge::judge;
use frame::XdpFrame;

/// The way that this program judges.
const DIRECTION: Direction = Direction::Ingress;

/// Judges what enters.
#[xdp(frags)]
#[inline(always)]
pub fn tidegate_xdp(ctx: XdpContext) -> u32 {
    // The trace tells of this packet only if the path asked for it.
    let mut is_traced = false;
    let trace = || {
        is_traced = true;
        maps::trace()
    };
    let action = judge(&XdpFrame::new(ctx.ctx), DIRECTION, &mut maps::plane(), trace);
    match action {
        Action::Dropped if is_traced && reject::is_asked() && reject::tg_reject(ctx.ctx) != 0 => XDP_TX,
        Action::Dropped => XDP_DROP,
        Action::Forwarded | Action::Audit if forward::is_on() => forward::tg_forward(ctx.ctx),
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
