//! Limits of identities on live traffic, with the daemon and without it.

use crate::lab::{self, Lab, POLICY, json};

fn policy(limit: &str) -> String {
    format!(
        "{POLICY}---\napiVersion: tidegate.dev/v1\nkind: Limit\nmetadata: {{name: shop}}\nspec: {{identities: [{{trustDomain: acme.example}}], {limit}}}\n---\napiVersion: tidegate.dev/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec: {{timeouts: {{tcpSyn: 10s}}}}\n"
    )
}

#[test]
#[ignore = "needs root"]
fn connections_of_an_identity_are_counted_and_end_with_and_without_the_daemon() {
    let lab = Lab::new();
    let file = lab.file("shop.yaml", &policy("maxConnections: 2"));
    let mut daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &file, "--metrics", lab::METRICS]);
    let _server = lab.serve(8443);
    let first = lab.client(8443).expect("the first");
    let _second = lab.client(8443).expect("the second");
    assert!(lab.client(8443).is_err(), "a third");
    let why = &lab.json(&["why", "orders", "payments", "8443"])[0];
    assert_eq!((&why["verdict"], &why["limit"]["name"]), (&json("FORWARDED"), &json("limit/shop")));
    assert_eq!((&why["limit"]["attempts"], &why["limit"]["answered"]), (&json(0), &json(2)));
    let shown = &lab.json(&["policy", "show"])[0]["limits"][0];
    assert_eq!(shown["text"], "limit trust domain acme.example to 2 connections at once");
    let held = "tidegate_identity_connections{identity=\"spiffe://acme.example/ns/shop/sa/orders\",state=\"answered\"} 2";
    let metrics = lab.metrics();
    assert!(metrics.lines().any(|line| line == held), "{metrics}");
    let dropped =
        |line: &&str| line.starts_with("tidegate_drop_count_total{") && line.contains("TOO_MANY_CONNECTIONS");
    assert!(metrics.lines().any(|line| dropped(&line)), "{metrics}");
    let events = lab.json(&["observe"]);
    let named =
        |e: &serde_json::Value| e["drop_reason_desc"] == "TOO_MANY_CONNECTIONS" && e["rule"] == "limit/shop";
    assert!(events.iter().any(named), "{events:#?}");

    daemon.kill_nine();
    assert!(lab.client(8443).is_err(), "a third without the daemon");
    drop(first);
    lab::until(|| lab.client(8443).is_ok());
}

#[test]
#[ignore = "needs root"]
fn attempts_of_an_identity_end_without_the_daemon() {
    let lab = Lab::new();
    let file = lab.file("shop.yaml", &policy("maxAttempts: 1"));
    let mut daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &file]);
    let _server = lab.serve(8443);
    assert!(lab.connects(8443) && lab.connects(8443), "what is answered is no attempt");
    daemon.kill_nine();
    lab.silence_right();
    assert!(lab.client(8443).is_err());
    assert!(lab.client(8443).is_err());
    let attempts = || {
        let maps = lab.maps();
        let all = maps.half_open.entries(&maps.config.get().expect("config"));
        all.iter().filter(|(key, _)| key.proto == 6).count()
    };
    assert_eq!(attempts(), 1, "the second was refused");
    lab::until(|| {
        let _silence = lab.client(8443);
        attempts() >= 2
    });
}
