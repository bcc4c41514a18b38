//! What can be done about an identity beside cutting it off, on real packets: begun by the loop or by hand, ended by the kernel with the
//! daemon dead, undone by hand.

use crate::lab::{Daemon, Lab, ORDERS, intended, json, until};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;

/// What happens elsewhere than at 8443 is said by `steps`.
fn policy(steps: &str) -> String {
    intended(&format!("{{action: contain, steps: [{steps}]}}"))
}

fn begin(lab: &Lab, steps: &str) -> Daemon {
    lab.run(&["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", &policy(steps))])
}

/// What was done for the first finding: act, and which step.
fn done(lab: &Lab) -> Vec<(String, u64)> {
    let findings = lab.json(&["findings", "list"]).remove(0);
    let done = findings[0]["containments"].as_array().cloned().unwrap_or_default();
    let one = |c: &Value| (c["act"].as_str().unwrap().to_owned(), c["step"].as_u64().unwrap());
    done.iter().map(one).collect()
}

fn acts(lab: &Lab) -> Vec<String> {
    let listed = lab.json(&["quarantine", "list"]).remove(0);
    let act = |q: &Value| match &q["act"] {
        Value::Null => "quarantine".to_owned(),
        Value::Object(act) => act.keys().next().unwrap().clone(),
        act => act.as_str().unwrap().to_owned(),
    };
    listed.as_array().unwrap().iter().map(act).collect()
}

fn echo(stream: &mut TcpStream) -> bool {
    stream.write_all(b"x").is_ok() && stream.read_exact(&mut [0]).is_ok()
}

/// Of so many connections that are tried at once, those that work.
fn connects(lab: &Lab, tries: usize) -> usize {
    (0..tries).filter(|_| lab.connects(8443)).count()
}

#[test]
#[ignore = "needs root"]
fn a_limit_stands_for_a_while_and_the_kernel_ends_it_with_the_daemon_dead() {
    let lab = Lab::new();
    let mut daemon = begin(&lab, "{act: limit, rate: {connections: 2/h, burst: {connections: 2}}, for: 20s}");
    let (_server, _other) = (lab.serve(8443), lab.serve(9000));
    assert_eq!(connects(&lab, 4), 4);
    assert!(lab.connects(9000), "what gives it away passes");
    until(|| done(&lab) == [("limit".to_owned(), 0)]);
    assert_eq!(connects(&lab, 3), 2);
    let finding = lab.json(&["findings", "show", "1"]).remove(0);
    assert_eq!(finding["containments"][0]["identity"], ORDERS);
    assert!(lab.ok(&["findings", "show", "1"]).contains(&format!("quarantine del {ORDERS} --act limit")));
    let record = lab.json(&["audit", "show", "--kind", "finding"]).pop().unwrap();
    assert_eq!(record["what"]["act"], "limit connections 2/h (burst 2)");
    daemon.kill_nine();
    assert!(!lab.connects(8443));
    until(|| lab.connects(8443));
    assert_eq!(connects(&lab, 4), 4);
}

#[test]
#[ignore = "needs root"]
fn who_has_to_speak_tls_for_a_while_is_stopped_in_plaintext_live_flows_too_until_the_kernel_ends_it() {
    let lab = Lab::new();
    let mut daemon = begin(&lab, "{act: require-tls, for: 15s}");
    let (_server, _other) = (lab.serve(8443), lab.serve(9000));
    let mut plain = lab.client(8443).unwrap();
    assert!(echo(&mut plain));
    // What it says next may come after the act already.
    let _what_gives_it_away = lab.client(9000).unwrap();
    until(|| done(&lab) == [("require-tls".to_owned(), 0)]);
    assert!(!echo(&mut plain), "what began in plaintext does not go on");
    assert!(!lab.connects(8443));
    let mut tls = lab.client(8443).unwrap();
    tls.write_all(&crate::governance::hello("payments.shop.example", "h2")).unwrap();
    assert!(tls.read_exact(&mut [0]).is_ok(), "a ClientHello is what is asked for");
    let drops = lab.json(&["observe", "--verdict", "DROPPED"]);
    let told = drops.iter().find(|e| e["drop_reason_desc"] == "TLS_REQUIRED").expect("a verdict");
    assert_eq!(told["rule"], json(format!("quarantine/manual:require-tls:{ORDERS}")));
    daemon.kill_nine();
    assert!(!lab.connects(8443));
    until(|| lab.connects(8443));
}

#[test]
#[ignore = "needs root"]
fn what_its_intents_declare_is_left_to_who_is_restricted_until_the_kernel_ends_it() {
    let lab = Lab::new();
    let mut daemon = begin(&lab, "{act: restrict, for: 10s}");
    let (_server, _other) = (lab.serve(8443), lab.serve(9000));
    let mut live = lab.client(9000).unwrap();
    let _ = echo(&mut live);
    until(|| done(&lab) == [("restrict".to_owned(), 0)]);
    assert!(!echo(&mut live) && !lab.connects(9000));
    assert!(lab.connects(8443), "that is what it is for");
    daemon.kill_nine();
    assert!(!lab.connects(9000) && lab.connects(8443));
    until(|| lab.connects(9000));
}

