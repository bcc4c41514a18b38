//! The stages of the slow path as global functions, each verified once and by itself. The TC programs include this same
//! folder. docs/adr/0004-stages.md says why.
//!
//! To the verifier the arguments are the context, numbers, and pointers to memory of their type's size that may be null.

mod following;
mod judging;
mod limiting;
mod reading;

pub use judging::{tg_blocked, tg_listed};
pub use limiting::{tg_restrict, tg_until};

use crate::frame::HookFrame;
use crate::maps::{Kernel, KernelBuckets, KernelRules, KernelSink, KernelSlots, KernelSpill};
use datapath::abi::packet::Trace;
use datapath::abi::{Connection, Direction, FlowKey, FlowRecord, Packet, Reason, Side};
use datapath::policy::{Judgement, Moment};
use datapath::stage::Stages;
use datapath::tables::Plane;
use following::{
    tg_account, tg_add_up, tg_counted, tg_follow, tg_hello, tg_moved, tg_quic, tg_replaced, tg_reset,
    tg_stream, tg_tls,
};
use judging::{
    tg_admit, tg_decide, tg_denied, tg_is_blocked, tg_newcomer, tg_refuse, tg_related, tg_shadow,
    tg_unsettled,
};
use limiting::{tg_by_packet, tg_opening, tg_recount, tg_running};
use reading::{tg_announced, tg_carried, tg_network, tg_place, tg_transport, tg_tunnel};

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
