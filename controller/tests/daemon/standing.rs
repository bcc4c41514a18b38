//! What is known of one identity, as somebody asks who has to decide whether to trust its credential.

use crate::lab::{Lab, ORDERS, intended, json, until};
use serde_json::Value;

const PAYMENTS: &str = "spiffe://acme.example/ns/shop/sa/payments";

#[test]
#[ignore = "needs root"]
fn who_acted_what_it_reached_whether_that_was_expected_and_whether_to_trust_it() {
    let lab = Lab::new();
    let file = lab.file("shop.yaml", &intended("{action: flag}"));
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &file]);
    let show = |id: &str| lab.json(&["identity", "show", id]).remove(0);
    let (_pay, _admin) = (lab.serve(8443), lab.serve(9000));
    assert!(lab.connects(8443));
    let peers = || show(ORDERS)["peers"].as_array().unwrap().clone();
    until(|| peers().len() == 1);
    let shown = show(ORDERS);
    assert_eq!((&shown["trust"], &shown["intents"]), (&json("trusted"), &json(vec!["orders"])));
    assert_eq!(
        shown["because"][0],
        "it is bound without an end, and nothing that was seen speaks against it"
    );
    assert_eq!(shown["bindings"][0]["address"], "10.1.0.2/32");
    let of = |peer: &Value| {
        let fields = ["role", "peer", "port", "count", "denied", "expected"];
        fields.map(|field| peer[field].clone())
    };
    let to_payments = |port: u16, expected: bool| {
        let peer = serde_json::json!({"spiffe_id": PAYMENTS});
        [json("client"), peer, json(port), json(1), json(0), json(expected)]
    };
    assert_eq!(of(&shown["peers"][0]), to_payments(8443, true));

    assert!(lab.connects(9000));
    until(|| peers().len() == 2 && show(ORDERS)["findings"][0].is_object());
    let shown = show(ORDERS);
    let other = shown["peers"].as_array().unwrap().iter().find(|peer| peer["port"] == 9000).unwrap();
    assert_eq!(of(other), to_payments(9000, false));
    assert_eq!((&shown["trust"], &shown["because"]), (&json("review"), &json(vec!["finding 1 is open"])));
    let text = lab.ok(&["identity", "show", ORDERS]);
    assert!(text.starts_with(&format!("{ORDERS}: review\n  finding 1 is open\n")), "{text}");
    assert!(
        lab.ok(&["identity", "show", "orders"]).starts_with(&format!("{ORDERS}: review\n")),
        "by its name"
    );
    assert!(
        lab.ok(&["intent", "learn", "orders"]).contains(&format!("identities: [{{spiffeId: {ORDERS}}}]"))
    );
    for (words, wrong) in
        [("identity show", "nobody"), ("intent learn", "nobody"), ("identity show", "spiffe://a.example/*")]
    {
        let args: Vec<&str> = words.split(' ').chain([wrong]).collect();
        let (code, said) = lab.fails(&args);
        assert!(code == 2 && said.contains(wrong), "{said}");
    }
    // Nothing is declared of who is called: that is said as such, and not as a no.
    let called = show(PAYMENTS);
    assert_eq!((&called["trust"], &called["peers"][0]["expected"]), (&json("trusted"), &Value::Null));

    lab.ok(&["quarantine", "add", ORDERS, "--for", "1h", "--reason", "a leaked key"]);
    let shown = show(ORDERS);
    assert_eq!(shown["trust"], "denied");
    assert!(shown["because"][0].as_str().unwrap().starts_with("quarantine holds until "), "{shown}");
    assert_eq!(shown["acts"][0]["reason"], "a leaked key");

    let nobody = "spiffe://acme.example/ns/shop/sa/nobody";
    let (code, said) = lab.fails(&["identity", "show", nobody]);
    assert_eq!(code, 1);
    assert!(said.contains(&format!("nothing is known of {nobody}")), "{said}");
}

#[test]
#[ignore = "needs root"]
fn a_lease_that_is_over_is_no_credential_to_trust() {
    let lab = Lab::new();
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2"]);
    lab.ok(&["identity", "bind", "10.1.0.2", ORDERS, "--for", "2s", "--reason", "a test"]);
    let shown = || lab.json(&["identity", "show", ORDERS]).remove(0);
    let before = shown();
    assert_eq!(
        (&before["trust"], &before["bindings"][0]["evidence"]["reason"]),
        (&json("trusted"), &json("a test"))
    );
    assert!(before["because"][0].as_str().unwrap().starts_with("it has a lease until "), "{before}");
    until(|| shown()["trust"] == "denied");
    assert!(shown()["because"][0].as_str().unwrap().starts_with("its last lease ended at "));
}
