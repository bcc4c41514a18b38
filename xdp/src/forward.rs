//! Forwarding by XDP itself: a plain packet that passed is routed by the kernel's table and sent, without a socket buffer.
//!
//! All that is not plainly so goes on to Linux, untouched. Nothing is changed in a frame before it is certain that it
//! goes out here.

use crate::frame::{Context, XdpFrame};
use crate::maps::{TG_CONFIG, TG_JUDGED_PORTS, plane};
use aya_ebpf::bindings::bpf_fib_lookup as Fib;
use aya_ebpf::bindings::xdp_action::{XDP_PASS, XDP_REDIRECT};
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use aya_ebpf::macros::map;
use aya_ebpf::maps::DevMapHash;
use datapath::abi::{Config, Direction, Reason};
use datapath::forward::{hop_v4, is_plain_v4, is_plain_v6};
use datapath::frame::Frame;
use datapath::tables::Sink;
use datapath::wire::{eth, proto};

/// Interfaces by which XDP may send: judged ones whose driver takes frames. By index.
#[map]
static TG_REDIRECT: DevMapHash = DevMapHash::pinned(1024, 0);

const LINK: usize = 14;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Double words are cleared whole, before any part of one is written: LLVM would clear what is left by double words at half
/// of one, which the verifier refuses ("misaligned stack access", 6.18).
#[repr(C, align(8))]
struct Aligned(Fib);

/// Whether XDP forwards at all.
#[inline(always)]
pub fn is_on() -> bool {
    TG_CONFIG.get(0).is_some_and(|config| config.has(Config::FORWARD))
}

/// Routes a frame whose packet passed, and changes it for its next hop. Returns the program's action.
///
/// A global function, as the stages are.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_forward(ctx: *mut Context) -> u32 {
    let frame = XdpFrame::new(ctx);
    let Some(link) = frame.header::<LINK>(0) else {
        return XDP_PASS;
    };
    // The frame is whole in its first buffer, and it was sent to us.
    if frame.len() != frame.linear() || !is_for(&frame, link) {
        return XDP_PASS;
    }
    // SAFETY: all zeroes are a value of this plain structure of numbers.
    let mut aligned: Aligned = unsafe { core::mem::zeroed() };
    let fib = &mut core::hint::black_box(&mut aligned).0;
    fib.ifindex = frame.ifindex();
    // Padding counts: the driver refuses a frame by its length.
    fib.__bindgen_anon_1.tot_len = (frame.len() - LINK) as u16;
    match u16::from_be_bytes([link[12], link[13]]) {
        eth::IPV4 => ipv4(ctx, &frame, fib),
        eth::IPV6 => ipv6(ctx, &frame, fib),
        _ => XDP_PASS,
    }
}

/// Whether a frame is addressed to the interface by which it came in.
#[inline(always)]
fn is_for(frame: &XdpFrame, link: &[u8; LINK]) -> bool {
    let Some(port) = TG_JUDGED_PORTS.get_ptr(frame.ifindex()) else {
        return false;
    };
    // SAFETY: the kernel keeps the element's memory until the program returns. User space may write it: then the frame
    // is for us by the old address or by the new, or Linux looks at it.
    let mac = unsafe { (*port).mac };
    link[..6] == mac
}

#[inline(always)]
fn ipv4(ctx: *mut Context, frame: &XdpFrame, fib: &mut Fib) -> u32 {
    let Some(h) = frame.header::<{ LINK + 20 }>(0).and_then(|h| h.last_chunk::<20>()) else {
        return XDP_PASS;
    };
    if !is_plain_v4(h, frame.len() - LINK) {
        return XDP_PASS;
    }
    fib.family = AF_INET;
    fib.__bindgen_anon_2.tos = h[1];
    fib.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes([h[12], h[13], h[14], h[15]]);
    fib.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes([h[16], h[17], h[18], h[19]]);
    let bytes = LINK as u64 + u64::from(u16::from_be_bytes([h[2], h[3]]));
    ports(frame, h[9], LINK + 20, fib);
    if !is_routed(ctx, fib, bytes) {
        return XDP_PASS;
    }
    let Some(out) = frame.header_mut::<{ LINK + 20 }>(0) else {
        return XDP_PASS;
    };
    address(out, fib);
    if let Some(h) = out.last_chunk_mut() {
        hop_v4(h);
    }
    XDP_REDIRECT
}

