//! The policy by which the benches' frames are judged: two workloads, one allowed service, one blocked source.

use crate::frames::Stream;
use anyhow::Result;
use datapath::abi::config::PortCounters;
use datapath::abi::{
    Addr, Binding, BindingVersions, Block, BlockVersions, Config, Decision, DecisionVersions, NEVER,
    PolicyKey,
};
use loader::Kernel;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SERVICE: u16 = 443;
const ORDERS: u32 = 1;
const PAYMENTS: u32 = 2;

/// The client's addresses.
pub const CLIENT: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(10, 1, 0, 2), Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 2));
/// The server's addresses.
pub const SERVER: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(10, 2, 0, 2), Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 2));
/// An address that nobody is bound to.
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 67);
/// How many addresses the crowd has.
pub const CROWD_SIZE: u32 = 1 << 20;
/// Its first one.
const CROWD: Ipv4Addr = Ipv4Addr::new(10, 16, 0, 0);
/// The interface index of the loopback in every network namespace.
const LOOPBACK: u32 = 1;
/// The address that is on the blocklist.
pub const BLOCKED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);

/// A connection of the client to the service by IPv4.
pub fn ipv4() -> Stream {
    to_service(CLIENT.0.into(), SERVER.0.into(), 40_004)
}

/// The same by IPv6.
pub fn ipv6() -> Stream {
    to_service(CLIENT.1.into(), SERVER.1.into(), 40_006)
}

/// By IPv4 on VLAN 7.
pub fn tagged() -> Stream {
    Stream { vlan: Some(7), ..to_service(CLIENT.0.into(), SERVER.0.into(), 40_007) }
}

/// By IPv4, for the TC side, which judges what the host itself sends.
pub fn sent_by_host() -> Stream {
    to_service(CLIENT.0.into(), SERVER.0.into(), 40_009)
}

/// From the blocked source.
pub fn blocked() -> Stream {
    to_service(BLOCKED.into(), SERVER.0.into(), 40_066)
}

/// Of datagrams.
pub fn datagrams() -> Stream {
    to_service(CLIENT.0.into(), SERVER.0.into(), 40_010)
}

/// From a source that has no identity.
pub fn stranger() -> Stream {
    to_service(STRANGER.into(), SERVER.0.into(), 40_067)
}

/// How far the two ports, taken as one number, are from one connection of the blocked source to the next: odd, so that
/// they come again after 2^32.
pub const PORTS_STEP: u32 = 0x1_0001;

/// The `n`th of many connections of the blocked source.
pub fn nth_blocked(n: u32) -> Stream {
    let ports = n.wrapping_mul(PORTS_STEP);
    Stream { src_port: (ports >> 16) as u16, dst_port: ports as u16, ..blocked() }
}

/// The `n`th of many connections of the client: a tuple of its own for each of 32 x 32,768.
pub fn nth(n: u32) -> Stream {
    let [a, b, c, _] = CLIENT.0.octets();
    let host = 32 + (n >> 15) as u8 % 32;
    to_service(Ipv4Addr::new(a, b, c, host).into(), SERVER.0.into(), 0x8000 | (n & 0x7fff) as u16)
}

/// The connection of the `n`th of [`CROWD_SIZE`] clients: their addresses count from 10.16.0.0.
pub fn crowd(n: u32) -> Stream {
    let client = Ipv4Addr::from(u32::from(CROWD) + n % CROWD_SIZE);
    to_service(client.into(), SERVER.0.into(), 40_008)
}

fn to_service(src: IpAddr, dst: IpAddr, src_port: u16) -> Stream {
    Stream { src, dst, src_port, dst_port: SERVICE, vlan: None }
}

/// Events of one kind, reason and identity that a second may have: what the daemon sets.
const EVENTS: u32 = 1_000;

/// Enforce, epoch 1.
pub fn configure(config: &mut Config) {
    config.event_limit = EVENTS;
    config.epoch = 1;
    config.flags |= Config::ENFORCE | Config::NOBODY_NAMED;
    config.flags &= !Config::DEFAULT_ALLOW;
}

