//! Bindings of sources beside the policy's files.

use crate::lab::{Lab, METRICS, POLICY, json, until};
use std::io::{Read, Write};

const ORDERS: &str = "spiffe://acme.example/ns/shop/sa/orders";

/// `POLICY` without its first document: nobody has 10.1.0.2.
fn without_orders() -> &'static str {
    POLICY.split_once("---\n").expect("documents").1
}

#[test]
#[ignore = "needs root"]
fn a_bound_address_is_judged_as_its_identity_until_it_is_unbound_which_cuts_live_flows() {
    let lab = Lab::new();
    let options = ["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", without_orders())];
    let mut daemon = lab.run(&options);
    let _server = lab.serve(8443);
    assert!(!lab.connects(8443));
    lab.ok(&["identity", "bind", "10.1.0.2", ORDERS, "--for", "1h", "--reason", "a test"]);
    let mut stream = lab.client(8443).expect("bound");
    let mut echo = move || -> bool {
        let mut buffer = [0];
        stream.write_all(b"x").is_ok() && stream.read_exact(&mut buffer).is_ok()
    };
    assert!(echo());
    let listed = lab.json(&["identity", "list"])[0].clone();
    let row =
        listed.as_array().unwrap().iter().find(|row| row["spiffe_id"] == ORDERS).expect("a row").clone();
    assert_eq!((&row["place"]["file"], &row["addresses"][0]), (&json("source manual"), &json("10.1.0.2/32")));
    assert_eq!(row["evidence"]["reason"], "a test");

    // Neither the binding nor the flow needs the daemon, and the next one knows both.
    daemon.kill_nine();
    assert!(echo());
    assert!(lab.connects(8443));
    let _daemon = lab.run(&options);
    assert!(echo());
    assert!(lab.connects(8443));
    lab.ok(&["identity", "unbind", "10.1.0.2"]);
    assert!(!echo());
    let why = &lab.json(&["why", "10.1.0.2", "10.2.0.2", "8443"])[0];
    assert_eq!((&why["verdict"], &why["drop_reason_desc"]), (&json("DROPPED"), &json("INVALID_IDENTITY")));
}

#[test]
#[ignore = "needs root"]
fn an_address_that_two_sources_give_to_two_identities_is_nobodys() {
    let lab = Lab::new();
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", POLICY)]);
    let _server = lab.serve(8443);
    assert!(lab.connects(8443));
    let said =
        lab.ok(&["identity", "bind", "10.1.0.2", "spiffe://acme.example/ns/shop/sa/other", "--for", "1h"]);
    let claims = said.lines().nth(1).unwrap_or_else(|| panic!("{said}"));
    assert!(claims.starts_with(&format!("10.1.0.2/32 is ambiguous, and nobody's: {ORDERS} (")), "{said}");
    assert!(claims.ends_with(" and spiffe://acme.example/ns/shop/sa/other (manual) claim it"), "{said}");
    assert!(!lab.connects(8443));
    let rows = lab.json(&["drops"])[0].clone();
    let is_it =
        |row: &serde_json::Value| row["reason"] == "AMBIGUOUS_IDENTITY" && row["verdict"] == "DROPPED";
    assert!(rows.as_array().unwrap().iter().any(is_it), "{rows}");
    // Who agrees with the files is no second claimant.
    let said = lab.ok(&["identity", "bind", "10.1.0.2", ORDERS, "--for", "1h"]);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(lab.connects(8443));
}

