//! Bindings that do not hold everywhere: on an interface, on a VLAN, for some of an address's ports (docs/adr/0017).
//!
//! The end that a packet comes from is where the packet enters; in TC, the end that it goes to is where it leaves. Where the
//! other end is nobody knows: it is taken for who is on the same segment, or else for the only one who has the address.

use crate::abi::packet::Trace;
use crate::abi::{Addr, Binding, BindingVersions, Direction, FlowKey, Packet, ScopedKey, Side};
use crate::frame::Frame;
use crate::policy::Moment;
use crate::stage::Stages;
use crate::tables::{Rules, Tables};

/// [`Moment::segment`]: the VLAN ID of the packet, 0 without a tag.
const VLAN: u32 = 0xfff;
/// The number of the interface, 0 where no binding names it.
const INTERFACE: u32 = 0x3fff_f000;
/// The end that is on the segment is the key's `a`.
const HAS_A: u32 = 1 << 30;
/// It is the key's `b`.
const HAS_B: u32 = 1 << 31;

/// The segment on which an interface with a number, or a VLAN, or both are; as bindings name it.
pub fn segment(interface: u32, vlan: u16) -> u32 {
    interface << 12 & INTERFACE | u32::from(vlan) & VLAN
}

/// [`Moment::segment`] where a side is on a segment.
pub fn with(segment: u32, side: Side) -> u32 {
    segment | if side == Side::A { HAS_A } else { HAS_B }
}

/// Every segment that may be asked about ends of packets that are there.
pub fn segments(place: u32) -> [u32; 5] {
    let (interface, vlan) = (place & INTERFACE, place & VLAN);
    [interface | vlan, interface, vlan, ScopedKey::SOMEWHERE, 0]
}

/// Notes where the packet is, and sets its flow apart from others of the same addresses that are somewhere else.
#[inline(always)]
pub fn note<F: Stages<T>, T: Tables>(frame: &F, direction: Direction, rules: &T::Rules, trace: &mut Trace) {
    let Some(config) = rules.config() else {
        return;
    };
    if trace.moment.epoch == 0 {
        trace.moment.epoch = config.epoch;
    }
    trace.moment.segment = where_is(frame, direction, rules, trace.moment.epoch, &trace.packet);
    trace.packet.key.zone = zone(rules, &trace.moment, &trace.packet.key);
}

#[inline(always)]
fn where_is<F: Frame, R: Rules>(
    frame: &F,
    direction: Direction,
    rules: &R,
    epoch: u32,
    packet: &Packet,
) -> u32 {
    let interface = match rules.interface(frame.ifindex()) {
        Some(versions) => versions.at(epoch).number,
        None => 0,
    };
    let vlan = if packet.vlan_count == 0 { 0 } else { packet.vlans[0] };
    let is_a = (packet.side() == Side::A) == (direction == Direction::Ingress);
    segment(interface, vlan) | if is_a { HAS_A } else { HAS_B }
}

/// What sets a flow apart whose ends are bound by where they are; 0 for all others. Both directions come to the same.
///
/// Numbers of identities: of one such end it is exact for the first 65,535; two ends share it with one pair of 65,536.
#[inline(always)]
pub fn zone<R: Rules>(rules: &R, moment: &Moment, key: &FlowKey) -> u16 {
    let a = placed(rules, moment, &key.a, Side::A, service(key.proto, key.a_port));
    let b = placed(rules, moment, &key.b, Side::B, service(key.proto, key.b_port));
    a.wrapping_add(b.wrapping_mul(40_503)) as u16
}

/// The identity of an end that has it by where it is, 0 for none.
#[inline(always)]
fn placed<R: Rules>(rules: &R, moment: &Moment, addr: &Addr, side: Side, service: u32) -> u32 {
    let asks = rules.about(addr, moment, |memo| memo.asks()).unwrap_or(0) & Binding::ASKS_WHERE;
    if asks == 0 {
        return 0;
    }
    let here = is_here(moment, side);
    match rules.narrowed(addr, moment, u32::from(asks) | here, service) {
        Some(versions) => versions.at(moment.epoch).identity,
        None => 0,
    }
}

/// Protocol and port of an end, as [`Rules::narrowed`] takes it.
#[inline(always)]
pub fn service(proto: u8, port: u16) -> u32 {
    u32::from(proto) << 24 | u32::from(port)
}

/// Beside the bits of [`Binding::ASKS`]: the end is on the segment of the moment.
const IS_HERE: u32 = 1 << 8;

/// [`IS_HERE`], if this side is.
#[inline(always)]
pub fn is_here(moment: &Moment, side: Side) -> u32 {
    let has = if side == Side::A { HAS_A } else { HAS_B };
    if moment.segment & has != 0 { IS_HERE } else { 0 }
}

/// The moment for a packet that `side` sent, and that goes to where this one comes from.
#[inline(always)]
pub fn beyond(moment: &Moment, side: Side) -> Moment {
    let has = if side == Side::A { HAS_B } else { HAS_A };
    Moment { segment: moment.segment & (VLAN | INTERFACE) | has, ..*moment }
}

/// The narrowest binding of an address at this place and port: interface and VLAN, interface, VLAN, everywhere. In each, ports
/// before the longest prefix. `None` where none of these speaks of it.
#[inline(always)]
pub fn narrowest<'r, R: Rules>(
    rules: &'r R,
    addr: &Addr,
    moment: &Moment,
    asks: u32,
    service: u32,
) -> Option<&'r BindingVersions> {
    let (interface, vlan) = (moment.segment & INTERFACE, moment.segment & VLAN);
    let ask = |segment| {
        let found = rules.scoped(segment, addr, service);
        found.filter(|versions| versions.at(moment.epoch).class != Binding::NOT_HERE.class)
    };
    let mut found = None;
    let asked = |bits: u8| asks & u32::from(bits) != 0;
    if asked(Binding::ASKS_BOTH) && interface != 0 && vlan != 0 {
        found = ask(interface | vlan);
    }
    if found.is_none() && asked(Binding::ASKS_INTERFACE) && interface != 0 {
        found = ask(interface);
    }
    if found.is_none() && asked(Binding::ASKS_VLAN) && vlan != 0 {
        found = ask(vlan);
    }
    if found.is_none() && asked(Binding::ASKS_WHERE) && asks & IS_HERE == 0 {
        found = ask(ScopedKey::SOMEWHERE);
    }
    if found.is_none() && asked(Binding::ASKS_PORTS) {
        found = ask(0);
    }
    found
}
