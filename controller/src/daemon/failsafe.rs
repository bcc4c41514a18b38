//! Services of the gateway itself that no policy may cut.

use crate::exit_code::{Code, Failure, Result};
use crate::policy::ports::{PortMatch, has_ports};
use datapath::abi::{Addr, Config, FailsafeKey};
use loader::Maps;
use std::collections::HashSet;
use std::net::IpAddr;

/// Reads services; `none` alone stands for no service.
pub fn parse_all(texts: &[String]) -> Result<Vec<(u8, u16)>> {
    match texts {
        [none] if none == "none" => Ok(Vec::new()),
        texts => texts.iter().map(|text| parse(text)).collect(),
    }
}

/// As [`parse`] reads it.
pub fn text((proto, port): (u8, u16)) -> String {
    PortMatch::Protocol { proto, first: port, last: port }.to_string()
}

/// Reads `tcp/22`.
pub fn parse(text: &str) -> Result<(u8, u16)> {
    match text.parse() {
        Ok(PortMatch::Protocol { proto, first, last }) if first == last && has_ports(proto) => {
            Ok((proto, first))
        }
        _ => Err(Failure::new(
            Code::Usage,
            format!("--failsafe {text}: a protocol and one port, such as tcp/22"),
        )),
    }
}

/// Makes the table hold these services on each of the gateway's addresses, and nothing else.
pub fn sync(maps: &Maps, services: &[(u8, u16)]) -> Result<()> {
    let wanted: HashSet<FailsafeKey> = own_addresses()
        .into_iter()
        .flat_map(|addr| services.iter().map(move |(proto, port)| (addr, *proto, *port)))
        .map(|(addr, proto, port)| FailsafeKey::new(addr, proto, port))
        .collect();
    let there: HashSet<FailsafeKey> = maps.failsafe.entries()?.into_keys().collect();
    for key in wanted.difference(&there) {
        maps.failsafe.insert(key, &1)?;
    }
    // While there is none, nobody looks for one.
    maps.config.update(|config| {
        config.flags &= !Config::FAILSAFE;
        if !wanted.is_empty() {
            config.flags |= Config::FAILSAFE;
        }
    })?;
    for key in there.difference(&wanted) {
        maps.failsafe.remove(key)?;
    }
    Ok(())
}

fn own_addresses() -> Vec<Addr> {
    let Ok(addresses) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    addresses.filter_map(address).map(Addr::from).collect()
}
