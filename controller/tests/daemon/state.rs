//! What the daemon keeps on disk: what is wrong with the disk changes no verdict.

use crate::audit;
use crate::killed::counts;
use crate::lab::{Lab, POLICY, json};

/// A tmpfs under the folder of the state.
pub struct Disk<'l>(&'l Lab);

impl<'l> Disk<'l> {
    pub fn new(lab: &'l Lab, kib: u32) -> Self {
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
    const KIB: u32 = 1024;
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
    db.execute_batch("PRAGMA user_version = 99; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    drop(db);
    let before = std::fs::read(lab.state_file()).unwrap();
    let (code, said) = lab.fails(&["run"]);
    assert_eq!(code, 1);
    assert!(said.contains("is of a newer tidegate: its form is 99"), "{said}");
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
