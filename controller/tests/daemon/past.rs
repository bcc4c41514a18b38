//! Events: numbered, kept, explained by what counted then, and delivered to who was away.

use crate::lab::{Lab, POLICY, json, until};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

const ORDERS: &str = "spiffe://acme.example/ns/shop/sa/orders";

/// The first event that is told of and fits.
fn event(lab: &Lab, fits: impl Fn(&Value) -> bool) -> Value {
    let mut found = None;
    until(|| {
        found = lab.json(&["observe"]).into_iter().find(|event| fits(event));
        found.is_some()
    });
    found.unwrap()
}

fn judged(lab: &Lab, port: u16, verdict: &str) -> Value {
    event(lab, |event| {
        event["event"] == "verdict"
            && event["l4"]["TCP"]["destination_port"] == port
            && event["verdict"] == verdict
    })
}

#[test]
#[ignore = "needs root"]
fn the_first_packet_after_a_change_is_told_by_the_names_of_that_change() {
    let lab = Lab::new();
    let file = lab.file("shop.yaml", POLICY);
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &file]);
    let (quick, is_over) = ("spiffe://acme.example/ns/shop/sa/quick", AtomicBool::new(false));
    let datagram = |n: u16| {
        let mut packet = Vec::new();
        let (host, port) = [(2, 7), (3, n)][usize::from(n % 2)];
        let to = etherparse::PacketBuilder::ipv4([10, 1, 0, host], [10, 2, 0, 2], 64).udp(port, 9);
        to.write(&mut packet, b"?").expect("a packet");
        packet
    };
    std::thread::scope(|scope| {
        // One flow, and others that are new each time: some packet comes just after each change.
        let storm = (0..u16::MAX).cycle().take_while(|_| !is_over.load(Ordering::Relaxed));
        scope.spawn(|| lab.send_raw("left", storm.map(datagram)));
        for _ in 0..5 {
            lab.ok(&["quarantine", "add", ORDERS, "--for", "1h"]);
            lab.ok(&["quarantine", "del", ORDERS]);
        }
        lab.ok(&["identity", "bind", "10.1.0.3", quick, "--for", "1h"]);
        is_over.store(true, Ordering::Relaxed);
    });
    let events = lab.json(&["observe"]);
    let judged: Vec<_> = events.iter().filter(|e| e["event"] == "verdict").collect();
    let cut: Vec<_> = judged.iter().filter(|e| e["drop_reason_desc"] == "QUARANTINED").collect();
    assert!(cut.len() >= 5, "{} were cut", cut.len());
    for event in cut {
        assert_eq!(event["rule"], format!("quarantine/manual:{ORDERS}"), "{event}");
        assert_eq!(
            event["revision"].as_u64().expect("a revision") % 2,
            0,
            "each second is a quarantine: {event}"
        );
    }
    let bound = judged.iter().filter(|e| e["IP"]["source"] == "10.1.0.3" && e["source"]["identity"] != 0);
    let bound: Vec<_> = bound.map(|e| &e["source"]["spiffe_id"]).collect();
    assert!(!bound.is_empty() && bound.iter().all(|id| **id == quick), "{bound:?}");
}

