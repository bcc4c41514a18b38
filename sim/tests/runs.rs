//! Runs with real namespaces and traffic, and what is left when they end in each of the ways that runs end.

mod common;

use common::{File, Residue, Running, is_alive, json, output, signal, topology, wait_until};

/// A router with two workloads that talk for as long as `pause` says.
fn lab(pause: &str) -> File {
    File::new(&format!(
        r#"
name: lab
topology:
  nodes:
    router: {{kind: router}}
    orders: {{kind: workload}}
    payments: {{kind: workload}}
  links:
    - endpoints: ["router:eth1", "orders:eth1"]
    - endpoints: ["router:eth2", "payments:eth1"]
network:
  router: {{addresses: {{eth1: [10.1.0.1/24, "fd00:1::1/64"], eth2: [10.2.0.1/24, "fd00:2::1/64"]}}}}
  orders: {{addresses: {{eth1: [10.1.0.2/24, "fd00:1::2/64"]}}}}
  payments: {{addresses: {{eth1: [10.2.0.2/24, "fd00:2::2/64"]}}}}
workloads:
  orders: {{svid: {{spiffeId: spiffe://acme.example/orders}}}}
  payments: {{svid: {{spiffeId: spiffe://acme.example/payments}}, listen: [mtls/8443, tcp/9000]}}
traffic:
  - {{kind: mtls, from: orders, to: "payments:8443", family: both}}
  - {{kind: pause, for: {pause}}}
  - {{kind: tcp, from: orders, to: "payments:9000"}}
"#
    ))
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn a_step_that_comes_to_nothing_ends_as_an_error_and_keeps_nobody_waiting() {
    let _alone = common::alone();
    let before = Residue::now();
    let step = r#"  - {kind: tcp, from: orders, to: "payments:8443", expect: EXPECTED}"#;
    for (expected, code) in [("any", 0), ("ok", 1)] {
        // A server of TLS, which closes on whoever says something else.
        let text = std::fs::read_to_string(lab("1ms").path()).expect("the file");
        let text = text + &step.replace("EXPECTED", expected);
        let output = output(&["run", &File::new(&text).path(), "-o", "json"]);
        let report = json(&output);
        let last = report["steps"].as_array().and_then(|steps| steps.last()).expect("steps");
        assert_eq!((&last["outcome"], &last["passed"]), (&"error".into(), &(code == 0).into()), "{last}");
        assert_eq!(output.status.code(), Some(code), "{expected}");
    }
    assert_eq!(Residue::now(), before);
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn plain_routing_behaves_as_its_file_says() {
    let _alone = common::alone();
    let before = Residue::now();
    let output = output(&["run", &topology("routing.yaml"), "-o", "json", "--keep-going"]);
    let report = json(&output);
    let steps = report["steps"].as_array().expect("steps");
    let failed: Vec<_> = steps.iter().filter(|s| s["passed"] != true).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(report["passed"], true);
    assert_eq!(steps.len(), 24);
    assert!(steps[23]["requests"].as_u64().expect("requests") > 1, "{}", steps[23]);
    // What the client proved of the server, and what the server said of an expired client.
    assert_eq!(steps[0]["peer"], "spiffe://acme.example/ns/shop/sa/payments");
    assert_eq!(steps[0]["bytes"], 100_000);
    assert_eq!(steps[0]["tls"], "1.3");
    assert_eq!(steps[2]["tls"], "1.2");
    assert!(steps[4]["server_says"].as_str().expect("server_says").contains("expired"), "{}", steps[4]);
    assert_eq!(report["receipt"]["namespaces"], 6);
    assert_eq!(report["receipt"]["left"], serde_json::json!([]));
    assert_eq!(Residue::now(), before);
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn a_step_that_ends_otherwise_fails_the_run() {
    let _alone = common::alone();
    let before = Residue::now();
    let file = lab("1ms");
    let text = std::fs::read_to_string(file.path())
        .expect("file")
        .replace("to: \"payments:9000\"", "to: \"payments:9001\"");
    let output = output(&["run", &File::new(&text).path(), "-o", "json"]);
    let report = json(&output);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(report["passed"], false);
    assert_eq!(report["steps"][2]["outcome"], "refused");
    assert_eq!(report["steps"][2]["expected"], "ok");
    assert_eq!(Residue::now(), before);
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn a_killed_child_fails_its_step_and_leaves_nothing() {
    let _alone = common::alone();
    let before = Residue::now();
    let running = Running::start(&lab("2s"), 2);
    wait_until("the listeners are up", || running.processes().len() == 2);
    signal(running.process("orders"), "KILL");
    let output = running.output();
    let report = json(&output);
    assert_eq!(output.status.code(), Some(1));
    let last = report["steps"].as_array().expect("steps").last().expect("a step");
    assert_eq!(last["outcome"], "error");
    assert_eq!(last["detail"], "the process of node orders ended: signal: 9 (SIGKILL)");
    assert_eq!(Residue::now(), before);
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn ctrl_c_and_sigterm_leave_nothing() {
    let _alone = common::alone();
    for name in ["INT", "TERM"] {
        let before = Residue::now();
        let running = Running::start(&lab("60s"), 2);
        let children = running.processes();
        running.signal(name);
        let output = running.output();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(130), "{stderr}");
        assert!(stderr.contains(&format!("stopped by SIG{name}")) && stderr.contains("all gone"), "{stderr}");
        assert_eq!(Residue::now(), before);
        for (role, pid) in children {
            assert!(!is_alive(pid), "{role} outlived the run");
        }
    }
}

/// Kills a run in the middle with -9: its children end by themselves, the rest stays until somebody cleans.
fn killed_run() -> String {
    let mut running = Running::start(&lab("60s"), 2);
    let children = running.processes();
    let run = format!("tgsim-{}", running.child.id());
    running.signal("KILL");
    running.child.wait().expect("it ends");
    for (role, pid) in children {
        wait_until(&format!("{role} ends with its parent"), || !is_alive(pid));
    }
    assert!(std::path::Path::new("/run/netns").join(format!("{run}-orders")).exists());
    run
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn clean_removes_what_a_killed_run_left() {
    let _alone = common::alone();
    let before = Residue::now();
    let run = killed_run();
    let output = output(&["clean"]);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    assert!(stdout.contains(&run) && stdout.contains("3 namespaces, 4 interfaces"), "{stdout}");
    assert_eq!(Residue::now(), before);
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn the_next_run_removes_what_a_killed_run_left() {
    let _alone = common::alone();
    let before = Residue::now();
    let run = killed_run();
    let output = output(&["run", &lab("1ms").path(), "-o", "json"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains(&format!("an earlier run was killed; {run}: ")), "{stderr}");
    assert_eq!(Residue::now(), before);
}

#[test]
#[ignore = "needs root: makes network namespaces"]
fn clean_leaves_a_running_run_alone() {
    let _alone = common::alone();
    let before = Residue::now();
    let running = Running::start(&lab("2s"), 2);
    let clean = output(&["clean"]);
    let stdout = String::from_utf8_lossy(&clean.stdout).into_owned();
    assert!(stdout.contains(&format!("still running as process {}", running.child.id())), "{stdout}");
    let output = running.output();
    assert_eq!(json(&output)["passed"], true);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(Residue::now(), before);
}
