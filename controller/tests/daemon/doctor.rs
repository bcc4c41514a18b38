//! `tidegate doctor` against interfaces of which the answer is known.

use crate::lab::{Lab, POLICY};
use serde_json::Value;

/// State and text of a check.
fn check<'a>(answer: &'a Value, part: &str, check: &str) -> (&'a str, &'a str) {
    let checks = answer["checks"].as_array().expect("checks");
    let one = checks.iter().find(|one| one["part"] == part && one["check"] == check);
    let one = one.unwrap_or_else(|| panic!("no {part}/{check} in {answer}"));
    (one["state"].as_str().expect("state"), one["found"].as_str().expect("found"))
}

fn failing(output: &std::process::Output) -> (Option<i32>, Value) {
    (output.status.code(), serde_json::from_slice(&output.stdout).expect("JSON"))
}

#[test]
#[ignore = "needs root"]
fn doctor_knows_veth_from_a_bridge_and_touches_neither() {
    let lab = Lab::new();
    lab.add_link("name br0 type bridge");
    lab.on("gw", "ethtool", "-K eth1 gro off");
    let answer = &lab.json(&["doctor"])[0];
    assert_eq!(answer["can_run"], true, "{answer}");
    assert_eq!(check(answer, "eth1", "driver"), ("ok", "veth"));
    assert_eq!(check(answer, "eth1", "XDP"), ("ok", "native, generic"));
    assert_eq!(check(answer, "eth1", "frames"), ("ok", "MTU 1500, frames of several buffers"));
    assert_eq!(check(answer, "eth1", "XDP program"), ("ok", "none"));
    assert_eq!(check(answer, "eth1", "TC programs"), ("ok", "none"));
    assert_eq!(check(answer, "br0", "driver"), ("ok", "bridge"));
    let (state, found) = check(answer, "br0", "XDP");
    assert!(state == "warn" && found.starts_with("generic only"), "{found}");
    let (state, found) = check(answer, "host", "forwarding");
    assert_eq!((state, found), ("warn", "not IPv6"));
    let (state, found) = check(answer, "kernel", "programs");
    assert!(state == "ok" && found.contains("tidegate_xdp") && found.contains("machine code"), "{found}");
    assert!(!lab.output("ip", &["link", "show"]).contains("xdp"));
    assert!(!lab.pin_dir().exists());
}

#[test]
#[ignore = "needs root"]
fn doctor_tells_queues_and_what_a_driver_sends() {
    let lab = Lab::new();
    lab.add_link("many numrxqueues 64 type veth peer name few numrxqueues 1");
    let answer = &lab.json(&["doctor", "many", "few"])[0];
    let cpus = std::thread::available_parallelism().expect("CPUs").get();
    assert_eq!(check(answer, "many", "receive queues").0, "ok");
    let (state, found) = check(answer, "few", "receive queues");
    assert_eq!((state, found), (if cpus > 1 { "warn" } else { "ok" }, &*format!("1, and {cpus} CPUs")));
    assert_eq!(check(answer, "many", "sent by XDP").0, "warn", "its peer has no GRO");
    lab.on("gw", "ethtool", "-K few gro on");
    for end in ["few", "many"] {
        lab.on("gw", "ip", &format!("link set {end} up"));
    }
    let answer = &lab.json(&["doctor", "many"])[0];
    assert_eq!(check(answer, "many", "sent by XDP"), ("ok", "it takes frames from XDP (--forward xdp)"));
}

#[test]
#[ignore = "needs root"]
fn doctor_tells_our_programs_from_those_of_others() {
    let lab = Lab::new();
    let _daemon = lab.run(&["-i", "eth1", "--tc-mode", "clsact", "-p", &lab.file("shop.yaml", POLICY)]);
    let answer = &lab.json(&["doctor", "eth1", "eth2"])[0];
    let (state, found) = check(answer, "eth1", "XDP program");
    assert!(state == "ok" && found.starts_with("Tidegate's, id "), "{found}");
    let (state, found) = check(answer, "eth1", "TC programs");
    assert!(
        state == "ok" && found.contains("tidegate_tc (id ") && found.ends_with("egress, clsact)"),
        "{found}"
    );

    let other = lab.beside("b");
    let (code, answer) =
        failing(&other.tidegate(&["doctor", "eth1", "-o", "json"]).output().expect("doctor"));
    assert_eq!((code, &answer["can_run"]), (Some(1), &false.into()));
    let (state, found) = check(&answer, "eth1", "XDP program");
    assert!(state == "missing" && found.starts_with("somebody else's, id "), "{found}");
    let answer = &other.json(&["doctor"])[0];
    assert_eq!((check(answer, "eth1", "XDP program").0, &answer["can_run"]), ("warn", &true.into()));
    assert_eq!(other.fails(&["doctor", "eth9"]).0, 2);
}

#[test]
#[ignore = "needs root"]
fn doctor_says_to_who_may_nothing_what_is_missing() {
    let lab = Lab::new();
    let (code, answer) =
        failing(&lab.tidegate_as_nobody(&["doctor", "-o", "json"]).output().expect("doctor"));
    assert_eq!((code, &answer["can_run"]), (Some(1), &false.into()));
    assert_eq!(check(&answer, "kernel", "bpf()"), ("missing", "not permitted"));
    assert_eq!(check(&answer, "host", "state folder").0, "missing");
    let checks = answer["checks"].as_array().expect("checks");
    let missing = checks.iter().filter(|one| one["check"] == "capabilities").map(|one| &one["found"]);
    assert_eq!(missing.collect::<Vec<_>>(), ["no CAP_BPF", "no CAP_NET_ADMIN", "no CAP_PERFMON"]);
    assert!(checks.iter().filter(|one| one["state"] != "ok").all(|one| one["to_do"].is_string()));
    // The interface's driver may be asked by anybody.
    assert_eq!(check(&answer, "eth1", "XDP"), ("ok", "native, generic"));
}

#[test]
#[ignore = "needs root"]
fn maps_of_another_version_are_enforced_on_and_told_of_by_doctor() {
    let lab = Lab::new();
    let options = ["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", POLICY)];
    let mut daemon = lab.run(&options);
    let (_pay, _admin) = (lab.serve(8443), lab.serve(9000));
    let answer = &lab.json(&["doctor"])[0];
    assert_eq!(check(answer, "host", "pinned maps").0, "ok");
    daemon.stop();
    lab.maps().config.update(|config| config.abi_version -= 1).unwrap();
    let answer = &lab.json(&["doctor"])[0];
    let (state, found) = check(answer, "host", "pinned maps");
    assert!(state == "ok" && found.contains("replaces them in place, without a gap"), "{found}");
    let _daemon = lab.run(&[]);
    drop(_daemon);
    lab.maps().config.update(|config| config.abi_version += 1).unwrap();
    // The older version takes nothing over, and takes nothing away.
    assert!(lab.connects(8443) && !lab.connects(9000));
    let output = lab.tidegate(&["doctor", "-o", "json"]).output().unwrap();
    let (code, answer) = failing(&output);
    let (state, found) = check(&answer, "host", "pinned maps");
    assert!(code != Some(0) && state == "missing" && found.contains("enforce on"), "{found}");
    // And the way over: a gap, and then all that the state says.
    lab.ok(&["detach", "--all"]);
    assert!(lab.connects(9000), "nothing is judged");
    let _daemon = lab.run(&options[..4]);
    assert!(lab.connects(8443) && !lab.connects(9000));
}
