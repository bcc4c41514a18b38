//! tshark, with nothing enabled but the headers that the packet path reads.

use super::tunnel::values_in;
use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is asked for.
const FIELDS: [&str; 53] = [
    "frame.number",
    "frame.protocols",
    "eth.type",
    "ieee8021ad.id",
    "vlan.id",
    "vlan.etype",
    "ip.version",
    "ip.src",
    "ip.dst",
    "ip.proto",
    "ip.len",
    "ip.hdr_len",
    "ip.ttl",
    "ip.id",
    "ip.frag_offset",
    "ip.flags.mf",
    "ipv6.version",
    "ipv6.src",
    "ipv6.dst",
    "ipv6.plen",
    "ipv6.nxt",
    "ipv6.hlim",
    "ipv6.hopopts.nxt",
    "ipv6.dstopts.nxt",
    "ipv6.routing.nxt",
    "ipv6.fraghdr.nxt",
    "ipv6.fraghdr.offset",
    "ipv6.fraghdr.more",
    "ipv6.fraghdr.ident",
    "ah.next_header",
    "gre.proto",
    "gre.flags.version",
    "geneve.proto_type",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.flags",
    "tcp.seq_raw",
    "tcp.ack_raw",
    "tcp.window_size_value",
    "tcp.options.mss_val",
    "tcp.options.wscale.shift",
    "udp.srcport",
    "udp.dstport",
    "udp.length",
    "sctp.srcport",
    "sctp.dstport",
    "icmp.type",
    "icmp.code",
    "icmpv6.type",
    "icmpv6.code",
    "_ws.malformed",
    "_ws.short",
    "_ws.expert.message",
];

/// These alone are read; with the others tshark would look into payloads.
const PROTOCOLS: &str = " frame eth ethertype vlan ieee8021ad llc arp ip ipv6 ipv6.hopopts ipv6.dstopts ipv6.routing \
     ipv6.fraghdr ah tcp udp sctp icmp icmpv6 data _ws.malformed _ws.short _ws.expert ";

const TUNNELS: [&str; 3] = ["vxlan", "geneve", "gre"];

/// One frame; fields that it has not are not there.
pub struct Row(HashMap<&'static str, String>);

impl Row {
    /// All values of a field, outermost first.
    pub fn all(&self, field: &str) -> impl Iterator<Item = &str> {
        self.0
            .get(field)
            .map(String::as_str)
            .unwrap_or_default()
            .split('\u{1f}')
            .filter(|text| !text.is_empty())
    }

    /// The layers, outermost first.
    pub fn layers(&self) -> Vec<&str> {
        self.text("frame.protocols").unwrap_or_default().split(':').collect()
    }

    /// The first layers alone.
    pub fn ahead(&self, end: usize) -> Self {
        let layers = self.layers();
        let cut = |(field, text): (&&'static str, &String)| {
            let kept: Vec<&str> = match *field {
                "frame.protocols" => return Some((*field, layers[..end].join(":"))),
                field if of_frame(field) => return Some((field, text.clone())),
                // A layer may have many of them, but no packet of TCP carries another.
                field if is_option(field) => {
                    text.split('\u{1f}').filter(|_| layers[..end].contains(&"tcp")).collect()
                }
                field => text.split('\u{1f}').take(values_in(&layers[..end], field)).collect(),
            };
            (!kept.is_empty()).then(|| (*field, kept.join("\u{1f}")))
        };
        Self(self.0.iter().filter_map(cut).collect())
    }

    /// What lies behind so many layers, of which those before `network` are its link's: fields of the layers before are not there but
    /// for the VLAN tags of the frame.
    pub fn behind(&self, begin: usize, network: usize) -> Self {
        let layers = self.layers();
        let is_tag = |field: &str| matches!(field, "vlan.id" | "ieee8021ad.id");
        let cut = |(field, text): (&&'static str, &String)| -> Option<(&'static str, String)> {
            let outer = values_in(&layers[..begin], field);
            let values = text.split('\u{1f}');
            let kept: Vec<&str> = match *field {
                "frame.protocols" => return Some((*field, layers[network..].join(":"))),
                // The type is that of what is carried.
                "eth.type" | "vlan.etype" => return None,
                field if of_frame(field) || is_option(field) => values.collect(),
                field if is_tag(field) => values.take(outer).collect(),
                _ => values.skip(outer).collect(),
            };
            (!kept.is_empty()).then(|| (*field, kept.join("\u{1f}")))
        };
        let mut fields: HashMap<_, _> = self.0.iter().filter_map(cut).collect();
        let kind = match layers.get(network) {
            Some(&"ip") => Some("0x0800".to_owned()),
            Some(&"ipv6") => Some("0x86dd".to_owned()),
            _ => self.kind_of_link(&layers[..begin]),
        };
        fields.extend(kind.map(|kind| ("eth.type", kind)));
        Self(fields)
    }

    /// The EtherType that the innermost of the layers behind these names.
    fn kind_of_link(&self, outer: &[&str]) -> Option<String> {
        let behind = |field: &'static str| self.all(field).skip(values_in(outer, field)).last();
        let of_tunnel = || self.text("gre.proto").or_else(|| self.text("geneve.proto_type"));
        if self.layers().contains(&"llc") {
            return Some("0".to_owned()); // a length in its place
        }
        let of_protocol = || {
            let protocol = self.number(if outer.contains(&"ip") { "ip.proto" } else { "ipv6.nxt" });
            [(4, "0x0800"), (41, "0x86dd")].iter().find(|(n, _)| Some(*n) == protocol).map(|(_, kind)| *kind)
        };
        let named = behind("vlan.etype").or_else(|| behind("eth.type"));
        named.or_else(of_tunnel).or_else(of_protocol).map(str::to_owned)
    }

    /// The outermost.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.all(field).next()
    }

    /// The outermost, as a number.
    pub fn number(&self, field: &str) -> Option<u64> {
        self.text(field).and_then(number)
    }
}

