//! What an entry of a blocklist or an exception of a quarantine speaks of: an end, services, or services of an end.

use super::fields::{Context, Fields};
use super::ports::{PortError, PortMatch};
use super::selector::Selector;
use super::yaml::Node;
use serde::{Deserialize, Serialize};
use std::fmt;

/// An end, services, or services of an end. At least one is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The end; absent for every one.
    #[serde(flatten)]
    pub selector: Option<Selector>,
    /// Protocols and ports; empty for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMatch>,
}

impl Target {
    /// The fields of which a target has one or more.
    pub(super) const FIELDS: [&'static str; 6] =
        ["cidr", "spiffeId", "spiffePath", "trustDomain", "labels", "ports"];

    /// Whether it speaks of a service; `None` stands for protocols that nobody names.
    pub(super) fn is_about(&self, service: Option<(u8, u16)>) -> bool {
        match service {
            _ if self.ports.is_empty() => true,
            Some((proto, port)) => self.ports.iter().any(|ports| ports.matches(proto, port)),
            None => self.ports.contains(&PortMatch::Any),
        }
    }

    /// Reads the fields of a target from an item that has others too.
    pub(super) fn decode(cx: &mut Context<'_>, node: &Node, fields: &Fields<'_>) -> Option<Self> {
        let ends: Vec<_> = fields
            .all()
            .iter()
            .filter(|(name, ..)| *name != "ports" && Self::FIELDS.contains(name))
            .collect();
        if let [_, (_, second, _), ..] = ends[..] {
            let what = "an item speaks of one end, this one of more";
            cx.mistake(
                second,
                what,
                "write them as two items; a pair of ends is what a rule with `action: deny` is for",
            );
            return None;
        }
        let selector = match ends.first() {
            Some((name, _, value)) => Some(super::decode::selector_of(cx, name, value)?),
            None => None,
        };
        let ports = match fields.optional("ports") {
            Some(node) => {
                let mut ports = Vec::new();
                for item in cx.items(node, "`ports`", PortError::ACCEPTED) {
                    ports.push(cx.parsed::<PortMatch>(item, "an entry of `ports`", PortError::ACCEPTED)?);
                }
                ports
            }
            None => Vec::new(),
        };
        if selector.is_none() && ports.is_empty() {
            let accepted =
                format!("name an end, or services, or both: {}", super::fields::quoted(&Self::FIELDS));
            cx.mistake(node, "an item that speaks of nothing", accepted);
            return None;
        }
        Some(Self { selector, ports })
    }
}

impl fmt::Display for Target {
    /// `203.0.113.0/24 tcp/23,udp/53`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.ports.iter().map(PortMatch::to_string).collect::<Vec<_>>().join(",");
        match &self.selector {
            Some(selector) if ports.is_empty() => selector.fmt(f),
            Some(selector) => write!(f, "{selector} {ports}"),
            None => f.write_str(&ports),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_written_and_read_again() {
        for (json, text) in [
            (r#"{"cidr":"192.0.2.0/24"}"#, "192.0.2.0/24"),
            (r#"{"cidr":"192.0.2.0/24","ports":["tcp/23","udp/53"]}"#, "192.0.2.0/24 tcp/23,udp/53"),
            (r#"{"spiffeId":"spiffe://acme.example/a"}"#, "spiffe://acme.example/a"),
            (r#"{"labels":{"app":"dns"},"ports":["udp/53"]}"#, "labels app=dns udp/53"),
            (r#"{"ports":["icmp"]}"#, "icmp"),
        ] {
            let target: Target = serde_json::from_str(json).expect(json);
            assert_eq!(target.to_string(), text);
            assert_eq!(serde_json::to_string(&target).expect("json"), json);
        }
    }
}
