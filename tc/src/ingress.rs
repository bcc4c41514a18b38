//! The other TC program: judges what enters, where XDP would cost more than it saves (docs/adr/0014-ingress-at-tc.md).
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
mod reject;
#[path = "../../xdp/src/stages/mod.rs"]
mod stages;

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use datapath::abi::{Action, Direction};
use datapath::frame::Frame;
use datapath::judge::judge;
use frame::SkbFrame;

/// The way that this program judges.
const DIRECTION: Direction = Direction::Ingress;

/// Judges what enters. The kernel keeps fifteen letters of its name.
#[classifier]
#[inline(always)]
pub fn tidegate_tc_in(ctx: TcContext) -> i32 {
    let frame = SkbFrame::new(ctx.skb.skb);
    // The trace tells of this packet only if the path asked for it.
    let mut is_traced = false;
    let trace = || {
        is_traced = true;
        frame.linearize();
        maps::trace()
    };
    match judge(&frame, DIRECTION, &mut maps::plane(), trace) {
        // SAFETY: the helper notes where the packet goes, and returns the action that sends it there.
        Action::Dropped if is_traced && reject::is_asked() && reject::tg_reject(frame.context()) != 0 => unsafe {
            bpf_redirect(frame.ifindex(), 0) as i32
        },
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
