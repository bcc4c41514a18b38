//! The Debian package: installed, configured, upgraded, removed and purged, while packets go by.

use super::{root, under_systemd};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package of what the tests have built.
fn package(version: &str, folder: &Path) -> PathBuf {
    let xtask = Path::new(env!("CARGO_BIN_EXE_tidegate")).with_file_name("xtask");
    let file = folder.join("first.deb");
    done(Command::new(xtask).args(["package", "--debug", "--deb-version", version, "--output"]).arg(&file));
    file
}

/// The same in a higher version: packing it anew would take most of the test's time.
fn higher(version: &str, package: &Path) -> PathBuf {
    let (unpacked, file) = (package.with_file_name("unpacked"), package.with_file_name("second.deb"));
    done(Command::new("dpkg-deb").arg("--raw-extract").arg(package).arg(&unpacked));
    let control = unpacked.join("DEBIAN/control");
    let text = std::fs::read_to_string(&control).expect("the control file");
    let other =
        |line: &str| if line.starts_with("Version: ") { format!("Version: {version}") } else { line.into() };
    let lines: Vec<String> = text.lines().map(other).collect();
    std::fs::write(&control, lines.join("\n") + "\n").expect("the control file");
    done(
        Command::new("dpkg-deb")
            .args(["-Zgzip", "-z1", "--root-owner-group", "--build"])
            .arg(&unpacked)
            .arg(&file),
    );
    file
}

fn done(command: &mut Command) {
    let output = command.output().expect("xtask, which `cargo build --bins` builds, and dpkg-deb");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "needs root"]
fn the_package_enforces_through_upgrade_and_removal_and_leaves_nothing_with_cargo_deb_with_systemd() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = package("0.1.0-1", folder.path());
    let second = higher("0.1.0-2", &first);
    let said = under_systemd(
        include_str!("package.sh"),
        &[
            ("first.deb", first),
            ("second.deb", second),
            ("shop.yaml", root().join("packaging/example/shop.yaml")),
        ],
    );
    let one = |name| said.one(name);
    // Installed: whole, and nothing of it runs.
    assert_eq!(one("installed"), "0");
    assert_eq!(one("version"), "0.1.0-1");
    assert_eq!(one("rests"), "disabled inactive");
    assert_eq!(one("conffiles"), "/etc/default/tidegate");
    for file in
        ["manual", "bash", "zsh", "fish", "schema", "local", "alerts", "dashboard", "changelog", "copyright"]
    {
        assert_eq!(one(file), "there", "{file}");
    }
    assert_eq!(one("completes"), "detach");
    assert_eq!(one("before"), "0 leaked", "the probe told of a datagram before one was sent");
    // Configured and started.
    assert_eq!(one("started"), "0");
    assert_eq!(one("runs_as"), "tidegate");
    assert_eq!(one("answered"), "one");
    assert_eq!(one("denied"), "POLICY_DENIED");
    // Upgraded: another daemon, the same programs, flows and options.
    assert_eq!(one("upgraded"), "0.1.0-2");
    assert_eq!(one("another_daemon"), "yes");
    assert_eq!(one("options_kept"), "yes");
    assert_eq!(one("answered_after_upgrade"), "two");
    let packets = |name| one(name).parse::<u64>().expect(name);
    // The second word is a segment of its own: without the old record there would be no more than a few.
    assert!(packets("packets_after_upgrade") > packets("packets"), "{:?}", said.all("packets"));
    assert_eq!(one("history_after_upgrade"), one("history"), "the flow was forgotten");
    // Removed: no daemon, the programs judge on, and it says so.
    assert_eq!(one("removed"), "0");
    assert_eq!(one("no_daemon"), "yes");
    assert_eq!(one("named"), "eth1 eth2");
    assert_eq!(one("way_out"), "/var/lib/tidegate-removed/tidegate --name default detach --all");
    assert_eq!(said.all("interface"), ["bare", "prog/xdp", "prog/xdp", "prog/xdp", "bare"]);
    assert_eq!(one("gaps"), "0 leaked", "a datagram passed between start and purge");
    // Purged: packets pass, as before; of files only the administrator's own are left.
    assert_eq!(one("purged"), "0");
    assert_eq!(one("passes"), "1 leaked");
    assert_eq!(one("left"), "/etc/tidegate /etc/tidegate/shop.yaml");
    assert_eq!(one("user"), "gone");
    assert_eq!(one("pins"), "none");
}
