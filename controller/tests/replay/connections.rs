//! One record a connection: Zeek's fields with Zeek's meanings.

use super::build::{START_NS, Scene, Tcp, client_hello, message, ping, ping6, record, udp, udp6};
use super::run::{HOST, summary};
use super::scenes;
use serde_json::json;

#[test]
fn every_conn_state_comes_with_its_history_and_counts() {
    for (letters, state, history) in scenes::STATES {
        let records = HOST.records(&scenes::tcp(letters).pcap());
        let count = |from: fn(&char) -> bool| letters.chars().filter(from).count();
        let bytes = |from: fn(&char) -> bool, data: char| {
            count(from) * 40 + letters.chars().filter(|letter| *letter == data).count() * 10
        };
        let (orig, resp) = (char::is_ascii_uppercase, char::is_ascii_lowercase);
        let expected = format!(
            "tcp 10.0.0.1:40000>10.0.0.2:8080 {state} {history} {}/{} {}/{} - FORWARDED",
            count(orig),
            count(resp),
            bytes(orig, 'D'),
            bytes(resp, 'd'),
        );
        assert_eq!(records.iter().map(summary).collect::<Vec<_>>(), [expected], "{letters}");
    }
}

#[test]
fn a_record_has_exact_times_and_no_field_is_left_out() {
    let records = HOST.records(&scenes::tcp("ShADaFfA").pcap());
    let seconds =
        |ns: u64| json!(format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000).parse::<f64>().unwrap());
    assert_eq!(
        records,
        [json!({
            "ts": seconds(START_NS),
            "orig_h": "10.0.0.1", "orig_p": 40000, "resp_h": "10.0.0.2", "resp_p": 8080,
            "proto": "tcp", "ip_proto": 6, "conn_state": "SF", "history": "ShADaFf",
            // Seven packets in steps of a millisecond; the last ACK is not counted in it, as in Zeek.
            "duration": 0.006,
            "orig_pkts": 5, "resp_pkts": 3, "orig_ip_bytes": 210, "resp_ip_bytes": 120,
            "tls": null, "tls_inferred": null, "tls_alert": null,
            "tls_sni": null, "tls_alpn": null, "tls_versions": null, "tls_ja4": null, "tls_ech": null,
            "tls_hello_partial": null,
            "quic": null, "quic_version": null, "quic_retry": null, "quic_version_negotiation": null,
            "verdict": "FORWARDED", "reason": "FORWARDED", "rule": null,
        })]
    );
    let (text, _) = HOST.text(&scenes::tcp("ShADaFfA").pcap());
    assert!(text.starts_with(r#"{"ts":1700000000.123456789,"orig_h":"#), "{text}");
    assert!(text.contains(r#""duration":0.006000000,"#), "{text}");
}

#[test]
fn a_single_packet_has_no_duration() {
    let records = HOST.records(&scenes::tcp("S").pcap());
    assert_eq!(records[0]["duration"], json!(null));
}

#[test]
fn tls_is_told_as_far_as_the_wire_shows_it() {
    for (name, scene, tls, inferred, alert) in scenes::tls_scenes() {
        let records = HOST.records(&scene.pcap());
        let found: Vec<_> =
            records.iter().map(|r| (&r["tls"], &r["tls_inferred"], &r["tls_alert"])).collect();
        assert_eq!(found, [(&json!(tls), &json!(inferred), &json!(alert))], "{name}");
    }
}

#[test]
fn udp_and_icmp_flows_are_connections_too() {
    let scene = Scene::default()
        .frames([udp(true, b"query"), udp(false, b"answer"), udp6(true, b"q"), ping(true), ping(false)])
        .frames([ping6(true)]);
    let records = HOST.records(&scene.pcap());
    assert_eq!(
        records.iter().map(summary).collect::<Vec<_>>(),
        [
            "udp 10.0.0.1:5000>10.0.0.2:53 SF Dd 1/1 33/34 - FORWARDED",
            "udp fd00::1:5000>fd00::2:53 S0 D 1/0 49/0 - FORWARDED",
            "icmp 10.0.0.1:8>10.0.0.2:0 OTH - 1/1 36/36 - FORWARDED",
            "icmp fd00::1:128>fd00::2:129 OTH - 1/0 56/0 - FORWARDED",
        ]
    );
}

#[test]
fn a_key_that_is_used_again_makes_another_record() {
    let records = HOST.records(&scenes::incarnations().pcap());
    assert_eq!(
        records.iter().map(summary).collect::<Vec<_>>(),
        [
            "tcp 10.0.0.1:40000>10.0.0.2:8080 SF ShADaFf 5/3 210/120 - FORWARDED",
            "tcp 10.0.0.1:40000>10.0.0.2:8080 S1 ShAD 3/1 130/40 - FORWARDED",
            "udp 10.0.0.1:5000>10.0.0.2:53 S0 D 1/0 31/0 - FORWARDED",
            "udp 10.0.0.1:5000>10.0.0.2:53 S0 D 1/0 31/0 - FORWARDED",
        ]
    );
}

#[test]
fn fragments_count_in_the_flow_of_the_first_one() {
    // 128 bytes of UDP in fragments of 48: three packets with 20 bytes of header each.
    let records = HOST.records(&scenes::fragmented().pcap());
    assert_eq!(
        records.iter().map(summary).collect::<Vec<_>>(),
        ["udp 10.0.0.1:5000>10.0.0.2:53 S0 D 3/0 168/0 - FORWARDED"]
    );
}

#[test]
fn frames_beyond_a_page_are_counted_whole() {
    let records = HOST.records(&scenes::giant().pcap());
    assert_eq!(
        records.iter().map(summary).collect::<Vec<_>>(),
        ["tcp 10.0.0.1:40000>10.0.0.2:8080 S1 ShADd 3/2 60120/5080 - FORWARDED"]
    );
}

#[test]
fn what_flags_no_tcp_sends_is_dropped_and_reported() {
    let records = HOST.records(&scenes::malformed().pcap());
    assert_eq!(
        records.iter().map(summary).collect::<Vec<_>>(),
        ["tcp 10.0.0.1:40000>10.0.0.2:80 OTH - 1/0 40/0 - DROPPED TCP_INVALID_FLAGS"]
    );
}

const FIELDS: [&str; 6] = ["tls_sni", "tls_alpn", "tls_versions", "tls_ja4", "tls_ech", "tls_hello_partial"];

#[test]
fn a_client_hello_is_read_over_segments_and_records() {
    let short = json!([
        "pay.example",
        ["h2", "http/1.1"],
        ["1.3", "1.2"],
        "t13d0304h2_5559582ccdc4_ef5f37ab036a",
        null,
        false
    ]);
    let long = json!([
        "pay.example",
        ["h2", "http/1.1"],
        ["1.3", "1.2"],
        "t13d0306h2_5559582ccdc4_f854d66f0034",
        "outer",
        false
    ]);
    // The extensions in front of the one that is cut are there; a fingerprint of a part would be another's.
    let cut = json!(["pay.example", ["h2", "http/1.1"], ["1.3", "1.2"], null, null, true]);
    let sslv2 = json!([null, null, ["1.0"], null, null, false]);
    let expected = [&short, &long, &short, &short, &cut, &sslv2];
    for ((name, scene), expected) in scenes::hello_scenes().into_iter().zip(expected) {
        let records = HOST.records(&scene.pcap());
        assert_eq!(records.len(), 1, "{name}");
        let fields = FIELDS.map(|field| records[0][field].clone());
        assert_eq!(json!(fields), *expected, "{name}");
    }
}

#[test]
fn each_connection_of_a_key_has_its_own_hello() {
    let hello = |name: &str| record(22, &message(scenes::CLIENT_HELLO, &client_hello(name, &[])));
    let mut again = Tcp { server_port: 443, seq: [500_000, 700_000] };
    let mut first = Tcp::to(443);
    let scene = Scene::default()
        .frames(first.play("ShA"))
        .frame(first.send(true, &hello("one.example")))
        .frames(first.play("FfA"))
        .after(10)
        .frames(again.play("ShA"))
        .frame(again.send(true, &hello("two.example")));
    let names: Vec<_> = HOST.records(&scene.pcap()).iter().map(|record| record["tls_sni"].clone()).collect();
    assert_eq!(names, [json!("one.example"), json!("two.example")]);
}
