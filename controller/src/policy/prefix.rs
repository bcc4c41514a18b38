//! Address prefixes of both families in the form in which the kernel's tries hold them.

use datapath::abi::Addr;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A CIDR prefix, IPv4 mapped into IPv6. The order is that of a walk through the trie: a prefix comes before all
/// that lie in it. There can be millions: it is as small as it can be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    /// In network order, which sorts as numbers do.
    octets: [u8; 16],
    bits: u8,
}

/// What keeps a text from being a prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// No address.
    #[error("`{0}` is not an IP address or CIDR prefix, such as 10.1.0.0/16 or fd00:1::/64")]
    Address(String),
    /// A length that the family does not have.
    #[error("the prefix length `{text}` is not one of 0 to {max}")]
    Length {
        /// What stands there.
        text: String,
        /// The longest of the family.
        max: u8,
    },
    /// Bits beyond the length.
    #[error(
        "`{text}` has bits set beyond its prefix length: write {right} for the network, or {host} for the address"
    )]
    HostBits {
        /// What stands there.
        text: String,
        /// The network.
        right: Prefix,
        /// The single address.
        host: Prefix,
    },
}

impl Prefix {
    /// All of IPv6. Its bits hold IPv4 too, but it does not mean it.
    pub const V6_ALL: Self = Self { octets: [0; 16], bits: 0 };
    /// All of IPv4.
    pub const V4_ALL: Self = Self { octets: (0xffff_u128 << 32).to_be_bytes(), bits: 96 };

    /// A single address.
    pub fn host(addr: Addr) -> Self {
        Self { octets: addr.octets(), bits: 128 }
    }

    /// The first `bits` bits (of 128) of an address.
    pub fn new(addr: Addr, bits: u8) -> Self {
        let bits = bits.min(128);
        Self { octets: (u128::from_be_bytes(addr.octets()) & mask(bits)).to_be_bytes(), bits }
    }

    /// The address as the maps hold it.
    pub fn addr(&self) -> Addr {
        Addr::v6(self.octets)
    }

    /// The prefix length as the maps hold it: of 128, also for IPv4.
    pub fn bits(&self) -> u32 {
        u32::from(self.bits)
    }

    fn address(&self) -> u128 {
        u128::from_be_bytes(self.octets)
    }

    /// Whether it lies in IPv4.
    pub fn is_v4(&self) -> bool {
        Self::V4_ALL.holds(self)
    }

    /// Whether the trie finds `self` for what lies in `other`: bits only, so `::/0` holds all of IPv4 too.
    pub fn holds(&self, other: &Self) -> bool {
        self.bits <= other.bits && other.address() & mask(self.bits) == self.address()
    }

    /// Whether `other` lies in `self` as people read them: `::/0` has no IPv4 address in it.
    pub fn covers(&self, other: &Self) -> bool {
        self.holds(other) && self.is_v4() == other.is_v4()
    }
}

fn mask(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let ip: IpAddr = address.parse().map_err(|_| PrefixError::Address(text.to_owned()))?;
        let max = if ip.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => max,
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|n| *n <= max && digits.bytes().all(|b| b.is_ascii_digit()))
                .ok_or_else(|| PrefixError::Length { text: digits.to_owned(), max })?,
        };
        let addr = Addr::from(ip);
        let prefix = Self::new(addr, if ip.is_ipv4() { length + 96 } else { length });
        if prefix.addr() != addr {
            return Err(PrefixError::HostBits {
                text: text.to_owned(),
                right: prefix,
                host: Self::host(addr),
            });
        }
        Ok(prefix)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v6 = Ipv6Addr::from(self.octets);
        match v6.to_ipv4_mapped() {
            Some(v4) if self.is_v4() => write!(f, "{v4}/{}", self.bits - 96),
            _ => write!(f, "{v6}/{}", self.bits),
        }
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;

    fn try_from(text: String) -> Result<Self, PrefixError> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().expect(text)
    }

    #[test]
    fn both_families_have_one_form() {
        assert_eq!(prefix("10.0.0.0/8").bits(), 104);
        assert_eq!(prefix("10.0.0.0/8").addr(), Addr::v4([10, 0, 0, 0]));
        assert_eq!(prefix("10.1.0.2").to_string(), "10.1.0.2/32");
        assert_eq!(prefix("fd00:1::2").to_string(), "fd00:1::2/128");
        assert_eq!(prefix("0.0.0.0/0"), Prefix::V4_ALL);
        assert_eq!(prefix("::/0").to_string(), "::/0");
        assert_eq!(prefix("0.0.0.0/0").to_string(), "0.0.0.0/0");
    }

    #[test]
    fn a_prefix_covers_what_lies_in_it_and_no_other_family() {
        assert!(prefix("10.0.0.0/8").covers(&prefix("10.255.0.0/16")));
        assert!(!prefix("10.0.0.0/8").covers(&prefix("11.0.0.0/16")));
        assert!(prefix("::/0").holds(&prefix("10.0.0.0/8")));
        assert!(!prefix("::/0").covers(&prefix("10.0.0.0/8")));
        assert!(prefix("::/0").covers(&prefix("fd00::/8")));
    }

    #[test]
    fn what_is_no_prefix_says_what_is() {
        let error = |text: &str| text.parse::<Prefix>().expect_err(text).to_string();
        assert_eq!(
            error("10.1.2.3/16"),
            "`10.1.2.3/16` has bits set beyond its prefix length: write 10.1.0.0/16 for the network, or 10.1.2.3/32 for the address"
        );
        assert_eq!(error("10.0.0.0/33"), "the prefix length `33` is not one of 0 to 32");
        assert_eq!(error("10.0.0.0/+8"), "the prefix length `+8` is not one of 0 to 32");
        assert_eq!(
            error("ten"),
            "`ten` is not an IP address or CIDR prefix, such as 10.1.0.0/16 or fd00:1::/64"
        );
    }
}