#[test]
#[ignore = "needs root"]
fn connections_that_are_cut_are_reset_at_both_ends_and_others_may_be_opened() {
    let lab = Lab::new();
    // In generic mode: a driver of veth sends nothing back to a peer without GRO.
    let file = lab.file("shop.yaml", &policy("{act: cut-flows, for: 1h}"));
    let mut daemon = lab.run(&["-i", "eth1", "-i", "eth2", "--xdp-mode", "generic", "-p", &file]);
    let (_server, _other) = (lab.serve(8443), lab.serve(9000));
    let mut live = lab.client(8443).unwrap();
    assert!(echo(&mut live));
    let _ = lab.connects(9000);
    until(|| done(&lab) == [("cut-flows".to_owned(), 0)]);
    let _ = live.write_all(b"x");
    let ended = live.read_exact(&mut [0]).unwrap_err();
    assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset, "{ended}");
    assert!(lab.connects(8443), "a new one is none of those");
    assert_eq!(acts(&lab), ["cut-flows"]);
    // It is of the connections that there were; with the daemon dead it stays so, and others are let alone.
    daemon.kill_nine();
    assert!(lab.connects(8443));
}

#[test]
#[ignore = "needs root"]
fn a_cut_by_hand_is_undone_by_hand_and_ends_by_time_with_the_daemon_dead() {
    let lab = Lab::new();
    let mut daemon = begin(&lab, "{act: quarantine, for: 1h}");
    let _server = lab.serve(8443);
    let open = || {
        let mut stream = lab.client(8443).unwrap();
        assert!(echo(&mut stream));
        stream
    };
    let reason = |stream: &TcpStream| {
        let port = json(u64::from(stream.local_addr().unwrap().port()));
        let flows = lab.flows();
        let is_it = |flow: &&Value| flow["l4"]["TCP"]["source_port"] == port;
        flows.iter().find(is_it).map(|flow| flow["drop_reason_desc"].clone())
    };
    let idle = open();
    assert!(lab.ok(&["quarantine", "add", ORDERS, "--act", "cut-flows", "--for", "1h"]).contains("cut from"));
    let mut cut = idle;
    // What says nothing meanwhile is not reset, and goes on when that is undone.
    lab.ok(&["quarantine", "del", ORDERS, "--act", "cut-flows"]);
    assert!(echo(&mut cut), "{:?}", reason(&cut));
    lab.ok(&["quarantine", "add", ORDERS, "--act", "cut-flows", "--for", "4s"]);
    daemon.kill_nine();
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert!(echo(&mut cut), "{:?}", reason(&cut));
}

#[test]
#[ignore = "needs root"]
fn a_lease_that_was_revoked_is_over_whatever_is_bound_until_that_is_undone_or_a_daemon_ends_it() {
    let lab = Lab::new();
    let mut daemon = begin(&lab, "{act: revoke-lease, for: 5s}");
    let (_server, _other) = (lab.serve(8443), lab.serve(9000));
    let mut live = lab.client(8443).unwrap();
    assert!(echo(&mut live));
    let _ = lab.connects(9000);
    until(|| done(&lab) == [("revoke-lease".to_owned(), 0)]);
    assert!(!echo(&mut live) && !lab.connects(8443));
    assert_eq!(lab.json(&["why", "orders", "payments", "8443"])[0]["drop_reason_desc"], "LEASE_EXPIRED");
    // What a source says is no way around it.
    lab.ok(&["identity", "bind", "10.1.0.2", ORDERS, "--for", "1h"]);
    assert!(!lab.connects(8443));
    // The kernel does not give a lease back: that takes a daemon.
    daemon.kill_nine();
    std::thread::sleep(std::time::Duration::from_secs(6));
    assert!(!lab.connects(8443));
    let _daemon = lab.run(&[]);
    until(|| lab.connects(8443));
    assert_eq!(acts(&lab), [""; 0]);
    lab.ok(&["quarantine", "add", ORDERS, "--act", "revoke-lease"]);
    assert!(!lab.connects(8443));
    // Who goes on with it is told apart from who was late to renew one, and is cut off already.
    let found = || {
        let all = lab.json(&["findings", "list"]).remove(0);
        all.as_array().unwrap().iter().find(|found| found["signal"] == "revoked_lease").cloned()
    };
    let why = |found: &Value| found["why"].as_str().unwrap().to_owned();
    until(|| {
        found().is_some_and(|found| why(&found).contains(&format!("the lease of {ORDERS} is revoked; ")))
    });
    let found = found().unwrap();
    assert!(why(&found).contains("went on when its lease was revoked: "), "{found}");
    assert_eq!((&found["decision"], &found["confidence"]), (&json("flag"), &json("high")));
    assert_eq!(found["evidence"][0]["reason"], "LEASE_EXPIRED");
    assert_eq!(found["containments"], json(Vec::<Value>::new()));
    lab.ok(&["quarantine", "del", ORDERS]);
    assert!(lab.connects(8443));
}

