//! Floods from who is blocked: what is known to be dropped, and what no event may tell of any more, is not looked for.
//! [`crate::turned`] is the same on the fast lane.

use crate::abi::packet::Trace;
use crate::abi::{Action, Addr, Config, EndMemo, Lost, Packet, Reason};
use crate::event;
use crate::guard::Service;
use crate::judge::Verdict;
use crate::record;
use crate::tables::{Plane, Rules, Sink, Slots, Tables};
use crate::wire::proto;

/// What this CPU remembers of a packet's sender.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// Nothing by which this packet could be dropped at once.
    Unknown = 0,
    /// It is blocked, and an event may tell so.
    Blocked = 1,
    /// It is blocked, and the events of its kind are used up for this second.
    Told = 2,
}

/// Whether this CPU remembers a block of who sent the packet, over or not: for who has no need to ask more.
#[inline(always)]
pub(crate) fn may_be<T: Tables>(plane: &Plane<T>, packet: &Packet) -> bool {
    match plane.rules.config() {
        Some(config) => {
            plane.rules.remembered(&packet.src().0, config).is_some_and(|memo| memo.block_rule != 0)
        }
        None => false,
    }
}

/// Whether a TCP segment or datagram is dropped because its sender is blocked: where it was told of, the verdict is then in
/// `trace`. So it would be by the whole way too, where its flow has no record here and the events of its kind are used up for
/// this second: neither a record nor an event comes of it.
///
/// A function of its own in BPF, so that its ways out do not multiply.
#[inline(never)]
pub(crate) fn of<T: Tables>(plane: &mut Plane<T>, trace: &mut Trace) -> Sender {
    let packet = &trace.packet;
    let Some(config) = plane.rules.config() else {
        return Sender::Unknown;
    };
    let has_ports = packet.has(Packet::HAS_PORTS) && !packet.has(Packet::IS_FRAGMENT);
    if !has_ports || !matches!(packet.key.proto, proto::TCP | proto::UDP) {
        return Sender::Unknown;
    }
    let (sender, rule) =
        ask(&plane.rules, &mut plane.sink, config, &packet.src(), &packet.dst(), packet.key.proto);
    if sender as u8 == Sender::Unknown as u8 {
        return sender;
    }
    // A flow that has a slot is judged anew, so that its record and its connection know. A SYN has none.
    let index = packet.key.hash(&config.hash_keys) & config.flow_mask;
    if !record::opens(packet) && plane.slots.slot(index).is_some_and(|slot| slot.key == packet.key) {
        return Sender::Unknown;
    }
    if sender as u8 == Sender::Told as u8 {
        plane.sink.lost(Lost::Limited);
        trace.set(Verdict { rule, ..Verdict::plain(Action::Dropped, Reason::Blocklisted) });
    }
    sender
}

/// What is remembered of who sends, and the number of what blocks it.
#[inline(always)]
pub(crate) fn ask<R: Rules, S: Sink>(
    rules: &R,
    sink: &mut S,
    config: &Config,
    from: &(Addr, u16),
    to: &(Addr, u16),
    protocol: u8,
) -> (Sender, u32) {
    // Where interfaces differ, or a candidate is asked too, it takes the whole way.
    let special = Config::BY_INTERFACE | Config::SHADOW;
    if config.flags & (Config::ENFORCE | special) != Config::ENFORCE || config.event_limit == 0 {
        return (Sender::Unknown, 0);
    }
    let Some(memo) = rules.remembered(&from.0, config) else {
        return (Sender::Unknown, 0);
    };
    let now_ns = rules.coarse_ns(config);
    let (rule, identity) = (memo.blocks(now_ns), memo.identity);
    if rule == 0 {
        return (Sender::Unknown, 0);
    }
    // Whose flow it is may hang on where an end is, and so may the key of its record.
    let asks = |memo: Option<&EndMemo>| memo.is_none_or(|memo| memo.asks() != 0);
    if config.has(Config::SCOPED)
        && (asks(rules.remembered(&from.0, config)) || asks(rules.remembered(&to.0, config)))
    {
        return (Sender::Unknown, 0);
    }
    let service = |port| Service { proto: protocol, port };
    if config.has(Config::FAILSAFE)
        && (rules.is_failsafe(&to.0, service(to.1)) || rules.is_failsafe(&from.0, service(from.1)))
    {
        return (Sender::Unknown, 0);
    }
    let limit = config.event_limit;
    if event::is_used_up(sink, now_ns, limit, Reason::Blocklisted, identity) {
        (Sender::Told, rule)
    } else {
        (Sender::Blocked, rule)
    }
}
