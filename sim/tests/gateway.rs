//! The real tidegate on the gateway: what it lets through, what it drops, and that nothing of it is left.

mod common;

use common::{File, Residue, held, json, output, topology};
use serde_json::Value;

fn drops<'a>(report: &'a Value, reason: &str) -> Vec<&'a Value> {
    report["seen"]["drops"].as_array().expect("drops").iter().filter(|d| d["reason"] == reason).collect()
}

const SHOP: &str = "spiffe://acme.example/ns/shop/sa";

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn the_demo_holds_and_says_who_was_dropped_by_what() {
    let _alone = common::alone();
    let before = Residue::now();
    let report = held("demo.yaml");
    for drop in drops(&report, "POLICY_DENY") {
        assert_eq!(drop["source"]["spiffe_id"], format!("{SHOP}/reports"));
        assert_eq!(drop["destination"]["spiffe_id"], format!("{SHOP}/payments"));
        assert_eq!(drop["rule"], "shop/reports-never-pay");
    }
    for drop in drops(&report, "BLOCKLISTED") {
        assert_eq!(drop["source"]["spiffe_id"], Value::Null);
        assert!(["10.1.0.66", "fd00:1::66"].map(Value::from).contains(&drop["source"]["address"]), "{drop}");
    }
    // The server turned them away; the gateway saw why where it could be read.
    let failed = |f: &&Value| f["source"]["spiffe_id"] == format!("{SHOP}/returns");
    let flows = report["seen"]["flows"].as_array().expect("flows");
    let alerts: Vec<_> = flows
        .iter()
        .filter(failed)
        .map(|f| (f["tls_version"].as_str(), f["tls_alert"].as_str(), f["tls_inferred"].as_bool()))
        .collect();
    assert_eq!(alerts.len(), 2, "{alerts:?}");
    assert!(alerts.contains(&(Some("1.2"), Some("certificate_expired"), Some(false))), "{alerts:?}");
    assert!(alerts.contains(&(Some("1.3"), None, Some(true))), "{alerts:?}");
    assert!(report["receipt"]["pins"].as_u64() > Some(0));
    assert_eq!(Residue::now(), before);
}

#[test]
#[ignore = "needs root: makes network namespaces and loads BPF programs"]
fn a_killed_and_restarted_daemon_changes_no_verdict_and_breaks_no_flow() {
    let _alone = common::alone();
    let before = Residue::now();
    let report = held("restart.yaml");
    let steps = report["steps"].as_array().expect("steps");
    for lasting in &steps[..2] {
        assert!(lasting["requests"].as_u64() > Some(10), "{lasting}");
    }
    assert_eq!(Residue::now(), before);
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn a_missing_tidegate_is_said_and_leaves_nothing() {
    let _alone = common::alone();
    let before = Residue::now();
    let output =
        output(&["run", &topology("demo.yaml"), "-o", "json", "--tidegate", "/nonexistent/tidegate"]);
    let report = json(&output);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(report["error"], "--tidegate /nonexistent/tidegate: No such file or directory (os error 2)");
    assert_eq!(Residue::now(), before);
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn documents_that_the_daemon_refuses_break_the_run_off_with_its_words() {
    let _alone = common::alone();
    let before = Residue::now();
    let text = std::fs::read_to_string(topology("demo.yaml")).expect("demo");
    let file = File::new(&text.replacen("action: deny", "action: forbid", 1));
    let output = output(&["run", &file.path(), "-o", "json"]);
    let report = json(&output);
    assert_eq!(output.status.code(), Some(1));
    let error = report["error"].as_str().expect("an error");
    assert!(error.starts_with("the daemon ended before it was ready (exit status: 2); it said:"), "{error}");
    assert!(error.contains("policy-shop.yaml") && error.contains("forbid"), "{error}");
    assert_eq!(Residue::now(), before);
}
