//! Blocklists beyond prefixes, and quarantines: what they compile to, and what is a mistake in them.

use super::trie::lookup;
use super::*;
use datapath::abi::{Block, GuardKey, NEVER, PolicyKey};

const WORKLOADS: &str = "\
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: orders}
spec: {spiffeId: spiffe://acme.example/orders, addresses: [10.1.0.2], labels: {app: orders}}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: dns}
spec: {spiffeId: spiffe://acme.example/dns, addresses: [10.9.0.53], labels: {app: dns}}
---
apiVersion: tidegate.dev/v1
";

fn read(rest: &str) -> Result<Compiled, String> {
    let now = "2026-11-22T12:00:00Z".parse().expect("time");
    let text = format!("{WORKLOADS}{rest}");
    let documents = Documents::parse("g.yaml", &text, now).map_err(|e| e.to_string())?;
    Ok(compile(&documents, &Numbering::default(), &Clock { wall_now: now, boot_now_ns: 1_000_000_000_000 }))
}

fn blocklist(entries: &str) -> Compiled {
    read(&format!("kind: Blocklist\nmetadata: {{name: b}}\nspec:\n  entries: {entries}\n"))
        .expect("a blocklist")
}

fn at(compiled: &Compiled, addr: &str) -> Block {
    let prefix: Prefix = addr.parse().expect(addr);
    lookup(&compiled.blocklist, &prefix).map_or(Block::NONE, |(_, block)| *block)
}

fn said(compiled: &Compiled, key: PolicyKey) -> Option<&str> {
    let full = PolicyPrefix::new(key, PolicyKey::FULL_BITS);
    let rule = lookup(&compiled.guards, &full).map_or(0, |(_, block)| block.rule);
    compiled.rules.get(&rule).map(|info| info.name.as_str())
}

#[test]
fn plain_prefixes_name_no_list() {
    let compiled = blocklist("[{cidr: 192.0.2.0/24}, {cidr: 10.0.0.0/8, for: 1m}]");
    assert!(compiled.guards.is_empty());
    assert!(compiled.blocklist.values().all(|block| block.guards == 0));
    assert_eq!(at(&compiled, "10.1.0.2").not_after_ns, 1_060_000_000_000);
}

#[test]
fn services_of_a_prefix_are_a_list_that_what_lies_in_it_inherits() {
    let compiled = blocklist(
        "[{cidr: 10.0.0.0/8, ports: [tcp/23]}, {cidr: 10.1.0.0/16, ports: [udp/53]}, {cidr: 10.1.2.0/24, for: 1m}, {cidr: 10.1.2.3}]",
    );
    let wide = at(&compiled, "10.7.0.1");
    assert_eq!((wide.rule, wide.not_after_ns), (0, NEVER));
    assert_eq!(said(&compiled, GuardKey::block(wide.guards, 6, 23)), Some("10.0.0.0/8 tcp/23"));
    assert_eq!(said(&compiled, GuardKey::block(wide.guards, 17, 53)), None);
    let narrow = at(&compiled, "10.1.0.2");
    assert_eq!(said(&compiled, GuardKey::block(narrow.guards, 6, 23)), Some("10.0.0.0/8 tcp/23"));
    assert_eq!(said(&compiled, GuardKey::block(narrow.guards, 17, 53)), Some("10.1.0.0/16 udp/53"));
    // A block of all of it that ends leaves what holds for longer.
    let timed = at(&compiled, "10.1.2.4");
    assert_eq!((timed.rule != 0, timed.guards), (true, narrow.guards));
    // One that never ends leaves nothing to ask.
    assert_eq!(at(&compiled, "10.1.2.3").guards, 0);
    assert_eq!(at(&compiled, "8.8.8.8"), Block::NONE);
}

#[test]
fn services_alone_are_those_of_both_families() {
    let compiled = blocklist("[{ports: [tcp/23]}]");
    let (v4, v6) = (at(&compiled, "8.8.8.8"), at(&compiled, "2001:db8::1"));
    assert_eq!(v4, v6);
    assert_eq!(said(&compiled, GuardKey::block(v4.guards, 6, 23)), Some("tcp/23"));
}

#[test]
fn of_entries_for_a_service_the_one_that_lasts_longest_counts() {
    let compiled = blocklist(
        "[{cidr: 10.0.0.0/8, ports: [tcp], for: 1h}, {cidr: 10.0.0.0/8, ports: [tcp/23], for: 1m}]",
    );
    let list = at(&compiled, "10.1.0.2").guards;
    assert_eq!(said(&compiled, GuardKey::block(list, 6, 23)), Some("10.0.0.0/8 tcp"));
}

#[test]
fn an_identity_names_its_list_by_its_bindings() {
    let compiled =
        blocklist("[{labels: {app: orders}}, {spiffePath: \"spiffe://acme.example/*\", ports: [tcp/23]}]");
    let list = |addr: &str| compiled.bindings[&addr.parse().expect(addr)].guards;
    assert_eq!(said(&compiled, GuardKey::block(list("10.1.0.2"), 17, 53)), Some("labels app=orders"));
    assert_eq!(said(&compiled, GuardKey::block(list("10.9.0.53"), 17, 53)), None);
    assert_eq!(
        said(&compiled, GuardKey::block(list("10.9.0.53"), 6, 23)),
        Some("spiffe://acme.example/* tcp/23")
    );
    assert!(compiled.blocklist.is_empty());
}

#[test]
fn a_quarantine_leaves_what_it_excepts_to_whom_it_excepts() {
    let compiled = read(
        "kind: Quarantine
metadata: {name: beacon}
spec:
  identities: [{spiffeId: spiffe://acme.example/orders}]
  except: [{labels: {app: dns}, ports: [udp/53]}, {cidr: 10.8.0.5/32}, {ports: [udp/123]}]
  for: 1h
",
    )
    .expect("a quarantine");
    let class = |addr: &str| {
        let prefix: Prefix = addr.parse().expect(addr);
        lookup(&compiled.bindings, &prefix).map_or(0, |(_, binding)| binding.class)
    };
    let list = compiled.bindings[&"10.1.0.2".parse().expect("an address")].guards;
    let cut = |peer: &str, proto, port| {
        said(&compiled, GuardKey::quarantine(list, class(peer), proto, port)) == Some("beacon")
    };
    assert!(!cut("10.9.0.53", 17, 53) && cut("10.9.0.53", 6, 53) && cut("10.9.0.53", 17, 54));
    assert!(!cut("10.8.0.5", 6, 22) && !cut("10.8.0.5", 47, 0));
    assert!(cut("8.8.8.8", 17, 53) && !cut("8.8.8.8", 17, 123));
    assert_eq!(compiled.bindings[&"10.9.0.53".parse().expect("an address")].guards, 0);
    let ends: Vec<u64> = compiled.guards.values().filter(|b| b.rule != 0).map(|b| b.not_after_ns).collect();
    assert!(!ends.is_empty() && ends.iter().all(|end| *end == 4_600_000_000_000));
}

#[test]
fn what_cannot_be_is_a_mistake() {
    for (document, what) in [
        (
            "kind: Blocklist\nmetadata: {name: b}\nspec: {entries: [{reason: x}]}",
            "an item that speaks of nothing",
        ),
        (
            "kind: Blocklist\nmetadata: {name: b}\nspec: {entries: [{cidr: 10.0.0.0/8, spiffeId: spiffe://a/b}]}",
            "an item speaks of one end, this one of more",
        ),
        (
            "kind: Blocklist\nmetadata: {name: b}\nspec: {entries: [{any: true}]}",
            "unknown field `any` in an entry",
        ),
        (
            "kind: Quarantine\nmetadata: {name: q}\nspec: {identities: [{cidr: 10.0.0.0/8}]}",
            "a quarantine is for identities, not for 10.0.0.0/8",
        ),
        ("kind: Quarantine\nmetadata: {name: q}\nspec: {}", "has no `identities`"),
    ] {
        let said = read(document).expect_err("a mistake");
        assert!(said.contains(what), "{said}");
    }
}
