//! A workload of this host: what it executes, and who opens its connections.

use crate::lab::{Lab, ORDERS, POLICY, json, until};
use cgroup::{Cgroup, with_tracepoints};

#[path = "../../../loader/tests/cgroup/mod.rs"]
mod cgroup;

#[test]
#[ignore = "needs root"]
fn a_program_that_no_intent_has_is_found_and_its_identity_contained_with_cgroup2() {
    with_tracepoints();
    let (lab, cgroup) = (Lab::new(), Cgroup::new("daemon"));
    let intent = format!(
        "{POLICY}---
apiVersion: tidegate.dev/v1
kind: Intent
metadata: {{name: orders}}
spec:
  identities: [{{spiffeId: {ORDERS}}}]
  workload: service
  processes: [/bin/true, /usr/bin/bash]
  response: {{action: contain, for: 1h}}
"
    );
    let file = lab.file("shop.yaml", &intent);
    let local = format!("{}={ORDERS}", cgroup.0.display());
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &file, "--local-workload", &local]);
    let story = || lab.ok(&["story", ORDERS]);
    let findings = || lab.json(&["findings", "list"]).remove(0);
    // As declared: a program, and a process that is given a peer.
    cgroup.run("/bin/true && /bin/true && exec 3<>/dev/udp/127.0.0.1/9");
    until(|| story().contains("connects to 127.0.0.1 udp/9 by bash"));
    assert_eq!(story().matches(&format!("{ORDERS} executes /bin/true")).count(), 1, "{}", story());
    assert_eq!(findings(), json(Vec::<serde_json::Value>::new()));

    cgroup.run("/bin/sleep 0");
    until(|| findings().as_array().is_some_and(|all| !all.is_empty()));
    let finding = lab.json(&["findings", "show", "1"]).remove(0);
    assert_eq!((&finding["signal"], &finding["decision"]), (&json("new_process"), &json("contain")));
    assert_eq!((&finding["confidence"], &finding["services"][0]), (&json("high"), &json("exec")));
    let why = finding["why"].as_str().unwrap();
    assert!(
        why.contains("executed a program that its intent does not have: ") && why.contains("/bin/sleep"),
        "{why}"
    );
    assert!(why.ends_with("executes /bin/true or /usr/bin/bash"), "{why}");
    until(|| lab.json(&["quarantine", "list"])[0][0]["reason"] == "finding 1");

    // Under another intent it is told again, and somebody else is who may.
    lab.file("shop.yaml", &intent.replace("/bin/true, /usr/bin/bash", "/bin/sleep"));
    lab.ok(&["policy", "apply", &file]);
    cgroup.run("/bin/true && exec 3<>/dev/udp/127.0.0.1/10");
    until(|| findings().as_array().is_some_and(|all| all.len() == 2));
    until(|| lab.json(&["findings", "show", "1"])[0]["count"] == 2);
    let opener = lab.json(&["findings", "show", "2"]).remove(0);
    assert_eq!((&opener["signal"], &opener["decision"]), (&json("new_opener"), &json("flag")));
    assert!(opener["why"].as_str().unwrap().contains("127.0.0.1 at udp/10, by bash"), "{}", opener["why"]);
}
