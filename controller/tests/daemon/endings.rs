//! Handshakes that come to no end: only the passing of time tells, so the daemon says it.

use crate::closing::metric;
use crate::lab::{self, Lab, POLICY};
use datapath::abi::{HandshakeKey, HandshakeStats, MapName};
use std::io::Write;

const GATEWAY: &str = "apiVersion: tidegate.dev/v1
kind: Gateway
metadata: {name: edge}
spec: {timeouts: {tcpSyn: 1s, tcpHandshake: 1s, tcpClosed: 1s, tcpKept: 1s, udpUnreplied: 1s}}
";

/// Addresses that nobody has are bound too: what is sent to them has no answer, and what they are answered comes to nobody.
fn policy() -> String {
    POLICY
        .replace("[10.1.0.2/32]", "[10.1.0.2/32, 10.1.0.77/32]")
        .replace("[10.2.0.2/32]", "[10.2.0.2/32, 10.2.0.99/32]")
        .replace("[tcp/8443]", "[tcp/8443, udp/8443, udp/8444]")
}

fn syn(destination: [u8; 4], source_port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = etherparse::PacketBuilder::ipv4([10, 1, 0, 77], destination, 64);
    builder.tcp(source_port, 8443, 7, 1024).syn().write(&mut packet, b"").expect("a packet");
    packet
}

/// A record of the size of a ClientHello that begins as one does.
fn client_hello() -> Vec<u8> {
    let mut record = vec![22, 3, 1, 0, 200, 1, 0, 0, 196];
    record.resize(205, 7);
    record
}

/// An Initial packet of QUIC (RFC 9000, section 17.2.2) that nobody can open.
fn initial() -> Vec<u8> {
    let mut packet = vec![0xc0, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0x44, 0x7e];
    packet.resize(1200, 0x5c);
    packet
}

/// Handshakes of the two identities on the page.
fn counted(page: &str, kind: &str, outcome: &str) -> u64 {
    let of = |who: &str| format!("spiffe://acme.example/ns/shop/sa/{who}");
    let name = format!(
        "tidegate_handshake_total{{destination=\"{}\",inferred=\"false\",kind=\"{kind}\",outcome=\"{outcome}\",source=\"{}\"}}",
        of("payments"),
        of("orders")
    );
    metric(page, &name)
}

#[test]
#[ignore = "needs root"]
fn handshakes_without_an_end_are_counted_by_what_was_seen_of_them() {
    let lab = Lab::new();
    let (shop, edge) = (lab.file("shop.yaml", &policy()), lab.file("edge.yaml", GATEWAY));
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &shop, "-p", &edge, "--metrics", lab::METRICS]);
    let _server = lab.serve(8443);
    let _echo = lab.serve_datagrams(8443);
    // Nobody has the address; somebody answers, and nobody hears it.
    lab.send_raw("left", [syn([10, 2, 0, 99], 7001), syn([10, 2, 0, 2], 7002)].into_iter());
    // Neither server speaks TLS or QUIC: they send back what comes.
    let mut tls = lab.client(8443).expect("a connection");
    tls.write_all(&client_hello()).expect("a write");
    assert_eq!(lab.exchange(8443, &initial()).expect("an echo"), 1200);
    let _refused = lab.exchange(8444, &initial());

    let mut page = String::new();
    for (kind, outcome) in [
        ("tcp", "no_answer"),
        ("tcp", "half_open"),
        ("quic", "no_answer"),
        ("tls", "timed_out"),
        ("quic", "timed_out"),
    ] {
        lab::until(|| {
            page = lab.metrics();
            counted(&page, kind, outcome) > 0
        });
    }
    assert_eq!(counted(&page, "tcp", "no_answer"), 1);
    assert_eq!(counted(&page, "quic", "no_answer"), 1);
    assert_eq!((counted(&page, "tls", "timed_out"), counted(&page, "quic", "timed_out")), (1, 1));
    let told = lab.json(&["observe"]);
    let is_told = |kind: &str, outcome: &str| {
        let is =
            |e: &serde_json::Value| e["handshake"]["kind"] == kind && e["handshake"]["outcome"] == outcome;
        told.iter().any(is)
    };
    assert!(
        is_told("tcp", "half_open") && is_told("tls", "timed_out") && is_told("quic", "no_answer"),
        "{told:#?}"
    );
    drop(tls);
}

#[test]
#[ignore = "needs root"]
fn a_full_table_of_handshakes_holds_no_attempt_up_and_pairs_without_news_make_room_in_it() {
    let lab = Lab::new();
    let (shop, edge) = (lab.file("shop.yaml", &policy()), lab.file("edge.yaml", GATEWAY));
    let size = format!("{}=64", MapName::HANDSHAKES);
    let _daemon = lab.run(&[
        "-i",
        "eth1",
        "-i",
        "eth2",
        "-p",
        &shop,
        "-p",
        &edge,
        "--metrics",
        lab::METRICS,
        "--map-size",
        &size,
    ]);
    let maps = lab.maps();
    let cpus = maps.lost.get(0).expect("a counter").len();
    let mut per_cpu =
        vec![HandshakeStats { count: 0, sum_ns: 0, max_ns: 0, buckets: [0; HandshakeStats::BUCKETS] }; cpus];
    per_cpu[0].record(1_000_000);
    for orig_identity in 1_000..1_064 {
        let key = HandshakeKey { orig_identity, ..HandshakeKey::default() };
        // The kernel allocates memory of every CPU behind our back, and says so while there is none yet.
        lab::until(|| maps.handshakes.insert(&key, per_cpu.clone()).is_ok());
    }
    let closed = |port: u16| {
        let events = lab.json(&["observe"]);
        events.iter().any(|e| e["event"] == "closed" && e["l4"]["TCP"]["source_port"] == port)
    };
    let all = |page: &str| -> u64 {
        let of = |line: &str| line.rsplit_once(' ').map(|(_, n)| n.parse::<f64>().expect("a number") as u64);
        page.lines().filter(|line| line.starts_with("tidegate_handshake_total{")).filter_map(of).sum()
    };
    assert_eq!(all(&lab.metrics()), 64);

    lab.send_raw("left", [syn([10, 2, 0, 99], 7001)].into_iter());
    lab::until(|| closed(7001));
    let page = lab.metrics();
    assert_eq!(metric(&page, "tidegate_lost_events_total{source=\"ring_buffer\"}"), 1);
    assert_eq!((all(&page), counted(&page, "tcp", "no_answer")), (64, 0));

    lab::until(|| metric_of_map(&lab.metrics()) <= 0.75);
    assert_eq!(all(&lab.metrics()), 64, "what was counted of those that went is counted still");
    lab.send_raw("left", [syn([10, 2, 0, 99], 7002)].into_iter());
    lab::until(|| closed(7002));
    let page = lab.metrics();
    assert_eq!((all(&page), counted(&page, "tcp", "no_answer")), (65, 1));
}

/// How full the table of handshakes is.
fn metric_of_map(page: &str) -> f64 {
    let name = format!("tidegate_bpf_map_pressure{{map_name=\"{}\"}} ", MapName::HANDSHAKES);
    let value = page.lines().find_map(|line| line.strip_prefix(name.as_str())).expect("the pressure");
    value.parse().expect("a number")
}
