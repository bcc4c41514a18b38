//! Later fragments are judged by the ports of their first.

use crate::abi::{FlowKey, FragmentKey, FragmentPorts, Packet, Side};
use crate::tables::{Plane, Table, Tables};
use crate::wire::proto;

/// Remembers the ports of a first fragment that may pass: who is blocked or denied pushes nobody else's out.
///
/// A function of its own in BPF, so that its key has room on the stack.
#[inline(never)]
pub(crate) fn remember_first<T: Tables>(plane: &mut Plane<T>, packet: &Packet) {
    let (src, dst) = (packet.src(), packet.dst());
    // A full table costs the datagram, not the packet path: its later fragments are orphans.
    plane.fragments.insert(&key(packet), &FragmentPorts { src_port: src.1, dst_port: dst.1 });
}

/// Gives a later fragment the ports of the first. Returns whether that was seen.
///
/// A function of its own in BPF, for the same reason.
#[inline(never)]
pub(crate) fn find_first<T: Tables>(plane: &mut Plane<T>, packet: &mut Packet) -> bool {
    let (src, dst) = (packet.src(), packet.dst());
    let protocol = packet.key.proto;
    let Some(ports) = plane.fragments.get(&key(packet)) else {
        return false;
    };
    let (src, dst) = ((src.0, ports.src_port), (dst.0, ports.dst_port));
    let (flow, side) = FlowKey::canonical(packet.ip_version, protocol, src, dst);
    packet.key = flow;
    packet.from_b = u8::from(side == Side::B);
    if matches!(protocol, proto::TCP | proto::UDP | proto::SCTP) {
        packet.has |= Packet::HAS_PORTS;
    }
    true
}

#[inline(always)]
fn key(packet: &Packet) -> FragmentKey {
    let (src, dst) = (packet.src().0, packet.dst().0);
    FragmentKey { src, dst, id: packet.fragment_id, proto: u32::from(packet.key.proto) }
}