/// Whether a layer may have a field many times.
fn is_option(field: &str) -> bool {
    field.starts_with("tcp.options.")
}

/// Whether a field is of no layer.
fn of_frame(field: &str) -> bool {
    field.starts_with("frame.") || field.starts_with("_ws.")
}

/// Decimal, hexadecimal or a truth value.
pub fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// tshark with a configuration of its own.
pub struct Tshark {
    config: PathBuf,
}

impl Tshark {
    /// Puts its configuration into a folder. It looks into tunnels where that is asked for.
    pub fn new(folder: &Path, tunnels: bool) -> Result<Self> {
        let config = folder.join("wireshark");
        std::fs::create_dir_all(&config)?;
        let output =
            Command::new("tshark").args(["-G", "protocols"]).output().context("cannot start tshark")?;
        let listed = String::from_utf8_lossy(&output.stdout);
        let names = listed.lines().filter_map(|line| line.split('\t').nth(2));
        let disabled: Vec<&str> = names.filter(|name| !is_read(name, tunnels)).collect();
        std::fs::write(config.join("disabled_protos"), disabled.join("\n") + "\n")?;
        Ok(Self { config })
    }

    /// Reads a capture.
    pub fn rows(&self, capture: &Path) -> Result<Vec<Row>> {
        let mut command = Command::new("tshark");
        command.env("WIRESHARK_CONFIG_DIR", &self.config);
        command
            .args(["-n", "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=\u{1f}", "-r"])
            .arg(capture);
        // A packet at a time, as the packet path sees them; no guess at what checks out.
        for preference in ["ip.defragment:FALSE", "ipv6.defragment:FALSE", "tcp.desegment_tcp_streams:FALSE"]
        {
            command.args(["-o", preference]);
        }
        for field in FIELDS {
            command.args(["-e", field]);
        }
        let output = command.output().context("cannot start tshark")?;
        if !output.status.success() {
            bail!("tshark: {}", String::from_utf8_lossy(&output.stderr));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().map(row).collect())
    }
}

/// Options of headers are protocols too.
fn is_read(name: &str, tunnels: bool) -> bool {
    if TUNNELS.contains(&name) {
        return tunnels;
    }
    PROTOCOLS.contains(&format!(" {name} "))
        || name.starts_with("tcp.options")
        || name.starts_with("ip.options")
        || name.starts_with("ipv6.routing")
}

fn row(line: &str) -> Row {
    let values = FIELDS.into_iter().zip(line.split('\t'));
    Row(values
        .filter(|(_, value)| !value.is_empty())
        .map(|(field, value)| (field, value.to_owned()))
        .collect())
}
