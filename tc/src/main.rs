//! The TC program: judges what the gateway itself sends, and leaves alone what was judged on its way in.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

#[path = "../../xdp/src/attempts.rs"]
mod attempts;
#[path = "../../xdp/src/buffer.rs"]
mod buffer;
mod frame;
#[path = "../../xdp/src/maps/mod.rs"]
mod maps;
#[path = "../../xdp/src/memos.rs"]
mod memos;
#[path = "../../xdp/src/stages/mod.rs"]
mod stages;

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use datapath::abi::{Action, Direction};
use datapath::judge::judge;
use datapath::passing;
use frame::SkbFrame;

/// The way that this program judges.
const DIRECTION: Direction = Direction::Egress;

/// Judges what leaves.
#[classifier]
#[inline(always)]
pub fn tidegate_tc(ctx: TcContext) -> i32 {
    let frame = SkbFrame::new(ctx.skb.skb);
    let trace = || {
        frame.linearize();
        maps::trace()
    };
    let came_in_by = frame.came_in_by();
    if came_in_by != 0 && maps::TG_JUDGED_PORTS.get_ptr(came_in_by).is_some() {
        passing::count(&frame, DIRECTION, &mut maps::plane(), trace);
        return TC_ACT_UNSPEC;
    }
    match judge(&frame, DIRECTION, &mut maps::plane(), trace) {
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