#[test]
#[ignore = "needs root"]
fn a_source_of_ones_own_binds_renews_and_withdraws_and_speaks_for_itself_alone() {
    let lab = Lab::new();
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", without_orders())]);
    let _server = lab.serve(8443);
    let claim = |for_s: i64| {
        let end = (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(for_s)).to_string();
        let claim = serde_json::json!({
            "address": "10.1.0.2/32", "spiffe_id": ORDERS, "labels": {"rack": "b7"},
            "lease": {"not_after": end, "on_expiry": "deny"}, "evidence": {"ticket": "4711"},
        });
        serde_json::json!({"source": "cmdb", "claims": [claim]})
    };
    let (status, body) = lab.post("/v1/bindings", &claim(600));
    assert_eq!((status, &body["set"], &body["withdrawn"]), (200, &json(1), &json(0)), "{body}");
    assert!(lab.connects(8443));
    let row = |lab: &Lab| {
        let listed = lab.json(&["identity", "list"])[0].clone();
        listed.as_array().unwrap().iter().find(|row| row["spiffe_id"] == ORDERS).cloned()
    };
    let first = row(&lab).expect("a row");
    assert_eq!(
        (&first["place"]["file"], &first["evidence"]["ticket"]),
        (&json("source cmdb"), &json("4711"))
    );
    // The same again with a later end renews it, without another epoch.
    let epoch = || lab.maps().config.get().unwrap().epoch;
    let before = epoch();
    assert_eq!(lab.post("/v1/bindings", &claim(1200)).1["set"], 1);
    assert_eq!(epoch(), before);
    assert!(row(&lab).unwrap()["lease"]["not_after"].as_str() > first["lease"]["not_after"].as_str());
    // Another source has nothing there that it could withdraw.
    let slots = serde_json::json!([{"address": "10.1.0.2/32"}]);
    let other = lab.post("/v1/bindings/withdraw", &serde_json::json!({"source": "other", "bindings": slots}));
    assert_eq!((other.0, &other.1["code"]), (404, &json("not_found")), "{other:?}");
    assert!(lab.connects(8443));
    let gone = lab.post("/v1/bindings/withdraw", &serde_json::json!({"source": "cmdb"}));
    assert_eq!((gone.0, &gone.1["withdrawn"]), (200, &json(1)), "{gone:?}");
    assert_eq!(row(&lab), None);
    assert!(!lab.connects(8443));
}

/// A lease of 10.1.0.2 whose end means `words`, and a connection that was opened while it ran; the daemon is killed.
fn left_alone(words: &[&str]) -> (Lab, impl FnMut() -> bool) {
    let lab = Lab::new();
    let mut daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", without_orders())]);
    drop(lab.serve(8443));
    let bind = [&["identity", "bind", "10.1.0.2", ORDERS, "--for", "8s"][..], words].concat();
    lab.ok(&bind);
    let mut stream = lab.client(8443).expect("the lease runs");
    let mut echo = move || -> bool {
        let mut buffer = [0];
        stream.write_all(b"x").is_ok() && stream.read_exact(&mut buffer).is_ok()
    };
    assert!(echo());
    daemon.kill_nine();
    assert!(echo());
    (lab, echo)
}

/// Verdict and reason of the live flow.
fn verdict(lab: &Lab) -> (String, String) {
    let flows = lab.flows();
    let flow = flows.iter().find(|f| f["l4"]["TCP"]["destination_port"] == 8443).expect("a flow");
    (flow["verdict"].as_str().unwrap().into(), flow["drop_reason_desc"].as_str().unwrap_or("-").into())
}

fn is_audited(lab: &Lab) -> bool {
    verdict(lab) == ("AUDIT".into(), "LEASE_EXPIRED".into())
}

#[test]
#[ignore = "needs root"]
fn without_a_daemon_a_lease_that_denies_cuts_a_live_flow() {
    let (lab, mut echo) = left_alone(&[]);
    until(|| !echo());
    assert_eq!(verdict(&lab), ("DROPPED".into(), "LEASE_EXPIRED".into()));
    assert!(!lab.connects(8443));
}

#[test]
#[ignore = "needs root"]
fn without_a_daemon_a_lease_that_alerts_lets_a_live_flow_go_on_and_audits_it() {
    let (lab, mut echo) = left_alone(&["--on-expiry", "alert"]);
    until(|| echo() && is_audited(&lab));
    assert!(lab.connects(8443));
    assert!(echo());
}

