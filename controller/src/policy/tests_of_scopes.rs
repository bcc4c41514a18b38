//! Bindings that hold on a VLAN, on an interface, for some ports: from files to what is decided.

use super::explain::{MissKind, Origin, explain_from};
use super::*;
use datapath::abi::{Addr, Config, Reason, Side};
use datapath::policy::{Ends, Moment, decide};
use datapath::scope::{segment, with};

const POLICY: &str = "\
apiVersion: tidegate.dev/v1
kind: Policy
metadata: {name: p}
spec:
  rules:
    - {name: a, action: allow, from: [{spiffeId: spiffe://td/a}], to: [{any: true}], ports: [tcp/443]}
    - {name: b, action: allow, from: [{spiffeId: spiffe://td/b}], to: [{any: true}], ports: [tcp/80]}
    - {name: net, action: allow, from: [{cidr: 10.0.0.64/26}], to: [{any: true}], ports: [tcp/53]}
";

fn workload(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: tidegate.dev/v1\nkind: Workload\nmetadata: {{name: {name}}}\n\
         spec: {{spiffeId: spiffe://td/{}, {spec}}}\n",
        &name[..1]
    )
}

fn read(workloads: &[(&str, &str)]) -> Result<Documents, Mistakes> {
    let texts: String = workloads.iter().map(|(name, spec)| workload(name, spec)).collect();
    Documents::parse("w.yaml", &format!("{POLICY}{texts}"), "2026-11-01T00:00:00Z".parse().unwrap())
}

struct Judge(Documents, Compiled);

impl Judge {
    fn new(workloads: &[(&str, &str)]) -> Self {
        let documents = read(workloads).unwrap();
        let clock = Clock { wall_now: "2026-11-01T00:00:00Z".parse().unwrap(), boot_now_ns: 1 };
        let compiled = compile(&documents, &Numbering::default(), &clock);
        Self(documents, compiled)
    }

    /// Who a packet of 10.0.0.`last`, on an interface and a VLAN, is taken for, and why it is judged as it is.
    fn of(&self, last: u8, (interface, vlan): (&str, u16), (from, to): (u16, u16)) -> (String, Reason) {
        let number = self.1.named_interfaces.get(interface).copied().unwrap_or(0);
        let place = with(segment(number, vlan), Side::A);
        let rules = host_rules(&self.1);
        let moment = Moment { segment: place, ..Moment::at(&Config { epoch: 1, ..rules.config }, 1) };
        let (orig, resp) = (Addr::v4([10, 0, 0, last]), Addr::v4([10, 9, 0, 1]));
        let ends =
            Ends { orig: &orig, resp: &resp, orig_port: from, resp_port: to, proto: 6, originator: Side::A };
        let judged = decide(&rules, &moment, &ends);
        let id = self.1.numbering.identity_of(judged.identity[0]);
        (id.map_or_else(|| judged.identity[0].to_string(), ToString::to_string), judged.reason)
    }
}

#[test]
fn the_same_network_on_two_vlans_is_two_tenants() {
    let judge = Judge::new(&[
        ("a", "addresses: [10.0.0.0/24], vlan: 10"),
        ("b", "addresses: [10.0.0.0/24], vlan: 20"),
    ]);
    let a = ("spiffe://td/a".to_owned(), Reason::Forwarded);
    assert_eq!(judge.of(5, ("eth1", 10), (9, 443)), a);
    assert_eq!(judge.of(5, ("eth1", 20), (9, 443)), ("spiffe://td/b".into(), Reason::InvalidIdentity));
    assert_eq!(judge.of(5, ("eth1", 20), (9, 80)), ("spiffe://td/b".into(), Reason::Forwarded));
    assert_eq!(judge.of(5, ("eth1", 0), (9, 443)), ("0".into(), Reason::InvalidIdentity));
    // The addresses that a rule names are these wherever they are, and tenants there are tenants too.
    assert_eq!(judge.of(70, ("eth1", 10), (9, 443)), a);
    assert_eq!(judge.of(70, ("eth1", 10), (9, 53)), a);
    assert_eq!(judge.of(70, ("eth1", 0), (9, 53)), ("0".into(), Reason::Forwarded));
}

#[test]
fn the_narrowest_scope_decides_and_in_it_ports_and_then_the_longest_prefix() {
    let judge = Judge::new(&[
        ("c-pool", "addresses: [10.0.0.0/16]"),
        ("c-host", "addresses: [10.0.0.7]"),
        ("a-if", "addresses: [10.0.0.0/24], interface: eth1"),
        ("b-both", "addresses: [10.0.0.0/25], interface: eth1, vlan: 10"),
        ("d-vlan", "addresses: [10.0.0.7], vlan: 10"),
        ("b-port", "addresses: [10.0.0.7], interface: eth1, ports: [tcp/8000-8010]"),
    ]);
    let who = |last, place, port| judge.of(last, place, (port, 443)).0;
    assert_eq!(who(7, ("eth9", 0), 1), "spiffe://td/c");
    assert_eq!(who(7, ("eth9", 10), 1), "spiffe://td/d");
    assert_eq!(who(8, ("eth9", 10), 1), "spiffe://td/c");
    assert_eq!(who(7, ("eth1", 0), 1), "spiffe://td/a");
    assert_eq!(who(7, ("eth1", 10), 1), "spiffe://td/b");
    assert_eq!(who(200, ("eth1", 10), 1), "spiffe://td/a");
    for (port, id) in [(7999, "a"), (8000, "b"), (8010, "b"), (8011, "a")] {
        assert_eq!(who(7, ("eth1", 0), port), format!("spiffe://td/{id}"), "{port}");
    }
}

#[test]
fn an_address_that_is_shared_by_ports_is_of_whom_the_port_is() {
    let judge = Judge::new(&[
        ("a", "addresses: [10.0.0.7], ports: [tcp/30000-30999]"),
        ("b", "addresses: [10.0.0.7], ports: [tcp/31000-31999, udp/31000-31999]"),
    ]);
    assert_eq!(judge.of(7, ("eth1", 0), (30_500, 443)), ("spiffe://td/a".into(), Reason::Forwarded));
    assert_eq!(judge.of(7, ("eth1", 10), (31_999, 80)), ("spiffe://td/b".into(), Reason::Forwarded));
    assert_eq!(judge.of(7, ("eth1", 0), (32_000, 443)), ("0".into(), Reason::InvalidIdentity));
}

#[test]
fn of_an_end_of_which_nobody_knows_where_it_is_the_only_claimant_is_taken() {
    let judge = Judge::new(&[
        ("a", "addresses: [10.0.0.5], vlan: 10"),
        ("a-again", "addresses: [10.0.0.5], vlan: 110"),
        ("a-six", "addresses: [10.0.0.6], vlan: 10"),
        ("b-six", "addresses: [10.0.0.6], vlan: 20"),
    ]);
    let flow =
        |last| Flow { src: Addr::v4([10, 0, 0, last]), dst: Addr::v4([10, 9, 0, 1]), proto: 6, port: 443 };
    let found = explain(&judge.0, &judge.1, flow(5), 1);
    assert_eq!((found.reason, found.source.spiffe_id.unwrap().as_str()), ("FORWARDED", "spiffe://td/a"));
    let found = explain(&judge.0, &judge.1, flow(6), 1);
    assert_eq!((found.reason, found.source.ambiguous), ("AMBIGUOUS_IDENTITY", true));
    let text = "10.0.0.6 is ambiguous: spiffe://td/a (w.yaml) and spiffe://td/b (w.yaml) claim it";
    assert_eq!(found.near_misses[0].text, text);
}

#[test]
fn an_explanation_goes_by_where_the_connection_comes_from_and_by_its_source_port() {
    let judge = Judge::new(&[
        ("a", "addresses: [10.0.0.5], vlan: 10"),
        ("b", "addresses: [10.0.0.5], vlan: 20"),
        ("a-port", "addresses: [10.0.0.7], ports: [tcp/400-500]"),
    ]);
    let flow =
        |last, port| Flow { src: Addr::v4([10, 0, 0, last]), dst: Addr::v4([10, 9, 0, 1]), proto: 6, port };
    let asked = |last, port, vlan, from| {
        let segment = if vlan == 0 { 0 } else { with(segment(0, vlan), Side::A) };
        let found = explain_from(&judge.0, &judge.1, (flow(last, port), Origin { segment, port: from }), 1);
        let id = found.source.spiffe_id.map_or("none".into(), |id| id.to_string());
        (found.reason, id, found.near_misses.iter().map(|miss| miss.kind).collect::<Vec<_>>())
    };
    let (a, b, none) = ("spiffe://td/a".to_owned(), "spiffe://td/b".to_owned(), "none".to_owned());
    assert_eq!(asked(5, 443, 10, 0), ("FORWARDED", a.clone(), Vec::new()));
    let (reason, id, near) = asked(5, 443, 20, 0);
    assert_eq!((reason, id), ("INVALID_IDENTITY", b));
    assert!(near.contains(&MissKind::Port), "{near:?}");
    let (reason, id, near) = asked(5, 443, 0, 0);
    assert_eq!((reason, id, near[0]), ("AMBIGUOUS_IDENTITY", none.clone(), MissKind::Ambiguous));
    // The port that is asked for is not the one that it is opened from.
    let (reason, id, near) = asked(7, 443, 0, 0);
    assert_eq!((reason, id, near[0]), ("INVALID_IDENTITY", none, MissKind::NoIdentity));
    assert_eq!(asked(7, 443, 0, 450), ("FORWARDED", a, Vec::new()));
    let stranger = explain(&judge.0, &judge.1, flow(7, 443), 1).near_misses.remove(0);
    assert!(stranger.text.contains("depends on its interface, VLAN or port"), "{}", stranger.text);
}

#[test]
fn scopes_that_are_none_and_claims_that_meet_are_mistakes() {
    let said = |workloads: &[(&str, &str)]| read(workloads).unwrap_err().to_string();
    let one = |spec: &str| said(&[("a", spec)]);
    assert!(one("addresses: [10.0.0.1], vlan: 4095").contains("4095 is no VLAN ID"));
    assert!(one("addresses: [10.0.0.1], interface: a/b").contains("`a/b` is no interface name"));
    assert!(one("addresses: [10.0.0.1], ports: [icmp]").contains("`icmp` has no ports"));
    assert!(one("addresses: [10.0.0.0/24], ports: [tcp/80]").contains("more than one address"));
    let met = [
        ("a", "addresses: [10.0.0.1], vlan: 10, ports: [tcp/1-9]"),
        ("b", "addresses: [10.0.0.1], vlan: 10, ports: [tcp/9]"),
    ];
    assert!(said(&met).contains("10.0.0.1/32 is ambiguous: spiffe://td/a and spiffe://td/b both claim it"));
    let apart = [
        ("a", "addresses: [10.0.0.1], vlan: 10, ports: [tcp/1-8]"),
        ("b", "addresses: [10.0.0.1], vlan: 10, ports: [tcp/9, udp/1-8]"),
        ("c", "addresses: [10.0.0.1], vlan: 10"),
        ("d", "addresses: [10.0.0.1], vlan: 20"),
        ("e", "addresses: [10.0.0.1]"),
    ];
    assert!(read(&apart).is_ok());
}