#[test]
#[ignore = "needs root"]
fn an_event_of_the_past_is_explained_by_what_counted_then() {
    let lab = Lab::new();
    let file = lab.file("shop.yaml", POLICY);
    let mut daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &file]);
    let (_pay, _admin) = (lab.serve(8443), lab.serve(9000));
    assert!(lab.connects(8443));
    assert!(!lab.connects(9000));
    let (allowed, denied) = (judged(&lab, 8443, "FORWARDED"), judged(&lab, 9000, "DROPPED"));
    assert_eq!((&allowed["revision"], &denied["revision"]), (&json(1), &json(1)));
    assert_eq!(denied["source"]["spiffe_id"], ORDERS);

    // Now it is the other way round, and 10.1.0.2 is somebody else's.
    let turned = POLICY.replace("8443", "9000").replace("sa/orders", "sa/reports");
    lab.ok(&["policy", "apply", &lab.file("shop.yaml", &turned)]);
    assert!(lab.connects(9000));
    let then = |event: &Value| lab.json(&["why", "--event", &event["id"].to_string()]).remove(0);
    let why = then(&allowed);
    assert_eq!(why["event"], allowed);
    assert_eq!(why["rule"]["policy"], "shop");
    assert!(why["rule"]["text"].as_str().unwrap().contains("tcp/8443"), "{why}");
    assert_eq!(why["near_misses"], json(Vec::<Value>::new()));
    let why = then(&denied);
    assert_eq!((&why["event"]["drop_reason_desc"], &why["rule"]), (&json("POLICY_DENIED"), &Value::Null));
    assert_eq!(why["near_misses"][0]["kind"], "port", "{why}");
    let text = why["near_misses"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("shop/pay would allow it on tcp/8443"), "{text}");
    let now = judged(&lab, 9000, "FORWARDED");
    assert_eq!(now["revision"], 2);
    let said = lab.ok(&["why", "--event", &now["id"].to_string()]);
    assert!(said.contains("judged by revision 2") && said.contains("rule shop/pay: "), "{said}");

    // The daemon is not needed, nor is what it remembered; numbers go on.
    daemon.stop();
    assert_eq!(then(&denied), why);
    let (code, said) = lab.fails(&["why", "--event", "123456"]);
    assert_eq!(code, 2);
    assert!(said.contains("event 123456 is not kept: the last one has the number"), "{said}");
    let start = lab.json(&["story", "spiffe://"]).len();
    assert!(start > 2, "{start}");
    let _daemon = lab.run(&[]);
    let first = event(&lab, |event| event["record"]["kind"] == "start");
    assert!(first["id"].as_u64() > now["id"].as_u64(), "{first}");
    let (code, said) = lab.fails(&["why", "--event", &first["id"].to_string()]);
    assert_eq!(code, 2);
    assert!(said.contains("is of the kind `record`: nothing was judged"), "{said}");
    let (code, _) = lab.fails(&["why", "--event", "1", "orders", "payments", "1"]);
    assert_eq!(code, 2);
}

#[test]
#[ignore = "needs root"]
fn an_event_of_a_lease_or_a_grant_that_is_over_says_whose_and_since_when() {
    let lab = Lab::new();
    let file = lab.file("shop.yaml", POLICY);
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &file]);
    let (_pay, _admin) = (lab.serve(8443), lab.serve(9000));
    let why = |event: &Value| lab.json(&["why", "--event", &event["id"].to_string()]).remove(0);
    let payments = "spiffe://acme.example/ns/shop/sa/payments";
    // It has to end with a connection open: after that, a commit knows nothing of the grant any more.
    lab.ok(&["grant", ORDERS, payments, "tcp/9000", "--for", "4s", "--reason", "a look"]);
    let mut open = lab.client(9000).unwrap();
    let mut answered = || open.write_all(b"x").is_ok() && open.read_exact(&mut [0]).is_ok();
    assert!(answered());
    while answered() {}
    let over = event(&lab, |e| e["drop_reason_desc"] == "GRANT_EXPIRED" && e["event"] == "verdict");
    let told = why(&over);
    assert_eq!(told["near_misses"][0]["kind"], "grant_expired", "{told}");
    let text = told["near_misses"][0]["text"].as_str().unwrap();
    assert!(
        text.starts_with("grant/manual:g2 let it pass until ") && text.contains("(tidegate grant"),
        "{text}"
    );

    lab.ok(&["identity", "bind", "10.1.0.7", ORDERS, "--for", "2s"]);
    lab.on("left", "ip", "addr add 10.1.0.7/24 dev eth1");
    let lease = format!("the lease of {ORDERS} (10.1.0.7) ended ");
    let mut told = Value::Null;
    until(|| {
        lab.connects_from("10.1.0.7", 8443);
        let is_it = |e: &Value| e["drop_reason_desc"] == "LEASE_EXPIRED" && e["IP"]["source"] == "10.1.0.7";
        let Some(event) = lab.json(&["observe"]).into_iter().find(is_it) else { return false };
        told = why(&event);
        true
    });
    assert_eq!(told["near_misses"][0]["kind"], "lease_expired", "{told}");
    assert!(told["near_misses"][0]["text"].as_str().unwrap().starts_with(&lease), "{told}");
}

