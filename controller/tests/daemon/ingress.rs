//! `--ingress tc`: what comes in is judged behind the driver, and nothing else changes.

use crate::lab::{Lab, POLICY, json};

/// Where each interface is judged.
fn judged(lab: &Lab) -> Vec<String> {
    let status = lab.json(&["status"]).remove(0);
    let ports = status["interfaces"].as_array().expect("interfaces").iter();
    let text = |value: &serde_json::Value| value.as_str().expect("a word").to_owned();
    ports.map(|p| [&p["interface"], &p["ingress"], &p["ingress_mode"]].map(text).join(" ")).collect()
}

#[test]
#[ignore = "needs root"]
fn a_gateway_judges_at_tc_and_stays_there_until_another_word() {
    let lab = Lab::new();
    let shop = lab.file("shop.yaml", POLICY);
    let options = ["-i", "eth1", "-i", "eth2", "-p", &shop];
    let mut daemon = lab.run(&[&options[..], &["--ingress", "tc"]].concat());
    let _server = lab.serve(8443);
    let _other = lab.serve(9000);
    assert!(lab.connects(8443));
    assert!(!lab.connects(9000));
    let flow = lab.flows().into_iter().find(|f| f["l4"]["TCP"]["destination_port"] == 8443).unwrap();
    assert_eq!((&flow["conn_state"], &flow["verdict"]), (&json("SF"), &json("FORWARDED")));
    assert_eq!(judged(&lab), ["eth1 tc tcx", "eth2 tc tcx"]);
    assert!(lab.ok(&["status"]).contains("tc (tcx)"));
    assert!(!lab.output("ip", &["link", "show", "eth1"]).contains("xdp"));

    // One interface elsewhere, and the daemon anew: each stays where it is.
    assert!(
        lab.ok(&["attach", "eth2", "--ingress", "xdp"]).contains("eth2: ingress xdp (native), egress tcx")
    );
    daemon.stop();
    let mut daemon = lab.run(&[]);
    assert_eq!(judged(&lab), ["eth1 tc tcx", "eth2 xdp native"]);
    assert!(lab.connects(8443));
    lab.ok(&["detach", "eth2"]);
    assert!(lab.ok(&["attach", "eth2"]).contains("eth2: ingress tc (tcx)"), "as the daemon was told last");
    let (code, said) = lab.fails(&["attach", "eth2", "--ingress", "tc", "--xdp-mode", "native"]);
    assert_eq!((code, said.contains("leave one of them out")), (2, true), "{said}");

    daemon.stop();
    let (code, said) = lab.fails(&["run", "--forward", "xdp"]);
    assert_eq!(code, 1);
    assert!(said.contains("cannot be judged at TC while XDP forwards: use --ingress xdp"), "{said}");
    assert_eq!(judged(&lab), ["eth1 tc tcx", "eth2 tc tcx"], "nothing was touched");
    let mut daemon = lab.run(&["--forward", "xdp", "--ingress", "auto"]);
    assert_eq!(judged(&lab), ["eth1 xdp native", "eth2 xdp native"], "XDP forwards what it judged");
    daemon.stop();
    let _daemon = lab.run(&["--forward", "linux", "--ingress", "auto"]);
    assert_eq!(judged(&lab), ["eth1 tc tcx", "eth2 tc tcx"], "veth is virtual");
    assert!(lab.connects(8443));
}

/// Both answers have the right checksums, whoever has to make those of the packet: hosts on veth leave them to the driver
/// (`tx on`), and so may the gateway.
#[test]
#[ignore = "needs root"]
fn what_is_rejected_at_tc_is_answered_with_checksums_that_hold() {
    let lab = Lab::new();
    let gateway = "---\napiVersion: tidegate.dev/v1\nkind: Gateway\nmetadata: {name: edge}\n\
                   spec: {defaultAction: reject}\n";
    let file = lab.file("shop.yaml", &format!("{POLICY}{gateway}"));
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "--ingress", "tc", "-p", &file]);
    for (host, at_gateway) in [("on", "on"), ("on", "off"), ("off", "off")] {
        lab.on("left", "ethtool", &format!("-K eth1 tx {host}"));
        lab.output("ethtool", &["-K", "eth1", "tx", at_gateway]);
        let case = format!("checksums of the host {host}, of the gateway {at_gateway}");
        let refused = lab.client(9000).expect_err("a reset");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{case}");
        let unreachable = lab.datagram(5000).expect_err("ICMP");
        assert_eq!(unreachable.kind(), std::io::ErrorKind::HostUnreachable, "{case}");
    }
    let rows = lab.json(&["drops"]).remove(0);
    let answered = |how: &str| {
        let row = rows.as_array().expect("rows").iter().find(|row| row["answered"] == how);
        row.expect("a counter")["count"]["packets"].as_u64()
    };
    assert_eq!((answered("tcp_reset"), answered("icmp_prohibited")), (Some(3), Some(3)));
}

