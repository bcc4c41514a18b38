//! What a frame says, and where it is.

use crate::DIRECTION;
use crate::frame::{Context, HookFrame};
use crate::maps::{KernelRules, plane};
use datapath::abi::Packet;
use datapath::abi::packet::Trace;
use datapath::wire::tcp;
use datapath::{judge, scope};

/// [`judge::network`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_network(ctx: *mut Context, trace: *mut Trace) -> u32 {
    // SAFETY: the caller's reference.
    if let Some(trace) = unsafe { trace.as_mut() } {
        judge::network(&HookFrame::new(ctx), trace);
    }
    0
}

/// [`judge::transport`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_transport(ctx: *mut Context, trace: *mut Trace) -> u32 {
    // SAFETY: the caller's reference.
    if let Some(trace) = unsafe { trace.as_mut() } {
        judge::transport(&HookFrame::new(ctx), trace);
    }
    0
}

/// [`tcp::announced`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_announced(ctx: *mut Context, packet: *mut Packet) -> u32 {
    // SAFETY: the caller's reference.
    match unsafe { packet.as_mut() } {
        Some(packet) => u32::from(tcp::announced(&HookFrame::new(ctx), packet).is_ok()),
        None => 0,
    }
}

/// [`judge::tunnel`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_tunnel(ctx: *mut Context, trace: *mut Trace) -> u32 {
    // SAFETY: the caller's reference.
    if let Some(trace) = unsafe { trace.as_mut() } {
        judge::tunnel(&HookFrame::new(ctx), DIRECTION, &mut plane(), trace);
    }
    0
}

/// [`judge::carried`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_carried(ctx: *mut Context, trace: *mut Trace) -> u32 {
    // SAFETY: the caller's reference.
    if let Some(trace) = unsafe { trace.as_mut() } {
        judge::carried(&HookFrame::new(ctx), trace);
    }
    0
}

/// [`scope::note`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_place(ctx: *mut Context, trace: *mut Trace) -> u32 {
    // SAFETY: the caller's reference.
    if let Some(trace) = unsafe { trace.as_mut() } {
        scope::note(&HookFrame::new(ctx), DIRECTION, &KernelRules, trace);
    }
    0
}