#[test]
#[ignore = "needs root"]
fn a_story_joins_what_traffic_did_with_what_people_did() {
    let lab = Lab::new();
    let file = lab.file("shop.yaml", POLICY);
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &file]);
    let (_pay, _admin) = (lab.serve(8443), lab.serve(9000));
    for _ in 0..3 {
        assert!(lab.connects(8443));
    }
    assert!(!lab.connects(9000));
    lab.ok(&["quarantine", "add", ORDERS, "--for", "1h", "--reason", "a visit"]);
    assert!(!lab.connects(8443));
    judged(&lab, 8443, "DROPPED");
    lab.ok(&["quarantine", "del", ORDERS]);

    let mut story = String::new();
    until(|| {
        story = lab.ok(&["story", ORDERS]);
        story.contains("quarantine del")
    });
    let place = |text: &str| story.find(text).unwrap_or_else(|| panic!("{text} is not in\n{story}"));
    let payments = "spiffe://acme.example/ns/shop/sa/payments";
    let opens =
        format!("{ORDERS} -> {payments} tcp/8443: FORWARDED, rule shop/pay (2 times more, the last at ");
    let denied = format!("{ORDERS} -> {payments} tcp/9000: DROPPED, POLICY_DENIED");
    let cut = format!("{ORDERS} -> {payments} tcp/8443: DROPPED, ");
    let places = [
        place(&opens),
        place(&denied),
        place("root (quarantine add): revision 2, committed"),
        place(&cut),
        place("root (quarantine del)"),
    ];
    assert!(places.is_sorted(), "{places:?} in\n{story}");
    // As a part of an ID, for programs, of a time; and of nobody.
    let events = lab.json(&["story", "sa/orders"]);
    assert!(events.iter().any(|event| event["event"] == "handshake"), "details are there for programs");
    assert!(events.windows(2).all(|two| two[0]["id"].as_u64() < two[1]["id"].as_u64()));
    assert_eq!(lab.json(&["story", ORDERS, "--until", "2026-01-01T00:00:00Z"]).len(), 0);
    assert_eq!(lab.ok(&["story", "nobody"]), "no event that is kept tells of nobody\n");
}

/// A webhook at one address of the gateway: it answers 200 and keeps the bodies.
fn webhook(lab: &Lab, bodies: &Arc<Mutex<Vec<Value>>>) {
    let listener = lab.in_gateway_thread(|| TcpListener::bind("127.0.0.1:7070").expect("bind"));
    let bodies = bodies.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            // One connection serves many requests.
            loop {
                let (mut line, mut length) = (String::new(), 0);
                while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                    let lower = line.to_ascii_lowercase();
                    if let Some(bytes) = lower.strip_prefix("content-length:") {
                        length = bytes.trim().parse().expect("a length");
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                if length == 0 || reader.read_exact(&mut body).is_err() {
                    break;
                }
                bodies.lock().unwrap().push(serde_json::from_slice(&body).expect("JSON"));
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                reader.get_mut().write_all(answer).expect("an answer");
            }
        }
    });
}

#[test]
#[ignore = "needs root"]
fn a_webhook_that_was_away_gets_each_event_once_its_daemon_killed_meanwhile() {
    let lab = Lab::new();
    let file = lab.file("shop.yaml", POLICY);
    let hook = [
        "--webhook",
        "http://127.0.0.1:7070/events",
        "--webhook-events",
        "all",
        "--metrics",
        crate::lab::METRICS,
    ];
    let options = [&["-i", "eth1", "-i", "eth2", "-p", &file], &hook[..]].concat();
    let mut daemon = lab.run(&options);
    let _pay = lab.serve(8443);
    assert!(lab.connects(8443));
    judged(&lab, 8443, "FORWARDED");
    until(|| {
        lab.metrics().lines().any(|line| {
            line.starts_with("tidegate_event_delivery_retries_total{receiver=\"webhook\"} ")
                && !line.ends_with(" 0")
        })
    });
    daemon.kill_nine();
    let _daemon = lab.run(&options);
    assert!(lab.connects(8443));
    let bodies = Arc::default();
    webhook(&lab, &bodies);
    let last = lab.json(&["observe"]).last().unwrap()["id"].as_u64().unwrap();
    let numbers = || -> Vec<u64> {
        let bodies: Vec<Value> = bodies.lock().unwrap().clone();
        let events = bodies.iter().flat_map(|body| body["events"].as_array().unwrap());
        events.map(|event| event["id"].as_u64().unwrap()).collect()
    };
    until(|| numbers().last().is_some_and(|n| *n >= last));
    let got = numbers();
    assert_eq!(got, (1..=got.len() as u64).collect::<Vec<_>>());
    assert_eq!(bodies.lock().unwrap()[0]["gateway"], lab.name());
    let metrics = lab.metrics();
    assert!(
        metrics.contains("tidegate_event_delivery_total{outcome=\"lost\",receiver=\"webhook\"} 0"),
        "{metrics}"
    );
}
