//! What a rule says of protocols and ports.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Protocols with names; the first three have ports, the next two types. `ipip` and `ip6ip` carry IPv4 and IPv6.
const NAMES: [(&str, u8); 11] = [
    ("tcp", 6),
    ("udp", 17),
    ("sctp", 132),
    ("icmp", 1),
    ("icmpv6", 58),
    ("igmp", 2),
    ("ipip", 4),
    ("ip6ip", 41),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
];

/// A protocol and a range of destination ports or of ICMP types, or everything.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
pub enum PortMatch {
    /// Every protocol and port.
    Any,
    /// One protocol.
    Protocol {
        /// IP protocol number.
        proto: u8,
        /// First port or type.
        first: u16,
        /// Last port or type; 65535 where they are not told apart.
        last: u16,
    },
}

/// What keeps a text from being a protocol and ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a protocol and ports: {why}")]
pub struct PortError {
    text: String,
    why: &'static str,
}

impl PortError {
    /// What is accepted.
    pub const ACCEPTED: &'static str = "accepted: `tcp/443`, `tcp/8000-8010`, `tcp`, the same with `udp` and `sctp`, `icmp/8`, `icmp/13-18`, `icmp`, the same with `icmpv6`, `igmp`, `esp`, `ah`, `gre`, `ipip`, `ip6ip`, `proto/89`, `any`";
}

impl PortMatch {
    /// Whether a packet to this protocol and port matches.
    pub fn matches(&self, proto: u8, port: u16) -> bool {
        match *self {
            Self::Any => true,
            Self::Protocol { proto: own, first, last } => own == proto && (first..=last).contains(&port),
        }
    }

    /// Whether all that `other` matches is matched.
    pub fn covers(&self, other: &Self) -> bool {
        match (*self, *other) {
            (Self::Any, _) => true,
            (_, Self::Any) => false,
            (Self::Protocol { proto, first, last }, Self::Protocol { proto: p, first: f, last: l }) => {
                proto == p && first <= f && l <= last
            }
        }
    }

    /// Whether something is matched by both.
    pub fn meets(&self, other: &Self) -> bool {
        match (*self, *other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::Protocol { proto, first, last }, Self::Protocol { proto: p, first: f, last: l }) => {
                proto == p && first <= l && f <= last
            }
        }
    }

    /// The protocol, `None` for every protocol.
    pub fn proto(&self) -> Option<u8> {
        match self {
            Self::Any => None,
            Self::Protocol { proto, .. } => Some(*proto),
        }
    }
}

/// `tcp`, `udp` and so on, or `proto/N`.
pub fn protocol_name(proto: u8) -> String {
    match NAMES.iter().find(|(_, n)| *n == proto) {
        Some((name, _)) => (*name).to_owned(),
        None => format!("proto/{proto}"),
    }
}

/// Whether the protocol has ports that rules can name.
pub fn has_ports(proto: u8) -> bool {
    NAMES[..3].iter().any(|(_, n)| *n == proto)
}

/// Whether the protocol has types that rules can name: those of the message that opens a flow.
pub fn has_types(proto: u8) -> bool {
    NAMES[3..5].iter().any(|(_, n)| *n == proto)
}

/// The greatest port or type of a protocol that has some.
fn greatest(proto: u8) -> Option<u16> {
    if has_ports(proto) { Some(u16::MAX) } else { has_types(proto).then_some(u16::from(u8::MAX)) }
}

/// `tcp/443`, `icmp/8`, or the bare protocol where it has neither ports nor types.
pub fn protocol_and_port(proto: u8, port: u16) -> String {
    if greatest(proto).is_some() { format!("{}/{port}", protocol_name(proto)) } else { protocol_name(proto) }
}

