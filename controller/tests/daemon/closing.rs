//! Every connection ends in a report, and the counters know it.

use crate::lab::{self, Lab, POLICY};
use std::io::{Read, Write};

const GATEWAY: &str = "apiVersion: tidegate.dev/v1
kind: Gateway
metadata: {name: edge}
spec:
  timeouts: {tcpSyn: 1s, tcpHandshake: 1s, tcpEstablished: 4s, tcpHalfClosed: 1s, tcpClosed: 1s, tcpKept: 1s, datagram: 1s}
";

/// The value of a metric, with its labels.
pub fn metric(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse::<f64>().expect("a number") as u64)
}

#[test]
#[ignore = "needs root"]
fn every_connection_that_opens_is_reported_when_it_is_over() {
    let lab = Lab::new();
    let (shop, edge) = (lab.file("shop.yaml", POLICY), lab.file("edge.yaml", GATEWAY));
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &shop, "-p", &edge, "--metrics", lab::METRICS]);
    let _server = lab.serve(8443);
    for _ in 0..20 {
        assert!(lab.connects(8443));
    }
    // Left open, and idle: its ends say nothing until its time is over.
    let mut idle = lab.client(8443).expect("a connection");
    idle.write_all(b"hello").expect("a write");
    idle.read_exact(&mut [0; 5]).expect("an echo");

    let count = |text: &str| {
        let closed = |how: &str| metric(text, &format!("tidegate_connections_closed_total{{how=\"{how}\"}}"));
        let living = |state: &str| metric(text, &format!("tidegate_connections{{state=\"{state}\"}}"));
        (
            metric(text, "tidegate_connections_opened_total"),
            closed("replaced") + closed("expired"),
            living("answered") + living("half_open"),
            metric(text, "tidegate_connections_evicted_total"),
        )
    };
    let (opened, closed, living, evicted) = count(&lab.metrics());
    assert!(opened >= 21, "{opened} opened");
    assert_eq!(opened, closed + living + evicted);
    lab::until(|| {
        let (opened, closed, living, evicted) = count(&lab.metrics());
        assert_eq!(evicted, 0);
        living == 0 && closed == opened
    });

    let events = lab.json(&["observe"]);
    let is_ours =
        |e: &&serde_json::Value| e["event"] == "closed" && e["l4"]["TCP"]["destination_port"] == 8443;
    let reports: Vec<_> = events.iter().filter(is_ours).collect();
    assert_eq!(reports.len(), 21, "{reports:#?}");
    let of_state = |state: &str| reports.iter().filter(|e| e["conn_state"] == state).count();
    assert_eq!((of_state("SF"), of_state("S1")), (20, 1));
    for report in &reports {
        let said = ["verdict", "rule"].map(|field| report[field].as_str());
        assert_eq!(said, [Some("FORWARDED"), Some("shop/pay")], "{report}");
        assert_eq!(report.get("drop_reason"), None, "{report}");
        assert_eq!((&report["revision"], &report["is_reply"]), (&1.into(), &false.into()), "{report}");
        let number = |field: &str| report[field].as_u64().expect("a number");
        assert_eq!(number("packets"), number("orig_pkts") + number("resp_pkts"));
        assert_eq!(number("bytes"), number("orig_ip_bytes") + number("resp_ip_bytes"));
        // SYN, ACK, data, at least; and what answers them.
        assert!(number("orig_pkts") >= 3 && number("resp_pkts") >= 2, "{report}");
        assert!(number("duration_ns") > 0);
    }
    drop(idle);
}
