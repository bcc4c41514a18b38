//! Whole files: exact messages, what a small policy compiles to, explanations and findings.

use super::check::check_documents;
use super::explain::{Flow, explain};
use super::*;
use jiff::Timestamp;

const NOW: &str = "2026-11-22T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().expect("time")
}

fn clock() -> Clock {
    Clock { wall_now: now(), boot_now_ns: 1_000_000_000_000 }
}

fn mistakes(text: &str) -> String {
    match Documents::parse("shop.yaml", text, now()) {
        Ok(documents) => panic!("no mistake was found: {documents:?}"),
        Err(mistakes) => mistakes.to_string(),
    }
}

const SHOP: &str = "\
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: orders}
spec:
  spiffeId: spiffe://acme.example/ns/shop/sa/orders
  addresses: [10.1.0.2/32, \"fd00:1::2\"]
  labels: {app: orders}
  lease: {for: 1h}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: payments}
spec:
  spiffeId: spiffe://acme.example/ns/shop/sa/payments
  addresses: [10.2.0.2]
  labels: {app: payments}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: reports}
spec:
  spiffeId: spiffe://acme.example/ns/bi/sa/reports
  addresses: [10.3.0.2]
---
apiVersion: tidegate.dev/v1
kind: Policy
metadata: {name: shop}
spec:
  rules:
    - name: pay
      action: allow
      from: [{spiffeId: spiffe://acme.example/ns/shop/sa/orders}]
      to: [{labels: {app: payments}}]
      ports: [tcp/443]
    - name: no-telnet
      action: deny
      from: [{any: true}]
      to: [{any: true}]
      ports: [tcp/23]
---
apiVersion: tidegate.dev/v1
kind: Blocklist
metadata: {name: abuse}
spec:
  entries:
    - {cidr: 192.0.2.0/24, reason: port scan, for: 10m}
";

fn shop() -> Documents {
    Documents::parse("shop.yaml", SHOP, now()).expect("the shop's files are right")
}

fn why(src: &str, dst: &str, port: u16, later_s: u64) -> String {
    let documents = shop();
    let compiled = compile(&documents, &Numbering::default(), &clock());
    let addr = |text: &str| text.parse::<std::net::IpAddr>().expect(text).into();
    let flow = Flow { src: addr(src), dst: addr(dst), proto: 6, port };
    explain(&documents, &compiled, flow, clock().boot_now_ns + later_s * 1_000_000_000).to_string()
}

#[test]
fn every_mistake_of_a_file_is_shown_with_its_line() {
    let text = "\
apiVersion: tidegate.dev/v1
kind: Policy
metadata: {name: shop}
spec:
  rules:
    - name: a
      acton: allow
      from: [{cidr: 10.1.2.3/16}]
      to: [{any: true}]
      portz: [tcp/443]
---
apiVersion: tidegate.dev/v2
kind: Polcy
metadata: {name: b}
spec: {}
";
    assert_eq!(
        mistakes(text),
        "\
shop.yaml:6:7: error: a rule has no `action`
  |
6 |     - name: a
  |       ^
  = accepted: `allow`, `deny`, `reject`, `pass`

shop.yaml:7:7: error: unknown field `acton` in a rule
  |
7 |       acton: allow
  |       ^^^^^
  = accepted: `name`, `action`, `from`, `to`, `ports`, `mode`, `tls`, `lifetime`, `rate`, `hours`; did you mean `action`?

shop.yaml:8:21: error: `10.1.2.3/16` has bits set beyond its prefix length: write 10.1.0.0/16 for the network, or 10.1.2.3/32 for the address
  |
8 |       from: [{cidr: 10.1.2.3/16}]
  |                     ^^^^^^^^^^^

shop.yaml:10:7: error: unknown field `portz` in a rule
   |
10 |       portz: [tcp/443]
   |       ^^^^^
  = accepted: `name`, `action`, `from`, `to`, `ports`, `mode`, `tls`, `lifetime`, `rate`, `hours`; did you mean `ports`?

shop.yaml:12:13: error: unknown apiVersion `tidegate.dev/v2`
   |
12 | apiVersion: tidegate.dev/v2
   |             ^^^^^^^^^^^^^^^
  = accepted: `tidegate.dev/v1`

shop.yaml:13:7: error: unknown kind `Polcy`
   |
13 | kind: Polcy
   |       ^^^^^
  = accepted: `Workload`, `Policy`, `Blocklist`, `Quarantine`, `Grant`, `Limit`, `Gateway`, `Intent`; did you mean `Policy`?

6 mistakes; nothing was changed"
    );
}

#[test]
fn an_address_that_two_identities_claim_names_both_places() {
    let workload = |name: &str, id: &str| {
        format!(
            "apiVersion: tidegate.dev/v1\nkind: Workload\nmetadata: {{name: {name}}}\nspec: {{spiffeId: {id}, addresses: [10.1.0.2]}}\n"
        )
    };
    let a = workload("a", "spiffe://td/a");
    let b = workload("b", "spiffe://td/b");
    let found = Documents::parse_all(&[("a.yaml", &a), ("b.yaml", &b)], now()).expect_err("two claims");
    assert_eq!(
        found.to_string(),
        "\
b.yaml:4:45: error: 10.1.0.2/32 is ambiguous: spiffe://td/a and spiffe://td/b both claim it
  |
4 | spec: {spiffeId: spiffe://td/b, addresses: [10.1.0.2]}
  |                                             ^^^^^^^^
  = the first claim is at a.yaml:4:45; an address has one workload

1 mistake; nothing was changed"
    );
    let twice =
        Documents::parse_all(&[("a.yaml", &a), ("c.yaml", &a.replace("10.1.0.2", "10.1.0.3"))], now());
    let twice = twice.expect_err("two names").to_string();
    assert!(twice.starts_with("c.yaml:3:18: error: a second Workload is named `a`"), "{twice}");
    assert!(twice.contains("the first is at a.yaml:3:18; rename one of them"), "{twice}");
}

#[test]
fn single_mistakes_say_what_is_accepted() {
    let rule = |rest: &str| {
        let text = format!(
            "apiVersion: tidegate.dev/v1\nkind: Policy\nmetadata: {{name: p}}\nspec: {{rules: [{{name: r, {rest}}}]}}\n"
        );
        mistakes(&text)
    };
    let any = "from: [{any: true}], to: [{any: true}]";
    assert!(rule(&format!("action: alow, {any}")).contains("`alow` is no action"));
    assert!(
        rule(&format!("action: alow, {any}"))
            .contains("accepted: `allow`, `deny`, `reject`, `pass`; did you mean `allow`?")
    );
    assert!(rule(&format!("action: allow, {any}, ports: [443]")).contains("no such protocol name"));
    assert!(rule("action: allow, from: [], to: [{any: true}]").contains("`from` is an empty list"));
    assert!(
        rule("action: allow, from: [{}], to: [{any: true}]")
            .contains("a selector has one field, this one has none")
    );
    assert!(
        rule("action: allow, from: [{any: true, cidr: 10.0.0.0/8}], to: [{any: true}]").contains("has more")
    );
    assert!(
        rule("action: allow, from: [{any: false}], to: [{any: true}]")
            .contains("`false` is no value of `any`")
    );
    assert!(rule("action: allow, from: [{labels: {}}], to: [{any: true}]").contains("names no label"));
    assert!(
        rule("action: allow, action: deny, from: [{any: true}], to: [{any: true}]").contains("stands twice")
    );
    let lease = |lease: &str| {
        mistakes(&format!(
            "apiVersion: tidegate.dev/v1\nkind: Workload\nmetadata: {{name: w}}\nspec: {{spiffeId: spiffe://td/w, addresses: [10.0.0.1], lease: {lease}}}\n"
        ))
    };
    assert!(lease("{for: 1w}").contains("`1w` is not a duration"));
    assert!(lease("{notAfter: 2027-01-01}").contains("`2027-01-01` is not a time"));
    assert!(lease("{for: 1h, notAfter: 2027-01-01T00:00:00Z}").contains("keep one of them"));
    assert!(lease("{onExpiry: deny}").contains("a lease says when it ends"));
    assert!(mistakes("a: [1").contains("this is not YAML"));
    assert!(mistakes("just text").contains("a document is a single value, not a mapping"));
    let missing =
        Documents::load(&["/nonexistent/tidegate.yaml"], now()).expect_err("no such file").to_string();
    assert!(missing.starts_with("error: cannot read /nonexistent/tidegate.yaml: No such file"), "{missing}");
}

#[test]
fn directories_are_read_in_order_of_name() {
    let dir = std::env::temp_dir().join(format!("tidegate-policy-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("dir");
    let policy = |name: &str| {
        format!(
            "apiVersion: tidegate.dev/v1\nkind: Policy\nmetadata: {{name: {name}}}\nspec: {{rules: []}}\n"
        )
    };
    std::fs::write(dir.join("b.yml"), policy("second")).expect("file");
    std::fs::write(dir.join("a.yaml"), policy("first")).expect("file");
    std::fs::write(dir.join("c.txt"), "not: yaml: at all").expect("file");
    let documents = Documents::load(&[&dir], now());
    std::fs::remove_dir_all(&dir).expect("clean");
    let names: Vec<String> = documents.expect("right").policies.iter().map(|p| p.name.clone()).collect();
    assert_eq!(names, ["first", "second"]);
}

#[test]
fn documents_and_their_places_survive_json() {
    let json = serde_json::to_string(&shop()).expect("json");
    assert_eq!(serde_json::from_str::<Documents>(&json).expect("documents"), shop());
}

#[test]
fn one_more_workload_of_a_known_kind_is_one_write() {
    let old = compile(&shop(), &Numbering::default(), &clock());
    let more = format!(
        "{SHOP}---\n{}",
        "apiVersion: tidegate.dev/v1\nkind: Workload\nmetadata: {name: payments-2}\nspec: {spiffeId: spiffe://acme.example/ns/shop/sa/payments, addresses: [10.2.0.3], labels: {app: payments}}\n"
    );
    let documents = Documents::parse("shop.yaml", &more, now()).expect("right");
    let new = compile(&documents, &old.numbering, &clock());
    let writes = diff(&old, &new, 2);
    assert_eq!(writes.len(), 1, "{writes:?}");
    assert_eq!(writes[0].delete(), MapDelete::Binding("10.2.0.3".parse().expect("prefix")));
    assert_eq!(new.policy, old.policy);
    assert_eq!(diff(&new, &compile(&documents, &new.numbering, &clock()), 3), []);
}

#[test]
fn the_deciding_rule_is_named() {
    assert_eq!(
        why("10.1.0.2", "10.2.0.2", 443, 60),
        "\
FORWARDED FORWARDED: tcp/443
  from  10.1.0.2  spiffe://acme.example/ns/shop/sa/orders (orders), lease ends in 59m00s
  to    10.2.0.2  spiffe://acme.example/ns/shop/sa/payments (payments)
  rule  shop/pay (tier 100, shop.yaml:30:7): allow tcp/443 from spiffe://acme.example/ns/shop/sa/orders to labels app=payments"
    );
    let telnet = why("10.1.0.2", "10.2.0.2", 23, 0);
    assert!(telnet.starts_with("DROPPED POLICY_DENY: tcp/23"), "{telnet}");
    let blocked = why("192.0.2.7", "10.2.0.2", 443, 0);
    assert!(blocked.starts_with("DROPPED BLOCKLISTED"), "{blocked}");
    assert!(blocked.contains("block 192.0.2.0/24 until 2026-11-22T12:10:00Z: port scan"), "{blocked}");
    assert!(why("192.0.2.7", "10.2.0.2", 443, 600).starts_with("DROPPED INVALID_IDENTITY"));
}

#[test]
fn a_default_deny_names_what_was_nearest() {
    let near = |src, dst, port, later| {
        let text = why(src, dst, port, later);
        let first = text.lines().next().unwrap_or_default().to_owned();
        let nearest = text.lines().find(|l| l.starts_with("  near  ")).unwrap_or_default().to_owned();
        (first, nearest)
    };
    assert_eq!(
        near("10.1.0.2", "10.2.0.2", 8443, 0),
        (
            "DROPPED POLICY_DENIED: tcp/8443".into(),
            "  near  shop/pay would allow it on tcp/443 (shop.yaml:30:7)".into()
        )
    );
    assert_eq!(
        near("10.2.0.2", "10.1.0.2", 443, 0).1,
        "  near  shop/pay allows the other direction: 10.1.0.2 may open it to 10.2.0.2 (shop.yaml:30:7)"
    );
    assert_eq!(
        near("10.3.0.2", "10.2.0.2", 443, 0),
        (
            "DROPPED POLICY_DENIED: tcp/443".into(),
            "  near  shop/pay allows it from spiffe://acme.example/ns/shop/sa/orders (shop.yaml:30:7)".into()
        )
    );
    assert_eq!(
        near("10.9.9.9", "10.2.0.2", 443, 0),
        (
            "DROPPED INVALID_IDENTITY: tcp/443".into(),
            "  near  10.9.9.9 has no identity: no Workload has this address".into()
        )
    );
    assert_eq!(
        near("10.1.0.2", "10.2.0.2", 443, 3660),
        (
            "DROPPED LEASE_EXPIRED: tcp/443".into(),
            "  near  the lease of spiffe://acme.example/ns/shop/sa/orders (10.1.0.2) ended 1m00s ago".into()
        )
    );
}

#[test]
fn findings_name_what_is_probably_not_meant() {
    let rules = "    - {name: never, action: allow, from: [{any: true}], to: [{labels: {app: payments}}], ports: [tcp/23]}
    - {name: nobody, action: allow, from: [{trustDomain: other.example}], to: [{any: true}]}
    - {name: idle, action: allow, from: [{cidr: 10.3.0.0/16}], to: [{any: true}], ports: [udp/53], mode: audit}
---
apiVersion: tidegate.dev/v1
kind: Blocklist
";
    let text = SHOP.replace("---\napiVersion: tidegate.dev/v1\nkind: Blocklist\n", rules);
    let documents = Documents::parse("shop.yaml", &text, now()).expect("right");
    let later = now() + jiff::SignedDuration::from_secs(3600);
    assert_eq!(
        check_documents(&documents, later).to_string(),
        "\
shop.yaml:1:1: warning: the lease of workload orders ended at 2026-11-22T13:00:00Z
shop.yaml:40:7: warning: rule shop/never contradicts shop/no-telnet (shop.yaml:35:7): a deny is asked before an allow, so it is never reached
shop.yaml:41:7: warning: rule shop/nobody: no workload that these files name matches `trust domain other.example` in `from`
shop.yaml:42:7: warning: rule shop/idle: `mode: audit` changes nothing for an allow, which drops nothing
shop.yaml:49:7: warning: the block of 192.0.2.0/24 ended at 2026-11-22T12:10:00Z
ok: workloads 3, rules 5, blocked prefixes 1; classes 4, policy entries 21, warnings 5"
    );
    let empty = check_documents(&Documents::default(), now());
    assert_eq!(
        empty.to_string(),
        "warning: no Policy: everything that no blocklist or lease stops is let through\n\
         ok: workloads 0, rules 0, blocked prefixes 0; classes 1, policy entries 0, warnings 1"
    );
}

#[test]
fn the_policy_grows_with_the_rules_and_not_with_the_fleet() {
    let fleet = |size: u32| {
        let mut documents = shop();
        let place = documents.workloads[0].place.clone();
        documents.workloads = std::sync::Arc::new(
            (0..size)
                .map(|n| document::Workload {
                    name: format!("w{n}"),
                    spiffe_id: format!("spiffe://td/ns/n{}/sa/s{n}", n % 50).parse().expect("id"),
                    addresses: vec![Prefix::host(datapath::abi::Addr::v4((0x0a00_0000 + n).to_be_bytes()))],
                    scope: Default::default(),
                    labels: Default::default(),
                    lease: None,
                    place: place.clone(),
                })
                .collect(),
        );
        let rule = documents.policies[0].rules[0].clone();
        let pattern = |n: u32| {
            vec![selector::Selector::SpiffePath(format!("spiffe://td/ns/n{n}/*").parse().expect("pattern"))]
        };
        std::sync::Arc::make_mut(&mut documents.policies[0]).rules = (0..1000)
            .map(|n| document::Rule {
                name: format!("r{n}"),
                from: pattern(n % 50),
                to: pattern(n / 50),
                ..rule.clone()
            })
            .collect();
        compile(&documents, &Numbering::default(), &clock())
    };
    let (small, large) = (fleet(500), fleet(20_000));
    assert_eq!(small.policy.len(), 1000);
    assert_eq!(large.policy, small.policy);
    assert_eq!(large.bindings.len(), 20_000);
    assert_eq!(large.classes.len(), 51);
}
