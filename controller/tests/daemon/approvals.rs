//! Containments that touch much wait for people.

use crate::lab::{Lab, ORDERS, intended, json, until};
use serde_json::Value;

/// What departs is contained, unless it has connections.
fn policy(approvals: &str) -> String {
    let intended = intended("{action: contain, for: 1h}");
    format!(
        "{intended}---
apiVersion: tidegate.dev/v1
kind: Gateway
metadata: {{name: edge}}
spec:
  approvals: {approvals}
"
    )
}

fn waiting(lab: &Lab) -> Vec<Value> {
    lab.json(&["approvals", "list"])[0].as_array().unwrap().clone()
}

fn quarantined(lab: &Lab) -> usize {
    lab.json(&["quarantine", "list"])[0].as_array().unwrap().len()
}

fn held_back(lab: &Lab) -> Option<String> {
    lab.json(&["findings", "show", "1"])[0]["held_back"].as_str().map(str::to_owned)
}

#[test]
#[ignore = "needs root"]
fn a_containment_that_touches_much_waits_until_somebody_agrees() {
    let lab = Lab::new();
    let file = lab.file("shop.yaml", &policy("{over: {connections: 0}}"));
    let mut daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &file]);
    let (_pay, _admin) = (lab.serve(8443), lab.serve(9000));
    let _live = lab.client(8443).unwrap();
    assert!(lab.connects(9000));
    until(|| waiting(&lab).len() == 1);
    let request = lab.json(&["approvals", "show", "1"]).remove(0);
    assert_eq!((&request["identity"], &request["finding"]), (&json(ORDERS), &json(1)));
    assert_eq!((&request["state"], &request["asked_by"]), (&json("waiting"), &json("the daemon")));
    assert_eq!((&request["radius"]["addresses"], &request["radius"]["peers"]), (&json(1), &json(1)));
    assert!(request["over"].as_str().unwrap().ends_with(" connections, more than 0"), "{request}");
    until(|| held_back(&lab).is_some_and(|why| why.starts_with("it waits for approval 1: ")));
    // Nothing is done, and nobody is asked twice, nor by the next daemon.
    assert!(lab.connects(9000));
    daemon.kill_nine();
    let _daemon = lab.run(&[]);
    assert!(lab.connects(9000));
    assert_eq!((waiting(&lab).len(), quarantined(&lab)), (1, 0));

    let said = lab.ok(&["approvals", "approve", "1"]);
    assert!(said.starts_with(&format!("approval 1: {ORDERS} is contained until ")), "{said}");
    assert!(!lab.connects(9000) && !lab.connects(8443));
    assert_eq!(waiting(&lab).len(), 0);
    assert_eq!(lab.json(&["quarantine", "list"])[0][0]["reason"], "finding 1, approval 1");
    let finding = lab.json(&["findings", "show", "1"]).remove(0);
    assert_eq!(
        (&finding["held_back"], &finding["containments"][0]["identity"]),
        (&Value::Null, &json(ORDERS))
    );
    let records = lab.json(&["audit", "show", "--kind", "approval", "--identity", ORDERS]);
    let told: Vec<_> = records.iter().map(|r| (&r["by"]["who"], &r["what"]["decision"])).collect();
    assert_eq!(told, [(&json("the daemon"), &json("asked")), (&json("root"), &json("approved"))]);
    until(|| lab.ok(&["story", ORDERS]).contains("approval 1 of containing"));
    let events = lab.json(&["story", ORDERS]);
    let of = |kind: &str, fits: &dyn Fn(&Value) -> bool| {
        let event = events.iter().rfind(|event| event["event"] == kind && fits(event)).expect(kind);
        ["actor", "decision", "outcome", "approvers"].map(|field| event[field].clone())
    };
    let [root, none] = [serde_json::json!(["root"]), Value::Null];
    assert_eq!(
        of("approval", &|_| true),
        [json("the daemon"), json("quarantine"), json("approved"), root.clone()]
    );
    let is_of = |kind: &'static str| move |event: &Value| event["record"]["kind"] == kind;
    assert_eq!(
        of("record", &is_of("approval")),
        [json("root"), json("approved"), none.clone(), root.clone()]
    );
    assert_eq!(of("record", &is_of("commit")), [json("root"), none.clone(), none, root]);
    let (code, said) = lab.fails(&["approvals", "reject", "1"]);
    assert_eq!(code, 1);
    assert!(said.contains("approval 1 does not wait any more"), "{said}");
}

