//! Changing policy safely: what was, what differs, the way back, and changes that take themselves back.

use crate::lab::{self, Lab, POLICY, json};
use serde_json::Value;
use std::process::Stdio;

/// The policy that lets nobody in.
fn denies() -> String {
    POLICY.replace("action: allow", "action: deny")
}

/// Number, outcome and command of each revision, the latest first.
fn history(lab: &Lab) -> Vec<(u64, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let history = lab.json(&["policy", "history"]).remove(0);
    let rows = history.as_array().unwrap().iter();
    rows.map(|row| (row["number"].as_u64().unwrap(), text(&row["outcome"]), text(&row["how"]))).collect()
}

fn row(number: u64, outcome: &str, how: &str) -> (u64, String, String) {
    (number, outcome.into(), how.into())
}

#[test]
#[ignore = "needs root"]
fn every_revision_is_told_shown_compared_and_returned_to() {
    let lab = Lab::new();
    let (allow, deny) = (lab.file("allow.yaml", POLICY), lab.file("deny.yaml", &denies()));
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &allow, "--map-size", "TG_BINDINGS=16"]);
    let _server = lab.serve(8443);
    let diff = |file: &str| lab.json(&["policy", "diff", file]).remove(0);
    assert_eq!(diff(&allow), serde_json::json!({"revision": 1, "changes": []}));
    let change = diff(&deny)["changes"][0].clone();
    assert_eq!((&change["what"], &change["name"]), (&json("rule"), &json("shop/pay")));
    assert!(change["before"].as_str().unwrap().contains("allow tcp/8443"), "{change}");
    assert!(change["after"].as_str().unwrap().contains("deny tcp/8443"), "{change}");
    let said = lab.ok(&["policy", "diff", &deny]);
    assert!(said.starts_with("~ rule shop/pay: tier 100: allow tcp/8443 from "), "{said}");

    let said = lab.ok(&["policy", "apply", &deny]);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(!lab.connects(8443));
    lab.ok(&["block", "add", "192.0.2.0/24"]);
    let rows = lab.json(&["policy", "history"]).remove(0);
    assert_eq!(
        (&rows[0]["uid"], &rows[2]["uid"], &rows[0]["in_force"]),
        (&json(0), &Value::Null, &json(true))
    );
    assert_eq!(rows[1]["files"], serde_json::json!([deny]));
    let shown = lab.ok(&["policy", "show", "--revision", "1"]);
    assert_eq!(shown, format!("# {allow}\n{POLICY}"));
    let again = lab.file("again.yaml", &shown);
    lab.ok(&["policy", "check", &again]);

    // The block is no policy: the one before it is revision 1, and the block stays.
    lab.ok(&["policy", "rollback"]);
    assert!(lab.connects(8443));
    assert_eq!(lab.json(&["block", "list"])[0][0]["cidr"], "192.0.2.0/24");
    let done = lab.json(&["policy", "rollback", "2"]).remove(0);
    assert_eq!(done, serde_json::json!({"revision": 5, "to": 2}));
    assert!(!lab.connects(8443));
    let committed = "committed";
    assert_eq!(
        history(&lab),
        [
            row(5, committed, "policy rollback to 2"),
            row(4, committed, "policy rollback to 1"),
            row(3, committed, "block add"),
            row(2, committed, "policy apply"),
            row(1, committed, "run"),
        ]
    );
    let (code, said) = lab.fails(&["policy", "rollback", "77"]);
    assert_eq!(code, 2);
    assert!(said.contains("no revision 77 is kept") && said.contains("tidegate policy history"), "{said}");
    assert_eq!(lab.fails(&["policy", "show", "--revision", "77"]).0, 2);
    // What could not be made is told too.
    let many: String = (10..30).map(|n| format!("10.9.9.{n}/32, ")).collect();
    let many = POLICY.replace("[10.1.0.2/32]", &format!("[{many}10.1.0.2/32]"));
    let many = lab.file("many.yaml", &many);
    let (_, said) = lab.fails(&["policy", "apply", &many]);
    assert!(said.contains("TG_BINDINGS is full") && said.contains("nothing was changed"), "{said}");
    let refused = lab.json(&["policy", "history"]).remove(0)[0].clone();
    assert_eq!((&refused["number"], &refused["outcome"]), (&json(6), &json("refused")));
    assert!(refused["why"].as_str().unwrap().contains("TG_BINDINGS is full"), "{refused}");
    assert_eq!(lab.json(&["status"])[0]["revision"], 5);
    // Files without a policy let everything pass, and whoever applies them is told so.
    let said = lab.ok(&["policy", "apply", &lab.file("empty.yaml", "")]);
    let open = "no Policy counts: everything that no blocklist or lease stops is let through";
    assert_eq!(said.lines().nth(1), Some(open), "{said}");
    assert!(lab.connects(8443));
}

