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

/// Who asks for access, and who agrees.
const ROLES: &str = "\
apiVersion: tidegate.dev/v1
kind: RoleBinding
metadata: {name: oncall}
spec: {role: operator, subjects: [{user: '4401'}]}
---
apiVersion: tidegate.dev/v1
kind: RoleBinding
metadata: {name: leads}
spec: {role: approver, subjects: [{user: '4402'}]}
";

#[test]
#[ignore = "needs root"]
fn a_grant_that_has_to_be_asked_for_is_given_by_somebody_else_or_not_at_all() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::new();
    std::fs::set_permissions(lab.dir(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let gateway = "---\napiVersion: tidegate.dev/v1\nkind: Gateway\nmetadata: {name: edge}\n\
                   spec: {approvals: {grants: {longer: 10m}, within: 4s, unanswered: contain}}\n";
    let (file, roles) = (lab.file("shop.yaml", &format!("{POLICY}{gateway}")), lab.file("roles.yaml", ROLES));
    let mut daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &file, "--api-roles", &roles]);
    let _server = lab.serve(9000);
    let until = |minutes| (jiff::Timestamp::now() + jiff::SignedDuration::from_mins(minutes)).to_string();
    let ask = |minutes| {
        let request = serde_json::json!({
            "from": ORDERS, "to": PAYMENTS, "ports": ["tcp/9000"], "not_after": until(minutes), "reason": "incident 4711",
        });
        let (status, answer) = lab.as_user(4401, 4401, || lab.post("/v1/grants", &request));
        assert_eq!(status, 200, "{answer}");
        answer
    };
    let short = ask(5);
    assert_eq!(short["approval"], Value::Null);
    assert!(lab.connects(9000), "what is short needs nobody");
    lab.ok(&["grant", "revoke", short["id"].as_str().unwrap()]);

    let long = ask(60);
    assert_eq!((&long["approval"], &long["revision"]), (&json(1), &Value::Null));
    assert_eq!(long["waits"], "it lasts 59m59s, more than 10m00s");
    assert!(!lab.connects(9000));
    assert_eq!(listed(&lab, &[]), [""; 0]);
    let decide = |user, id: u64| {
        lab.as_user(user, user, || lab.post("/v1/approvals/approve", &serde_json::json!({"id": id})))
    };
    assert_eq!(decide(4401, 1).0, 403, "that takes another role");
    let (status, answer) = decide(4402, 1);
    assert_eq!((status, &answer["state"]), (200, &json("approved")), "{answer}");
    assert!(lab.connects(9000));
    let row = &lab.json(&["grant", "list"])[0][0];
    assert_eq!(row["by"], "uid 4402");
    assert_eq!(row["reason"], "incident 4711 (approval 1, asked for by uid 4401)");
    let told = lab.json(&["audit", "show", "--kind", "approval", "--identity", ORDERS]);
    let said: Vec<_> = told.iter().map(|r| (&r["by"]["who"], &r["what"]["decision"])).collect();
    assert_eq!(said, [(&json("uid 4401"), &json("asked")), (&json("uid 4402"), &json("approved"))]);
    lab.ok(&["grant", "revoke", listed(&lab, &[])[0].as_str()]);

    // Whoever asks does not decide, and what nobody answers is not given, whatever is said of containments.
    let said = lab.ok(&["grant", ORDERS, PAYMENTS, "tcp/9000", "--for", "1h", "--reason", "incident 4712"]);
    assert!(said.starts_with("nothing is given yet: it waits for approval 2 by somebody else: "), "{said}");
    let (code, said) = lab.fails(&["approvals", "approve", "2"]);
    assert_eq!(code, 5);
    assert!(said.contains("root asked for approval 2: somebody else has to decide"), "{said}");
    daemon.kill_nine();
    let _daemon = lab.run(&["--api-roles", &roles]);
    let state = || lab.json(&["approvals", "show", "2"])[0]["state"].clone();
    lab::until(|| state() != "waiting");
    assert_eq!(state(), "lapsed");
    assert!(!lab.connects(9000));
    assert_eq!(listed(&lab, &[]), [""; 0]);
}