#[test]
#[ignore = "needs root"]
fn a_refusal_holds_for_its_finding_and_who_asks_does_not_decide() {
    let lab = Lab::new();
    let file = lab.file("shop.yaml", &policy("{over: {peers: 0}, approvers: 2}"));
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &file]);
    let (_pay, _admin) = (lab.serve(8443), lab.serve(9000));
    let _live = lab.client(8443).unwrap();
    assert!(lab.connects(9000));
    until(|| waiting(&lab).len() == 1);
    // One of two is not enough.
    assert!(lab.ok(&["approvals", "approve", "1"]).contains("1 of 2 have agreed"));
    assert!(lab.connects(9000));
    let (_, said) = lab.fails(&["approvals", "approve", "1"]);
    assert!(said.contains("root has agreed to approval 1 already"), "{said}");
    assert!(
        lab.ok(&["approvals", "reject", "1", "--note", "a migration"]).contains("root said no (a migration)")
    );
    assert!(lab.connects(9000));
    until(|| held_back(&lab).as_deref() == Some("approval 1 was refused by root"));
    assert_eq!((waiting(&lab).len(), quarantined(&lab)), (0, 0));

    let said = lab.ok(&["approvals", "ask", ORDERS, "--for", "1h", "--reason", "a leaked key"]);
    assert!(said.contains("0 of 2 have agreed"), "{said}");
    let (code, said) = lab.fails(&["approvals", "approve", "2"]);
    assert_eq!(code, 5, "{said}");
    assert!(said.contains("root asked for approval 2: somebody else has to decide"), "{said}");
    assert_eq!(quarantined(&lab), 0);
}

#[test]
#[ignore = "needs root"]
fn what_nobody_answers_lapses_to_what_was_declared() {
    for (unanswered, contained) in [("contain", 1), ("reject", 0)] {
        let lab = Lab::new();
        let rules = format!("{{over: {{addresses: 0}}, within: 2s, unanswered: {unanswered}}}");
        let file = lab.file("shop.yaml", &policy(&rules));
        let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &file]);
        let _admin = lab.serve(9000);
        assert!(lab.connects(9000));
        let state = || lab.json(&["approvals", "list", "--all"])[0][0]["state"].as_str().map(str::to_owned);
        until(|| state().as_deref().is_some_and(|state| state != "waiting"));
        assert_eq!(state().as_deref(), Some(if contained == 1 { "approved" } else { "lapsed" }));
        assert_eq!((quarantined(&lab), lab.connects(9000)), (contained, contained == 0));
        let record = lab.json(&["audit", "show", "--kind", "approval"]).pop().unwrap();
        assert_eq!(record["what"]["decision"], "lapsed");
        assert_eq!(record["by"]["who"], "the daemon");
    }
}

