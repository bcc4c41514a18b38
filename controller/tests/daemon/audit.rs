//! What was done to a gateway is recorded before it is done, and told from the record alone.

use crate::lab::{self, Lab, POLICY, json};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;

/// The records, as they are exported.
pub fn lines(lab: &Lab) -> Vec<Value> {
    let text = lab.ok(&["audit", "export"]);
    let line = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["record"].clone();
    text.lines().map(line).collect()
}

fn told(lab: &Lab, args: &[&str]) -> Vec<String> {
    let records = lab.json(&[&["audit", "show"][..], args].concat());
    let word = |record: &Value| {
        format!("{} {}", record["kind"].as_str().unwrap(), record["by"]["how"].as_str().unwrap())
    };
    records.iter().map(word).collect()
}

#[test]
#[ignore = "needs root"]
fn what_is_done_is_recorded_by_whom_and_explains_a_denial_after_the_files_are_gone() {
    let lab = Lab::new();
    let file = lab.file("shop.yaml", POLICY);
    let options = ["-i", "eth1", "-p", &file, "--failsafe", "tcp/22"];
    let mut daemon = lab.run(&options);
    lab.ok(&["attach", "eth2"]);
    lab.ok(&["block", "add", "10.1.0.2/32", "--for", "1h", "--reason", "it scans"]);
    lab.ok(&["block", "del", "10.1.0.2/32"]);
    lab.ok(&["quarantine", "add", "orders", "--for", "1h", "--reason", "beacons"]);
    lab.ok(&["quarantine", "del", "orders"]);
    let denies = lab.file("deny.yaml", &POLICY.replace("action: allow", "action: deny"));
    lab.ok(&["policy", "apply", &denies, "--confirm-within", "10m"]);
    lab.ok(&["policy", "confirm"]);
    lab.ok(&["policy", "rollback"]);
    daemon.stop();
    let mut daemon = lab.run(&["--mode", "monitor"]);
    daemon.kill_nine();
    let mut daemon = lab.run(&[]);
    daemon.stop();
    lab.ok(&["detach", "--all"]);

    let all = [
        "start run",
        "commit run",
        "settings run",
        "attach attach",
        "commit block add",
        "commit block del",
        "commit quarantine add",
        "commit quarantine del",
        "commit policy apply",
        "confirm policy confirm",
        "commit policy rollback to 5",
        "stop run",
        "start run",
        "commit run",
        "settings run",
        "start run",
        "commit run",
        "stop run",
        "detach detach --all",
    ];
    assert_eq!(told(&lab, &[]), all);
    let starts = lab.json(&["audit", "show", "--kind", "start"]);
    let said: Vec<_> =
        starts.iter().map(|s| (s["what"]["unclean"].clone(), s["what"]["maps"].as_str().unwrap())).collect();
    let (yes, no) = (json(true), json(false));
    assert_eq!(said, [(no.clone(), "new"), (no, "taken over"), (yes, "taken over")]);
    assert_eq!(starts[0]["what"]["options"], serde_json::json!({"failsafe": "tcp/22"}));
    let settings = lab.json(&["audit", "show", "--kind", "settings"]);
    assert_eq!(settings[1]["what"], serde_json::json!({"mode": {"before": null, "after": "monitor"}}));

    std::fs::remove_file(&denies).unwrap();
    assert_eq!(told(&lab, &["--kind", "quarantine"]), ["commit quarantine add", "commit quarantine del"]);
    assert_eq!(told(&lab, &["--kind", "rule", "--identity", "payments", "--since", "1h"]).len(), 3);
    assert_eq!(told(&lab, &["--identity", "payments", "--until", "1h"]), [""; 0]);
    let denial = &lab.json(&["audit", "show", "--kind", "rule"])[1];
    assert_eq!((&denial["by"]["who"], &denial["outcome"]["outcome"]), (&json("root"), &json("committed")));
    let text = lab.ok(&["audit", "show", "--kind", "rule"]);
    let change = "~ rule shop/pay: tier 100: allow tcp/8443 from spiffe://acme.example/ns/shop/sa/orders to \
                  spiffe://acme.example/ns/shop/sa/payments\n            now tier 100: deny tcp/8443";
    assert!(text.contains(change) && text.contains("root (policy apply): revision 6, committed"), "{text}");
    let block = &lab.json(&["audit", "show", "--kind", "block"])[0]["what"]["changes"][0];
    assert!(block["after"].as_str().unwrap().ends_with("(it scans)"), "{block}");
}

