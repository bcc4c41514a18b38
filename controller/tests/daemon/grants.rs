//! Access for a while: given, ended by hand, ended by the kernel, and told of later.

use crate::lab::{self, Lab, POLICY, json};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;

const ORDERS: &str = "spiffe://acme.example/ns/shop/sa/orders";
const PAYMENTS: &str = "spiffe://acme.example/ns/shop/sa/payments";

fn give(lab: &Lab, time: &str) -> String {
    let args = ["grant", ORDERS, PAYMENTS, "tcp/9000", "--for", time, "--reason", "incident 4711"];
    lab.json(&args)[0]["id"].as_str().expect("an ID").to_owned()
}

fn reason(lab: &Lab) -> Value {
    lab.json(&["why", "orders", "payments", "9000"])[0]["drop_reason_desc"].clone()
}

fn echo(stream: &mut TcpStream) -> bool {
    stream.write_all(b"x").is_ok() && stream.read_exact(&mut [0]).is_ok()
}

/// IDs of the grants that a list shows.
fn listed(lab: &Lab, args: &[&str]) -> Vec<String> {
    let rows = lab.json(&[&["grant", "list"][..], args].concat());
    let rows = rows[0].as_array().expect("a list");
    rows.iter().map(|row| row["id"].as_str().expect("an ID").to_owned()).collect()
}

/// A later moment than that of anything before, and an earlier one than that of anything after.
fn now() -> String {
    jiff::Timestamp::now().to_string()
}

#[test]
#[ignore = "needs root"]
fn access_is_given_for_a_while_and_a_revocation_cuts_it_at_once() {
    let lab = Lab::new();
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", POLICY)]);
    let _server = lab.serve(9000);
    let before = now();
    assert!(!lab.connects(9000));
    let id = give(&lab, "1h");
    let given = now();
    let mut stream = lab.client(9000).unwrap();
    assert!(echo(&mut stream));
    let why = &lab.json(&["why", "orders", "payments", "9000"])[0];
    assert_eq!((&why["verdict"], &why["rule"]), (&json("FORWARDED"), &json(format!("grant/manual:{id}"))));
    assert!(why["rule_text"].as_str().unwrap().ends_with(": incident 4711"), "{why}");
    let row = &lab.json(&["grant", "list"])[0][0];
    assert_eq!((&row["id"], &row["by"], &row["in_force"]), (&json(id.clone()), &json("root"), &json(true)));
    assert_eq!((&row["from"][0]["spiffeId"], &row["ports"][0]), (&json(ORDERS), &json("tcp/9000")));

    // What cuts comes before it.
    lab.ok(&["quarantine", "add", "orders"]);
    assert!(!echo(&mut stream));
    assert_eq!(reason(&lab), "QUARANTINED");
    lab.ok(&["quarantine", "del", "orders"]);
    assert!(lab.connects(9000));
    let mut stream = lab.client(9000).unwrap();
    assert!(echo(&mut stream));

    lab.ok(&["grant", "revoke", &id]);
    assert!(!echo(&mut stream));
    assert!(!lab.connects(9000));
    assert_eq!(reason(&lab), "POLICY_DENIED");
    let (code, said) = lab.fails(&["grant", "revoke", &id]);
    assert_eq!(code, 1);
    assert!(said.contains(&format!("no grant {id} that `tidegate grant` gave holds")), "{said}");

    assert_eq!(listed(&lab, &[]), [""; 0]);
    assert_eq!(listed(&lab, &["--at", &before]), [""; 0]);
    assert_eq!(listed(&lab, &["--at", &given]), [id.as_str()]);
    assert_eq!(listed(&lab, &["--at", &now()]), [""; 0]);
    let row = &lab.json(&["grant", "list", "--all"])[0][0];
    assert_eq!((&row["revoked"]["by"], &row["in_force"]), (&json("root"), &json(false)));
    let told: Vec<_> = lab.json(&["audit", "show", "--kind", "grant", "--identity", "orders"]);
    let how: Vec<_> = told.iter().map(|record| record["by"]["how"].as_str().unwrap().to_owned()).collect();
    assert_eq!(how, ["grant".to_owned(), format!("grant revoke {id}")]);
}

