//! What a packet changes in its connection, and what that was when it is over.

use crate::DIRECTION;
use crate::frame::{Context, HookFrame};
use crate::maps::{Kernel, KernelSink, KernelSlots, KernelSpill, plane};
use datapath::abi::packet::Trace;
use datapath::abi::{Connection, FlowKey, FlowRecord, Packet, Side};
use datapath::policy::Moment;
use datapath::{follow, hello, replaced, reset, track};

/// [`reset::check`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_reset(packet: *const Packet, index: u32) -> u32 {
    // SAFETY: the caller's reference.
    match unsafe { packet.as_ref() } {
        Some(packet) => reset::check::<HookFrame, Kernel>(DIRECTION, &mut plane(), packet, index),
        None => 0,
    }
}

/// [`reset::moved`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_moved(conn: *const Connection, key: *const FlowKey, index: u32, side: u32) -> u64 {
    let side = Side::of(side);
    // SAFETY: the caller's references.
    match unsafe { (conn.as_ref(), key.as_ref()) } {
        (Some(conn), Some(key)) => {
            let (slots, spill) = (&mut KernelSlots, &mut KernelSpill);
            reset::moved::<HookFrame, Kernel>(slots, spill, conn, key, index, side)
        }
        _ => 0,
    }
}

/// [`reset::counted`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_counted(
    conn: *const Connection,
    key: *const FlowKey,
    index: u32,
    cpu: u32,
    side: u32,
) -> u64 {
    let side = Side::of(side);
    // SAFETY: the caller's references.
    match unsafe { (conn.as_ref(), key.as_ref()) } {
        (Some(conn), Some(key)) => {
            reset::counted(&mut KernelSlots, &mut KernelSpill, conn, key, (index, cpu), side)
        }
        _ => 0,
    }
}

/// [`replaced::report`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_replaced(
    ctx: *mut Context,
    packet: *const Packet,
    moment: *const Moment,
    index: u32,
) -> u32 {
    // SAFETY: the caller's references.
    if let (Some(packet), Some(moment)) = unsafe { (packet.as_ref(), moment.as_ref()) } {
        replaced::report(&HookFrame::new(ctx), DIRECTION, &mut plane(), packet, moment, index);
    }
    0
}

/// [`replaced::add_up`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_add_up(total: *mut FlowRecord, key: *const FlowKey, index: u32, cpu: u32) -> u32 {
    // SAFETY: the caller's references.
    match unsafe { (total.as_mut(), key.as_ref()) } {
        (Some(total), Some(key)) => {
            replaced::add_up(&mut KernelSlots, &mut KernelSpill, total, key, index, cpu)
        }
        _ => 0,
    }
}

/// [`follow::follow`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_follow(ctx: *mut Context, trace: *const Trace, index: u32) -> u32 {
    // SAFETY: the caller's reference.
    if let Some(trace) = unsafe { trace.as_ref() } {
        follow::follow(&HookFrame::new(ctx), DIRECTION, &mut plane(), trace, index);
    }
    0
}

/// [`track::stream::note`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_stream(conn: *mut Connection, packet: *const Packet, record: *mut FlowRecord) -> u32 {
    // SAFETY: the caller's references.
    if let (Some(conn), Some(packet), Some(record)) =
        unsafe { (conn.as_mut(), packet.as_ref(), record.as_mut()) }
    {
        track::stream::note(conn, packet, record);
    }
    0
}

/// [`track::tls::payload`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_tls(
    ctx: *mut Context,
    conn: *mut Connection,
    packet: *const Packet,
    now_ns: u64,
) -> u32 {
    // SAFETY: the caller's references.
    if let (Some(conn), Some(packet)) = unsafe { (conn.as_mut(), packet.as_ref()) } {
        track::tls::payload(conn, &HookFrame::new(ctx), packet, now_ns);
    }
    0
}

/// [`hello::hand_up`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_hello(
    ctx: *mut Context,
    conn: *mut Connection,
    packet: *const Packet,
    now_ns: u64,
    done: u32,
) -> u32 {
    // SAFETY: the caller's references.
    if let (Some(conn), Some(packet)) = unsafe { (conn.as_mut(), packet.as_ref()) } {
        hello::hand_up(&HookFrame::new(ctx), &mut KernelSink, conn, packet, now_ns, done);
    }
    0
}

/// [`track::quic::datagram`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_quic(
    ctx: *mut Context,
    conn: *mut Connection,
    packet: *const Packet,
    now_ns: u64,
) -> u32 {
    // SAFETY: the caller's references.
    if let (Some(conn), Some(packet)) = unsafe { (conn.as_mut(), packet.as_ref()) } {
        track::quic::datagram(conn, &HookFrame::new(ctx), packet, now_ns);
    }
    0
}

/// [`follow::account`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_account(
    ctx: *mut Context,
    conn: *mut Connection,
    packet: *const Packet,
    moment: *const Moment,
) -> u32 {
    // SAFETY: the caller's references.
    if let (Some(conn), Some(packet), Some(moment)) =
        unsafe { (conn.as_mut(), packet.as_ref(), moment.as_ref()) }
    {
        follow::account(&HookFrame::new(ctx), DIRECTION, &mut KernelSink, conn, packet, moment);
    }
    0
}
