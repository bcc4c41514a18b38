//! The stages of the slow path, and how one calls the next.
//!
//! Natively a stage is a plain call. In BPF each is a global function of its program (`xdp/src/stages`): the kernel
//! verifies such a function once, by itself, so that the cost of verifying adds up over the stages where it would
//! multiply over every path that leads to them (docs/adr/0004-stages.md).

use crate::abi::packet::Trace;
use crate::abi::{Connection, Direction, FlowKey, FlowRecord, Packet, Reason, Side};
use crate::frame::Frame;
use crate::policy::{self, Ends, Judgement, Moment};
use crate::tables::{Plane, Tables};
use crate::wire::tcp;
use crate::{
    admit, follow, hello, identity, judge, limits, newcomer, related, replaced, reset, scope, shadow, track,
    turned,
};

/// A frame on its way through one engine. Each method does what the function of the same name does.
pub trait Stages<T: Tables>: Frame + Sized {
    /// Reads a plain packet that no flow's record settles, and judges it if that is soon done. Returns an action, or 0.
    #[inline(always)]
    fn newcomer(&self, direction: Direction, plane: &mut Plane<T>, trace: &mut Trace) -> u8 {
        newcomer::newcomer(self, direction, plane, trace)
    }

    /// Is a packet dropped because its sender is blocked?
    #[inline(always)]
    fn is_blocked(&self, plane: &mut Plane<T>, key: &FlowKey, side: Side) -> bool {
        turned::is_blocked(plane, key, side)
    }

    /// The reason for which the policy drops what opens a connection.
    #[inline(always)]
    fn denied(&self, plane: &mut Plane<T>, key: &FlowKey, side: Side) -> u32 {
        turned::denied(plane, key, side)
    }

    /// Reads the options of a SYN that is read but for them. Returns whether they are well-formed.
    #[inline(always)]
    fn announced(&self, packet: &mut Packet) -> bool {
        tcp::announced(self, packet).is_ok()
    }

    /// Reads the link and network headers into `trace`.
    #[inline(always)]
    fn network(&self, trace: &mut Trace) {
        judge::network(self, trace);
    }

    /// Reads the transport header into `trace`.
    #[inline(always)]
    fn transport(&self, trace: &mut Trace) {
        judge::transport(self, trace);
    }

    /// Turns to what a tunnel carries.
    #[inline(always)]
    fn tunnel(&self, direction: Direction, plane: &mut Plane<T>, trace: &mut Trace) {
        judge::tunnel(self, direction, plane, trace);
    }

    /// Reads the network header of what a tunnel carries into `trace`.
    #[inline(always)]
    fn carried(&self, trace: &mut Trace) {
        judge::carried(self, trace);
    }

    /// A packet that its flow's record does not settle.
    #[inline(always)]
    fn unsettled(&self, direction: Direction, plane: &mut Plane<T>, trace: &mut Trace) {
        judge::unsettled(self, direction, plane, trace);
    }

    /// A packet that cannot be judged by its flow.
    #[inline(always)]
    fn refuse(&self, direction: Direction, plane: &mut Plane<T>, trace: &mut Trace, reason: Reason) {
        judge::refuse(self, direction, plane, trace, reason);
    }

    /// Whose connection is it, and may it go on?
    #[inline(always)]
    fn admit(&self, direction: Direction, plane: &mut Plane<T>, trace: &mut Trace, index: u32) {
        admit::admit(self, direction, plane, trace, index);
    }

    /// Is the packet an ICMP error about a connection that is tracked?
    #[inline(always)]
    fn related(&self, plane: &mut Plane<T>, packet: &Packet, moment: &Moment) -> bool {
        related::is_related(self, plane, packet, moment)
    }

    /// Decides on the connection of `key` that `originator` opened.
    #[inline(always)]
    fn decide(&self, rules: &T::Rules, key: &FlowKey, originator: Side, moment: &Moment, j: &mut Judgement) {
        policy::decide_into(rules, moment, &Ends::new(key, originator), j);
    }

    /// What does a reset do? Without a frame: to the verifier an argument that nobody reads is none.
    #[inline(always)]
    fn reset(direction: Direction, plane: &mut Plane<T>, packet: &Packet, index: u32) -> u32 {
        reset::check::<Self, T>(direction, plane, packet, index)
    }

