//! The leases of both ends in each event, as they were then.

use crate::lab::{Lab, POLICY, json, until};
use serde_json::Value;

const ORDERS: &str = "spiffe://acme.example/ns/shop/sa/orders";

/// Leases of who opened a connection to a service and of who answers, as its verdicts tell them.
fn leases(lab: &Lab) -> Vec<(Value, Value)> {
    let events = lab.json(&["observe"]);
    let verdicts =
        events.iter().filter(|e| e["event"] == "verdict" && e["l4"]["TCP"]["destination_port"] == 8443);
    verdicts.map(|e| (e["source"]["lease"].clone(), e["destination"]["lease"].clone())).collect()
}

#[test]
#[ignore = "needs root"]
fn an_event_has_the_leases_of_then_also_when_they_were_renewed_or_are_another_identitys_by_now() {
    let lab = Lab::new();
    // `orders` is bound by hand alone.
    let policy = POLICY.replace(", addresses: [10.1.0.2/32]", ", addresses: [10.1.0.77/32]");
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", &policy)]);
    let _server = lab.serve(8443);
    let end = || {
        let listed = lab.json(&["identity", "list"]).remove(0);
        let rows = listed.as_array().cloned().unwrap_or_default();
        let its = rows.iter().find(|row| row.to_string().contains("10.1.0.2")).expect("a binding").clone();
        its.to_string()
    };
    lab.ok(&["identity", "bind", "10.1.0.2", ORDERS, "--for", "1h"]);
    assert!(lab.connects(8443));
    until(|| leases(&lab).len() == 1);
    let first = leases(&lab)[0].clone();
    assert_eq!(first.0["on_expiry"], "deny");
    let not_after = |lease: &Value| lease["not_after"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let left = not_after(&first.0).duration_since(jiff::Timestamp::now());
    assert!((3500..=3600).contains(&left.as_secs()), "{left:?} of an hour; bound is {}", end());
    assert_eq!(first.1, serde_json::json!({"not_after": null}), "what a file binds has no lease");

    // A renewal is no commit, and the next event tells of it.
    lab.ok(&["identity", "bind", "10.1.0.2", ORDERS, "--for", "2h"]);
    assert!(lab.connects(8443));
    until(|| leases(&lab).len() == 2);
    let second = leases(&lab)[1].clone();
    assert!(not_after(&second.0) > not_after(&first.0));
    // What was told stays as it was told.
    lab.ok(&["identity", "bind", "10.1.0.2", "spiffe://acme.example/ns/shop/sa/somebody", "--for", "3h"]);
    assert!(!lab.connects(8443));
    // The connection before may not have ended yet: it is judged anew too, as that of somebody.
    until(|| leases(&lab).len() >= 3);
    assert_eq!(leases(&lab)[..2], [first, second]);
    let denied = &leases(&lab)[2];
    assert!(not_after(&denied.0).duration_since(jiff::Timestamp::now()).as_secs() > 10_000);
    assert_eq!(denied.1["not_after"], json(Value::Null));
}

#[test]
#[ignore = "needs root"]
fn a_query_for_a_name_has_the_leases_of_both_ends() {
    let lab = Lab::new();
    let policy = POLICY.replace(", addresses: [10.1.0.2/32]", ", addresses: [10.1.0.77/32]");
    let policy = policy.replace("ports: [tcp/8443]", "ports: [udp/53]");
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", &policy)]);
    let _server = lab.serve_datagrams(53);
    lab.ok(&["identity", "bind", "10.1.0.2", ORDERS, "--for", "1h"]);
    // RFC 1035, 4.1: one question, for A of `db`.
    let query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02db\x00\x00\x01\x00\x01";
    lab.exchange(53, query).expect("an answer");
    let asked = || lab.json(&["observe"]).into_iter().find(|event| event["event"] == "dns_query");
    until(|| asked().is_some());
    let asked = asked().expect("a query");
    assert_eq!((&asked["l7"]["dns"]["query"], &asked["source"]["spiffe_id"]), (&json("db"), &json(ORDERS)));
    let lease = &asked["source"]["lease"];
    let end: jiff::Timestamp =
        lease["not_after"].as_str().unwrap_or_else(|| panic!("{asked}")).parse().unwrap();
    let left = end.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((3500..=3600).contains(&left), "{left} s of an hour");
    assert_eq!(lease["on_expiry"], "deny");
    assert_eq!(asked["destination"]["lease"], serde_json::json!({"not_after": null}));
}
