//! A candidate that differs in one thing alone is judged by it, and of a sample no more is counted than it holds.

use crate::lab::{self, Lab, POLICY, json};
use serde_json::Value;

/// Makes POLICY count and `candidate` be judged beside it, and tells how a connection to 8443 is judged: the live verdict, reason
/// and rule, and the candidate's. Both have to let the connection be what the live one says.
fn judged(live: &str, candidate: &str, connects: bool) -> Option<[[Value; 3]; 2]> {
    let lab = Lab::new();
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &lab.file("live.yaml", live)]);
    let _server = lab.serve(8443);
    lab.ok(&["policy", "shadow", &lab.file("candidate.yaml", candidate)]);
    assert_eq!(lab.connects(8443), connects);
    let status = lab.json(&["policy", "shadow", "status"]).remove(0);
    let changes = status["changes"].as_array().unwrap();
    assert!(changes.len() <= 1, "one thing differs: {status}");
    let change = changes.first()?;
    let side =
        |which: &str| ["verdict", "reason", "rule"].map(|what| change[format!("{which}_{what}")].clone());
    Some([side("old"), side("new")])
}

fn verdict(verdict: &str, reason: &str, rule: Option<&str>) -> [Value; 3] {
    [json(verdict), json(reason), rule.map_or(Value::Null, json)]
}

fn forwarded() -> [Value; 3] {
    verdict("FORWARDED", "FORWARDED", Some("shop/pay"))
}

/// The policy with another document.
fn with(document: &str) -> String {
    format!("{POLICY}---\napiVersion: tidegate.dev/v1\n{document}\n")
}

#[test]
#[ignore = "needs root"]
fn a_candidate_in_which_a_binding_alone_differs_is_judged_by_it() {
    let elsewhere = POLICY.replace("10.1.0.2/32", "10.1.0.99/32");
    let nobody = verdict("DROPPED", "INVALID_IDENTITY", None);
    assert_eq!(judged(POLICY, &elsewhere, true), Some([forwarded(), nobody.clone()]));
    assert_eq!(judged(&elsewhere, POLICY, false), Some([nobody, forwarded()]));
    // A lease that is over.
    let ended = POLICY.replace("[10.1.0.2/32]", "[10.1.0.2/32], lease: {notAfter: \"2020-01-01T00:00:00Z\"}");
    let over = verdict("DROPPED", "LEASE_EXPIRED", None);
    assert_eq!(judged(POLICY, &ended, true), Some([forwarded(), over]));
    // Where nothing differs, nothing is counted.
    assert_eq!(judged(POLICY, POLICY, true), None);
}

#[test]
#[ignore = "needs root"]
fn a_candidate_in_which_a_blocklist_alone_differs_is_judged_by_it() {
    let list =
        |entry| with(&format!("kind: Blocklist\nmetadata: {{name: abuse}}\nspec: {{entries: [{entry}]}}"));
    for (entry, rule) in [
        ("{cidr: 10.1.0.2/32}", "abuse/10.1.0.2/32"),
        ("{cidr: 10.1.0.0/24, ports: [tcp/8443]}", "abuse/10.1.0.0/24 tcp/8443"),
        (
            "{spiffePath: \"spiffe://acme.example/ns/shop/sa/pay*\"}",
            "abuse/spiffe://acme.example/ns/shop/sa/pay*",
        ),
        ("{ports: [tcp/8443]}", "abuse/tcp/8443"),
    ] {
        let blocked = verdict("DROPPED", "BLOCKLISTED", Some(rule));
        assert_eq!(judged(POLICY, &list(entry), true), Some([forwarded(), blocked.clone()]), "{entry}");
        assert_eq!(judged(&list(entry), POLICY, false), Some([blocked, forwarded()]), "{entry}");
    }
    assert_eq!(judged(POLICY, &list("{cidr: 10.1.0.2/32, ports: [tcp/8444]}"), true), None);
}

