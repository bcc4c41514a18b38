//! Whose packet it is, and whether it may go on.

use crate::DIRECTION;
use crate::frame::{Context, HookFrame};
use crate::maps::{KernelRules, plane};
use datapath::abi::packet::Trace;
use datapath::abi::{FlowKey, Packet, Reason, Side};
use datapath::guard::{self, Listed, Service};
use datapath::policy::{self, Ends, Judgement, Moment};
use datapath::{admit, judge, newcomer, related, shadow, turned};

/// [`newcomer::newcomer`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_newcomer(ctx: *mut Context, trace: *mut Trace) -> u32 {
    // SAFETY: the caller's reference.
    match unsafe { trace.as_mut() } {
        Some(trace) => u32::from(newcomer::newcomer(&HookFrame::new(ctx), DIRECTION, &mut plane(), trace)),
        None => 0,
    }
}

/// [`turned::is_blocked`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_is_blocked(key: *const FlowKey, side: u32) -> u32 {
    let side = Side::of(side);
    // SAFETY: the caller's reference.
    match unsafe { key.as_ref() } {
        Some(key) => u32::from(turned::is_blocked(&mut plane(), key, side)),
        None => 0,
    }
}

/// [`turned::denied`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_denied(key: *const FlowKey, side: u32) -> u32 {
    let side = Side::of(side);
    // SAFETY: the caller's reference.
    match unsafe { key.as_ref() } {
        Some(key) => turned::denied(&mut plane(), key, side),
        None => turned::GOES_ON,
    }
}

/// [`judge::unsettled`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_unsettled(ctx: *mut Context, trace: *mut Trace) -> u32 {
    // SAFETY: the caller's reference.
    if let Some(trace) = unsafe { trace.as_mut() } {
        judge::unsettled(&HookFrame::new(ctx), DIRECTION, &mut plane(), trace);
    }
    0
}

/// [`judge::refuse`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_refuse(ctx: *mut Context, trace: *mut Trace, reason: u32) -> u32 {
    // SAFETY: the caller's reference.
    if let Some(trace) = unsafe { trace.as_mut() } {
        judge::refuse(&HookFrame::new(ctx), DIRECTION, &mut plane(), trace, Reason::from_u8(reason as u8));
    }
    0
}

/// [`admit::admit`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_admit(ctx: *mut Context, trace: *mut Trace, index: u32) -> u32 {
    // SAFETY: the caller's reference.
    if let Some(trace) = unsafe { trace.as_mut() } {
        admit::admit(&HookFrame::new(ctx), DIRECTION, &mut plane(), trace, index);
    }
    0
}

/// [`related::is_related`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_related(ctx: *mut Context, packet: *const Packet, moment: *const Moment) -> u32 {
    // SAFETY: the caller's references.
    match unsafe { (packet.as_ref(), moment.as_ref()) } {
        (Some(packet), Some(moment)) => {
            u32::from(related::is_related(&HookFrame::new(ctx), &mut plane(), packet, moment))
        }
        _ => 0,
    }
}

/// [`policy::decide`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_decide(
    key: *const FlowKey,
    originator: u32,
    moment: *const Moment,
    j: *mut Judgement,
) -> u32 {
    // SAFETY: the caller's references.
    if let (Some(key), Some(moment), Some(j)) = unsafe { (key.as_ref(), moment.as_ref(), j.as_mut()) } {
        let originator = Side::of(originator);
        policy::decide_into(&KernelRules, moment, &Ends::new(key, originator), j);
    }
    0
}

/// [`guard::blocked`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_blocked(
    list: u32,
    proto: u32,
    port: u32,
    moment: *const Moment,
    j: *mut Judgement,
) -> u32 {
    let service = Service { proto: proto as u8, port: port as u16 };
    // SAFETY: the caller's references.
    match unsafe { (moment.as_ref(), j.as_mut()) } {
        (Some(moment), Some(j)) => guard::blocked(&KernelRules, list, service, moment, j),
        _ => 0,
    }
}

/// [`guard::is_listed`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_listed(
    listed: *const Listed,
    proto: u32,
    port: u32,
    moment: *const Moment,
    j: *mut Judgement,
) -> u32 {
    let service = Service { proto: proto as u8, port: port as u16 };
    // SAFETY: the caller's references.
    match unsafe { (listed.as_ref(), moment.as_ref(), j.as_mut()) } {
        (Some(listed), Some(moment), Some(j)) => {
            u32::from(guard::is_listed(&KernelRules, listed, service, moment, j))
        }
        _ => 0,
    }
}

/// [`shadow::judge`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tg_shadow(ctx: *mut Context, packet: *const Packet) -> u32 {
    // SAFETY: the caller's reference.
    if let Some(packet) = unsafe { packet.as_ref() } {
        shadow::judge(&HookFrame::new(ctx), &mut plane(), packet);
    }
    0
}
