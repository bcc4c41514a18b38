//! What tshark found in a tunnel, as a row of its own.

use super::tshark::Row;

/// UDP ports of VXLAN (RFC 7348, section 8) and Geneve (RFC 8926, section 3.3). tshark looks at both ports; a tunnel is named by
/// the one that it goes to.
const PORTS: [(&str, u64); 2] = [("vxlan", 4789), ("geneve", 6081)];

fn is_extension(layer: &str) -> bool {
    layer == "ah" || layer.starts_with("ipv6.")
}

fn is_link(layer: &str) -> bool {
    matches!(layer, "eth" | "ethertype" | "vlan" | "ieee8021ad")
}

fn is_network(layer: &str) -> bool {
    layer == "ip" || layer == "ipv6"
}

/// A frame that carries a packet in a tunnel.
pub struct Tunnel {
    /// The packet that carries.
    pub outer: Row,
    /// The one that is carried, with the VLAN tags of the frame.
    pub inner: Row,
}

/// The two packets of a frame; `None` where there is no tunnel. One level is looked into, and nothing of a fragment.
pub fn split(row: &Row) -> Option<Tunnel> {
    let layers = row.layers();
    let outer = layers.iter().position(|layer| is_network(layer))?;
    let at = outer + 1 + layers[outer + 1..].iter().take_while(|layer| is_extension(layer)).count();
    if is_fragment(row, &layers[..at]) {
        return None;
    }
    let begin = match layers[at..] {
        [inner, ..] if is_network(inner) => at,
        // Version 1 is PPTP's, which carries no packets of ours (RFC 2637).
        ["gre", ..] if row.number("gre.flags.version") == Some(0) => at + 1,
        ["udp", name, ..] => {
            let port = PORTS.iter().find(|(tunnel, _)| *tunnel == name).map(|(_, port)| *port)?;
            row.number("udp.dstport").filter(|to| *to == port)?;
            at + 2
        }
        // What is no packet of IP, where the protocol says that there is one.
        ["data", ..] if is_ip_in_ip(row, &layers[..at]) => at,
        _ => return None,
    };
    let link = layers[begin..].iter().take_while(|layer| is_link(layer)).count();
    Some(Tunnel { outer: row.ahead(begin), inner: row.behind(begin, begin + link) })
}

/// The frame without the link header that a tunnel carries, if it has one.
pub fn outermost(row: &Row) -> Row {
    let layers = row.layers();
    row.ahead(layers.iter().skip(1).position(|layer| *layer == "eth").map_or(layers.len(), |at| at + 1))
}

/// Whether the outer header, which has no extension, says that it is followed by another: protocols 4 and 41.
fn is_ip_in_ip(row: &Row, outer: &[&str]) -> bool {
    let field = match outer.last() {
        Some(&"ip") => "ip.proto",
        Some(&"ipv6") => "ipv6.nxt",
        _ => return false,
    };
    matches!(row.number(field), Some(4 | 41))
}

fn is_fragment(row: &Row, outer: &[&str]) -> bool {
    let is_one = |offset: &str, more: &str| {
        [offset, more].iter().any(|field| row.number(field).is_some_and(|n| n != 0))
    };
    match outer.contains(&"ipv6") {
        // What an inner packet has comes behind; without a header of the outer, the first would be the inner's.
        true if outer.contains(&"ipv6.fraghdr") => is_one("ipv6.fraghdr.offset", "ipv6.fraghdr.more"),
        true => false,
        false => is_one("ip.frag_offset", "ip.flags.mf"),
    }
}

/// How many values of a field the layers have: each layer has one of each of its fields.
pub fn values_in(layers: &[&str], field: &str) -> usize {
    let layer = field.rsplit_once('.').map_or(field, |(layer, _)| layer);
    let layer = if layer == "ip.flags" { "ip" } else { layer };
    layers.iter().filter(|name| **name == layer).count()
}