#[test]
#[ignore = "needs root"]
fn a_candidate_in_which_a_quarantine_alone_differs_is_judged_by_it() {
    let quarantine = |but: &str| {
        with(&format!(
            "kind: Quarantine\nmetadata: {{name: beacons}}\nspec:\n  identities: [{{spiffeId: {}}}]\n  except: [{but}]",
            lab::ORDERS
        ))
    };
    let cut = verdict("DROPPED", "QUARANTINED", Some("quarantine/beacons"));
    let other = quarantine("{ports: [udp/123]}");
    assert_eq!(judged(POLICY, &other, true), Some([forwarded(), cut.clone()]));
    assert_eq!(judged(&other, POLICY, false), Some([cut, forwarded()]));
    assert_eq!(judged(POLICY, &quarantine("{ports: [tcp/8443]}"), true), None);
}

/// A datagram of a flow of its own, to one of three ports.
fn datagram(n: u32) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ipv4([10, 1, 0, 2], [10, 2, 0, 2], 64);
    let mut packet = Vec::new();
    builder.udp((1024 + n / 3) as u16, (5000 + n % 3) as u16).write(&mut packet, b"x").expect("a packet");
    packet
}

#[test]
#[ignore = "needs root"]
fn of_a_sample_its_part_of_the_flows_is_counted_by_rule_and_what_counts_is_unchanged() {
    const FLOWS: u32 = 4000;
    let rules = |closed: &str, more: &str| {
        let ends = "from: [{trustDomain: acme.example}], to: [{trustDomain: acme.example}]";
        let rule = |name, action, port| {
            format!("    - {{name: {name}, action: {action}, {ends}, ports: [udp/{port}]}}\n")
        };
        let opened = if more.is_empty() { String::new() } else { rule(more, "allow", 5002) };
        [POLICY, &rule("closed", closed, 5000), &rule("kept", "allow", 5001), &opened].concat()
    };
    let lab = Lab::new();
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &lab.file("live.yaml", &rules("allow", ""))]);
    // Nobody answers, so that each flow is judged once.
    lab.silence_right();
    for sample in [1, 4] {
        let candidate = lab.file("candidate.yaml", &rules("deny", "more"));
        lab.ok(&["policy", "shadow", &candidate, "--sample", &format!("1/{sample}")]);
        let dropped = || {
            let denied = datapath::abi::PortCounters::index(datapath::abi::Reason::PolicyDenied as u8, false);
            let ports = lab.maps().port_counters().unwrap();
            ports.iter().map(|port| port.counts[0][denied].packets).sum::<u64>()
        };
        let before = dropped();
        let begin = FLOWS * 3 * u32::from(sample == 4);
        lab.send_raw("left", (begin..begin + 3 * FLOWS).map(datagram));
        // Those of the third port, whatever the candidate says.
        lab::until(|| dropped() - before == u64::from(FLOWS));

        let status = lab.json(&["policy", "shadow", "status"]).remove(0);
        assert_eq!(status["sample"], sample);
        let count = |old: Option<&str>, new: &str| {
            let changes = status["changes"].as_array().unwrap().iter();
            let of = |c: &&Value| c["old_rule"] == old.map_or(Value::Null, json) && c["new_rule"] == new;
            changes.filter(of).map(|c| c["count"].as_u64().unwrap()).sum::<u64>()
        };
        assert_eq!(status["changes"].as_array().unwrap().len(), 2, "{status}");
        // Of the flows of each rule a part, within six standard deviations of a fair draw; neighbour discovery is alike by both.
        let (part, flows) = (1.0 / f64::from(sample), f64::from(FLOWS));
        let off = 6.0 * (flows * part * (1.0 - part)).sqrt();
        let same = status["same"].as_u64().unwrap();
        for (n, discovery) in
            [(count(Some("shop/closed"), "shop/closed"), 0.0), (count(None, "shop/more"), 0.0), (same, 30.0)]
        {
            let over = n as f64 - flows * part;
            assert!((-off..=off + discovery).contains(&over), "{n} of {FLOWS}, 1/{sample}: {status}");
        }
    }
}
