//! Rules that name types of ICMP, on real packets.

use crate::lab::{Lab, POLICY, json};
use serde_json::Value;

/// `orders` may ask `payments` for an echo, and nothing else.
fn echo_alone() -> String {
    POLICY.replace("ports: [tcp/8443]", "ports: [icmp/8]")
}

/// Sends an ICMP message of a type from a host, which has the address `from`, to `to`.
fn message(lab: &Lab, host: &str, (from, to): ([u8; 4], [u8; 4]), kind: u8) {
    let mut packet = Vec::new();
    // The rest of a header, and a payload as long as that of a timestamp.
    let builder = etherparse::PacketBuilder::ipv4(from, to, 64).icmpv4_raw(kind, 0, [0, 1, 0, 1]);
    builder.write(&mut packet, &[0; 12]).expect("a packet");
    lab.send_raw_to(host, to, std::iter::once(packet));
}

/// Verdict, reason, rule and packets each way of the flow that a message of this type opened.
fn flow(lab: &Lab, kind: u8) -> Option<[Value; 5]> {
    let flow = lab.flows().into_iter().find(|flow| flow["l4"]["ICMPv4"]["type"] == kind)?;
    Some(["verdict", "drop_reason_desc", "rule", "orig_pkts", "resp_pkts"].map(|what| flow[what].clone()))
}

#[test]
#[ignore = "needs root"]
fn a_rule_for_echo_requests_lets_them_and_their_replies_pass_and_no_other_type() {
    const ECHO: u8 = 8;
    const TIMESTAMP: u8 = 13;
    let (left, right) = ([10, 1, 0, 2], [10, 2, 0, 2]);
    let lab = Lab::new();
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", &echo_alone())]);
    message(&lab, "left", (left, right), ECHO);
    message(&lab, "left", (left, right), TIMESTAMP);
    let (forwarded, dropped) = (json("FORWARDED"), json("DROPPED"));
    crate::lab::until(|| flow(&lab, ECHO).is_some_and(|[.., replies]| replies == 1));
    assert_eq!(
        flow(&lab, ECHO).unwrap(),
        [forwarded, json("ESTABLISHED"), json("shop/pay"), json(1), json(1)]
    );
    let denied = [dropped, json("POLICY_DENIED"), Value::Null, json(1), json(0)];
    assert_eq!(flow(&lab, TIMESTAMP).unwrap(), denied);

    // It may be answered, and may not ask by itself.
    let lab = Lab::new();
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", &echo_alone())]);
    message(&lab, "right", (right, left), ECHO);
    crate::lab::until(|| flow(&lab, ECHO).is_some());
    assert_eq!(flow(&lab, ECHO).unwrap(), denied);
}

#[test]
#[ignore = "needs root"]
fn why_tells_types_apart_and_names_the_one_that_would_pass() {
    let lab = Lab::new();
    let file = lab.file("shop.yaml", &echo_alone());
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &file]);
    for by in [&[][..], &["--policy", &file]] {
        let why = |what: &str| lab.json(&[&["why", "orders", "payments", what], by].concat()).remove(0);
        for echo in ["icmp", "icmp/8", "8/icmp"] {
            let said = why(echo);
            assert_eq!((&said["verdict"], &said["rule"]), (&json("FORWARDED"), &json("shop/pay")), "{said}");
            assert_eq!(said["protocol_and_port"], "icmp/8");
        }
        let said = why("icmp/13");
        assert_eq!(said["drop_reason_desc"], "POLICY_DENIED");
        let near = said["near_misses"][0]["text"].as_str().unwrap();
        assert!(near.contains("shop/pay would allow it on icmp/8"), "{said}");
        let (code, said) = lab.fails(&[&["why", "orders", "payments", "icmp/256"], by].concat());
        assert_eq!(code, 2);
        assert!(said.contains("`icmp/256` is no port"), "{said}");
    }
}
