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
  rules: [{{name: naps, when: \"event == 'process' && process.endsWith('/sleep')\", message: it sleeps}}]
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

    // Where it was, and by which lease, is said by the event itself.
    let told =
        |kind: &str| lab.json(&["observe"]).into_iter().find(|event| event["event"] == kind).expect(kind);
    for event in [told("process"), told("socket")] {
        assert_eq!(event["process"]["cgroup"], cgroup.0.display().to_string(), "{event}");
        let no_end = serde_json::json!({"not_after": null});
        assert_eq!(
            (&event["IP"]["source"], &event["source"]["lease"]),
            (&json("10.1.0.2"), &no_end),
            "{event}"
        );
    }
    assert_eq!(told("socket")["destination"], serde_json::json!({"identity": 0, "spiffe_id": null}));

    cgroup.run("/bin/sleep 0");
    until(|| findings().as_array().is_some_and(|all| !all.is_empty()));
    let finding = lab.json(&["findings", "show", "1"]).remove(0);
    assert_eq!((&finding["signal"], &finding["decision"]), (&json("new_process"), &json("contain")));
    assert_eq!(finding["workload"], "service");
    until(|| findings().as_array().is_some_and(|all| all.len() == 2));
    let asked = lab.json(&["findings", "show", "2"]).remove(0);
    assert_eq!(
        (&asked["signal"], &asked["rule"], &asked["peer"]),
        (&json("rule"), &json("naps"), &json("several"))
    );
    assert_eq!((&finding["confidence"], &finding["services"][0]), (&json("high"), &json("exec")));
    let why = finding["why"].as_str().unwrap();
    assert!(
        why.contains("executed a program that its intent does not have: ") && why.contains("/bin/sleep"),
        "{why}"
    );
    assert!(why.ends_with("executes /bin/true or /usr/bin/bash"), "{why}");
    until(|| lab.json(&["quarantine", "list"])[0][0]["reason"] == "finding 1");

    assert_eq!(finding["evidence"][0]["address"], "10.1.0.2");

    // Who was connected to is whoever was there then.
    lab.ok(&["identity", "bind", "10.1.0.2", ORDERS, "--for", "1h"]);
    cgroup.run("exec 3<>/dev/udp/10.2.0.2/53");
    let payments = || {
        let all = lab.json(&["observe"]);
        all.into_iter().find(|event| event["event"] == "socket" && event["IP"]["destination"] == "10.2.0.2")
    };
    until(|| payments().is_some());
    let socket = payments().expect("a socket");
    assert_eq!(socket["destination"]["spiffe_id"], "spiffe://acme.example/ns/shop/sa/payments", "{socket}");
    assert_eq!(socket["destination"]["lease"], serde_json::json!({"not_after": null}));
    assert!(socket["source"]["lease"].is_object(), "{socket}");

    // Under another intent it is told again, and somebody else is who may.
    lab.file("shop.yaml", &intent.replace("/bin/true, /usr/bin/bash", "/bin/sleep"));
    lab.ok(&["policy", "apply", &file]);
    cgroup.run("/bin/true && exec 3<>/dev/udp/127.0.0.1/10");
    until(|| findings().as_array().is_some_and(|all| all.len() == 3));
    until(|| lab.json(&["findings", "show", "1"])[0]["count"] == 2);
    let opener = lab.json(&["findings", "show", "3"]).remove(0);
    assert_eq!((&opener["signal"], &opener["decision"]), (&json("new_opener"), &json("flag")));
    assert!(opener["why"].as_str().unwrap().contains("127.0.0.1 at udp/10, by bash"), "{}", opener["why"]);
}