#[test]
#[ignore = "needs root"]
fn who_resolves_or_mutes_a_finding_has_answered_what_it_asks_of_people() {
    let lab = Lab::new();
    let rules = "{over: {addresses: 0}, within: 4s, unanswered: contain}";
    let file = lab.file("shop.yaml", &policy(rules));
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &file]);
    let _admin = lab.serve(9000);
    let state = |id: usize| {
        let all = lab.json(&["approvals", "list", "--all"]).remove(0);
        all[id - 1]["state"].as_str().map(str::to_owned)
    };
    assert!(lab.connects(9000));
    until(|| state(1).is_some());
    lab.ok(&["findings", "resolve", "1", "--note", "a migration"]);
    assert_eq!(state(1).as_deref(), Some("withdrawn"));
    // The next departure is another finding, and asks anew.
    assert!(lab.connects(9000));
    until(|| state(2).is_some());
    lab.ok(&["findings", "mute", "2", "--for", "1h"]);
    assert_eq!(state(2).as_deref(), Some("withdrawn"));
    let (_, said) = lab.fails(&["approvals", "approve", "2"]);
    assert!(said.contains("root has made approval 2 needless"), "{said}");
    // Longer than either would have waited.
    std::thread::sleep(std::time::Duration::from_secs(6));
    assert_eq!((quarantined(&lab), lab.connects(9000)), (0, true));
    // Each record says which request it is of, and what that was for.
    let records = lab.json(&["audit", "show", "--kind", "approval"]);
    let told: Vec<_> = records.iter().map(|r| (&r["what"]["approval"], &r["what"]["decision"])).collect();
    let (asked, withdrawn) = (json("asked"), json("withdrawn"));
    let (one, two) = (json(1), json(2));
    assert_eq!(told, [(&one, &asked), (&one, &withdrawn), (&two, &asked), (&two, &withdrawn)]);
    for record in &records {
        let what = &record["what"];
        assert_eq!((&what["act"], &what["seconds"]), (&json("quarantine"), &json(3600)), "{record}");
        assert_eq!(what["finding"], what["approval"], "{record}");
        assert!(what["why"].as_str().unwrap().contains("tcp/9000"), "{record}");
    }
}

#[test]
#[ignore = "needs root"]
fn what_nobody_answered_counts_for_the_bound_an_hour_also_of_the_next_daemon() {
    let lab = Lab::new();
    let rules = "{over: {addresses: 0}, within: 1s, unanswered: contain}";
    // Payments departs too, by calling orders.
    let both = policy(rules).replace(
        "---\napiVersion: tidegate.dev/v1\nkind: Gateway",
        "---\napiVersion: tidegate.dev/v1\nkind: Intent\nmetadata: {name: payments}\nspec:\n  identities: [{spiffeId: \
         spiffe://acme.example/ns/shop/sa/payments}]\n  workload: service\n  client: []\n  response: {action: contain, for: \
         1h}\n---\napiVersion: tidegate.dev/v1\nkind: Policy\nmetadata: {name: back}\nspec:\n  rules:\n    - {name: back, \
         action: allow, from: [{spiffeId: spiffe://acme.example/ns/shop/sa/payments}], to: [{any: true}], ports: [any]}\n---\n\
         apiVersion: tidegate.dev/v1\nkind: Gateway",
    );
    let file = lab.file("shop.yaml", &both);
    let options = ["-i", "eth1", "-i", "eth2", "-p", &file, "--containments-per-hour", "1"];
    let mut daemon = lab.run(&options);
    let _admin = lab.serve(9000);
    assert!(lab.connects(9000));
    until(|| quarantined(&lab) == 1);
    let status = lab.json(&["governance", "status"]).remove(0);
    assert_eq!((&status["contained_last_hour"], &status["per_hour"]), (&json(1), &json(1)));
    lab.ok(&["quarantine", "del", ORDERS]);
    daemon.kill_nine();
    let _daemon = lab.run(&options);
    let status = lab.json(&["governance", "status"]).remove(0);
    assert_eq!(status["contained_last_hour"], 1, "the next daemon knows of it");
    // Another identity departs: the hour has had its share.
    // Nobody listens there; it was asked all the same.
    let refused = lab.client_of("right", ([10, 1, 0, 2], 22)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let held = || {
        let findings = lab.json(&["findings", "list"]).remove(0);
        let of_payments = findings.as_array().unwrap().iter().find(|f| f["intent"] == "payments").cloned();
        of_payments.and_then(|finding| finding["held_back"].as_str().map(str::to_owned))
    };
    until(|| held().is_some());
    assert_eq!(held().as_deref(), Some("1 containments in an hour are the most"));
    assert_eq!(quarantined(&lab), 0);
    let record = lab.json(&["audit", "show", "--kind", "finding"]).pop().unwrap();
    assert_eq!(
        (&record["what"]["decision"], &record["what"]["held_back"]),
        (&json("held back"), &json(held().unwrap()))
    );
}
