//! A daemon whose maps have another form than those that are pinned: it replaces them, and nothing passes unjudged meanwhile.

use crate::lab::{Lab, POLICY, json, until};
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Scope, ScopedJoinHandle};

/// Nothing of the policy allows it.
const DENIED: u16 = 9999;

/// Datagrams that no policy allows, as fast as they go, and a connection that one allows.
struct Traffic<'s> {
    sent: &'s AtomicU64,
    ends: &'s AtomicBool,
    passed: UdpSocket,
    allowed: ScopedJoinHandle<'s, u64>,
}

impl<'s> Traffic<'s> {
    fn begin<'e>(
        lab: &'e Lab,
        scope: &'s Scope<'s, 'e>,
        (sent, ends): (&'e AtomicU64, &'e AtomicBool),
    ) -> Self {
        let passed = lab.receive(DENIED);
        scope.spawn(move || {
            lab.on_left(|| {
                let socket = UdpSocket::bind(("10.1.0.2", 0)).expect("a socket");
                socket.connect(("10.2.0.2", DENIED)).expect("a peer");
                while !ends.load(Ordering::Relaxed) {
                    if socket.send(b"denied").is_ok() {
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        });
        let mut stream = lab.client(8443).expect("allowed");
        let allowed = scope.spawn(move || {
            let mut echoed = 0;
            while !ends.load(Ordering::Relaxed) {
                stream.write_all(b"x").and_then(|()| stream.read_exact(&mut [0])).expect("it goes on");
                echoed += 1;
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            echoed
        });
        let traffic = Self { sent, ends, passed, allowed };
        traffic.flows();
        traffic
    }

    /// Waits until many more were sent, and holds that none has come through.
    fn flows(&self) {
        let before = self.sent.load(Ordering::Relaxed);
        until(|| self.sent.load(Ordering::Relaxed) > before + 2000);
        let came = self.passed.recv(&mut [0; 64]);
        assert!(came.is_err(), "{} bytes passed that nothing allows", came.unwrap_or_default());
    }

    fn end(self) {
        self.flows();
        self.ends.store(true, Ordering::Relaxed);
        assert!(self.allowed.join().expect("the connection went on") > 10);
        assert!(self.passed.recv(&mut [0; 64]).is_err(), "nothing passed");
    }
}

/// Ends the traffic however the test ends: who waits for its threads would wait for ever.
struct Ends<'s>(&'s AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn make_older(lab: &Lab) {
    lab.maps().config.update(|config| config.abi_version -= 1).expect("a map");
}

/// Whether the pinned maps are of this version, and none waits to be replaced.
fn is_upgraded(lab: &Lab) -> bool {
    !loader::replaces_maps(&lab.pin_dir()).expect("pins") && !lab.pin_dir().join("before").exists()
}

fn under_traffic(options: &[&str], upgrade: impl FnOnce(&Lab, &Traffic<'_>)) {
    let lab = Lab::new();
    let _server = lab.serve(8443);
    let passes = lab.receive(DENIED);
    // The way is open until something judges.
    lab.on_left(|| UdpSocket::bind(("10.1.0.2", 0)).unwrap().send_to(b"x", ("10.2.0.2", DENIED)).unwrap());
    until(|| passes.recv(&mut [0; 64]).is_ok());
    drop(passes);
    let file = lab.file("shop.yaml", POLICY);
    let interfaces = ["-i", "eth1", "-i", "eth2", "-p", &file];
    let mut daemon = lab.run(&[&interfaces[..], options].concat());
    lab.ok(&["identity", "bind", "10.9.9.9", "spiffe://acme.example/ns/shop/sa/late", "--for", "1h"]);
    daemon.stop();
    let (sent, ends) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _ends = Ends(&ends);
        let traffic = Traffic::begin(&lab, scope, (&sent, &ends));
        make_older(&lab);
        traffic.flows();
        upgrade(&lab, &traffic);
        traffic.end();
    });
    assert!(lab.connects(8443) && !lab.connects(9000));
}

#[test]
#[ignore = "needs root"]
fn maps_of_an_older_form_are_replaced_under_traffic_and_nothing_passes_that_should_not() {
    for options in [&["--ingress", "tc"][..], &["--ingress", "xdp"], &["--tc-mode", "clsact"]] {
        under_traffic(options, |lab, traffic| {
            // As a unit starts it after an upgrade: with one of the interfaces; the other is not left behind.
            let _daemon = lab.run(&["-i", "eth1"]);
            assert!(is_upgraded(lab), "{options:?}");
            traffic.flows();
            let status = &lab.json(&["status"])[0];
            assert_eq!(status["interfaces"].as_array().map(Vec::len), Some(2), "{options:?}: {status}");
            // What is said now counts, on both ways of an interface that was not named.
            lab.ok(&["block", "add", "10.9.0.0/16"]);
            let why = &lab.json(&["why", "10.1.0.2", "10.2.0.2", "8443"])[0];
            assert_eq!((&why["verdict"], &why["rule"]), (&json("FORWARDED"), &json("shop/pay")));
            let identities = lab.ok(&["identity", "list"]);
            assert!(identities.contains("sa/late"), "{identities}");
            // The next start takes over what is of its own form.
            drop(_daemon);
            let _again = lab.run(&[]);
            traffic.flows();
        });
    }
}

#[test]
#[ignore = "needs root"]
fn an_upgrade_that_fails_leaves_the_older_maps_and_the_next_one_replaces_them() {
    under_traffic(&[], |lab, traffic| {
        let (code, said) = lab.fails(&["run", "-i", "nosuch"]);
        assert!(code != 0 && said.contains("no interface nosuch"), "{said}");
        traffic.flows();
        let pinned = loader::Maps::open(&lab.pin_dir()).err().expect("older maps").to_string();
        assert!(pinned.contains("replaces them in place, without a gap"), "{pinned}");
        assert!(!lab.pin_dir().join("before").exists());
        let _daemon = lab.run(&[]);
        assert!(is_upgraded(lab));
        traffic.flows();
    });
}

#[test]
#[cfg(debug_assertions)]
#[ignore = "needs root"]
fn an_upgrade_that_dies_at_any_step_of_its_commit_opens_nothing_and_is_gone_on_with() {
    for step in ["Compiled", "Recorded", "HalfWritten", "Written", "Flipped", "Marked"] {
        under_traffic(&[], |lab, traffic| {
            lab.end_at(step);
            let died = lab.tidegate(&["run"]).status().expect("tidegate");
            assert!(!died.success(), "{step}");
            lab.end_at("");
            assert!(!is_upgraded(lab), "{step}");
            traffic.flows();
            let _daemon = lab.run(&[]);
            assert!(is_upgraded(lab), "{step}");
            traffic.flows();
        });
    }
}

#[test]
#[ignore = "needs root"]
fn maps_of_a_newer_form_are_left_alone_and_the_gap_of_a_way_back_is_named() {
    let lab = Lab::new();
    let mut daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", POLICY)]);
    let (_pay, _admin) = (lab.serve(8443), lab.serve(9000));
    daemon.stop();
    lab.maps().config.update(|config| config.abi_version += 1).expect("a map");
    let (code, said) = lab.fails(&["run"]);
    assert!(code == 1 && said.contains("lets everything pass until the next start"), "{said}");
    assert!(lab.connects(8443) && !lab.connects(9000), "what was applied is enforced on");
}
