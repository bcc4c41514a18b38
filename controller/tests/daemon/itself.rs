//! The gateway as an end: what it opens itself is judged where it leaves, and what its own servers answer belongs to what was opened.

use crate::lab::{Lab, POLICY, json};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpListener;

const GATEWAY: &str = "spiffe://acme.example/ns/infra/sa/gateway";

fn policy() -> String {
    format!(
        "{POLICY}    - {{name: out, action: allow, from: [{{spiffeId: {GATEWAY}}}], to: [{{cidr: 10.2.0.0/24}}], ports: [tcp/8443]}}
    - {{name: closed, action: deny, from: [{{spiffeId: {GATEWAY}}}], to: [{{any: true}}], ports: [tcp/9000]}}
    - {{name: in, action: allow, from: [{{trustDomain: acme.example}}], to: [{{spiffeId: {GATEWAY}}}], ports: [tcp/7000]}}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {{name: gateway}}
spec: {{spiffeId: {GATEWAY}, addresses: [10.1.0.1/32, 10.2.0.1/32]}}
"
    )
}

/// An echo server on the gateway, which ends with the process.
fn serve(lab: &Lab, port: u16) -> std::thread::JoinHandle<()> {
    let listener = lab.in_gateway_thread(|| TcpListener::bind(("10.1.0.1", port)).expect("bind"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut byte = [0];
            let _gone_meanwhile = stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte));
        }
    })
}

/// Whether a byte goes there and back, and both sides close.
fn echoes(lab: &Lab, host: &str, to: ([u8; 4], u16)) -> bool {
    let echo = || -> std::io::Result<()> {
        let mut stream = lab.client_of(host, to)?;
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])?;
        stream.shutdown(std::net::Shutdown::Write)?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    };
    echo().is_ok()
}

/// The flow to a port.
fn flow(lab: &Lab, port: u16) -> Value {
    let flows = lab.flows();
    let to = |f: &&Value| f["l4"]["TCP"]["destination_port"] == port;
    flows.iter().find(to).unwrap_or_else(|| panic!("no flow to {port}: {flows:?}")).clone()
}

fn said(flow: &Value, names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| flow.pointer(name).cloned().unwrap_or_default()).collect()
}

/// Packets that were dropped for a reason, by interface and direction.
fn dropped(lab: &Lab, reason: &str) -> Vec<(Value, Value)> {
    let rows = lab.json(&["drops"]).remove(0);
    let of = |row: &&Value| row["reason"] == reason && !row["interface"].is_null();
    let rows = rows.as_array().expect("rows").iter().filter(of);
    rows.map(|row| (row["interface"].clone(), row["traffic_direction"].clone())).collect()
}

#[test]
#[ignore = "needs root"]
fn what_the_gateway_opens_is_judged_where_it_leaves() {
    let lab = Lab::new();
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", &policy())]);
    let _servers = [8443, 9000, 9001].map(|port| lab.serve(port));
    let right = [10, 2, 0, 2];
    assert!(echoes(&lab, "gw", (right, 8443)));
    let what =
        ["/verdict", "/rule", "/source/spiffe_id", "/destination/spiffe_id", "/conn_state", "/history"];
    let opened = flow(&lab, 8443);
    let payments = json("spiffe://acme.example/ns/shop/sa/payments");
    assert_eq!(
        said(&opened, &what),
        [json("FORWARDED"), json("shop/out"), json(GATEWAY), payments.clone(), json("SF"), json("ShADadFf")]
    );
    // Replies come in by XDP, what was asked leaves by TC: both are of the one connection.
    assert!(opened["orig_pkts"].as_u64() >= Some(4) && opened["resp_pkts"].as_u64() >= Some(3), "{opened}");

    assert!(!echoes(&lab, "gw", (right, 9000)) && !echoes(&lab, "gw", (right, 9001)));
    for (port, reason, rule) in
        [(9000, "POLICY_DENY", json("shop/closed")), (9001, "POLICY_DENIED", Value::Null)]
    {
        let denied = flow(&lab, port);
        let what = [
            "/verdict",
            "/drop_reason_desc",
            "/rule",
            "/source/spiffe_id",
            "/destination/spiffe_id",
            "/resp_pkts",
        ];
        let wanted = [json("DROPPED"), json(reason), rule, json(GATEWAY), payments.clone(), json(0)];
        assert_eq!(said(&denied, &what), wanted);
        assert_eq!(dropped(&lab, reason), [(json("eth2"), json("EGRESS"))]);
    }
}

#[test]
#[ignore = "needs root"]
fn replies_of_a_server_on_the_gateway_belong_to_what_was_opened() {
    let lab = Lab::new();
    let _daemon = lab.run(&["-i", "eth1", "-i", "eth2", "-p", &lab.file("shop.yaml", &policy())]);
    let _servers = [7000, 7001].map(|port| serve(&lab, port));
    let gateway = [10, 1, 0, 1];
    assert!(echoes(&lab, "left", (gateway, 7000)));
    assert!(!echoes(&lab, "left", (gateway, 7001)));
    let what = ["/verdict", "/rule", "/source/spiffe_id", "/destination/spiffe_id", "/conn_state"];
    let orders = json(crate::lab::ORDERS);
    let opened = flow(&lab, 7000);
    assert_eq!(
        said(&opened, &what),
        [json("FORWARDED"), json("shop/in"), orders.clone(), json(GATEWAY), json("SF")]
    );
    // No rule lets the gateway open anything to orders: what passes there are replies.
    assert!(opened["resp_pkts"].as_u64() >= Some(3), "{opened}");
    assert!(opened["history"].as_str().unwrap().starts_with("Sh"), "{opened}");
    assert!(opened["tcp_handshake_ns"].as_u64() > Some(0), "{opened}");
    let denied = flow(&lab, 7001);
    assert_eq!(said(&denied, &what), [json("DROPPED"), Value::Null, orders, json(GATEWAY), json("S0")]);
    assert_eq!(dropped(&lab, "POLICY_DENIED"), [(json("eth1"), json("INGRESS"))]);
}
