//! What rules, identities and acts ask beyond a verdict.

use crate::DIRECTION;
use crate::frame::{Context, HookFrame};
use crate::maps::{KernelBuckets, KernelRules, plane};
use datapath::abi::packet::Trace;
use datapath::abi::{Connection, Holding, Packet};
use datapath::policy::{Judgement, Moment};
use datapath::{identity, limits};

/// [`identity::restrict`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_restrict(proto: u32, moment: *const Moment, j: *mut Judgement) -> u32 {
    // SAFETY: the caller's references.
    if let (Some(moment), Some(j)) = unsafe { (moment.as_ref(), j.as_mut()) } {
        identity::restrict(&KernelRules, proto as u8, moment, j);
    }
    0
}

/// [`limits::opening`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_opening(packet: *const Packet, moment: *const Moment, j: *mut Judgement) -> u32 {
    // SAFETY: the caller's references.
    if let (Some(packet), Some(moment), Some(j)) = unsafe { (packet.as_ref(), moment.as_ref(), j.as_mut()) } {
        limits::opening(&KernelRules, &mut KernelBuckets, packet, moment, j);
    }
    0
}

/// [`identity::recount`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_recount(conn: *mut Connection, packet: *const Packet, now_ns: u64, ends: u32) -> u32 {
    // SAFETY: the caller's references.
    if let (Some(conn), Some(packet)) = unsafe { (conn.as_mut(), packet.as_ref()) } {
        identity::recount(&KernelRules, &mut KernelBuckets, conn, packet, now_ns, ends != 0);
    }
    0
}

/// [`Holding::until`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_until(is_answered: u32, now_ns: u64, end_ns: u64) -> u32 {
    u32::from(Holding::until(is_answered != 0, now_ns, end_ns).0)
}

/// [`limits::running`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_running(conn: *mut Connection, moment: *const Moment, j: *mut Judgement) -> u32 {
    // SAFETY: the caller's references.
    if let (Some(conn), Some(moment), Some(j)) = unsafe { (conn.as_mut(), moment.as_ref(), j.as_mut()) } {
        limits::running(&KernelRules, conn, moment, j);
    }
    0
}

/// [`limits::by_packet`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_by_packet(ctx: *mut Context, trace: *mut Trace, index: u32) -> u32 {
    // SAFETY: the caller's reference.
    if let Some(trace) = unsafe { trace.as_mut() } {
        limits::by_packet(&HookFrame::new(ctx), DIRECTION, &mut plane(), trace, index);
    }
    0
}