#[test]
#[ignore = "needs root"]
fn a_policy_takes_itself_back_unless_it_is_confirmed_in_time_also_after_a_kill() {
    let lab = Lab::new();
    let (allow, deny) = (lab.file("allow.yaml", POLICY), lab.file("deny.yaml", &denies()));
    let options = ["-i", "eth1", "-i", "eth2", "-p", &allow];
    let mut daemon = lab.run(&options);
    let _server = lab.serve(8443);
    assert_eq!(lab.fails(&["policy", "confirm"]).0, 1, "nothing waits");
    let apply = |file: &str, within: &str| lab.ok(&["policy", "apply", file, "--confirm-within", within]);
    // Long enough for what follows on a slow machine.
    apply(&deny, "10s");
    assert!(!lab.connects(8443));
    let (_, said) = lab.fails(&["policy", "apply", &allow]);
    assert!(said.contains("revision 2 waits to be confirmed until"), "{said}");
    // A block meanwhile is not lost with it.
    lab.ok(&["block", "add", "192.0.2.0/24"]);
    lab::until(|| lab.connects(8443));
    let late = "revision 2 was not confirmed in time";
    let taken = "taken_back";
    lab::until(|| history(&lab)[1].1 == taken);
    assert_eq!(
        history(&lab)[..3],
        [row(4, "committed", late), row(3, taken, "block add"), row(2, taken, "policy apply")]
    );
    assert_eq!(lab.json(&["block", "list"])[0][0]["cidr"], "192.0.2.0/24");

    // In time it stays, and the way back at once is a rollback.
    apply(&deny, "1h");
    assert!(lab.ok(&["policy", "history"]).contains("counts, to be confirmed by"));
    lab.ok(&["policy", "confirm"]);
    daemon.kill_nine();
    assert!(!lab.connects(8443));
    daemon = lab.run(&[]);
    assert!(!lab.connects(8443));
    lab.ok(&["policy", "rollback"]);
    assert!(lab.connects(8443));

    // Killed meanwhile, and started in time: it goes on waiting, also where it is given the files again.
    apply(&deny, "1h");
    daemon.kill_nine();
    let with_deny = ["-i", "eth1", "-i", "eth2", "-p", &deny];
    daemon = lab.run(&with_deny);
    assert!(!lab.connects(8443));
    lab.ok(&["policy", "rollback"]);
    assert!(lab.connects(8443));

    // Killed meanwhile, and started too late, by a service manager that names the files.
    let comment = lab.file("comment.yaml", &format!("# another try\n{}", denies()));
    apply(&comment, "6s");
    daemon.kill_nine();
    assert!(!lab.connects(8443), "nobody is there to take it back");
    std::thread::sleep(std::time::Duration::from_secs(6));
    for _ in 0..2 {
        let mut daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &comment]);
        assert!(lab.connects(8443));
        daemon.kill_nine();
    }
    // By hand it can be had all the same.
    let _daemon = lab.run(&[]);
    lab.ok(&["policy", "apply", &comment]);
    assert!(!lab.connects(8443));
}

