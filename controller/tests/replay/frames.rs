//! One record a frame: every field, null where the frame has none.

use super::build::{START_NS, Scene, Tcp, ping6};
use super::run::HOST;
use super::scenes;
use serde_json::{Value, json};

/// The fields of a record that are not null, without those that every frame has.
fn present(record: &Value) -> Value {
    let mut record = record.clone();
    let fields = record.as_object_mut().unwrap();
    for common in ["frame", "ts", "verdict", "wire_bytes", "captured_bytes"] {
        assert_ne!(fields.remove(common), None);
    }
    fields.retain(|_, value| !value.is_null());
    record
}

fn presents(scene: &Scene) -> Vec<Value> {
    HOST.packets().records(&scene.pcap()).iter().map(present).collect()
}

#[test]
fn a_record_has_every_field() {
    let records =
        HOST.packets().records(&Scene::default().frame(Tcp::to(443).segment(true, "S", &[])).pcap());
    assert_eq!(
        records,
        [json!({
            "frame": 1, "ts": START_NS as f64 / 1e9, "verdict": "FORWARDED", "reason": "FORWARDED", "rule": null,
            "eth_type": 0x0800, "vlans": null, "ip_version": 4, "src": "10.0.0.1", "dst": "10.0.0.2", "proto": 6,
            "hop_limit": 64, "sport": 40000, "dport": 443, "tcp_flags": 2, "tcp_seq": 1000, "tcp_ack": 0, "tcp_window": 64000,
            "tcp_mss": null, "tcp_window_scale": null, "fragment_id": null, "icmp_type": null, "icmp_code": null,
            "frag_offset": 0, "more_fragments": false, "ip_bytes": 40, "payload_bytes": 0,
            "wire_bytes": 54, "captured_bytes": 54,
        })]
    );
}

#[test]
fn vlan_tags_are_listed_outermost_first() {
    let records = HOST.packets().records(&scenes::vlans().pcap());
    let found: Vec<_> =
        records.iter().map(|r| (&r["vlans"], &r["eth_type"], &r["dport"], &r["reason"])).collect();
    let (ipv4, port) = (json!(0x0800), json!(53));
    let (forwarded, refused) = (json!("FORWARDED"), json!("VLAN_FILTERED"));
    let established = json!("ESTABLISHED");
    assert_eq!(
        found,
        [
            (&json!([5]), &ipv4, &port, &forwarded),
            (&json!([100, 200]), &ipv4, &port, &established),
            (&json!([1, 2, 3]), &ipv4, &port, &established),
            (&json!([1, 2, 3]), &json!(0x8100), &json!(null), &refused),
        ]
    );
}

#[test]
fn extension_headers_are_passed_over_and_fragment_headers_are_shown() {
    let common = json!({
        "eth_type": 0x86dd, "ip_version": 6, "src": "fd00::1", "dst": "fd00::2", "proto": 17, "sport": 5000,
        "hop_limit": 64, "dport": 53, "ip_bytes": 69, "payload_bytes": 5, "reason": "FORWARDED",
    });
    let atomic = json!({
        "eth_type": 0x86dd, "ip_version": 6, "src": "fd00::2", "dst": "fd00::1", "proto": 17, "sport": 53,
        "hop_limit": 64, "dport": 5000, "ip_bytes": 62, "payload_bytes": 6, "reason": "ESTABLISHED", "frag_offset": 0,
        "more_fragments": false,
    });
    assert_eq!(presents(&scenes::extension_headers()), [common, atomic]);
}

#[test]
fn a_later_fragment_has_no_ports_and_an_orphan_is_dropped() {
    let records = HOST.packets().records(&scenes::fragmented().pcap());
    let found: Vec<_> = records
        .iter()
        .map(|r| {
            (r["frag_offset"].as_u64(), r["more_fragments"].as_bool(), r["sport"].as_u64(), &r["reason"])
        })
        .collect();
    let (forwarded, established) = (json!("FORWARDED"), json!("ESTABLISHED"));
    let orphan = json!("FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND");
    assert_eq!(
        found,
        [
            (Some(0), Some(true), Some(5000), &forwarded),
            (Some(48), Some(true), None, &established),
            (Some(96), Some(false), None, &established),
            (Some(48), Some(true), None, &orphan),
        ]
    );
}

#[test]
fn icmp_shows_type_and_code_and_no_ports() {
    assert_eq!(
        presents(&Scene::default().frame(ping6(true))),
        [json!({
            "eth_type": 0x86dd, "ip_version": 6, "src": "fd00::1", "dst": "fd00::2", "proto": 58,
            "hop_limit": 64, "icmp_type": 128, "icmp_code": 0, "ip_bytes": 56, "payload_bytes": 12, "reason": "FORWARDED",
        })]
    );
}

#[test]
fn link_control_passes() {
    assert_eq!(presents(&scenes::link_control()), [json!({"eth_type": 0x0806, "reason": "INFRASTRUCTURE"})]);
}

#[test]
fn every_malformed_shape_has_its_reason_and_no_invented_field() {
    let ipv4 = json!(0x0800);
    let expected = [
        json!({"reason": "INVALID_PACKET_DROPPED"}),
        json!({"reason": "IPV4_HEADER_TRUNCATED", "eth_type": ipv4}),
        json!({"reason": "IPV4_HEADER_LENGTH_INVALID", "eth_type": ipv4}),
        json!({"reason": "IPV4_VERSION_MISMATCH", "eth_type": ipv4}),
        json!({"reason": "IPV4_PACKET_CUT_OFF", "eth_type": ipv4}),
        json!({
            "reason": "UDP_LENGTH_INVALID", "eth_type": ipv4, "ip_version": 4, "src": "10.0.0.1",
            "dst": "10.0.0.2", "proto": 17, "frag_offset": 0, "more_fragments": false, "ip_bytes": 33,
            "hop_limit": 64, "payload_bytes": 13,
        }),
        json!({"reason": "IPV6_HEADER_TRUNCATED", "eth_type": 0x86dd}),
        json!({"reason": "UNSUPPORTED_L2_PROTOCOL", "eth_type": 0x9999}),
        json!({
            "reason": "TCP_INVALID_FLAGS", "eth_type": ipv4, "ip_version": 4, "src": "10.0.0.1", "dst": "10.0.0.2",
            "proto": 6, "sport": 40000, "hop_limit": 64, "dport": 80, "tcp_flags": 0, "tcp_seq": 1000, "tcp_ack": 0, "tcp_window": 64000, "frag_offset": 0, "more_fragments": false,
            "ip_bytes": 40, "payload_bytes": 0,
        }),
        json!({
            "reason": "TCP_DATA_OFFSET_INVALID", "eth_type": ipv4, "ip_version": 4, "src": "10.0.0.1",
            "dst": "10.0.0.2", "proto": 6, "frag_offset": 0, "more_fragments": false, "ip_bytes": 40,
            "hop_limit": 64, "payload_bytes": 20,
        }),
        json!({"reason": "INVALID_PACKET_DROPPED"}),
    ];
    assert_eq!(presents(&scenes::malformed()), expected);
    let records = HOST.packets().records(&scenes::malformed().pcap());
    assert!(records.iter().all(|record| record["verdict"] == "DROPPED"));
}