#[test]
#[ignore = "needs root"]
fn a_grant_ends_on_time_with_the_daemon_dead_and_cuts_live_flows() {
    let lab = Lab::new();
    let options = ["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", POLICY)];
    let mut daemon = lab.run(&options);
    let (_server, _other) = (lab.serve(9000), lab.serve(8443));
    let id = give(&lab, "5s");
    daemon.kill_nine();
    let given = now();
    let mut stream = lab.client(9000).unwrap();
    let mut allowed = lab.client(8443).unwrap();
    assert!(echo(&mut stream) && echo(&mut allowed));
    assert_eq!(listed(&lab, &[]), [id.as_str()]);
    lab::until(|| !echo(&mut stream));
    assert!(!lab.connects(9000));
    assert_eq!(reason(&lab), "GRANT_EXPIRED");
    assert!(echo(&mut allowed), "what a rule lets pass goes on");
    assert_eq!(listed(&lab, &[]), [""; 0]);

    // The next daemon takes it out and has the record tell that it ended, not that somebody ended it.
    let mut daemon = lab.run(&[]);
    lab::until(|| reason(&lab) == "POLICY_DENIED");
    assert_eq!(listed(&lab, &["--at", &given]), [id.as_str()]);
    let row = &lab.json(&["grant", "list", "--all"])[0][0];
    assert_eq!((&row["id"], &row["revoked"]), (&json(id), &Value::Null));
    // One that ends while a daemon is there is told of at once.
    let id = give(&lab, "1s");
    let ended = |record: &Value| record["by"]["how"] == format!("over: grant manual:{id}").as_str();
    lab::until(|| lab.json(&["audit", "show", "--kind", "grant"]).iter().any(ended));
    assert_eq!(reason(&lab), "POLICY_DENIED");
    // What is given survives a kill and a start.
    let id = give(&lab, "1h");
    daemon.kill_nine();
    let _daemon = lab.run(&[]);
    assert_eq!(listed(&lab, &[]), [id]);
    assert!(lab.connects(9000));
}

#[test]
#[ignore = "needs root"]
fn a_grant_of_a_file_begins_when_it_is_first_applied_and_is_not_given_again_by_a_start() {
    let lab = Lab::new();
    let grant = format!(
        "---\napiVersion: tidegate.dev/v1\nkind: Grant\nmetadata: {{name: incident}}\nspec: {{from: [{{spiffeId: {ORDERS}}}], \
         to: [{{spiffeId: {PAYMENTS}}}], ports: [tcp/9000], for: 8s, reason: incident 4711}}\n"
    );
    let file = lab.file("shop.yaml", POLICY);
    let options = ["-i", "eth1", "-i", "eth2", "-p", &file];
    let mut daemon = lab.run(&options);
    let _server = lab.serve(9000);
    lab.file("shop.yaml", &format!("{POLICY}{grant}"));
    lab.ok(&["policy", "apply", &file]);
    let given = now();
    assert!(lab.connects(9000));
    assert_eq!(listed(&lab, &[]), ["incident"]);
    let (code, said) = lab.fails(&["grant", "revoke", "incident"]);
    assert_eq!(code, 1);
    assert!(said.contains("grants of files are changed there"), "{said}");
    lab::until(|| !lab.connects(9000));
    daemon.kill_nine();
    let _daemon = lab.run(&options);
    lab.ok(&["policy", "apply", &file]);
    assert_eq!(listed(&lab, &[]), [""; 0]);
    assert!(!lab.connects(9000));
    assert_eq!(listed(&lab, &["--at", &given]), ["incident"]);
    // Another reason makes it another grant.
    lab.file("shop.yaml", &format!("{POLICY}{}", grant.replace("4711", "4712").replace("8s", "1h")));
    lab.ok(&["policy", "apply", &file]);
    assert!(lab.connects(9000));
}
