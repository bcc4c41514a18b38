//! Daemons that are killed at every step of what they do beside `policy apply` (state.rs): bindings, feeds, going back.
//!
//! What is shipped has no place at which it ends.
#![cfg(debug_assertions)]

use crate::lab::{self, Daemon, Lab, POLICY, json};

/// As a commit goes on; what was not flipped never was, but what a source says of bindings counts once it is recorded.
const STEPS: [(&str, bool); 5] =
    [("Recorded", false), ("HalfWritten", false), ("Written", false), ("Flipped", true), ("Marked", true)];

/// The step of a binding that takes no compile.
const QUICK: [&str; 1] = ["HalfWritten"];

struct Case {
    lab: Lab,
    daemon: Option<Daemon>,
}

impl Case {
    fn new(policy: &str) -> Self {
        let lab = Lab::new();
        let file = lab.file("shop.yaml", policy);
        let daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &file]);
        Self { lab, daemon: Some(daemon) }
    }

    /// Has something done of which the daemon dies at a step, and starts the next.
    fn dies_at(&mut self, step: &str, done: impl FnOnce(&Lab)) {
        self.lab.end_at(step);
        done(&self.lab);
        self.daemon.take().expect("a daemon").is_killed();
        self.lab.end_at("");
        self.daemon = Some(self.lab.run(&[]));
        assert_eq!(self.lab.json(&["audit", "verify"])[0]["ok"], json(true), "{step}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_binding_that_was_recorded_counts_at_whatever_step_of_it_the_daemon_died() {
    let (_, rest) = POLICY.split_once("---\n").expect("documents");
    // Somebody of the same kind is there: what is bound is one entry, without a compile. By labels it takes one.
    let kin = "---\napiVersion: tidegate.dev/v1\nkind: Workload\nmetadata: {name: kin}\n\
               spec: {spiffeId: spiffe://acme.example/ns/shop/sa/orders, addresses: [10.9.9.9]}\n";
    for (policy, steps) in
        [(format!("{rest}{kin}"), &QUICK[..]), (rest.to_owned(), &STEPS.map(|(step, _)| step))]
    {
        let mut case = Case::new(&policy);
        let _server = case.lab.serve(8443);
        assert!(!case.lab.connects(8443));
        for step in steps {
            let bind =
                ["identity", "bind", "10.1.0.2", "spiffe://acme.example/ns/shop/sa/orders", "--for", "1h"];
            case.dies_at(step, |lab| drop(lab.tidegate(&bind).output().unwrap()));
            assert!(case.lab.connects(8443), "bound: {step}");
            let unbind = ["identity", "unbind", "10.1.0.2"];
            // Taking back is one entry, and never takes a compile.
            if QUICK.contains(step) {
                case.dies_at(step, |lab| drop(lab.tidegate(&unbind).output().unwrap()));
            } else {
                case.lab.ok(&unbind);
                // What compiles forgets that there was somebody of this kind: the next binding takes a compile again.
                case.lab.ok(&["block", "add", "192.0.2.9"]);
                case.lab.ok(&["block", "del", "192.0.2.9"]);
            }
            assert!(!case.lab.connects(8443), "unbound: {step}");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn a_feed_that_was_written_counts_in_the_end_at_whatever_step_of_it_the_daemon_died() {
    let lists = |path: &str| {
        format!(
            "{POLICY}---\napiVersion: tidegate.dev/v1\nkind: Blocklist\nmetadata: {{name: bad}}\n\
             spec: {{feeds: [{{name: drop, path: {path}}}]}}\n"
        )
    };
    let mut case = Case::new(POLICY);
    let (free, blocked) = ("192.0.2.1\n", "192.0.2.1\n10.1.0.2\n");
    let feed = case.lab.file("drop.txt", free);
    case.lab.ok(&["policy", "apply", &case.lab.file("shop.yaml", &lists(&feed))]);
    let _server = case.lab.serve(8443);
    for (step, _) in STEPS {
        for (text, passes) in [(blocked, false), (free, true)] {
            assert_eq!(case.lab.connects(8443), !passes, "{step}");
            case.dies_at(step, |lab| {
                // As programs that fetch feeds do.
                std::fs::rename(lab.file("drop.txt.new", text), lab.path("drop.txt")).unwrap();
            });
            // The next daemon reads what the one before could not finish.
            lab::until(|| case.lab.connects(8443) == passes);
        }
    }
}

#[test]
#[ignore = "needs root"]
fn going_back_is_done_or_not_at_whatever_step_of_it_the_daemon_died() {
    let mut case = Case::new(POLICY);
    let deny = case.lab.file("deny.yaml", &POLICY.replace("action: allow", "action: deny"));
    let allow = case.lab.file("allow.yaml", POLICY);
    let _server = case.lab.serve(8443);
    for (step, is_done) in STEPS {
        case.lab.ok(&["policy", "apply", &deny]);
        assert!(!case.lab.connects(8443), "{step}");
        case.dies_at(step, |lab| drop(lab.tidegate(&["policy", "rollback"]).output().unwrap()));
        assert_eq!(case.lab.connects(8443), is_done, "{step}");
        let shown = case.lab.json(&["policy", "show"])[0]["rules"][0]["action"].clone();
        assert_eq!(shown, if is_done { "allow" } else { "deny" }, "{step}");
        case.lab.ok(&["policy", "apply", &allow]);
        assert!(case.lab.connects(8443), "{step}");
    }
}