/// Runs `policy apply --shadow`, with a connection while the candidate is judged; its exit code, and what it said.
pub fn apply_beside(lab: &Lab, words: &[&str]) -> (Option<i32>, String, String) {
    let child = lab.tidegate(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    lab::until(|| lab.json(&["policy", "shadow", "status"])[0]["pending"] == true);
    assert!(lab.connects(8443), "what counts goes on");
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
#[ignore = "needs root"]
fn a_policy_is_judged_by_live_traffic_before_it_is_applied_or_not() {
    let lab = Lab::new();
    let (allow, deny) = (lab.file("allow.yaml", POLICY), lab.file("deny.yaml", &denies()));
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &allow]);
    let _server = lab.serve(8443);
    let apply =
        |args| apply_beside(&lab, &[&["policy", "apply", &deny, "--shadow", "8s"][..], args].concat());
    let (code, said, wrong) = apply(&["--max-changes", "0"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("FORWARDED") && said.contains("DROPPED") && said.contains("shop/pay"), "{said}");
    assert!(wrong.contains("more than --max-changes 0; nothing was applied"), "{wrong}");
    assert!(lab.connects(8443));
    assert_eq!(lab.json(&["policy", "shadow", "status"])[0]["pending"], false);
    assert_eq!(lab.json(&["status"])[0]["revision"], 1);

    let (code, said, _) = apply(&[]);
    assert_eq!(code, Some(0));
    assert!(said.contains("revision 2:"), "{said}");
    assert!(!lab.connects(8443));
}

#[test]
#[ignore = "needs root"]
fn a_dry_run_names_the_flows_that_would_be_judged_otherwise_and_is_right() {
    let lab = Lab::new();
    let allow = lab.file("allow.yaml", POLICY);
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &allow]);
    let (_server, _other) = (lab.serve(8443), lab.serve(9000));
    assert!(lab.connects(8443) && !lab.connects(9000));
    assert!(lab.datagram(5000).is_err());
    // Another port is opened, the one that was open is not any more; the datagram stays dropped.
    let moved = lab.file("moved.yaml", &POLICY.replace("tcp/8443", "tcp/9000"));
    let dry = lab.json(&["policy", "apply", "--dry-run", &moved]).remove(0);
    assert_eq!(dry["changes"][0]["name"], "shop/pay");
    let found = &dry["flows"];
    assert_eq!(found["changed"], 2, "{found}");
    // Neighbour discovery is among them.
    assert!(found["flows"].as_u64() >= Some(3), "{found}");
    let of = |service: &str| {
        found["changes"].as_array().unwrap().iter().find(|c| c["service"] == service).unwrap()
    };
    let (opened, closed) = (of("tcp/9000"), of("tcp/8443"));
    assert_eq!(
        (&closed["before"]["verdict"], &closed["before"]["rule"]),
        (&json("FORWARDED"), &json("shop/pay"))
    );
    assert_eq!(
        (&closed["after"]["verdict"], &closed["after"]["reason"]),
        (&json("DROPPED"), &json("POLICY_DENIED"))
    );
    assert_eq!((&opened["before"]["verdict"], &opened["before"]["rule"]), (&json("DROPPED"), &Value::Null));
    assert_eq!(
        (&opened["after"]["verdict"], &opened["after"]["rule"]),
        (&json("FORWARDED"), &json("shop/pay"))
    );
    assert_eq!(closed["source_id"], "spiffe://acme.example/ns/shop/sa/orders");
    let said = lab.ok(&["policy", "diff", "--flows", &moved]);
    assert!(said.contains("\nchanges 2 of ") && said.ends_with(" flows\n"), "{said}");
    let (code, wrong) = lab.fails(&["policy", "apply", "--dry-run", "--max-changes", "1", &moved]);
    assert_eq!(code, 1);
    assert!(wrong.contains("2 would get another verdict, more than --max-changes 1"), "{wrong}");
    assert_eq!(lab.fails(&["policy", "apply", "--max-changes", "1", &moved]).0, 2);
    assert_eq!(lab.json(&["status"])[0]["revision"], 1, "nothing was applied");
    assert!(lab.ok(&["policy", "diff", "--flows", &allow]).contains("\nchanges 0 of "));

    lab.ok(&["policy", "apply", &moved]);
    assert!(!lab.connects(8443) && lab.connects(9000));
}

#[test]
#[ignore = "needs root"]
#[cfg(debug_assertions)] // what is shipped has no place at which it ends
fn a_take_back_that_is_killed_at_any_step_is_one_although_the_daemon_is_given_those_files() {
    let lab = Lab::new();
    let (allow, deny) = (lab.file("allow.yaml", POLICY), lab.file("deny.yaml", &denies()));
    let mut daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &allow]);
    let _server = lab.serve(8443);
    for step in ["Recorded", "HalfWritten", "Written", "Flipped", "Marked"] {
        lab.ok(&["policy", "apply", &deny, "--confirm-within", "3s"]);
        assert!(!lab.connects(8443), "{step}");
        lab.end_at(step);
        daemon.is_killed();
        lab.end_at("");
        // The service manager starts it with the files that nobody has confirmed, however often.
        for _ in 0..2 {
            daemon = lab.run(&["-p", &deny]);
            assert!(lab.connects(8443), "{step}");
            daemon.stop();
        }
        daemon = lab.run(&["-p", &allow]);
        let history = lab.json(&["policy", "history"]).remove(0);
        let unconfirmed = history.as_array().unwrap().iter().find(|r| r["confirm_by"].is_string()).unwrap();
        assert_eq!(
            (&unconfirmed["outcome"], &unconfirmed["why"]),
            (&json("taken_back"), &json("not confirmed in time")),
            "{step}: {history}"
        );
        assert_eq!(lab.fails(&["policy", "confirm"]).0, 1, "{step}: nothing waits");
    }
    // Going back by hand is no confirmation either.
    lab.ok(&["policy", "apply", &deny, "--confirm-within", "10m"]);
    lab.end_at("Flipped");
    let _ = lab.tidegate(&["policy", "rollback"]).output().unwrap();
    daemon.is_killed();
    lab.end_at("");
    let _daemon = lab.run(&["-p", &deny]);
    assert!(lab.connects(8443));
    let history = lab.json(&["policy", "history"]).remove(0);
    let unconfirmed = history.as_array().unwrap().iter().find(|r| r["confirm_by"].is_string()).unwrap();
    assert_eq!(unconfirmed["why"], "rolled back before it was confirmed", "{history}");
    assert_eq!(lab.json(&["audit", "verify"])[0]["ok"], json(true));
}
