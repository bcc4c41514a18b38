//! More events than can be told: the loop decides all the same, and what is told to nobody is counted.

use crate::lab::{Lab, METRICS, POLICY, json, until};
use std::path::Path;

/// New connections, as fast as they can be sent.
const SENT: u32 = 60_000;

/// Everything is allowed. `storm` may send what it likes, `orders` is for `payments` at 8443 alone.
fn policy() -> String {
    let allow = POLICY.replace("ports: [tcp/8443]", "ports: [any]");
    let allow = allow.replace(
        "from: [{spiffeId: spiffe://acme.example/ns/shop/sa/orders}]",
        "from: [{trustDomain: acme.example}]",
    );
    let payments = "[{spiffeId: spiffe://acme.example/ns/shop/sa/payments}]";
    let intent = |name: &str, ports: &str| {
        format!(
            "---
apiVersion: tidegate.dev/v1
kind: Intent
metadata: {{name: {name}}}
spec:
  identities: [{{spiffeId: spiffe://acme.example/ns/shop/sa/{name}}}]
  workload: service
  client: [{{to: {payments}, ports: [{ports}]}}]
  response: {{action: contain, for: 1h}}
"
        )
    };
    let storm = "---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: storm}
spec: {spiffeId: spiffe://acme.example/ns/shop/sa/storm, addresses: [10.1.0.9/32]}
";
    [&allow, storm, &intent("orders", "tcp/8443"), &intent("storm", "udp")].concat()
}

/// A datagram of a connection of its own.
fn datagram(n: u32) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ipv4([10, 1, 0, 9], [10, 2, 0, 2], 64);
    let builder = builder.udp((1024 + n % 60_000) as u16, (10_000 + n / 60_000) as u16);
    let mut packet = Vec::new();
    builder.write(&mut packet, b"storm").expect("a packet");
    packet
}

/// Verdicts in the files of events.
fn told(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).expect("events").flatten().map(|entry| entry.path());
    let count = |path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().filter(|line| line.contains("\"event\":\"verdict\"")).count() as u64
    };
    files.filter(|path| path.extension().is_some_and(|end| end == "ndjson")).map(count).sum()
}

/// The sum of what a counter says, without the lines that have `but` in them.
fn counted(lab: &Lab, name: &str, but: &str) -> u64 {
    let page = lab.metrics();
    let lines = page.lines().filter(|line| line.starts_with(name) && !line.contains(but));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap() as u64).sum()
}

#[test]
#[ignore = "needs root"]
fn in_a_storm_of_events_a_departure_is_contained_and_every_event_is_told_or_counted_as_lost() {
    let lab = Lab::new();
    let options = ["-i", "eth1", "-i", "eth2", "--event-limit", "0", "--metrics", METRICS, "-p"];
    let _daemon = lab.run(&[&options[..], &[&lab.file("shop.yaml", &policy())]].concat());
    let (_server, _other) = (lab.serve(8443), lab.serve(9000));
    assert!(lab.connects(8443));
    std::thread::scope(|scope| {
        scope.spawn(|| lab.send_raw("left", (0..SENT).map(datagram)));
        std::thread::sleep(std::time::Duration::from_millis(200));
        // In the midst of it.
        let _ = lab.connects(9000);
    });
    until(|| lab.json(&["findings", "list"])[0][0]["containments"][0].is_object());
    assert!(!lab.connects(8443));
    assert_eq!(lab.json(&["governance", "status"])[0]["shed"], json(0), "the loop has seen all of it");

    let opened = counted(&lab, "tidegate_connections_opened_total", "\0");
    assert!(opened > u64::from(SENT) / 2, "{opened} connections are no storm");
    let events = lab.state_dir().join(lab.name()).join("events");
    let accounted = || told(&events) + counted(&lab, "tidegate_lost_events_total{", "observer_queue");
    let mut before = 0;
    // What is still to be told comes, and then no more.
    until(|| {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let now = accounted();
        std::mem::replace(&mut before, now) == now
    });
    assert!(
        before >= opened,
        "{before} events are told or counted, of {opened} connections that were opened"
    );
}
