//! The stages of the slow path as global functions, each verified once and by itself. The TC programs include this same
//! file. docs/adr/0004-stages.md says why.
//!
//! To the verifier the arguments are the context, numbers, and pointers to memory of their type's size that may be null.

use crate::DIRECTION;
use crate::frame::{Context, HookFrame};
use crate::maps::{Kernel, KernelBuckets, KernelRules, KernelSink, KernelSlots, KernelSpill, plane};
use datapath::abi::packet::Trace;
use datapath::abi::{Connection, Direction, FlowKey, FlowRecord, Holding, Packet, Reason, Side};
use datapath::guard::{self, Listed, Service};
use datapath::policy::{self, Ends, Judgement, Moment};
use datapath::stage::Stages;
use datapath::tables::Plane;
use datapath::wire::tcp;
use datapath::{
    admit, follow, hello, identity, judge, limits, newcomer, related, replaced, reset, scope, shadow, track,
    turned,
};

impl Stages<Kernel> for HookFrame {
    #[inline(always)]
    fn newcomer(&self, _: Direction, _: &mut Plane<Kernel>, trace: &mut Trace) -> u8 {
        tg_newcomer(self.context(), trace) as u8
    }

    #[inline(always)]
    fn is_blocked(&self, _: &mut Plane<Kernel>, key: &FlowKey, side: Side) -> bool {
        tg_is_blocked(key, side.index() as u32) != 0
    }

    #[inline(always)]
    fn denied(&self, _: &mut Plane<Kernel>, key: &FlowKey, side: Side) -> u32 {
        tg_denied(key, side.index() as u32)
    }

    #[inline(always)]
    fn announced(&self, packet: &mut Packet) -> bool {
        tg_announced(self.context(), packet) != 0
    }

    #[inline(always)]
    fn network(&self, trace: &mut Trace) {
        tg_network(self.context(), trace);
    }

    #[inline(always)]
    fn transport(&self, trace: &mut Trace) {
        tg_transport(self.context(), trace);
    }

    #[inline(always)]
    fn tunnel(&self, _: Direction, _: &mut Plane<Kernel>, trace: &mut Trace) {
        tg_tunnel(self.context(), trace);
    }

    #[inline(always)]
    fn carried(&self, trace: &mut Trace) {
        tg_carried(self.context(), trace);
    }

    #[inline(always)]
    fn unsettled(&self, _: Direction, _: &mut Plane<Kernel>, trace: &mut Trace) {
        tg_unsettled(self.context(), trace);
    }

    #[inline(always)]
    fn refuse(&self, _: Direction, _: &mut Plane<Kernel>, trace: &mut Trace, reason: Reason) {
        tg_refuse(self.context(), trace, reason as u32);
    }

    #[inline(always)]
    fn admit(&self, _: Direction, _: &mut Plane<Kernel>, trace: &mut Trace, index: u32) {
        tg_admit(self.context(), trace, index);
    }

    #[inline(always)]
    fn related(&self, _: &mut Plane<Kernel>, packet: &Packet, moment: &Moment) -> bool {
        tg_related(self.context(), packet, moment) != 0
    }

    #[inline(always)]
    fn decide(&self, _: &KernelRules, key: &FlowKey, originator: Side, moment: &Moment, j: &mut Judgement) {
        tg_decide(key, originator.index() as u32, moment, j);
    }

    #[inline(always)]
    fn reset(_: Direction, _: &mut Plane<Kernel>, packet: &Packet, index: u32) -> u32 {
        tg_reset(packet, index)
    }

    #[inline(always)]
    fn moved(
        _: &mut KernelSlots,
        _: &mut KernelSpill,
        conn: &Connection,
        key: &FlowKey,
        index: u32,
        side: Side,
    ) -> u64 {
        tg_moved(conn, key, index, side.index() as u32)
    }

