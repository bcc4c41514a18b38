//! What is shipped, under a real systemd: the unit (who the daemon is, what it may, what happens when it dies), and the
//! Debian package.

mod package;

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What all of it may take, also on a machine that does much else. A script that hangs is killed then.
const SECONDS: &str = "240";

/// What a script printed, as lines of `name: value`.
struct Said(String);

impl Said {
    fn all(&self, name: &str) -> Vec<&str> {
        self.0.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim).collect()
    }

    fn one(&self, name: &str) -> &str {
        self.all(name).first().copied().unwrap_or("nothing")
    }
}

/// Runs a script under a systemd of its own, with files beside it.
fn under_systemd(script: &str, files: &[(&str, PathBuf)]) -> Said {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("script"), script).expect("the script");
    for (name, file) in files {
        std::fs::copy(file, folder.path().join(name)).expect(name);
    }
    let boot = root().join("ci/boot-systemd.sh");
    let output = Command::new("sh").arg(boot).arg(folder.path()).arg(SECONDS).output().expect("sh");
    let said = std::fs::read_to_string(folder.path().join("output")).unwrap_or_default();
    println!("{said}");
    let status = std::fs::read_to_string(folder.path().join("status"));
    assert!(status.is_ok(), "systemd did not boot, or the script took over {SECONDS} s: {output:?}");
    Said(said)
}

#[test]
#[ignore = "needs root"]
fn the_unit_enforces_with_three_capabilities_and_comes_back_with_systemd() {
    let said = under_systemd(
        include_str!("unit.sh"),
        &[
            ("tidegate", env!("CARGO_BIN_EXE_tidegate").into()),
            ("tidegate.service", root().join("packaging/systemd/tidegate.service")),
            ("libxdp.conf", root().join("packaging/systemd/libxdp.conf")),
            ("shop.yaml", root().join("packaging/example/shop.yaml")),
        ],
    );
    let one = |name| said.one(name);
    assert_eq!(one("started"), "0");
    assert_eq!(one("state"), "active ready default: eth1 (xdp (native), egress tcx)");
    assert!(!one("Uid").split(' ').any(|uid| uid == "0"), "{}", one("Uid"));
    // CAP_NET_ADMIN 12, CAP_PERFMON 38, CAP_BPF 39.
    let three = format!("{:016x}", 1u64 << 12 | 1 << 38 | 1 << 39);
    for set in ["CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(one(set), three, "{set}");
    }
    assert_eq!((one("NoNewPrivs"), one("Seccomp")), ("1", "2"));
    assert!(one("status").contains(r#""daemon":true"#), "{}", one("status"));
    assert_eq!(one("restarted"), "yes");
    assert_eq!(one("denied"), r#""verdict":"DROPPED""#);
    assert_eq!(one("taken_back"), "yes");
    assert_eq!(one("watchdog"), "yes");
    assert_eq!(one("stopped"), "success");
    // Started, killed, stopped: judged. After `detach --all`: not.
    assert_eq!(said.all("interface"), ["prog/xdp", "prog/xdp", "prog/xdp", "bare"]);
    // With the drop-in for libxdp: root, and two capabilities more.
    assert_eq!(said.all("started_as_root"), ["0", "0"]);
    assert!(said.all("shared_Uid").iter().all(|uid| uid.starts_with("0 ")), "{:?}", said.all("shared_Uid"));
    let five = format!("{:016x}", 1u64 << 1 | 1 << 12 | 1 << 21 | 1 << 38 | 1 << 39);
    assert_eq!(said.all("shared_CapEff"), [&five, &five]);
    assert_eq!(one("verify_shared"), "clean");
    assert_eq!(one("verify"), "clean");
    assert!(one("security").contains("OK"), "{}", one("security"));
}

#[test]
#[ignore = "needs root"]
fn local_workloads_are_watched_by_the_unit_with_its_drop_in_with_systemd_with_cgroup2() {
    let said = under_systemd(
        include_str!("local.sh"),
        &[
            ("tidegate", env!("CARGO_BIN_EXE_tidegate").into()),
            ("tidegate.service", root().join("packaging/systemd/tidegate.service")),
            ("local-workloads.conf", root().join("packaging/systemd/local-workloads.conf")),
            ("shop.yaml", root().join("packaging/example/shop.yaml")),
        ],
    );
    let one = |name| said.one(name);
    assert_eq!(one("started"), "0");
    assert!(!one("Uid").split(' ').any(|uid| uid == "0"), "{}", one("Uid"));
    let three = format!("{:016x}", 1u64 << 12 | 1 << 38 | 1 << 39);
    assert_eq!((one("CapEff"), one("Seccomp")), (three.as_str(), "2"), "it needs no more than the unit has");
    assert_eq!(one("story"), "executes /bin/true");
    assert_eq!((one("reads"), one("reads_another"), one("reads_traces")), ("yes", "no", "no"));
    assert_eq!((one("stopped"), one("verify")), ("success", "clean"));
}