#[inline(always)]
fn ipv6(ctx: *mut Context, frame: &XdpFrame, fib: &mut Fib) -> u32 {
    let Some(h) = frame.header::<{ LINK + 40 }>(0).and_then(|h| h.last_chunk::<40>()) else {
        return XDP_PASS;
    };
    if !is_plain_v6(h, frame.len() - LINK) {
        return XDP_PASS;
    }
    let word = |at: usize| u32::from_ne_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]);
    fib.family = AF_INET6;
    fib.__bindgen_anon_2.flowinfo = word(0) & 0x0fff_ffff_u32.to_be();
    fib.__bindgen_anon_3.ipv6_src = [word(8), word(12), word(16), word(20)];
    fib.__bindgen_anon_4.ipv6_dst = [word(24), word(28), word(32), word(36)];
    let bytes = (LINK + 40) as u64 + u64::from(u16::from_be_bytes([h[4], h[5]]));
    ports(frame, h[6], LINK + 40, fib);
    if !is_routed(ctx, fib, bytes) {
        return XDP_PASS;
    }
    let Some(out) = frame.header_mut::<{ LINK + 40 }>(0) else {
        return XDP_PASS;
    };
    address(out, fib);
    out[LINK + 7] = out[LINK + 7].wrapping_sub(1);
    XDP_REDIRECT
}

/// Writes the hardware addresses of the next hop.
#[inline(always)]
fn address<const N: usize>(out: &mut [u8; N], fib: &Fib) {
    // SAFETY: the structure is aligned as a word and ends with both addresses, source first, at a word.
    let [s, between, d] = unsafe { (&raw const fib.smac).cast::<[u32; 3]>().read_volatile() };
    // By words: LLVM reads the second address by a word at half of one ("misaligned stack access", 6.18).
    let halves = [between >> 16 | d << 16, d >> 16 | s << 16, s >> 16 | between << 16];
    for (to, word) in out.chunks_exact_mut(4).zip(halves) {
        to.copy_from_slice(&word.to_le_bytes());
    }
}

/// Rules of the routing table may ask for ports, and so may a choice among several paths.
#[inline(always)]
fn ports(frame: &XdpFrame, protocol: u8, at: usize, fib: &mut Fib) {
    fib.l4_protocol = protocol;
    if matches!(protocol, proto::TCP | proto::UDP | proto::SCTP)
        && let Some(h) = frame.header::<4>(at)
    {
        fib.sport = u16::from_ne_bytes([h[0], h[1]]);
        fib.dport = u16::from_ne_bytes([h[2], h[3]]);
    }
}

/// Asks the routing table and the neighbours, and books the frame for the interface that they name. `false`: Linux is to
/// do it.
#[inline(always)]
fn is_routed(ctx: *mut Context, fib: &mut Fib, bytes: u64) -> bool {
    let came_in_by = fib.ifindex;
    // SAFETY: the context is the one the kernel passed in, the structure is whole and of the size that is said.
    let said = unsafe { bpf_fib_lookup(ctx.cast(), fib, size_of::<Fib>() as i32, 0) };
    // Back to where it came from is for Linux, which tells the sender of a shorter way (RFC 792, redirect).
    if said != 0 || fib.ifindex == came_in_by || TG_REDIRECT.redirect(fib.ifindex, XDP_PASS.into()).is_err() {
        return false;
    }
    plane().sink.count(fib.ifindex, Direction::Egress, Reason::Redirected as u8, false, 1, bytes);
    true
}
