//! What a policy would have done to a capture.

use super::build::{Scene, Tcp, ping, udp};
use super::run::{HOST, Run, summary};
use tidegate::replay::{Mode, ReplayError};

pub const POLICY: &str = "\
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: client}
spec:
  spiffeId: spiffe://acme.example/ns/shop/sa/client
  addresses: [10.0.0.1/32]
  lease: {for: 1m, onExpiry: deny}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: server}
spec:
  spiffeId: spiffe://acme.example/ns/shop/sa/server
  addresses: [10.0.0.2/32]
---
apiVersion: tidegate.dev/v1
kind: Policy
metadata: {name: shop}
spec:
  rules:
    - name: web
      action: allow
      from: [{spiffeId: spiffe://acme.example/ns/shop/sa/client}]
      to: [{spiffeId: spiffe://acme.example/ns/shop/sa/server}]
      ports: [tcp/8080]
    - name: no-dns
      action: deny
      from: [{trustDomain: acme.example}]
      to: [{trustDomain: acme.example}]
      ports: [udp/53]
";

/// Allowed, denied by a rule, denied by none; then the client's lease of a minute is over.
pub fn traffic() -> Scene {
    let mut web = Tcp::to(8080);
    let start = Scene::default().frames(web.play("ShAD"));
    let start = start.frames([udp(true, b"query"), ping(true)]).frames(Tcp::to(22).play("SS"));
    start.after(61).frames(web.play("D"))
}

#[test]
fn each_verdict_names_its_rule() {
    let run = Run { policy: Some(POLICY), ..HOST };
    let records = run.records(&traffic().pcap());
    let rules: Vec<_> = records.iter().map(|r| (summary(r), r["rule"].as_str())).collect();
    assert_eq!(
        rules,
        [
            ("tcp 10.0.0.1:40000>10.0.0.2:8080 S1 ShAD 4/1 180/40 - DROPPED LEASE_EXPIRED".to_string(), None),
            (
                "udp 10.0.0.1:5000>10.0.0.2:53 S0 D 1/0 33/0 - DROPPED POLICY_DENY".to_string(),
                Some("shop/no-dns")
            ),
            ("icmp 10.0.0.1:8>10.0.0.2:0 OTH - 1/0 36/0 - DROPPED POLICY_DENIED".to_string(), None),
            ("tcp 10.0.0.1:40000>10.0.0.2:22 S0 S 2/0 80/0 - DROPPED POLICY_DENIED".to_string(), None),
        ]
    );
}

#[test]
fn leases_end_by_the_time_of_the_capture() {
    let run = Run { policy: Some(POLICY), ..HOST }.packets();
    let records = run.records(&traffic().pcap());
    let verdicts: Vec<_> = records
        .iter()
        .map(|r| (r["verdict"].as_str().unwrap(), r["reason"].as_str().unwrap(), r["rule"].as_str()))
        .collect();
    let web = Some("shop/web");
    assert_eq!(
        verdicts,
        [
            ("FORWARDED", "FORWARDED", web),
            ("FORWARDED", "ESTABLISHED", web),
            ("FORWARDED", "ESTABLISHED", web),
            ("FORWARDED", "ESTABLISHED", web),
            ("DROPPED", "POLICY_DENY", Some("shop/no-dns")),
            ("DROPPED", "POLICY_DENIED", None),
            ("DROPPED", "POLICY_DENIED", None),
            ("DROPPED", "POLICY_DENIED", None),
            ("DROPPED", "LEASE_EXPIRED", None),
        ]
    );
}

#[test]
fn monitor_mode_says_what_enforcing_would_have_dropped() {
    let run = Run { policy: Some(POLICY), mode: Mode::Monitor, ..HOST };
    let records = run.records(&traffic().pcap());
    let verdicts: Vec<_> = records.iter().map(|r| r["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["AUDIT", "AUDIT", "AUDIT", "AUDIT"]);
}

#[test]
fn a_mistake_in_a_policy_is_told_with_its_line_and_nothing_is_replayed() {
    let run = Run { policy: Some("apiVersion: tidegate.dev/v1\nkind: Polcy\n"), ..HOST };
    let (text, error) = run.text(&traffic().pcap());
    let error = error.unwrap();
    assert_eq!((text.as_str(), error.exit_code().exit()), ("", 2));
    assert!(matches!(&error, ReplayError::Policy(message) if message.contains(":2:")), "{error}");
}
