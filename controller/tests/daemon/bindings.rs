//! Bindings of sources beside the policy's files.

use crate::lab::{Lab, POLICY, json};
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
    lab.ok(&["identity", "bind", "10.1.0.2", "spiffe://acme.example/ns/shop/sa/other", "--for", "1h"]);
    assert!(!lab.connects(8443));
    // Who agrees with the files is no second claimant.
    lab.ok(&["identity", "bind", "10.1.0.2", ORDERS, "--for", "1h"]);
    assert!(lab.connects(8443));
}
