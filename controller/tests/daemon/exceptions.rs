//! What rules leave out (`not`), which policy is asked first (`priority`) and what is left to the next tier (`pass`), on real packets.

use crate::lab::{Lab, json, until};
use serde_json::Value;

/// `orders` on the left opens connections to `payments` on the right. Each rule is about ports of its own.
const POLICY: &str = "\
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: orders}
spec: {spiffeId: spiffe://acme.example/ns/shop/sa/orders, addresses: [10.1.0.2/32], labels: {app: orders}}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: payments}
spec: {spiffeId: spiffe://acme.example/ns/shop/sa/payments, addresses: [10.2.0.2/32]}
---
apiVersion: tidegate.dev/v1
kind: Policy
metadata: {name: early}
spec:
  tier: 10
  rules:
    - {name: hand-over, action: pass, from: [{labels: {app: orders}}], to: [{any: true}], ports: [udp/1001-1003]}
    - {name: all, action: allow, from: [{any: true}], to: [{any: true}], ports: [udp/1001-1004]}
---
apiVersion: tidegate.dev/v1
kind: Policy
metadata: {name: late}
spec:
  rules:
    - {name: pay, action: allow, from: [{labels: {app: orders}}], to: [{any: true}], ports: [udp/1001]}
    - {name: never, action: deny, from: [{any: true}], to: [{any: true}], ports: [udp/1002, udp/1004]}
---
apiVersion: tidegate.dev/v1
kind: Policy
metadata: {name: first}
spec:
  priority: 1
  rules:
    - {name: win, action: allow, from: [{any: true}], to: [{any: true}], ports: [udp/2001]}
---
apiVersion: tidegate.dev/v1
kind: Policy
metadata: {name: second}
spec:
  priority: 2
  rules:
    - {name: lose, action: deny, from: [{any: true}], to: [{any: true}], ports: [udp/2001-2002]}
---
apiVersion: tidegate.dev/v1
kind: Policy
metadata: {name: exceptions}
spec:
  rules:
    - {name: but-orders, action: allow, from: [{trustDomain: acme.example}, {not: {labels: {app: orders}}}], to: [{any: true}], ports: [udp/3001]}
    - {name: but-batch, action: allow, from: [{trustDomain: acme.example}, {not: {labels: {app: batch}}}], to: [{any: true}], ports: [udp/3002]}
    - {name: all-but-orders, action: deny, from: [{not: {labels: {app: orders}}}], to: [{any: true}], ports: [udp/3002-3003]}
    - {name: to-others, action: deny, from: [{any: true}], to: [{not: {cidr: 10.1.0.0/16}}], ports: [udp/3003]}
";

/// Port, verdict, reason and rule.
const JUDGED: [(u16, &str, &str, Option<&str>); 9] = [
    (1001, "FORWARDED", "FORWARDED", Some("late/pay")),
    (1002, "DROPPED", "POLICY_DENY", Some("late/never")),
    (1003, "DROPPED", "POLICY_DENIED", None),
    (1004, "FORWARDED", "FORWARDED", Some("early/all")),
    (2001, "FORWARDED", "FORWARDED", Some("first/win")),
    (2002, "DROPPED", "POLICY_DENY", Some("second/lose")),
    (3001, "DROPPED", "POLICY_DENIED", None),
    (3002, "FORWARDED", "FORWARDED", Some("exceptions/but-batch")),
    (3003, "DROPPED", "POLICY_DENY", Some("exceptions/to-others")),
];
/// Datagrams to each port.
const SENT: u64 = 3;

fn datagram(port: u16) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ipv4([10, 1, 0, 2], [10, 2, 0, 2], 64).udp(40_000, port);
    let mut packet = Vec::new();
    builder.write(&mut packet, b"ping").expect("a packet");
    packet
}

#[test]
#[ignore = "needs root"]
fn not_priority_and_pass_decide_as_they_say_and_why_names_who_passed_it_on() {
    let lab = Lab::new();
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &lab.file("policy.yaml", POLICY)]);
    let ports = JUDGED.iter().map(|(port, ..)| *port);
    lab.send_raw("left", ports.flat_map(|port| std::iter::repeat_n(datagram(port), SENT as usize)));
    let flow = |port: u16| {
        let is_it = |flow: &&Value| {
            flow["l4"]["UDP"]["destination_port"] == port && flow["IP"]["source"] == "10.1.0.2"
        };
        lab.flows().iter().find(is_it).cloned().unwrap_or_default()
    };
    let dropped = |port: u16| JUDGED.iter().any(|(own, verdict, ..)| *own == port && *verdict == "DROPPED");
    for (port, verdict, reason, rule) in JUDGED {
        until(|| flow(port)["orig_pkts"] == SENT);
        let flow = flow(port);
        assert_eq!((&flow["verdict"], &flow["rule"]), (&json(verdict), &rule.into()), "{port}: {flow}");
        let why = lab.json(&["why", "10.1.0.2", "10.2.0.2", &format!("{port}/udp")]).remove(0);
        assert_eq!(
            (&why["verdict"], &why["drop_reason_desc"], &why["rule"]),
            (&json(verdict), &json(reason), &rule.into()),
            "{why}"
        );
        if dropped(port) {
            assert_eq!(flow["drop_reason_desc"], reason, "{flow}");
        }
    }
    // What was dropped is counted by rule and by reason, each packet once.
    let drops = lab.json(&["drops"]).remove(0);
    let sum = |is_it: &dyn Fn(&Value) -> bool, of: &dyn Fn(&Value) -> Option<u64>| -> u64 {
        drops.as_array().unwrap().iter().filter(|row| is_it(row)).filter_map(of).sum()
    };
    for rule in ["late/never", "second/lose", "exceptions/to-others"] {
        let of_rule = sum(&|row| row["rule"] == rule, &|row| row["packets"].as_u64());
        assert_eq!(of_rule, SENT, "{rule}: {drops}");
    }
    for (reason, ports) in [("POLICY_DENY", 3), ("POLICY_DENIED", 2)] {
        let is_counter = |row: &Value| row["reason"] == reason && row["interface"] == "eth1";
        let counted = sum(&is_counter, &|row| row["count"]["packets"].as_u64());
        assert_eq!(counted, ports * SENT, "{reason}: {drops}");
    }
    // Who passes a connection on is named where nothing behind lets it through, and where a rule of its own tier would have.
    let misses = |port: u16| -> Vec<String> {
        let why = lab.json(&["why", "10.1.0.2", "10.2.0.2", &format!("{port}/udp")]).remove(0);
        let misses = why["near_misses"].as_array().unwrap().iter();
        misses.map(|miss| miss["text"].as_str().unwrap().to_owned()).collect()
    };
    for port in [1002, 1003] {
        let told = misses(port);
        let passed = "early/all would allow it, but early/hand-over passes its tier by";
        assert!(told.iter().any(|text| text.starts_with(passed)), "{port}: {told:?}");
    }
}