impl FromStr for PortMatch {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let refuse = |why| Err(PortError { text: text.to_owned(), why });
        let (name, ports) = match text.split_once('/') {
            Some((name, ports)) => (name, Some(ports)),
            None => (text, None),
        };
        let whole = |proto| Ok(Self::Protocol { proto, first: 0, last: u16::MAX });
        match (name, ports) {
            ("any", None) => Ok(Self::Any),
            ("proto", Some(n)) => match number::<u8>(n) {
                Some(proto) => whole(proto),
                None => refuse("protocol numbers are 0 to 255"),
            },
            ("proto", None) => refuse("its number is missing"),
            (name, ports) => match (NAMES.iter().find(|(n, _)| *n == name), ports) {
                (Some((_, proto)), None) => whole(*proto),
                (Some((_, proto)), Some(ports)) => {
                    let Some(greatest) = greatest(*proto) else {
                        return refuse("this protocol has neither ports nor types");
                    };
                    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
                    let number = |text| number::<u16>(text).filter(|n| *n <= greatest);
                    match (number(first), number(last)) {
                        (Some(first), Some(last)) if first > last => {
                            refuse("the range ends before it begins")
                        }
                        (Some(0), Some(last)) if last == greatest => whole(*proto),
                        (Some(first), Some(last)) => Ok(Self::Protocol { proto: *proto, first, last }),
                        _ if has_types(*proto) => refuse("types are 0 to 255"),
                        _ => refuse("ports are 0 to 65535"),
                    }
                }
                (None, _) => refuse(
                    "no such protocol name; it is one like tcp/443, udp/53, icmp/8, gre, proto/89 or any",
                ),
            },
        }
    }
}

/// Digits only: `parse` alone would take `+80`.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for PortMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Any => f.write_str("any"),
            Self::Protocol { proto, first: 0, last: u16::MAX } => f.write_str(&protocol_name(proto)),
            Self::Protocol { proto, first, last } if first == last => {
                write!(f, "{}/{first}", protocol_name(proto))
            }
            Self::Protocol { proto, first, last } => write!(f, "{}/{first}-{last}", protocol_name(proto)),
        }
    }
}

impl TryFrom<String> for PortMatch {
    type Error = PortError;

    fn try_from(text: String) -> Result<Self, PortError> {
        text.parse()
    }
}

impl From<PortMatch> for String {
    fn from(ports: PortMatch) -> Self {
        ports.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_accepted_form_is_read_and_written() {
        for text in [
            "tcp/443",
            "tcp/8000-8010",
            "udp/53",
            "sctp/38412",
            "icmp",
            "icmp/8",
            "icmp/13-18",
            "icmpv6",
            "icmpv6/128",
            "proto/89",
            "gre",
            "esp",
            "ipip",
            "ip6ip",
            "any",
            "tcp",
            "tcp/0",
        ] {
            assert_eq!(text.parse::<PortMatch>().expect(text).to_string(), text);
        }
        assert_eq!("proto/6".parse::<PortMatch>().expect("tcp").to_string(), "tcp");
        assert_eq!("tcp/0-65535".parse::<PortMatch>().expect("tcp").to_string(), "tcp");
        assert_eq!("icmp/0-255".parse::<PortMatch>().expect("icmp").to_string(), "icmp");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let why = |text: &str| text.parse::<PortMatch>().expect_err(text).why;
        assert_eq!(why("tcp/65536"), "ports are 0 to 65535");
        assert_eq!(why("tcp/"), "ports are 0 to 65535");
        assert_eq!(why("tcp/+1"), "ports are 0 to 65535");
        assert_eq!(why("tcp/10-1"), "the range ends before it begins");
        assert_eq!(why("icmp/256"), "types are 0 to 255");
        assert_eq!(why("icmpv6/x"), "types are 0 to 255");
        assert_eq!(why("esp/8"), "this protocol has neither ports nor types");
        assert_eq!(why("proto/256"), "protocol numbers are 0 to 255");
        assert!(why("443").starts_with("no such protocol name; it is one like tcp/443"), "{}", why("443"));
        assert_eq!(why("TCP/443"), why("443"));
    }

    #[test]
    fn matching_is_by_protocol_and_range() {
        let range: PortMatch = "tcp/8000-8010".parse().expect("range");
        assert!(range.matches(6, 8000) && range.matches(6, 8010));
        assert!(!range.matches(6, 7999) && !range.matches(6, 8011) && !range.matches(17, 8000));
        assert!(PortMatch::Any.matches(50, 0));
        let echo: PortMatch = "icmp/8".parse().expect("a type");
        assert!(echo.matches(1, 8) && !echo.matches(1, 0) && !echo.matches(58, 8) && !echo.matches(6, 8));
    }
}
