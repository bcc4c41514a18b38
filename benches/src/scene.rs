//! The policy by which the benches' frames are judged: two workloads, one allowed service, one blocked source.

use crate::frames::Stream;
use datapath::abi::{
    Addr, Binding, BindingVersions, Block, BlockVersions, Config, Decision, DecisionVersions, NEVER,
    PolicyKey,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const TCP: u8 = 6;
const SERVICE: u16 = 443;
const ORDERS: u32 = 1;
const PAYMENTS: u32 = 2;

/// The client's addresses.
pub const CLIENT: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(10, 1, 0, 2), Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 2));
/// The server's addresses.
pub const SERVER: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(10, 2, 0, 2), Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 2));
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

/// From the blocked source.
pub fn blocked() -> Stream {
    to_service(BLOCKED.into(), SERVER.0.into(), 40_066)
}

/// The `n`th of many connections of the client: a tuple of its own for each of 32 x 32,768.
pub fn nth(n: u32) -> Stream {
    let [a, b, c, _] = CLIENT.0.octets();
    let host = 32 + (n >> 15) as u8 % 32;
    to_service(Ipv4Addr::new(a, b, c, host).into(), SERVER.0.into(), 0x8000 | (n & 0x7fff) as u16)
}

fn to_service(src: IpAddr, dst: IpAddr, src_port: u16) -> Stream {
    Stream { src, dst, src_port, dst_port: SERVICE, vlan: None }
}

/// Enforce, epoch 1.
pub fn configure(config: &mut Config) {
    config.epoch = 1;
    config.flags |= Config::ENFORCE;
    config.flags &= !Config::DEFAULT_ALLOW;
}

/// Identities by prefix.
pub fn bindings() -> Vec<(Addr, u32, BindingVersions)> {
    let binding = |identity| {
        let held = Binding { identity, class: identity, ..Binding::NONE };
        BindingVersions { since: 0, _pad: 0, old: Binding::NONE, new: held }
    };
    vec![
        (Addr::from(IpAddr::from(CLIENT.0)), Addr::V4_PREFIX_BITS + 24, binding(ORDERS)),
        (Addr::from(IpAddr::from(CLIENT.1)), 128, binding(ORDERS)),
        (Addr::from(IpAddr::from(SERVER.0)), 128, binding(PAYMENTS)),
        (Addr::from(IpAddr::from(SERVER.1)), 128, binding(PAYMENTS)),
    ]
}

/// The blocklist.
pub fn blocks() -> Vec<(Addr, u32, BlockVersions)> {
    let block =
        Block { rule: 9, ends: Block::ORIGINATOR | Block::RESPONDER, _pad: [0; 3], not_after_ns: NEVER };
    let versions = BlockVersions { since: 0, _pad: 0, old: Block::NONE, new: block };
    vec![(Addr::from(IpAddr::from(BLOCKED)), 128, versions)]
}

/// The policy: orders may open the service of payments.
pub fn decisions() -> Vec<(PolicyKey, u32, DecisionVersions)> {
    let allow = Decision { rule: 1, action: Decision::ALLOW, ..Decision::NONE };
    let versions = DecisionVersions { since: 0, _pad: 0, old: Decision::NONE, new: allow };
    vec![(PolicyKey::new(ORDERS, PAYMENTS, TCP, SERVICE), PolicyKey::FULL_BITS, versions)]
}
