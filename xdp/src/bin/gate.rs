//! The gate: what stands among the programs of libxdp's dispatcher in the place of `tidegate_xdp`, which libbpf could not
//! load. It goes on in the program that the loader has put behind it, and is never changed while it stands there.
#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::btf_maps::ProgramArray;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;

/// The program behind the gate. Of BTF, for libbpf knows no other maps.
#[btf_map]
static TG_GATE: ProgramArray<1> = ProgramArray::new();

/// Has `tidegate_xdp` judge. Where nothing is behind the gate, packets pass as if it were not there: the kernel empties the
/// array once nobody holds and nothing pins it, which is how pins that are removed take any program off.
#[xdp(frags)]
pub fn tidegate_gate(ctx: XdpContext) -> u32 {
    // SAFETY: nothing of this function has to be dropped.
    unsafe { TG_GATE.tail_call(&ctx, 0) };
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
