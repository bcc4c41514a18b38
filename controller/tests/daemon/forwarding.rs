//! `--forward xdp`: real connections whose packets no socket buffer carried.

use crate::closing::metric;
use crate::lab::{self, Lab, POLICY, json};

#[test]
#[ignore = "needs root"]
fn connections_go_by_xdp_and_policy_stays_what_it_was() {
    let lab = Lab::new();
    for host in ["left", "right"] {
        // As a card does: XDP sees whole checksums, and takes frames to send.
        lab.on(host, "ethtool", "-K eth1 tx off gro on");
    }
    let shop = lab.file("shop.yaml", POLICY);
    let options = ["-i", "eth1", "-i", "eth2", "-p", &shop, "--metrics", lab::METRICS];
    let mut daemon = lab.run(&[&options[..], &["--forward", "xdp"]].concat());
    let _server = lab.serve(8443);
    let _other = lab.serve(9000);
    assert!(lab.connects(8443));
    assert!(!lab.connects(9000));
    let redirected = |interface: &str| {
        metric(&lab.metrics(), &format!("tidegate_redirect_count_total{{interface=\"{interface}\"}}"))
    };
    let forwarded = |direction: &str, interface: &str| {
        let labels = format!("direction=\"{direction}\",interface=\"{interface}\"");
        metric(&lab.metrics(), &format!("tidegate_forward_count_total{{{labels}}}"))
    };
    // SYN, ACK, the byte, FIN at least; the first ones wait for the neighbour, for which Linux asks.
    assert!(redirected("eth1") >= 3, "{}", redirected("eth1"));
    assert!(redirected("eth2") >= 3, "{}", redirected("eth2"));
    assert!(forwarded("EGRESS", "eth2") >= redirected("eth2"));
    let flow = lab.flows().into_iter().find(|f| f["l4"]["TCP"]["destination_port"] == 8443).unwrap();
    assert_eq!((&flow["conn_state"], &flow["verdict"]), (&json("SF"), &json("FORWARDED")));
    let status = &lab.json(&["status"])[0];
    assert_eq!(status["forward"], "xdp");
    assert_eq!(status["interfaces"][1]["xdp_sends"], true);

    // It stays so until another word.
    daemon.stop();
    let mut daemon = lab.run(&options);
    let before = redirected("eth2");
    assert!(lab.connects(8443));
    assert!(redirected("eth2") > before);
    // A driver that stops taking frames is seen within a second or two.
    lab.on("right", "ethtool", "-K eth1 gro off");
    lab::until(|| lab.json(&["status"])[0]["interfaces"][1]["xdp_sends"] == false);
    let before = redirected("eth2");
    assert!(lab.connects(8443));
    assert_eq!(redirected("eth2"), before);
    lab.ok(&["block", "add", "10.1.0.2/32"]);
    assert!(!lab.connects(8443));
    lab.ok(&["block", "del", "10.1.0.2/32"]);

    daemon.stop();
    let _daemon = lab.run(&[&options[..], &["--forward", "linux"]].concat());
    assert_eq!(lab.json(&["status"])[0]["forward"], "linux");
    let before = redirected("eth1");
    assert!(lab.connects(8443));
    assert_eq!(redirected("eth1"), before);
}