#[test]
#[ignore = "needs root"]
fn a_record_is_verified_on_another_machine_and_a_change_in_the_file_is_found() {
    let lab = Lab::new();
    let mut daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", POLICY)]);
    let key = lab.state_file().with_file_name("audit.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let public = lab.file("gateway.pem", &lab.ok(&["audit", "key"]));
    let early = lab.json(&["audit", "head"])[0]["hash"].as_str().unwrap().to_owned();
    lab.ok(&["block", "add", "10.1.0.2/32"]);
    daemon.stop();
    let head = lab.json(&["audit", "head"])[0]["hash"].as_str().unwrap().to_owned();
    let export = lab.ok(&["audit", "export"]);
    let file = lab.file("audit.jsonl", &export);

    // Another instance has none of it.
    let elsewhere = lab.beside("else");
    let verify = ["audit", "verify", "--key", &public, "--head", &head];
    let summary = &elsewhere.json(&[&verify[..], &["--file", &file]].concat())[0];
    assert_eq!((&summary["ok"], &summary["head"]["hash"]), (&json(true), &json(head.clone())));
    // What came last is the checkpoint of an orderly end.
    assert_eq!(summary["signed_to"].as_u64().unwrap() + 1, summary["records"].as_u64().unwrap());
    assert_eq!(lab.json(&verify)[0], *summary);
    let state = lab.state_file().display().to_string();
    assert_eq!(elsewhere.json(&[&verify[..], &["--file", &state]].concat())[0], *summary);

    let cut =
        lab.file("cut.jsonl", &export.lines().take(4).map(|line| format!("{line}\n")).collect::<String>());
    let whole = elsewhere.json(&["audit", "verify", "--file", &cut, "--head", &early]);
    assert_eq!(whole.len(), 1, "it was no longer then");
    let (code, said) = elsewhere.fails(&["audit", "verify", "--file", &cut, "--head", &head]);
    assert_eq!(code, 1);
    assert!(said.contains("the audit record is not what was written: 1 findings"), "{said}");
    let output = elsewhere.tidegate(&["audit", "verify", "--file", &cut, "--head", &head]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains(&format!("! no record has the hash {head}: those after record 4 were cut off")),
        "{said}"
    );

    let db = rusqlite::Connection::open(lab.state_file()).unwrap();
    db.execute_batch(
        "DROP TRIGGER audit_is_not_changed; UPDATE audit SET record = replace(record, '10.1.0.2', '10.1.0.3')",
    )
    .unwrap();
    drop(db);
    let (code, _) = lab.fails(&["audit", "verify"]);
    assert_eq!(code, 1);
    // A daemon goes on with what it finds; nothing of this is repaired.
    let _daemon = lab.run(&[]);
    lab::until(|| lines(&lab).last().unwrap()["kind"] == "checkpoint");
    assert_eq!(lab.fails(&["audit", "verify"]).0, 1);
}

#[test]
#[ignore = "needs root"]
fn a_record_that_was_cut_off_is_missed_by_the_daemon_itself_and_what_comes_after_is_told() {
    let lab = Lab::new();
    let mut daemon = lab.run(&["-i", "eth1"]);
    let events = lab.state_file().with_file_name("events");
    lab.ok(&["block", "add", "10.9.0.1"]);
    lab.ok(&["block", "add", "10.9.0.2"]);
    lab::until(|| {
        let cursor = std::fs::read_to_string(events.join("records.cursor")).unwrap_or_default();
        cursor.trim().parse::<usize>().is_ok_and(|told| told >= lines(&lab).len())
    });
    daemon.stop();
    assert_eq!(lab.json(&["audit", "verify"])[0]["ok"], true);
    let whole = lines(&lab).len();
    // Somebody takes out what he did last, and leaves a chain that is whole.
    let db = rusqlite::Connection::open(lab.state_file()).unwrap();
    db.execute_batch(&format!(
        "DROP TRIGGER audit_is_not_removed; DELETE FROM audit WHERE seq > {}",
        whole - 3
    ))
    .unwrap();
    drop(db);
    let missed = |told: &str| {
        let output = lab.tidegate(&["audit", "verify"]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(told), "{said}");
    };
    let says = format!("those after record {} were cut off", whole - 3);
    missed(&says);
    // The next daemon says so for ever, and tells of what it records.
    let _daemon = lab.run(&[]);
    lab.ok(&["block", "add", "10.9.0.3"]);
    missed(&says);
    let is_told = |file: std::fs::DirEntry| {
        std::fs::read_to_string(file.path()).is_ok_and(|text| text.contains("10.9.0.3"))
    };
    lab::until(|| std::fs::read_dir(&events).unwrap().flatten().any(is_told));
}
