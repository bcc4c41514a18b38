//! Where, beside its address, a binding holds: on a VLAN, on an interface, for some ports.

use super::ports::PortMatch;
use super::prefix::Prefix;
use datapath::wire::proto;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What narrows a binding down. Without anything it holds wherever its addresses are.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct Scope {
    /// Only what is on this interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Only what has this as its outermost VLAN ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Only these of its own ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMatch>,
}

/// What is wrong with a scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// No VLAN ID (IEEE 802.1Q, table 9-2).
    #[error("{0} is no VLAN ID: write 1 to 4094")]
    Vlan(u16),
    /// A name that no interface can have.
    #[error("`{0}` is no interface name: 1 to 15 characters without space or slash")]
    Interface(String),
    /// A protocol without ports.
    #[error("`{0}` has no ports: write for example `tcp/30000-30999` or `udp/5000`")]
    Ports(PortMatch),
    /// Ports of many addresses.
    #[error("{0} is more than one address: `ports` tell apart who shares a single address")]
    Prefix(Prefix),
}

impl Scope {
    /// Whether it narrows nothing down.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it is a scope, and one that a binding of these addresses can have.
    pub fn check(&self, addresses: &[Prefix]) -> Result<(), ScopeError> {
        if let Some(vlan) = self.vlan.filter(|vlan| !(1..=4094).contains(vlan)) {
            return Err(ScopeError::Vlan(vlan));
        }
        let is_name = |name: &str| {
            (1..=15).contains(&name.len()) && !name.contains(|c: char| c == '/' || c.is_whitespace())
        };
        if let Some(name) = self.interface.as_deref().filter(|name| !is_name(name)) {
            return Err(ScopeError::Interface(name.to_owned()));
        }
        let has_ports = |ports: &PortMatch| {
            matches!(ports, PortMatch::Protocol { proto: proto::TCP | proto::UDP | proto::SCTP, .. })
        };
        if let Some(ports) = self.ports.iter().find(|ports| !has_ports(ports)) {
            return Err(ScopeError::Ports(*ports));
        }
        if !self.ports.is_empty()
            && let Some(prefix) = addresses.iter().find(|prefix| prefix.bits() != 128)
        {
            return Err(ScopeError::Prefix(*prefix));
        }
        Ok(())
    }
}

impl fmt::Display for Scope {
    /// ` on eth1 vlan 10 ports tcp/80`; nothing where it narrows nothing down.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(interface) = &self.interface {
            write!(f, " on {interface}")?;
        }
        if let Some(vlan) = self.vlan {
            write!(f, " vlan {vlan}")?;
        }
        for (n, ports) in self.ports.iter().enumerate() {
            write!(f, "{}{ports}", if n == 0 { " ports " } else { "," })?;
        }
        Ok(())
    }
}
