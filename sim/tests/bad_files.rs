//! A mistake in a topology file is answered with its place, what is wrong and what is accepted; nothing is made.

mod common;

use common::{File, output};

const GOOD: &str = "name: lab
topology:
  nodes:
    router: {kind: router}
    orders: {kind: workload}
  links:
    - endpoints: [\"router:eth1\", \"orders:eth1\"]
network:
  router: {addresses: {eth1: [10.1.0.1/24]}}
  orders: {addresses: {eth1: [10.1.0.2/24]}}
workloads:
  orders: {svid: {spiffeId: spiffe://acme.example/orders}, listen: [tcp/9000]}
traffic:
  - {kind: tcp, from: orders, to: \"orders:9000\"}
";

/// Runs a file with one thing replaced and returns the message after the path.
#[track_caller]
fn mistake(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "nothing to replace: {from}");
    let file = File::new(&GOOD.replacen(from, to, 1));
    let output = output(&["run", &file.path()]);
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    stderr.trim_end().strip_prefix(&format!("{}:", file.path())).unwrap_or(&stderr).to_string()
}

#[test]
fn a_good_file_is_fine() {
    let file = File::new(GOOD);
    let output = output(&["check", &file.path()]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_missing_file_is_named() {
    let output = output(&["run", "/nonexistent/lab.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr).trim_end(),
        "/nonexistent/lab.yaml: No such file or directory (os error 2); give the path of a topology file, for example topologies/demo.yaml"
    );
}

#[test]
fn an_unknown_key_is_answered_with_the_known_ones() {
    let message = mistake("traffic:", "trafic:");
    assert!(message.starts_with("13:1: "), "{message}");
    assert!(
        message.contains("`trafic`") && message.contains("policies, clock, traffic, expect"),
        "{message}"
    );
}

#[test]
fn an_unknown_kind_is_answered_with_the_known_ones() {
    let message = mistake("kind: workload", "kind: wrokload");
    assert!(message.starts_with("5:20: "), "{message}");
    for kind in ["gateway", "router", "workload", "blackhole", "bridge"] {
        assert!(message.contains(kind), "{message}");
    }
}

#[test]
fn broken_yaml_has_a_place() {
    let message = mistake("{kind: router}", "{kind: router");
    assert!(message.starts_with("5:") || message.starts_with("4:"), "{message}");
}

#[test]
fn an_unknown_node_is_answered_with_the_known_ones() {
    assert_eq!(
        mistake("\"orders:eth1\"", "\"odrers:eth1\""),
        "7:34: no node is named `odrers`; there are orders, router"
    );
    assert_eq!(
        mistake("from: orders", "from: odrers"),
        "14:23: no node is named `odrers`; there are orders, router"
    );
}

#[test]
fn an_endpoint_names_node_and_interface() {
    assert_eq!(
        mistake("\"orders:eth1\"", "orders"),
        "7:34: `orders` is no endpoint: accepted is NODE:INTERFACE, as gw:eth1"
    );
    assert_eq!(
        mistake("[\"router:eth1\", \"orders:eth1\"]", "[\"router:eth1\"]"),
        "7:7: a link has two endpoints, this one has 1: write [\"gw:eth1\", \"orders:eth1\"]"
    );
}

#[test]
fn an_interface_is_in_one_link() {
    let twice = "\"orders:eth1\"]\n    - endpoints: [\"router:eth1\", \"orders:eth2\"]";
    assert_eq!(
        mistake("\"orders:eth1\"]", twice),
        "8:19: `router:eth1` is in two links; an interface has one"
    );
}

#[test]
fn an_address_has_a_prefix() {
    assert_eq!(
        mistake("10.1.0.2/24", "10.1.0.2"),
        "10:31: `10.1.0.2` is no address: accepted is ADDRESS/PREFIX, as 10.1.0.2/24 or fd00:1::2/64"
    );
    assert_eq!(mistake("10.1.0.2/24", "10.1.0.1/24"), "10:31: 10.1.0.1 is given twice");
    assert_eq!(
        mistake("orders: {addresses: {eth1", "orders: {addresses: {eth2"),
        "10:31: node `orders` has no interface `eth2`; its links give it eth1"
    );
}

#[test]
fn a_listener_names_protocol_and_port() {
    assert_eq!(
        mistake("tcp/9000]", "http/80]"),
        "12:69: `http/80` is no listener: accepted are mtls/PORT, tcp/PORT and udp/PORT, as mtls/8443"
    );
}

#[test]
fn a_spiffe_id_is_checked() {
    assert_eq!(
        mistake("spiffe://acme.example/orders", "https://acme.example/orders"),
        "12:29: `https://acme.example/orders` is no SPIFFE ID: accepted is spiffe://trust.domain/path"
    );
}

#[test]
fn a_step_says_whence_and_whereto() {
    assert_eq!(mistake(", to: \"orders:9000\"", ""), "14:5: a step of kind tcp has from: and to:");
    assert_eq!(
        mistake("\"orders:9000\"", "orders"),
        "14:35: `orders`: accepted is NODE:PORT or ADDRESS:PORT, as payments:8443"
    );
    assert_eq!(
        mistake("\"orders:9000\"", "\"orders:9000\", family: ipv6"),
        "14:35: node `orders` has no IPv6 address"
    );
}

#[test]
fn tls_options_belong_to_mtls() {
    assert_eq!(
        mistake("\"orders:9000\"", "\"orders:9000\", tls: \"1.2\""),
        "14:5: tls, svid, peer and alert belong to steps of kind mtls"
    );
}

#[test]
fn mtls_needs_an_identity() {
    let message = mistake("kind: tcp, from: orders", "kind: mtls, alert: no_such, from: orders");
    assert!(message.starts_with("14:5: `no_such` is no alert; accepted are access_denied, "), "{message}");
    assert_eq!(
        mistake("svid: {spiffeId: spiffe://acme.example/orders}, listen: [tcp/9000]", "listen: [mtls/9000]"),
        "12:21: node `orders` has no SPIFFE ID: name an identity document `orders`, or set workloads.orders.svid.spiffeId"
    );
}

#[test]
fn expectations_need_a_gateway_and_known_reasons() {
    let expect = |e: &str| mistake("traffic:", &format!("expect: {e}\ntraffic:"));
    assert_eq!(
        expect("{drops: [{reason: POLICY_DENY}]}"),
        "1:7: `expect` asks what the gateway saw, and no node is of kind gateway; give one that kind"
    );
    let message = expect("{drops: [{reason: NO_SUCH}]}");
    assert!(
        message.starts_with("13:27: `NO_SUCH` is no reason for a drop; accepted are POLICY_DENIED, "),
        "{message}"
    );
}

#[test]
fn steps_on_the_gateway_need_one_and_say_what_they_do() {
    let step = |s: &str| mistake("traffic:\n", &format!("traffic:\n  - {s}\n"));
    assert_eq!(step("{kind: wait, until: {}}"), "14:5: there is no daemon: no node is of kind gateway");
    assert_eq!(
        step("{kind: pause, for: 1s, steps: [{kind: pause, for: 1s}]}").split(": ").nth(1),
        Some("only steps of kind parallel and sequence have steps of their own")
    );
    assert_eq!(
        step("{kind: sequence, count: 2}"),
        "14:5: a step of kind sequence has steps: what runs one after another"
    );
    assert_eq!(
        step("{kind: tidegate, from: orders, run: [status]}"),
        "14:5: a step of kind tidegate has no from: and to:"
    );
    assert_eq!(
        mistake("kind: tcp,", "kind: tcp, run: [status],"),
        "14:5: run: belongs to steps of kind tidegate"
    );
    assert_eq!(
        step("{kind: wait, timeout: 9s, until: {}}"),
        "14:5: timeout: belongs to steps that send; a step of kind wait says until: {within: 5s, ...}"
    );
    assert_eq!(
        step("{kind: server, from: orders, do: kill}"),
        "14:5: a step of kind server says whose, and what: from: NODE, do: stop, do: start, or do: slow with for: 300ms"
    );
    assert_eq!(
        step("{kind: daemon, do: slow, for: 1s}"),
        "14:5: there is no daemon: no node is of kind gateway"
    );
    assert_eq!(
        mistake("kind: tcp,", "kind: tcp, expect: error,"),
        "14:5: expect: accepted are ok, handshake_failed, timeout, refused, unreachable, any"
    );
    assert_eq!(
        mistake("kind: tcp,", "kind: tcp, sni: a.example,"),
        "14:5: sni, alpn and ech belong to steps of kind hello"
    );
    assert_eq!(step("{kind: server, from: router, do: stop}"), "14:26: node `router` serves nothing");
    assert_eq!(mistake("traffic:", "clock: {pace: 0}\ntraffic:"), "13:15: pace is 0; accepted is 1 to 3600");
}

#[test]
fn a_mistake_in_what_the_loop_must_have_found_has_its_place() {
    let expect = |e: &str| mistake("traffic:", &format!("expect: {e}\ntraffic:"));
    assert_eq!(
        expect("{findings: [{identity: router}]}"),
        "13:32: node `router` has no SPIFFE ID: name an identity document `router`, or set workloads.router.svid.spiffeId"
    );
    assert_eq!(
        expect("{containment: [{identity: \"spiffe://\", state: never}]}"),
        "13:35: `spiffe://` is no SPIFFE ID: accepted is spiffe://trust.domain/path"
    );
    let message = expect("{findings: [{decision: block}]}");
    assert!(message.contains("held_back"), "{message}");
}