    #[inline(always)]
    fn counted(
        _: &mut KernelSlots,
        _: &mut KernelSpill,
        conn: &Connection,
        key: &FlowKey,
        (index, cpu): (u32, u32),
        side: Side,
    ) -> u64 {
        tg_counted(conn, key, index, cpu, side.index() as u32)
    }

    #[inline(always)]
    fn replaced(&self, _: Direction, _: &mut Plane<Kernel>, packet: &Packet, moment: &Moment, index: u32) {
        tg_replaced(self.context(), packet, moment, index);
    }

    #[inline(always)]
    fn add_up(
        _: &mut KernelSlots,
        _: &mut KernelSpill,
        total: &mut FlowRecord,
        key: &FlowKey,
        index: u32,
        cpu: u32,
    ) -> u32 {
        tg_add_up(total, key, index, cpu)
    }

    #[inline(always)]
    fn place(&self, _: Direction, _: &KernelRules, trace: &mut Trace) {
        tg_place(self.context(), trace);
    }

    #[inline(always)]
    fn shadow(&self, _: &mut Plane<Kernel>, packet: &Packet) {
        tg_shadow(self.context(), packet);
    }

    #[inline(always)]
    fn opening(
        &self,
        _: &KernelRules,
        _: &mut KernelBuckets,
        packet: &Packet,
        moment: &Moment,
        j: &mut Judgement,
    ) {
        tg_opening(packet, moment, j);
    }

    #[inline(always)]
    fn recount(
        &self,
        _: &KernelRules,
        _: &mut KernelBuckets,
        conn: &mut Connection,
        packet: &Packet,
        now_ns: u64,
        ends: bool,
    ) {
        tg_recount(conn, packet, now_ns, u32::from(ends));
    }

    #[inline(always)]
    fn running(&self, _: &KernelRules, conn: &mut Connection, moment: &Moment, j: &mut Judgement) {
        tg_running(conn, moment, j);
    }

    #[inline(always)]
    fn by_packet(&self, _: Direction, _: &mut Plane<Kernel>, trace: &mut Trace, index: u32) {
        tg_by_packet(self.context(), trace, index);
    }

    #[inline(always)]
    fn follow(&self, _: Direction, _: &mut Plane<Kernel>, trace: &Trace, index: u32) {
        tg_follow(self.context(), trace, index);
    }

    #[inline(always)]
    fn stream(conn: &mut Connection, packet: &Packet, record: &mut FlowRecord) {
        tg_stream(conn, packet, record);
    }

    #[inline(always)]
    fn tls(&self, conn: &mut Connection, packet: &Packet, now_ns: u64) {
        tg_tls(self.context(), conn, packet, now_ns);
    }

    #[inline(always)]
    fn quic(&self, conn: &mut Connection, packet: &Packet, now_ns: u64) {
        tg_quic(self.context(), conn, packet, now_ns);
    }

    #[inline(always)]
    fn account(
        &self,
        _: Direction,
        _: &mut KernelSink,
        conn: &mut Connection,
        packet: &Packet,
        moment: &Moment,
    ) {
        tg_account(self.context(), conn, packet, moment);
    }

    #[inline(always)]
    fn hello(&self, _: &mut KernelSink, conn: &mut Connection, packet: &Packet, now_ns: u64, done: u32) {
        tg_hello(self.context(), conn, packet, now_ns, done);
    }
}

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
    let side = if side == 0 { Side::A } else { Side::B };
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
    let side = if side == 0 { Side::A } else { Side::B };
    // SAFETY: the caller's reference.
    match unsafe { key.as_ref() } {
        Some(key) => turned::denied(&mut plane(), key, side),
        None => turned::GOES_ON,
    }
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
        let originator = if originator == 0 { Side::A } else { Side::B };
        policy::decide_into(&KernelRules, moment, &Ends::new(key, originator), j);
    }
    0
}

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
    let side = if side == 0 { Side::A } else { Side::B };
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
    let side = if side == 0 { Side::A } else { Side::B };
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