#[test]
#[ignore = "needs root"]
fn a_response_goes_on_to_the_next_step_where_the_departure_goes_on_and_not_against_a_person() {
    let lab = Lab::new();
    let limit = "{act: limit, rate: {connections: 1000/s}, for: 1h}";
    let _daemon =
        begin(&lab, &format!("{limit}, {{act: restrict, after: 2s, for: 1h}}, {{act: quarantine, for: 1h}}"));
    let (_server, _other) = (lab.serve(8443), lab.serve(9000));
    let begun = std::time::Instant::now();
    let names = |n: usize| -> Vec<_> {
        [("limit", 0), ("restrict", 1)][..n].iter().map(|(act, n)| ((*act).to_owned(), *n)).collect()
    };
    until(|| {
        let _ = lab.connects(9000);
        done(&lab).len() == 2
    });
    assert!(begun.elapsed() >= std::time::Duration::from_secs(2), "a step has time to show what it does");
    assert_eq!(done(&lab), names(2));
    assert_eq!(acts(&lab), ["limit", "restrict"]);
    assert!(!lab.connects(9000) && lab.connects(8443), "what is left departs from nothing: it ends here");
    assert_eq!(lab.json(&["governance", "status"])[0]["contained_last_hour"], 2);

    // A person undoes the last step, and is not overruled.
    lab.ok(&["quarantine", "del", ORDERS, "--act", "restrict"]);
    assert!(lab.connects(9000));
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(lab.connects(9000));
    assert_eq!((done(&lab), acts(&lab)), (names(2), vec!["limit".to_owned()]));
}

#[test]
#[ignore = "needs root"]
fn a_step_waits_for_approval_as_a_quarantine_does_and_is_done_as_it_was_asked_for() {
    let lab = Lab::new();
    let gateway = "---\napiVersion: tidegate.dev/v1\nkind: Gateway\nmetadata: {name: edge}\nspec: {approvals: {over: {addresses: 0}}}\n";
    let text = policy("{act: limit, rate: {connections: 1/h, burst: {connections: 1}}, for: 1h}") + gateway;
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", &text)]);
    let (_server, _other) = (lab.serve(8443), lab.serve(9000));
    assert!(lab.connects(9000));
    let waiting = || lab.json(&["approvals", "list"]).remove(0);
    until(|| waiting().as_array().unwrap().len() == 1);
    assert_eq!(acts(&lab), [""; 0]);
    assert!(lab.ok(&["approvals", "approve", "1"]).ends_with("(limit connections 1/h (burst 1))\n"));
    assert_eq!((acts(&lab), done(&lab)), (vec!["limit".to_owned()], vec![("limit".to_owned(), 0)]));
    assert_eq!(connects(&lab, 3), 1);
    lab.ok(&["quarantine", "del", ORDERS]);
    assert_eq!(connects(&lab, 3), 3);
}

#[test]
#[ignore = "needs root"]
fn an_act_that_says_too_little_or_too_much_is_refused_with_what_to_write() {
    let lab = Lab::new();
    let _daemon = begin(&lab, "{act: quarantine, for: 1h}");
    for (args, hint) in [
        (&["--act", "limit"][..], "does not say to what"),
        (&["--act", "cut-flows", "--rate", "packets=10/s"], "`rate` is for `limit`"),
        (&["--act", "limit", "--rate", "packets=10"], "`10` is no rate"),
        (&["--act", "limit", "--rate", "parcels=10/s"], "names no packets, bytes or connections"),
        (&["--act", "restrict"], "follows from an intent"),
        (&["--act", "require-tls", "--except", "udp/53"], "has no exceptions"),
    ] {
        let (_, said) = lab.fails(&[&["quarantine", "add", ORDERS][..], args].concat());
        assert!(said.contains(hint), "{args:?}: {said}");
    }
    for (steps, hint) in [
        ("", "`steps` is an empty list"),
        ("{act: limit, for: 1m}", "a step that limits does not say to what"),
        ("{act: quarantine, rate: {packets: 1/s}, for: 1m}", "`rate` is for `act: limit`"),
        ("{act: quarantine, for: 1m, after: 1m}", "`after` in the first step"),
        ("{act: quarantine}", "`for`"),
    ] {
        let (code, said) = lab.fails(&["policy", "check", &lab.file("wrong.yaml", &policy(steps))]);
        assert_eq!(code, 2);
        assert!(said.contains(hint), "{steps}: {said}");
    }
}
