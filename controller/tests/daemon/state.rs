//! What the daemon keeps on disk: it survives a kill at every step, and what is wrong with the disk changes no verdict.

use crate::audit;
use crate::lab::{self, Lab, POLICY, json};
use std::collections::BTreeSet;
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
fn counts(lab: &Lab) -> (String, String, u64) {
    let why = &lab.json(&["why", "10.1.0.2", "10.2.0.2", "8443"])[0];
    let shown = &lab.json(&["policy", "show"])[0];
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    (text(&why["rule"]), text(&shown["rules"][0]["policy"]), shown["revision"].as_u64().unwrap())
}

#[test]
#[ignore = "needs root"]
#[cfg(debug_assertions)] // what is shipped has no place at which it ends
fn a_daemon_killed_at_any_step_of_a_commit_leaves_one_revision_in_kernel_and_state() {
    let lab = Lab::new();
    let files = ["even", "odd"].map(|name| lab.file(&format!("{name}.yaml"), &revision(name)));
    let mut daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &files[0]]);
    let _server = lab.serve(8443);
    let (over, connected) = (AtomicBool::new(false), AtomicU64::new(0));
    /// Ends the traffic also when the test fails.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let ends = Over(&over);
        let traffic = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                assert!(lab.connects(8443), "a connection was cut");
                connected.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut now = 0;
        // What the kernel had not flipped never was; what it had counts.
        for (step, comes) in [
            ("Recorded", false),
            ("HalfWritten", false),
            ("Written", false),
            ("Flipped", true),
            ("Marked", true),
            ("Swept", true),
        ] {
            let goes_on = connected.load(Ordering::Relaxed);
            lab::until(|| connected.load(Ordering::Relaxed) > goes_on + 20);
            let before = counts(&lab);
            let place = match step {
                "Swept" => format!("Swept {{ revision: {} }}", before.2 + 1),
                other => other.to_owned(),
            };
            lab.end_at(&place);
            let _ = lab.tidegate(&["policy", "apply", &files[1 - now]]).output().unwrap();
            daemon.is_killed();
            lab.end_at("");
            now = if comes { 1 - now } else { now };
            let name = ["even", "odd"][now];
            let seen = counts(&lab);
            assert_eq!((&*seen.0, &*seen.1), (&*format!("{name}/right"), name), "{step}, without a daemon");
            assert_eq!(seen.2, before.2 + u64::from(comes), "{step}");
            let goes_on = connected.load(Ordering::Relaxed);
            lab::until(|| connected.load(Ordering::Relaxed) > goes_on + 20);

            daemon = lab.run(&[]);
            let (rule, policy, revision) = counts(&lab);
            assert_eq!((&*rule, &*policy), (&*format!("{name}/right"), name), "{step}, after the restart");
            assert_eq!(revision, before.2 + 2, "{step}: the number of what never was is not given again");
        }
        drop(ends);
        traffic.join().unwrap();
    });
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
    assert!(connected.into_inner() >= 240);
    // Each revision that was ever begun is in the audit record with what became of it, once.
    assert_eq!(lab.json(&["audit", "verify"])[0]["ok"], json(true));
    let mut told = std::collections::BTreeMap::<u64, Vec<String>>::new();
    for record in audit::lines(&lab).iter().filter(|record| record["what"]["revision"].is_u64()) {
        let what = &record["what"];
        let word = what["outcome"].as_str().or(record["kind"].as_str()).unwrap().to_owned();
        told.entry(what["revision"].as_u64().unwrap()).or_default().push(word);
    }
    assert_eq!(told.keys().copied().collect::<Vec<_>>(), (1..=13).collect::<Vec<_>>());
    let abandoned: Vec<u64> = told
        .iter()
        .filter(|(_, words)| **words == ["commit", "abandoned"])
        .map(|(number, _)| *number)
        .collect();
    assert_eq!(abandoned, [2, 4, 6], "the three that the kernel had not flipped");
    let committed = told.values().filter(|words| **words == ["commit", "committed"]).count();
    assert_eq!(committed, 10);
}

/// A tmpfs under the folder of the state.
struct Disk<'l>(&'l Lab);

impl<'l> Disk<'l> {
    fn new(lab: &'l Lab, kib: u32) -> Self {
        std::fs::create_dir_all(lab.state_dir()).unwrap();
        mount(lab, nix::mount::MsFlags::empty(), kib);
        Self(lab)
    }

    fn read_only(&self, kib: u32) {
        mount(self.0, nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_RDONLY, kib);
    }
}

