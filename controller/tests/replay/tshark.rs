//! What tshark reads from the made captures, field by field.

use super::run::HOST;
use super::scenes;
use serde_json::{Value, json};
use std::io::Write;
use std::process::Command;

const FIELDS: [&str; 24] = [
    "ieee8021ad.id",
    "eth.type",
    "vlan.etype",
    "vlan.id",
    "ip.version",
    "ipv6.version",
    "ip.src",
    "ipv6.src",
    "ip.dst",
    "ipv6.dst",
    "tcp.srcport",
    "udp.srcport",
    "tcp.dstport",
    "udp.dstport",
    "tcp.flags",
    "icmp.type",
    "icmpv6.type",
    "icmp.code",
    "icmpv6.code",
    "ip.frag_offset",
    "ipv6.fraghdr.offset",
    "ip.flags.mf",
    "ipv6.fraghdr.more",
    "ip.len",
];

fn tshark(capture: &[u8]) -> Vec<Vec<String>> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(capture).unwrap();
    let mut command = Command::new("tshark");
    command.args(["-n", "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=,", "-r"]).arg(file.path());
    command.args(["-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE"]);
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split('\t').map(String::from).collect()).collect()
}

/// The first of these fields that is there, as text.
fn text(row: &[String], fields: &[&str]) -> Option<String> {
    let value = |field: &&str| row[FIELDS.iter().position(|known| known == field).unwrap()].clone();
    fields.iter().map(value).find(|value| !value.is_empty())
}

fn number(row: &[String], fields: &[&str]) -> Value {
    let read = |text: String| match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
        None => text.parse().unwrap(),
    };
    json!(text(row, fields).map(read))
}

fn expected(row: &[String]) -> Vec<(&'static str, Value)> {
    let last_tag =
        text(row, &["vlan.etype"]).and_then(|types| types.split(',').next_back().map(String::from));
    let eth_type = match last_tag {
        Some(hex) => json!(u64::from_str_radix(hex.trim_start_matches("0x"), 16).unwrap()),
        None => number(row, &["eth.type"]),
    };
    let ids = ["ieee8021ad.id", "vlan.id"].into_iter().filter_map(|field| text(row, &[field]));
    let vlans: Vec<u64> =
        ids.flat_map(|ids| ids.split(',').map(|id| id.parse().unwrap()).collect::<Vec<_>>()).collect();
    // The field as it lies in the header, in units of eight bytes.
    let offset = number(row, &["ip.frag_offset", "ipv6.fraghdr.offset"]).as_u64().map(|units| units * 8);
    let more = number(row, &["ip.flags.mf", "ipv6.fraghdr.more"]).as_u64().map(|more| more == 1);
    vec![
        ("eth_type", eth_type),
        ("vlans", json!((!vlans.is_empty()).then_some(vlans))),
        ("ip_version", number(row, &["ip.version", "ipv6.version"])),
        ("src", json!(text(row, &["ip.src", "ipv6.src"]))),
        ("dst", json!(text(row, &["ip.dst", "ipv6.dst"]))),
        ("sport", number(row, &["tcp.srcport", "udp.srcport"])),
        ("dport", number(row, &["tcp.dstport", "udp.dstport"])),
        ("tcp_flags", number(row, &["tcp.flags"])),
        ("icmp_type", number(row, &["icmp.type", "icmpv6.type"])),
        ("icmp_code", number(row, &["icmp.code", "icmpv6.code"])),
        ("frag_offset", json!(offset)),
        ("more_fragments", json!(more)),
    ]
}

#[test]
fn every_field_of_the_made_captures_agrees_with_tshark() {
    let mut frames = 0;
    for (name, capture) in scenes::all() {
        // What is malformed, or has more tags than are read, tshark reads further into.
        if ["malformed", "vlans"].contains(&name.as_str()) {
            continue;
        }
        let records = HOST.packets().records(&capture);
        let rows = tshark(&capture);
        assert_eq!(records.len(), rows.len(), "{name}");
        for (record, row) in records.iter().zip(&rows) {
            for (field, value) in expected(row) {
                assert_eq!(record[field], value, "{name}: {field} of frame {}", record["frame"]);
            }
            if let Some(bytes) = number(row, &["ip.len"]).as_u64() {
                assert_eq!(record["ip_bytes"], bytes, "{name}: frame {}", record["frame"]);
            }
            frames += 1;
        }
    }
    assert!(frames > 100, "{frames}");
}

#[test]
fn up_to_three_vlan_tags_agree_with_tshark() {
    let capture = scenes::vlans().pcap();
    let records = HOST.packets().records(&capture);
    for (record, row) in records.iter().zip(&tshark(&capture)).take(3) {
        for (field, value) in expected(row) {
            assert_eq!(record[field], value, "{field} of frame {}", record["frame"]);
        }
    }
}
