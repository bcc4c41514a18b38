//! ICMP errors about connections that are known: they pass with these (RELATED), path-MTU messages among them.

use crate::abi::{Addr, Config, FlowKey, FragmentKey, Packet};
use crate::admit::find;
use crate::frame::Frame;
use crate::policy::Moment;
use crate::scope;
use crate::tables::{Plane, Rules, Table, Tables};
use crate::track;
use crate::wire::icmp::{self, Quote};
use crate::wire::tunnel;

/// Whether the packet is an ICMP error that tells the sender of a tracked connection's packet what became of it.
///
/// RFC 5927 says why no other should pass. What the error quotes was sent by whom the error goes to; that a router sends
/// it which nobody knows is usual.
#[inline(always)]
pub fn is_related<F: Frame, T: Tables>(
    frame: &F,
    plane: &mut Plane<T>,
    packet: &Packet,
    moment: &Moment,
) -> bool {
    if !icmp::is_error(packet) || packet.fragment_offset != 0 {
        return false;
    }
    let nowhere = Addr { words: [0, 0] };
    let mut quote =
        Quote { src: nowhere, dst: nowhere, fragment_id: 0, proto: 0, fragment_offset: 0, ports: [0, 0] };
    if !icmp::quote(frame, packet, &mut quote) || quote.src != packet.dst().0 {
        return false;
    }
    if icmp::is_path_mtu(packet) && may_have_sent(&plane.rules, &quote, moment.epoch) {
        return true;
    }
    if quote.fragment_offset != 0 {
        // Its ports are where those of the fragment itself were found, if it came by here.
        let key = FragmentKey { src: quote.src, dst: quote.dst, id: quote.fragment_id, proto: quote.proto };
        let Some(first) = plane.fragments.get(&key) else {
            return false;
        };
        quote.ports = [first.src_port, first.dst_port];
    }
    let (src, dst) = ((quote.src, quote.ports[0]), (quote.dst, quote.ports[1]));
    let (mut key, side) = FlowKey::canonical(packet.ip_version, quote.proto as u8, src, dst);
    let Some(config) = plane.rules.config() else {
        return false;
    };
    if config.has(Config::SCOPED) {
        // The error comes from where the quoted packet went to.
        key.zone = scope::zone(&plane.rules, &scope::beyond(moment, side), &key);
    }
    let now_ns = plane.rules.now_ns(config);
    match find(&mut plane.connections, &mut plane.half_open, &key) {
        // What is long over stays in its table until another connection needs the room.
        Some(conn) => !track::is_forgotten(conn, key.proto, now_ns, config),
        None => false,
    }
}

/// Whether what is quoted is of one of ours although it is not tracked: its connection was evicted, or it is the outside of a tunnel
/// that is judged by its inside. A message that its packets are too large is not kept from it.
///
/// A function of its own in BPF: what it keeps would lie on the stack under all that follows ("combined stack size of 4 calls is
/// 544", 6.18).
#[inline(never)]
fn may_have_sent<R: Rules>(rules: &R, quote: &Quote, epoch: u32) -> bool {
    let Some(config) = rules.config() else {
        return false;
    };
    if tunnel::is_inspected(config.flags, quote.proto as u8, quote.ports[1]) {
        return true;
    }
    match rules.binding(&quote.src) {
        Some(versions) => versions.at(epoch).identity != 0,
        None => false,
    }
}