/// What libxdp would have pinned for a program on an interface; gone when dropped.
struct DispatcherPins(std::path::PathBuf);

impl DispatcherPins {
    fn new(port: &serde_json::Value) -> Self {
        let name = format!("dispatch-{}-{}", port["ifindex"], port["ingress_program_id"]);
        let path = std::path::Path::new("/sys/fs/bpf/xdp").join(name);
        std::fs::create_dir_all(&path).expect("a folder in bpffs");
        Self(path)
    }
}

impl Drop for DispatcherPins {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
        // Only where it is empty.
        let _ = std::fs::remove_dir("/sys/fs/bpf/xdp");
    }
}

#[test]
#[ignore = "needs root"]
fn a_dispatcher_of_somebody_else_is_told_from_a_program_and_how_to_share_it() {
    let lab = Lab::new();
    let shop = lab.file("shop.yaml", POLICY);
    let other = lab.beside("b");
    let _daemon = other.run(&["-i", "eth1", "-p", &shop]);
    let (code, said) = lab.fails(&["run", "-i", "eth1", "-p", &shop]);
    assert!(code == 1 && said.contains("already has XDP program"), "{said}");

    let port = other.json(&["status"])[0]["interfaces"][0].clone();
    let pins = DispatcherPins::new(&port);
    let (code, said) = lab.fails(&["run", "-i", "eth1", "-p", &shop]);
    let id = &port["ingress_program_id"];
    let wanted = format!("eth1 already has libxdp's dispatcher of somebody else (XDP program {id})");
    assert!(code == 1 && said.contains(&wanted), "{said}");
    assert!(
        said.contains("--ingress libxdp puts Tidegate's program among them, --ingress tc judges after"),
        "{said}"
    );
    let output = lab.tidegate(&["doctor", "eth1"]).output().expect("doctor");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains(&format!("libxdp's dispatcher, id {id}, native: runs")), "{said}");
    drop(pins);
    assert!(!lab.pin_dir().exists(), "nothing is left of what was refused");
}

/// On kernels that take programs into a dispatcher `cargo xtask oracle vm` says what becomes of it.
#[test]
#[ignore = "needs root"]
fn an_interface_is_not_shared_where_the_kernel_takes_no_program_into_a_dispatcher() {
    let lab = Lab::new();
    let shop = lab.file("shop.yaml", POLICY);
    let doctor = lab.json(&["doctor"]).remove(0);
    let checks = doctor["checks"].as_array().expect("checks");
    let dispatcher = checks.iter().find(|check| check["check"] == "libxdp's dispatcher").expect("a check");
    if dispatcher["state"] == "ok" {
        println!("this kernel has libxdp's dispatcher: not what this is about");
        return;
    }
    assert_eq!((&dispatcher["state"], &doctor["can_run"]), (&json("warn"), &json(true)));
    assert!(dispatcher["to_do"].to_string().contains("--ingress tc"), "{dispatcher}");

    let (code, said) = lab.fails(&["run", "-i", "eth1", "-p", &shop, "--ingress", "libxdp"]);
    assert!(code == 1 && said.contains("this kernel takes no programs into a dispatcher"), "{said}");
    assert!(said.contains("use --ingress tc"), "{said}");
    assert!(!lab.pin_dir().exists() && !lab.output("ip", &["link", "show", "eth1"]).contains("xdp"));

    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &shop, "--ingress", "tc"]);
    let _server = lab.serve(8443);
    let (code, said) = lab.fails(&["attach", "eth1", "--ingress", "libxdp", "--xdp-prio", "20"]);
    assert!(code == 1 && said.contains("this kernel takes no programs into a dispatcher"), "{said}");
    assert_eq!(judged(&lab), ["eth1 tc tcx", "eth2 tc tcx"]);
    assert!(!lab.pin_dir().join("TG_GATE").exists());
    assert!(!lab.pin_dir().join("links/eth1-gate").exists());
    assert!(lab.connects(8443));
}