#[test]
#[ignore = "needs root"]
fn without_a_daemon_a_lease_with_grace_audits_a_live_flow_and_then_cuts_it() {
    let (lab, mut echo) = left_alone(&["--on-expiry", "grace", "--grace", "8s"]);
    until(|| echo() && is_audited(&lab));
    assert!(lab.connects(8443), "grace is for new connections too");
    until(|| !echo());
    assert_eq!(verdict(&lab), ("DROPPED".into(), "LEASE_EXPIRED".into()));
    assert!(!lab.connects(8443));
}

fn workload(address: &str) -> String {
    format!(
        "apiVersion: tidegate.dev/v1\nkind: Workload\nmetadata: {{name: orders}}\n\
         spec: {{spiffeId: {ORDERS}, addresses: [{address}]}}\n"
    )
}

#[test]
#[ignore = "needs root"]
fn files_of_identities_are_read_again_when_they_change_and_wrong_ones_change_nothing() {
    let lab = Lab::new();
    let identities = lab.file("orders.yaml", &workload("10.1.0.2"));
    let policy = lab.file("shop.policy", without_orders());
    let options = ["-i", "eth1", "-p", &policy, "--identities", &identities, "--metrics", METRICS];
    let _daemon = lab.run(&options);
    let _server = lab.serve(8443);
    assert!(lab.connects(8443));

    let metric = |name: &str| {
        let page = lab.metrics();
        let line =
            page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {page}"));
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    lab.file("orders.yaml", &workload("10.1.0.2").replace("addresses", "adresses"));
    until(|| metric("tidegate_identity_files_wrong") == 1.0);
    assert_eq!(metric("tidegate_identity_reloads_total{result=\"refused\"}"), 1.0);
    assert!(lab.connects(8443));
    let told = lab.json(&["observe"]);
    let event = told.iter().find(|event| event["event"] == "identity_source").expect("an event");
    assert_eq!((&event["source_name"], &event["outcome"]), (&json("files"), &json("refused")));
    assert!(event["message"].as_str().unwrap().contains("adresses"), "{event}");

    lab.file("orders.yaml", &workload("10.1.0.3"));
    until(|| metric("tidegate_identity_files_wrong") == 0.0);
    assert_eq!(metric("tidegate_identity_reloads_total{result=\"taken\"}"), 1.0);
    assert!(!lab.connects(8443));
    let applied = lab.file("policy.yaml", without_orders());
    let (code, said) = lab.fails(&["run", "--identities", &applied]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("kind: Workload"), "{said}");
}

#[test]
#[ignore = "needs root"]
fn a_binding_on_an_interface_holds_there_and_answers_come_by_another() {
    let lab = Lab::new();
    let policy = lab.file("shop.yaml", without_orders());
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &policy]);
    let _server = lab.serve(8443);
    lab.ok(&["identity", "bind", "10.1.0.2", ORDERS, "--interface", "eth2"]);
    assert!(!lab.connects(8443));
    lab.ok(&["identity", "bind", "10.1.0.2", ORDERS, "--interface", "eth1"]);
    lab.ok(&["identity", "unbind", "10.1.0.2", "--interface", "eth2"]);
    assert!(lab.connects(8443));
    let flows = lab.flows();
    let flow = flows.iter().find(|f| f["source"]["spiffe_id"] == ORDERS).expect("a flow");
    assert_eq!((&flow["verdict"], &flow["conn_state"]), (&json("FORWARDED"), &json("SF")));
    let why = |interface: &str| {
        let words = ["why", "10.1.0.2", "10.2.0.2", "8443", "--interface", interface];
        lab.json(&words)[0]["drop_reason_desc"].clone()
    };
    assert_eq!((why("eth1"), why("eth2")), (json("FORWARDED"), json("INVALID_IDENTITY")));
    // By ports, it is the host's own.
    lab.ok(&["identity", "unbind", "10.1.0.2", "--interface", "eth1"]);
    assert!(!lab.connects(8443));
    lab.ok(&["identity", "bind", "10.1.0.2", ORDERS, "--port", "tcp/1024-65535"]);
    assert!(lab.connects(8443));
}
