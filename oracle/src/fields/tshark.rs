//! tshark, with nothing enabled but the headers that the packet path reads.

use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is asked for.
const FIELDS: [&str; 50] = [
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

/// These alone are read; with the others tshark would look into payloads and tunnels.
const PROTOCOLS: &str = " frame eth ethertype vlan ieee8021ad llc arp ip ipv6 ipv6.hopopts ipv6.dstopts ipv6.routing \
     ipv6.fraghdr ah tcp udp sctp icmp icmpv6 data _ws.malformed _ws.short _ws.expert ";

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

    /// The outermost.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.all(field).next()
    }

    /// The outermost, as a number.
    pub fn number(&self, field: &str) -> Option<u64> {
        self.text(field).and_then(number)
    }
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
    /// Puts its configuration into a folder.
    pub fn new(folder: &Path) -> Result<Self> {
        let config = folder.join("wireshark");
        std::fs::create_dir_all(&config)?;
        let output =
            Command::new("tshark").args(["-G", "protocols"]).output().context("cannot start tshark")?;
        let listed = String::from_utf8_lossy(&output.stdout);
        let names = listed.lines().filter_map(|line| line.split('\t').nth(2));
        let disabled: Vec<&str> = names.filter(|name| !is_read(name)).collect();
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
fn is_read(name: &str) -> bool {
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