fn mount(lab: &Lab, flags: nix::mount::MsFlags, kib: u32) {
    let size = format!("size={kib}k");
    nix::mount::mount(Some("tmpfs"), &lab.state_dir(), Some("tmpfs"), flags, Some(size.as_str())).unwrap();
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0.state_dir(), nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
#[ignore = "needs root"]
fn a_full_or_read_only_disk_refuses_changes_and_cuts_nothing() {
    const KIB: u32 = 600;
    let lab = Lab::new();
    let disk = Disk::new(&lab, KIB);
    let file = lab.file("shop.yaml", POLICY);
    let options = ["-i", "eth1", "-i", "eth2", "-p", &file];
    let mut daemon = lab.run(&options);
    let _server = lab.serve(8443);
    let epoch = || lab.maps().config.get().unwrap().epoch;
    let before = (epoch(), lab.json(&["status"])[0]["revision"].clone());
    let recorded = audit::lines(&lab).len();
    let filler = lab.state_dir().join("filler");
    let fill = std::io::copy(&mut std::io::repeat(7), &mut std::fs::File::create(&filler).unwrap());
    assert!(fill.is_err(), "it is full");
    let words = "# so many words\n".repeat(20_000);
    let large = lab.file("large.yaml", &format!("{}{words}", POLICY.replace("allow", "deny")));
    let (code, said) = lab.fails(&["policy", "apply", &large]);
    assert_eq!(code, 1);
    assert!(said.contains("state.db") && said.contains("there is no room to write"), "{said}");
    assert_eq!((epoch(), lab.json(&["status"])[0]["revision"].clone()), before);
    assert!(lab.connects(8443));
    assert_eq!(audit::lines(&lab).len(), recorded, "what was not made is not recorded");
    std::fs::remove_file(&filler).unwrap();
    let denies = lab.file("deny.yaml", &POLICY.replace("allow", "deny"));
    lab.ok(&["policy", "apply", &denies]);
    assert!(!lab.connects(8443));
    lab.ok(&["policy", "apply", &file]);

    daemon.stop();
    disk.read_only(KIB);
    let before = epoch();
    let (code, said) = lab.fails(&["run"]);
    assert_eq!(code, 1);
    assert!(said.contains("state.db") && said.contains("its folder has to be there and writable"), "{said}");
    assert_eq!(epoch(), before);
    assert!(lab.connects(8443));
    assert_eq!(counts(&lab).0, "shop/pay", "readers can read it");
    drop(disk);
}

#[test]
#[ignore = "needs root"]
fn a_state_that_is_newer_or_damaged_is_refused_and_what_is_enforced_goes_on() {
    let lab = Lab::new();
    let file = lab.file("shop.yaml", POLICY);
    let mut daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &file]);
    let _server = lab.serve(8443);
    daemon.stop();
    let db = rusqlite::Connection::open(lab.state_file()).unwrap();
    db.execute_batch("PRAGMA user_version = 9; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(db);
    let before = std::fs::read(lab.state_file()).unwrap();
    let (code, said) = lab.fails(&["run"]);
    assert_eq!(code, 1);
    assert!(said.contains("is of a newer tidegate: its form is 9"), "{said}");
    assert_eq!(std::fs::read(lab.state_file()).unwrap(), before);
    assert!(lab.connects(8443) && !lab.connects(9000));

    std::fs::write(lab.state_file(), "no database").unwrap();
    let (code, said) = lab.fails(&["run"]);
    assert_eq!(code, 1);
    assert!(said.contains("is damaged") && said.contains("tidegate run --policy"), "{said}");
    assert!(lab.connects(8443) && !lab.connects(9000));
    // What the message says to do.
    std::fs::remove_file(lab.state_file()).unwrap();
    let _daemon = lab.run(&["--policy", &file]);
    assert!(lab.connects(8443) && !lab.connects(9000));
    assert_eq!(lab.json(&["why", "orders", "payments", "8443"])[0]["rule"], json("shop/pay"));
}

#[test]
#[ignore = "needs root"]
fn options_of_the_daemon_hold_until_they_are_given_again() {
    let lab = Lab::new();
    let file = lab.file("shop.yaml", POLICY);
    let options = ["-p", &file, "--failsafe", "tcp/22", "--inspect", "gre", "--mode", "monitor"];
    let mut daemon = lab.run(&[&["-i", "eth1", "-i", "eth2"][..], &options].concat());
    let failsafe = || lab.maps().failsafe.entries().unwrap().len();
    let status = || lab.json(&["status"])[0].clone();
    let both = failsafe();
    assert!(both > 0);
    daemon.stop();
    let mut daemon = lab.run(&[]);
    assert_eq!(failsafe(), both);
    daemon.stop();
    // As after a restart of the host: no map is left.
    lab.ok(&["detach", "--all"]);
    let mut daemon = lab.run(&["-i", "eth1"]);
    assert_eq!(failsafe(), both);
    assert_eq!((&status()["mode"], &status()["inspect"]), (&json("monitor"), &serde_json::json!(["gre"])));
    assert_eq!(lab.json(&["why", "orders", "payments", "8443"])[0]["rule"], json("shop/pay"));
    daemon.stop();
    let _daemon = lab.run(&["--failsafe", "none", "--inspect", "none", "--mode", "enforce"]);
    assert_eq!(failsafe(), 0);
    assert_eq!((&status()["mode"], &status()["inspect"]), (&json("enforce"), &serde_json::json!([])));
}
