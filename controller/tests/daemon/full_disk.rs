//! What goes on when the disk of the state is full: all that keeps access right.

use crate::lab::{self, Lab, METRICS, POLICY, json};
use crate::state::Disk;
use std::io::Write;
use std::path::Path;

/// Large enough for what a test does, small enough to be filled.
const KIB: u32 = 16_384;

/// Fills the disk to the last byte.
fn fill(filler: &Path) {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(filler).unwrap();
    for size in [64 << 10, 4096, 1] {
        while file.write_all(&vec![7; size]).is_ok() {}
    }
}

fn lacking(lab: &Lab) -> u64 {
    let page = lab.metrics();
    let line = page.lines().find_map(|line| line.strip_prefix("tidegate_state_reserve_lacking_bytes "));
    line.expect("the metric").parse::<f64>().expect("a number") as u64
}

#[test]
#[ignore = "needs root"]
fn on_a_full_disk_policies_are_taken_back_identities_cut_off_and_leases_renewed() {
    let lab = Lab::new();
    let disk = Disk::new(&lab, KIB);
    let allow = lab.file("allow.yaml", POLICY);
    let deny = lab.file("deny.yaml", &POLICY.replace("action: allow", "action: deny"));
    let options = ["-i", "eth1", "-i", "eth2", "-p", &allow, "--metrics", METRICS];
    let mut daemon = lab.run(&options);
    let _server = lab.serve(8443);
    assert!(lab.connects(8443));
    assert_eq!(lacking(&lab), 0);
    let filler = lab.state_dir().join("filler");

    // Somebody locks himself out, and the disk is full when that is to be taken back.
    lab.ok(&["policy", "apply", &deny, "--confirm-within", "6s"]);
    fill(&filler);
    assert!(!lab.connects(8443));
    lab::until(|| lab.connects(8443));
    assert_eq!(lab.json(&["policy", "show"])[0]["rules"][0]["action"], "allow");
    // What brings documents is refused, as before, and leaves the reserve to others.
    fill(&filler);
    let words = "# so many words\n".repeat(20_000);
    let large = lab.file("large.yaml", &format!("{}{words}", POLICY.replace("allow", "deny")));
    let before = lacking(&lab);
    let (code, said) = lab.fails(&["policy", "apply", &large]);
    assert!(code == 1 && said.contains("there is no room to write"), "{said}");
    assert_eq!(lacking(&lab), before);

    // An attacker is cut off, and let go again; an address gets a lease, and a longer one.
    for _ in 0..3 {
        fill(&filler);
        lab.ok(&["quarantine", "add", "orders"]);
        assert!(!lab.connects(8443));
        fill(&filler);
        lab.ok(&["quarantine", "del", "orders"]);
        assert!(lab.connects(8443));
    }
    let id = "spiffe://acme.example/ns/shop/sa/extra";
    let lease = |lab: &Lab| {
        let listed = lab.json(&["identity", "list"])[0].clone();
        let row = listed.as_array().unwrap().iter().find(|row| row["spiffe_id"] == id).cloned();
        row.map(|row| row["lease"]["not_after"].as_str().unwrap_or_default().to_owned())
    };
    fill(&filler);
    lab.ok(&["identity", "bind", "10.1.0.9", id, "--for", "10m"]);
    let first = lease(&lab).expect("a lease");
    fill(&filler);
    lab.ok(&["identity", "bind", "10.1.0.9", id, "--for", "20m"]);
    assert!(lease(&lab).unwrap() > first);
    assert!(lacking(&lab) > 0);

    // A daemon that dies is started again.
    daemon.kill_nine();
    fill(&filler);
    let _daemon = lab.run(&options);
    assert!(lab.connects(8443));
    assert!(lease(&lab).unwrap() > first);
    assert_eq!(lab.json(&["audit", "verify"])[0]["ok"], json(true));

    // With room, the reserve is there again, and policy can be applied.
    std::fs::remove_file(&filler).unwrap();
    lab::until(|| lacking(&lab) == 0);
    lab.ok(&["policy", "apply", &deny]);
    assert!(!lab.connects(8443));
    drop(disk);
}
