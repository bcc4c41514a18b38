//! A daemon that is killed at any step of a commit leaves one revision, whole, in the kernel and in the state.

use crate::audit;
use crate::lab::{self, Lab, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Two workloads that change identities, and rules that tell a mixture of two revisions from either.
fn revision(name: &str) -> String {
    let (left, other) = if name == "even" { ("orders", "reports") } else { ("reports", "orders") };
    format!(
        "apiVersion: tidegate.dev/v1
kind: Workload
metadata: {{name: left}}
spec: {{spiffeId: spiffe://acme.example/{left}, addresses: [10.1.0.2/32]}}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {{name: other}}
spec: {{spiffeId: spiffe://acme.example/{other}, addresses: [10.1.0.3/32]}}
---
apiVersion: tidegate.dev/v1
kind: Policy
metadata: {{name: {name}}}
spec:
  rules:
    - {{name: right, action: allow, from: [{{spiffeId: spiffe://acme.example/{left}}}], to: [{{any: true}}], ports: [tcp/8443]}}
    - {{name: mixed, action: deny, from: [{{spiffeId: spiffe://acme.example/{other}}}], to: [{{any: true}}]}}
"
    )
}

/// The rule by which the kernel judges, and the policy that the state says counts, with its revision.
pub fn counts(lab: &Lab) -> (String, String, u64) {
    let why = &lab.json(&["why", "10.1.0.2", "10.2.0.2", "8443"])[0];
    let shown = &lab.json(&["policy", "show"])[0];
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    (text(&why["rule"]), text(&shown["rules"][0]["policy"]), shown["revision"].as_u64().unwrap())
}

/// Ends the traffic also when the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Connections from the left to the right on 8443, one after the other, while `work` goes on; it may wait for some more of them. Each has
/// to come about. Returns how many there were.
fn under_traffic(lab: &Lab, work: impl FnOnce(&dyn Fn())) -> u64 {
    let _server = lab.serve(8443);
    let (over, connected) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let ends = Over(&over);
        let traffic = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                assert!(lab.connects(8443), "a connection was cut");
                connected.fetch_add(1, Ordering::Relaxed);
            }
        });
        work(&|| {
            let goes_on = connected.load(Ordering::Relaxed);
            lab::until(|| connected.load(Ordering::Relaxed) > goes_on + 20);
        });
        drop(ends);
        traffic.join().unwrap();
    });
    connected.into_inner()
}

/// Steps of a commit, and whether what it brings counts after a kill there: what the kernel had not flipped never was.
const STEPS: [(&str, bool); 6] = [
    ("Recorded", false),
    ("HalfWritten", false),
    ("Written", false),
    ("Flipped", true),
    ("Marked", true),
    ("Swept", true),
];

/// As the file names it.
fn place(step: &str, revision: u64) -> String {
    match step {
        "Swept" => format!("Swept {{ revision: {revision} }}"),
        other => other.to_owned(),
    }
}

/// What the audit record tells of each revision, in its order.
fn told(lab: &Lab) -> BTreeMap<u64, Vec<String>> {
    let mut told = BTreeMap::<u64, Vec<String>>::new();
    for record in audit::lines(lab).iter().filter(|record| record["what"]["revision"].is_u64()) {
        let what = &record["what"];
        let word = what["outcome"].as_str().or(record["kind"].as_str()).unwrap().to_owned();
        told.entry(what["revision"].as_u64().unwrap()).or_default().push(word);
    }
    told
}

fn those_that_were(told: &BTreeMap<u64, Vec<String>>, what: &str) -> Vec<u64> {
    told.iter().filter(|(_, words)| **words == ["commit", what]).map(|(number, _)| *number).collect()
}

#[test]
#[ignore = "needs root"]
#[cfg(debug_assertions)] // what is shipped has no place at which it ends
fn a_daemon_killed_at_any_step_of_a_commit_leaves_one_revision_in_kernel_and_state() {
    let lab = Lab::new();
    let files = ["even", "odd"].map(|name| lab.file(&format!("{name}.yaml"), &revision(name)));
    let mut daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &files[0]]);
    let connected = under_traffic(&lab, |wait| {
        let mut now = 0;
        for (step, comes) in [("Compiled", false)].into_iter().chain(STEPS) {
            wait();
            let before = counts(&lab);
            lab.end_at(&place(step, before.2 + 1));
            let _ = lab.tidegate(&["policy", "apply", &files[1 - now]]).output().unwrap();
            daemon.is_killed();
            lab.end_at("");
            now = if comes { 1 - now } else { now };
            let name = ["even", "odd"][now];
            let seen = counts(&lab);
            assert_eq!((&*seen.0, &*seen.1), (&*format!("{name}/right"), name), "{step}, without a daemon");
            assert_eq!(seen.2, before.2 + u64::from(comes), "{step}");
            wait();

            daemon = lab.run(&[]);
            let (rule, policy, revision) = counts(&lab);
            assert_eq!((&*rule, &*policy), (&*format!("{name}/right"), name), "{step}, after the restart");
            // The number of what never was is not given again, once it was recorded.
            assert_eq!(revision, before.2 + if step == "Compiled" { 1 } else { 2 }, "{step}");
        }
    });
    assert!(connected >= 280);
    let rules: BTreeSet<_> = lab
        .flows()
        .iter()
        .filter(|flow| flow["l4"]["TCP"]["destination_port"] == 8443)
        .map(|flow| flow["rule"].as_str().unwrap_or("none").to_owned())
        .collect();
    let either = BTreeSet::from(["even/right".to_owned(), "odd/right".to_owned()]);
    assert!(rules.is_subset(&either), "{rules:?}");
    let dropped = lab.json(&["drops"]).remove(0);
    let of_left =
        |row: &&serde_json::Value| row["rule"].as_str().is_some_and(|rule| rule.ends_with("/mixed"));
    assert_eq!(dropped.as_array().unwrap().iter().find(of_left), None);
    // Each revision that was ever begun is in the audit record with what became of it, once.
    assert_eq!(lab.json(&["audit", "verify"])[0]["ok"], json(true));
    let told = told(&lab);
    assert_eq!(told.keys().copied().collect::<Vec<_>>(), (1..=14).collect::<Vec<_>>());
    let abandoned = those_that_were(&told, "abandoned");
    assert_eq!(abandoned, [3, 5, 7], "the three that were recorded, and that the kernel had not flipped");
    assert_eq!(those_that_were(&told, "committed").len(), 11);
}

/// Who there is, and a policy that names all of them: with it, no change of the other file makes or ends a class.
const ENDS: &str = "\
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: left}
spec: {spiffeId: spiffe://acme.example/left, addresses: [10.1.0.2/32]}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: right}
spec: {spiffeId: spiffe://acme.example/right, addresses: [10.2.0.2/32]}
---
apiVersion: tidegate.dev/v1
kind: Policy
metadata: {name: ends}
spec:
  rules:
    - {name: all, action: deny, from: [{spiffeId: spiffe://acme.example/right}], to: [{spiffeId: spiffe://acme.example/left}], ports: [udp]}
";

/// A policy of three rules. Two ports both let pass, by rules of their own; one port is this one's alone.
fn one_policy(name: &str) -> String {
    let own = if name == "even" { 7002 } else { 7001 };
    let rule = |rule: &str, port: u16| {
        format!(
            "    - {{name: {rule}, action: allow, from: [{{spiffeId: spiffe://acme.example/left}}], \
             to: [{{spiffeId: spiffe://acme.example/right}}], ports: [tcp/{port}], lifetime: {own}s}}\n"
        )
    };
    let rules = [rule("pay", 8443), rule("also", 9443), rule("own", own)].concat();
    format!("apiVersion: tidegate.dev/v1\nkind: Policy\nmetadata: {{name: {name}}}\nspec:\n  rules:\n{rules}")
}

/// All that the kernel's maps say of rules in the epoch that counts, and whether one of their entries waits for another epoch.
fn judged_by(lab: &Lab) -> (Vec<String>, bool) {
    let maps = lab.maps();
    let epoch = maps.config.get().unwrap().epoch;
    let (policy, rules) = (maps.policy.entries().unwrap(), maps.rules.entries().unwrap());
    let waits = |since: u32| since.wrapping_sub(epoch) as i32 > 0;
    let waiting = policy.values().any(|v| waits(v.since)) || rules.values().any(|v| waits(v.since));
    let policy = policy.iter().map(|(key, v)| format!("{key:?} {:?}", v.at(epoch)));
    let rules = rules.iter().map(|(number, v)| format!("rule {number:?} {:?}", v.at(epoch)));
    (policy.chain(rules).collect(), waiting)
}

#[test]
#[ignore = "needs root"]
#[cfg(debug_assertions)] // what is shipped has no place at which it ends
fn a_daemon_killed_at_any_step_of_a_commit_by_difference_leaves_one_revision_and_no_entry_of_another() {
    let lab = Lab::new();
    let ends = lab.file("ends.yaml", ENDS);
    let write = |name: &str| lab.file("one.yaml", &one_policy(name));
    let one = write("even");
    let mut daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &ends, "-p", &one]);
    let names = ["even", "odd"];
    let rule_of = |port: &str| {
        let why = &lab.json(&["why", "10.1.0.2", "10.2.0.2", port])[0];
        why["rule"].as_str().unwrap_or_default().to_owned()
    };
    let history = || {
        let rows = lab.json(&["policy", "history"]).remove(0);
        let row = rows.as_array().unwrap().iter().find(|row| row["in_force"] == true).unwrap().clone();
        (row["number"].as_u64().unwrap(), row["digest"].as_str().unwrap().to_owned())
    };
    // What each of the two comes to, where nobody is killed, and that neither takes a compile.
    lab.end_at("Compiled");
    let wanted = ["odd", "even"].map(|name| {
        write(name);
        lab.ok(&["policy", "apply", "--only", &one]);
        // Three rules with a lifetime, and one of those who are there.
        lab::until(|| judged_by(&lab).0.len() == 7);
        (judged_by(&lab).0, history().1)
    });
    let wanted = [&wanted[1], &wanted[0]];
    assert_ne!(wanted[0].0, wanted[1].0);
    lab.end_at("");
    let connected = under_traffic(&lab, |wait| {
        let mut now = 0;
        for (step, comes) in STEPS {
            wait();
            let before = history();
            lab.end_at(&place(step, before.0 + 1));
            write(names[1 - now]);
            let _ = lab.tidegate(&["policy", "apply", "--only", &one]).output().unwrap();
            daemon.is_killed();
            lab.end_at("");
            now = if comes { 1 - now } else { now };
            let name = names[now];
            let is_whole =
                || ["8443", "9443"].map(&rule_of) == [format!("{name}/pay"), format!("{name}/also")];
            assert!(is_whole(), "{step}, without a daemon");
            assert_eq!(history(), (before.0 + u64::from(comes), wanted[now].1.clone()), "{step}");
            wait();

            daemon = lab.run(&[]);
            assert!(is_whole(), "{step}, after the restart");
            assert_eq!(history(), (before.0 + 2, wanted[now].1.clone()), "{step}");
            lab::until(|| judged_by(&lab) == (wanted[now].0.clone(), false));
        }
    });
    assert!(connected >= 240);
    let told = told(&lab);
    assert_eq!(told.keys().copied().collect::<Vec<_>>(), (1..=15).collect::<Vec<_>>());
    assert_eq!(those_that_were(&told, "abandoned"), [4, 6, 8]);
    assert_eq!(those_that_were(&told, "committed").len(), 12);
}