/// Identities by prefix.
pub fn bindings() -> Vec<(Addr, u32, BindingVersions)> {
    vec![
        (Addr::from(IpAddr::from(CLIENT.0)), Addr::V4_PREFIX_BITS + 24, binding(ORDERS)),
        (Addr::from(IpAddr::from(CROWD)), Addr::V4_PREFIX_BITS + 12, binding(ORDERS)),
        (Addr::from(IpAddr::from(CLIENT.1)), 128, binding(ORDERS)),
        (Addr::from(IpAddr::from(SERVER.0)), 128, binding(PAYMENTS)),
        (Addr::from(IpAddr::from(SERVER.1)), 128, binding(PAYMENTS)),
    ]
}

fn binding(identity: u32) -> BindingVersions {
    let held = Binding { identity, class: identity, ..Binding::NONE };
    BindingVersions { since: 0, _pad: 0, old: Binding::NONE, new: held }
}

/// The `n`th of many identities: each has an address of the crowd, and all have the class of its prefix.
pub fn nth_binding(n: u32) -> (Addr, u32, BindingVersions) {
    // An odd factor has an inverse modulo a power of two: no address comes twice.
    let client = u32::from(CROWD) + n.wrapping_mul(SCATTER) % CROWD_SIZE;
    let mut versions = binding(ORDERS);
    versions.new.identity = 100 + n;
    (Addr::from(IpAddr::from(Ipv4Addr::from(client))), 128, versions)
}

const SCATTER: u32 = 0x9e37_79b1;

/// The blocklist.
pub fn blocks() -> Vec<(Addr, u32, BlockVersions)> {
    vec![(Addr::from(IpAddr::from(BLOCKED)), 128, block())]
}

fn block() -> BlockVersions {
    let block = Block { rule: 9, guards: 0, not_after_ns: NEVER };
    BlockVersions { since: 0, _pad: 0, old: Block::NONE, new: block }
}

/// The `n`th of many blocked prefixes: hosts and /24 in turn, everywhere but in 10.0.0.0/8, where those are who may talk.
pub fn nth_block(n: u32) -> (Addr, u32, BlockVersions) {
    let scattered = n.wrapping_mul(SCATTER);
    let elsewhere = if scattered >> 24 == 10 { scattered ^ 1 << 31 } else { scattered };
    let bits = Addr::V4_PREFIX_BITS + if n.is_multiple_of(2) { 32 } else { 24 };
    (Addr::from(IpAddr::from(Ipv4Addr::from(elsewhere))), bits, block())
}

/// The policy: orders may open the service of payments, by TCP and UDP.
pub fn decisions() -> Vec<(PolicyKey, u32, DecisionVersions)> {
    let may = |protocol, rule| {
        (PolicyKey::new(ORDERS, PAYMENTS, protocol, SERVICE), PolicyKey::FULL_BITS, allow(rule))
    };
    vec![may(TCP, 1), may(UDP, 2)]
}

fn allow(rule: u32) -> DecisionVersions {
    let allow = Decision { rule, action: Decision::ALLOW, ..Decision::NONE };
    DecisionVersions { since: 0, _pad: 0, old: Decision::NONE, new: allow }
}

/// The `n`th of many rules: a class of clients may open a port of a class of servers.
pub fn nth_decision(n: u32) -> (PolicyKey, u32, DecisionVersions) {
    let (client, server) = (3 + n % 997, 3 + n / 997 % 997);
    (PolicyKey::new(client, server, TCP, 1_024 + n as u16 % 61), PolicyKey::FULL_BITS, allow(10 + n))
}

/// Fills the maps of a loaded kernel.
pub fn load(kernel: &Kernel) -> Result<()> {
    let maps = kernel.maps();
    for (addr, bits, versions) in bindings() {
        maps.bindings.insert(&addr, bits, &versions)?;
    }
    for (addr, bits, versions) in blocks() {
        maps.blocklist.insert(&addr, bits, &versions)?;
    }
    for (key, bits, versions) in decisions() {
        maps.policy.insert(&key, bits, &versions)?;
    }
    maps.config.update(configure)?;
    // A test-run crosses the loopback: let it have its own counters, as an interface has on which it is attached.
    let ours = PortCounters { ifindex: LOOPBACK, ..bytemuck::Zeroable::zeroed() };
    maps.ports.set_all(PortCounters::slot(LOOPBACK), &ours)?;
    Ok(())
}