    /// What have all CPUs counted of a side's stream that was not tracked?
    #[inline(always)]
    fn moved(
        slots: &mut T::Slots,
        spill: &mut T::Spill,
        conn: &Connection,
        key: &FlowKey,
        index: u32,
        side: Side,
    ) -> u64 {
        reset::moved::<Self, T>(slots, spill, conn, key, index, side)
    }

    /// What has one CPU?
    #[inline(always)]
    fn counted(
        slots: &mut T::Slots,
        spill: &mut T::Spill,
        conn: &Connection,
        key: &FlowKey,
        at: (u32, u32),
        side: Side,
    ) -> u64 {
        reset::counted(slots, spill, conn, key, at, side)
    }

    /// What is there to say of a connection that gives way to another?
    #[inline(always)]
    fn replaced(
        &self,
        direction: Direction,
        plane: &mut Plane<T>,
        packet: &Packet,
        moment: &Moment,
        index: u32,
    ) {
        replaced::report(self, direction, plane, packet, moment, index);
    }

    /// What has one CPU counted of it?
    #[inline(always)]
    fn add_up(
        slots: &mut T::Slots,
        spill: &mut T::Spill,
        total: &mut FlowRecord,
        key: &FlowKey,
        index: u32,
        cpu: u32,
    ) -> u32 {
        replaced::add_up(slots, spill, total, key, index, cpu)
    }

    /// Where is the packet, if some binding asks for that?
    #[inline(always)]
    fn place(&self, direction: Direction, rules: &T::Rules, trace: &mut Trace) {
        scope::note(self, direction, rules, trace);
    }

    /// What would the next epoch decide?
    #[inline(always)]
    fn shadow(&self, plane: &mut Plane<T>, packet: &Packet) {
        shadow::judge(self, plane, packet);
    }

    /// The limits of a connection that is about to open.
    #[inline(always)]
    fn opening(
        &self,
        rules: &T::Rules,
        buckets: &mut T::Buckets,
        packet: &Packet,
        moment: &Moment,
        j: &mut Judgement,
    ) {
        limits::opening(rules, buckets, packet, moment, j);
    }

    /// Counts a connection among what its identity has.
    #[inline(always)]
    fn recount(
        &self,
        rules: &T::Rules,
        buckets: &mut T::Buckets,
        conn: &mut Connection,
        packet: &Packet,
        now_ns: u64,
        ends: bool,
    ) {
        identity::recount(rules, buckets, conn, packet, now_ns, ends);
    }

    /// The limits of a connection that is judged again.
    #[inline(always)]
    fn running(&self, rules: &T::Rules, conn: &mut Connection, moment: &Moment, j: &mut Judgement) {
        limits::running(rules, conn, moment, j);
    }

    /// The limits that need every packet.
    #[inline(always)]
    fn by_packet(&self, direction: Direction, plane: &mut Plane<T>, trace: &mut Trace, index: u32) {
        limits::by_packet(self, direction, plane, trace, index);
    }

    /// What the packet changes in its connection.
    #[inline(always)]
    fn follow(&self, direction: Direction, plane: &mut Plane<T>, trace: &Trace, index: u32) {
        follow::follow(self, direction, plane, trace, index);
    }

    /// Where is the sender of a tracked segment?
    #[inline(always)]
    fn stream(conn: &mut Connection, packet: &Packet, record: &mut FlowRecord) {
        track::stream::note(conn, packet, record);
    }

    /// What the packet says of its connection's TLS handshake.
    #[inline(always)]
    fn tls(&self, conn: &mut Connection, packet: &Packet, now_ns: u64) {
        track::tls::payload(conn, self, packet, now_ns);
    }
    /// Hands up a piece of the ClientHello that the packet holds a part of.
    #[inline(always)]
    fn hello(&self, sink: &mut T::Sink, conn: &mut Connection, packet: &Packet, now_ns: u64, done: u32) {
        hello::hand_up(self, sink, conn, packet, now_ns, done);
    }

    /// What a datagram says of its connection's QUIC handshake.
    #[inline(always)]
    fn quic(&self, conn: &mut Connection, packet: &Packet, now_ns: u64) {
        track::quic::datagram(conn, self, packet, now_ns);
    }

    /// Counts and reports what a packet brought about in a handshake.
    #[inline(always)]
    fn account(
        &self,
        direction: Direction,
        sink: &mut T::Sink,
        conn: &mut Connection,
        packet: &Packet,
        moment: &Moment,
    ) {
        follow::account(self, direction, sink, conn, packet, moment);
    }
}
