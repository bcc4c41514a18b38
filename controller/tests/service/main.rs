//! The unit that is shipped, under a real systemd: who the daemon is, what it may, and what happens when it dies.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs a script under a systemd of its own; what it printed.
fn under_systemd(script: &str, files: &[(&str, PathBuf)]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("script"), script).expect("the script");
    for (name, file) in files {
        std::fs::copy(file, folder.path().join(name)).expect(name);
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--net", "--cgroup", "sh"]);
    let output = unshare.arg(root().join("ci/boot-systemd.sh")).arg(folder.path()).output().expect("unshare");
    let said = std::fs::read_to_string(folder.path().join("output")).unwrap_or_default();
    assert!(said.contains(':'), "systemd did not boot: {output:?} {said}");
    println!("{said}");
    said
}

#[test]
#[ignore = "needs root"]
fn the_unit_enforces_with_three_capabilities_and_comes_back_with_systemd() {
    let said = under_systemd(
        include_str!("unit.sh"),
        &[
            ("tidegate", env!("CARGO_BIN_EXE_tidegate").into()),
            ("tidegate.service", root().join("packaging/systemd/tidegate.service")),
            ("shop.yaml", root().join("packaging/example/shop.yaml")),
        ],
    );
    let all = |name: &str| -> Vec<&str> {
        said.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim).collect()
    };
    let one = |name: &str| all(name).first().copied().unwrap_or("nothing");
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
    assert_eq!(all("interface"), ["prog/xdp", "prog/xdp", "prog/xdp", "bare"]);
    assert_eq!(one("verify"), "clean");
    assert!(one("security").contains("OK"), "{}", one("security"));
}
