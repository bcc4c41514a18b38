//! Floods from who is blocked: what is known to be dropped, and what no event may tell of any more, is not looked for.

use crate::abi::packet::Trace;
use crate::abi::{Action, Config, EndMemo, Lost, Packet, Reason};
use crate::event;
use crate::guard::Service;
use crate::judge::Verdict;
use crate::record;
use crate::tables::{Plane, Rules, Sink, Slots, Tables};
use crate::wire::proto;

/// Whether a TCP segment or datagram is dropped because this CPU remembers that its sender is blocked; the verdict is then in
/// `trace`. So it would be by the whole way too, where its flow has no record here and the events of its kind are used up for
/// this second: neither a record nor an event comes of it.
///
/// A function of its own in BPF, so that its ways out do not multiply.
#[inline(never)]
pub(crate) fn is_cut<T: Tables>(plane: &mut Plane<T>, trace: &mut Trace) -> bool {
    let packet = &trace.packet;
    let Some(config) = plane.rules.config() else {
        return false;
    };
    // Where interfaces differ, or a candidate is asked too, it takes the whole way.
    let special = Config::BY_INTERFACE | Config::SHADOW;
    let is_special = config.flags & (Config::ENFORCE | special) != Config::ENFORCE || config.event_limit == 0;
    let has_ports = packet.has(Packet::HAS_PORTS) && !packet.has(Packet::IS_FRAGMENT);
    if is_special || !has_ports || !matches!(packet.key.proto, proto::TCP | proto::UDP) {
        return false;
    }
    let (from, to) = (packet.src(), packet.dst());
    let Some(memo) = plane.rules.remembered(&from.0, config) else {
        return false;
    };
    let now_ns = plane.rules.coarse_ns(config);
    let (rule, identity) = (memo.blocks(now_ns), memo.identity);
    if rule == 0
        || !event::is_used_up(&mut plane.sink, now_ns, config.event_limit, Reason::Blocklisted, identity)
    {
        return false;
    }
    // Whose flow it is may hang on where an end is, and so may the key of its record.
    let asks = |memo: Option<&EndMemo>| memo.is_none_or(|memo| memo.asks() != 0);
    if config.has(Config::SCOPED)
        && (asks(plane.rules.remembered(&from.0, config)) || asks(plane.rules.remembered(&to.0, config)))
    {
        return false;
    }
    let service = |port| Service { proto: packet.key.proto, port };
    if config.has(Config::FAILSAFE)
        && (plane.rules.is_failsafe(&to.0, service(to.1))
            || plane.rules.is_failsafe(&from.0, service(from.1)))
    {
        return false;
    }
    // A flow that has a slot is judged anew, so that its record and its connection know. A SYN has none.
    let index = packet.key.hash(&config.hash_keys) & config.flow_mask;
    if !record::opens(packet) && plane.slots.slot(index).is_some_and(|slot| slot.key == packet.key) {
        return false;
    }
    plane.sink.lost(Lost::Limited);
    let verdict = Verdict { rule, ..Verdict::plain(Action::Dropped, Reason::Blocklisted) };
    trace.set(verdict);
    true
}
