//! What is found of rules where no Workload file says who there is.

use super::*;
use WarningKind::{Contradiction, NoEffect, Unreachable};

/// What is said of rules (name, action, from, to, more) of policies that begin with `tier: N`, beside that nobody is there.
fn found(policies: &[(u32, &[&str])]) -> Vec<(WarningKind, String)> {
    let mut text = String::new();
    for (n, (tier, rules)) in policies.iter().enumerate() {
        let rules: String = rules.iter().map(|rule| format!("    - {{{rule}}}\n")).collect();
        text += &format!(
            "---\napiVersion: tidegate.dev/v1\nkind: Policy\nmetadata: {{name: p{n}}}\nspec:\n  tier: {tier}\n  rules:\n{rules}"
        );
    }
    let now = "2026-11-22T12:00:00Z".parse().expect("a time");
    let documents = Documents::parse("p.yaml", &text, now).expect("right");
    let warnings = check_documents(&documents, now).warnings.into_iter();
    warnings.filter(|w| w.kind != WarningKind::MatchesNobody).map(|w| (w.kind, w.text)).collect()
}

const ALL: &str = "[{any: true}]";
const SHOP: &str = "[{trustDomain: shop.example}]";
const ORDERS: &str = "[{spiffeId: spiffe://shop.example/ns/a/sa/orders}]";
const NS: &str = "[{spiffePath: \"spiffe://shop.example/ns/a/*\"}]";
const SA: &str = "[{spiffePath: \"spiffe://shop.example/ns/*/sa/o*\"}]";
const WEB: &str = "[{labels: {app: web}}]";
const FRONT: &str = "[{labels: {app: web, side: front}}]";
const NET: &str = "[{cidr: 10.0.0.0/8}]";
const SUBNET: &str = "[{cidr: 10.1.0.0/16}]";
const NOT_WEB: &str = "[{trustDomain: shop.example}, {not: {labels: {app: web}}}]";
const NOT_SUBNET: &str = "[{cidr: 10.0.0.0/8}, {not: {cidr: 10.1.0.0/16}}]";
const NOT_ORDERS: &str = "[{not: {spiffeId: spiffe://shop.example/ns/a/sa/orders}}]";
const NOT_NS: &str = "[{trustDomain: shop.example}, {not: {spiffePath: \"spiffe://shop.example/ns/a/*\"}}]";

fn rule(name: &str, action: &str, from: &str, to: &str, more: &str) -> String {
    format!("name: {name}, action: {action}, from: {from}, to: {to}{more}")
}

/// What is said of an allow behind a deny.
fn behind(first: &str, second: &str) -> Vec<WarningKind> {
    let ends = |end: &str| [(end.to_owned(), WEB.to_owned()), (WEB.to_owned(), end.to_owned())];
    let both = ends(first).into_iter().zip(ends(second)).map(|((from, to), (own_from, own_to))| {
        let deny = rule("d", "deny", &from, &to, ", ports: [tcp]");
        let allow = rule("a", "allow", &own_from, &own_to, ", ports: [tcp/443]");
        found(&[(100, &[&deny, &allow])]).into_iter().map(|(kind, _)| kind).collect::<Vec<_>>()
    });
    let [as_from, as_to] = both.collect::<Vec<_>>().try_into().expect("both");
    assert_eq!(as_from, as_to, "{first} {second}");
    as_from
}

#[test]
fn an_end_within_that_of_a_rule_before_is_never_reached_and_one_beside_it_is() {
    for (first, second) in [
        (ALL, ORDERS),
        (SHOP, SHOP),
        (SHOP, ORDERS),
        (SHOP, NS),
        (SHOP, SA),
        (NS, ORDERS),
        (SA, ORDERS),
        (WEB, FRONT),
        (NET, SUBNET),
        (ALL, NOT_WEB),
        (SHOP, NOT_NS),
        (NET, NOT_SUBNET),
        (NOT_WEB, NOT_WEB),
        (NOT_ORDERS, NOT_ORDERS),
        (NOT_NS, NOT_NS),
    ] {
        assert_eq!(behind(first, second), [Contradiction], "{second} behind {first}");
    }
    for (first, second) in [
        (ORDERS, ALL),
        (ORDERS, SHOP),
        (ORDERS, NS),
        (NS, SHOP),
        (NS, SA),
        (SA, NS),
        (FRONT, WEB),
        (WEB, SHOP),
        (SHOP, WEB),
        (SUBNET, NET),
        (NET, ORDERS),
        (ORDERS, NET),
        // Whoever is orders may have the label.
        (NOT_WEB, ORDERS),
        (NOT_WEB, SHOP),
        (NOT_ORDERS, SHOP),
        (NOT_NS, SHOP),
        (NOT_SUBNET, NET),
    ] {
        assert_eq!(behind(first, second), [], "{second} behind {first}");
    }
    assert_eq!(behind(NOT_ORDERS, NOT_WEB), [], "orders without the label");
}

#[test]
fn rules_that_decide_only_together_are_named_together() {
    let both = [
        rule("low", "deny", SHOP, ALL, ", ports: [tcp/0-1023]"),
        rule("high", "deny", NS, ALL, ", ports: [tcp/1024-65535]"),
    ];
    let own = |from: &str| rule("own", "allow", from, WEB, ", ports: [tcp]");
    let said = |own: &str| found(&[(100, &[&both[0], &both[1], own])]);
    let together = "rule p0/own is never reached: together, p0/low, p0/high decide first";
    assert_eq!(said(&own(ORDERS)), [(Unreachable, together.to_owned())]);
    assert_eq!(said(&own(SHOP)), []);
}

#[test]
fn what_takes_away_and_what_stands_for_that_come_to_all() {
    let rest = rule("rest", "deny", NOT_WEB, ALL, "");
    let web = rule("web", "deny", WEB, ALL, "");
    let own = rule("own", "allow", ORDERS, WEB, "");
    assert_eq!(found(&[(100, &[&rest, &own])]), []);
    assert_eq!(
        found(&[(100, &[&rest, &web, &own])]).iter().map(|(kind, _)| *kind).collect::<Vec<_>>(),
        [Unreachable]
    );
}

#[test]
fn a_tier_that_may_be_passed_by_hides_nothing() {
    let pass = rule("p", "pass", WEB, ALL, "");
    let allow = rule("all", "allow", SHOP, ALL, "");
    let own = rule("own", "deny", ORDERS, ALL, "");
    assert_eq!(found(&[(1, &[&pass, &allow]), (2, &[&own])]), []);
    let hidden = found(&[(1, &[&allow]), (2, &[&own])]);
    assert_eq!(hidden.len(), 1);
    assert!(hidden[0].1.starts_with("rule p1/own is never reached: p0/all (p.yaml:"), "{hidden:?}");
    let idle = found(&[(1, &[&pass]), (2, &[&allow])]);
    assert_eq!(idle.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [NoEffect]);
}

#[test]
fn of_what_cannot_be_compared_nothing_is_said() {
    // Two patterns of which neither is within the other: whether both fit somebody is left open.
    let not_sa = format!("[{{trustDomain: shop.example}}, {{not: {}}}]", &SA[1..SA.len() - 1]);
    assert_eq!(behind(&not_sa, NS), []);
    // More than anybody wants to take apart.
    let many: String = (0..9).map(|n| format!(", {{not: {{labels: {{l{n}: x}}}}}}")).collect();
    assert_eq!(behind(&format!("[{{trustDomain: shop.example}}{many}]"), ORDERS), []);
}

#[test]
fn that_no_workload_is_named_is_said_once() {
    let two = |from: &str| {
        let rules = [rule("a", "allow", from, WEB, ""), rule("b", "allow", WEB, from, ", ports: [tcp/80]")];
        let rules: String = rules.iter().map(|rule| format!("    - {{{rule}}}\n")).collect();
        format!("apiVersion: tidegate.dev/v1\nkind: Policy\nmetadata: {{name: p}}\nspec:\n  rules:\n{rules}")
    };
    let warnings = |text: &str| {
        let now = "2026-11-22T12:00:00Z".parse().expect("a time");
        let documents = Documents::parse("p.yaml", text, now).expect("right");
        let warnings = check_documents(&documents, now).warnings.into_iter();
        warnings.map(|w| w.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        warnings(&two(ORDERS)),
        ["warning: no Workload: whom the selectors match is known when workloads enrol or are bound"]
    );
    // Where one is named, each that matches nobody is told of.
    let workload = "---\napiVersion: tidegate.dev/v1\nkind: Workload\nmetadata: {name: w}\nspec: {spiffeId: spiffe://shop.example/ns/a/sa/orders, addresses: [10.0.0.2/32]}\n";
    let found = warnings(&format!("{}{workload}", two(ORDERS)));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found.iter().all(|w| w.contains("no workload that these files name matches `labels app=web`")),
        "{found:?}"
    );
}

#[test]
fn of_who_enrols_nothing_is_said_that_holds_for_the_named_alone() {
    const WORKLOADS: &str = "
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: orders}
spec: {spiffeId: spiffe://shop.example/ns/a/sa/orders, addresses: [10.0.0.2/32]}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: web}
spec: {spiffeId: spiffe://shop.example/ns/b/sa/web, labels: {app: web}, addresses: [10.0.0.3/32]}
";
    let said = |rules: &[String]| {
        let rules: String = rules.iter().map(|rule| format!("    - {{{rule}}}\n")).collect();
        let text = format!(
            "apiVersion: tidegate.dev/v1\nkind: Policy\nmetadata: {{name: p}}\nspec:\n  rules:\n{rules}{}",
            &WORKLOADS[1..]
        );
        let now = "2026-11-22T12:00:00Z".parse().expect("a time");
        let documents = Documents::parse("p.yaml", &text, now).expect("right");
        let warnings = check_documents(&documents, now).warnings.into_iter();
        warnings.map(|w| (w.kind, w.text)).collect::<Vec<_>>()
    };
    let alone = |kind, text: &str| {
        (kind, format!("{text}, for the workloads that these files name: one that enrols may differ"))
    };
    let deny = |from: &str| rule("d", "deny", from, WEB, "");
    let allow = |from: &str| rule("a", "allow", from, WEB, "");
    // Of namespace a the files name orders alone.
    let hidden =
        "rule p/a contradicts p/d (p.yaml:6:7): a deny is asked before an allow, so it is never reached";
    assert_eq!(said(&[deny(ORDERS), allow(NS)]), [alone(Contradiction, hidden)]);
    assert_eq!(said(&[deny(NS), allow(ORDERS)]), [(Contradiction, hidden.to_owned())]);
    // Whether a pattern is within another is not always known.
    assert_eq!(said(&[deny(SA), allow(NS)]), [alone(Contradiction, hidden)]);
    let pass = rule("p", "pass", ORDERS, "[{spiffeId: spiffe://shop.example/ns/b/sa/web}]", "");
    let idle = "rule p/p changes nothing: no rule of its tier comes after it that it could pass by";
    assert_eq!(said(&[pass.clone(), rule("o", "allow", ORDERS, ORDERS, "")]), [(NoEffect, idle.to_owned())]);
    assert_eq!(said(&[pass, rule("w", "allow", WEB, WEB, "")]), [alone(NoEffect, idle)]);
    // An identity of the trust domain may come that is no web; one that is orders may have the label.
    let all = "rule p/a: `not` takes away all that the others match in `from`";
    let not = |added: &str, gone: &str| allow(&format!("[{added}, {{not: {gone}}}]"));
    let inner = |list: &str| list[1..list.len() - 1].to_owned();
    assert_eq!(said(&[not(&inner(ORDERS), &inner(SHOP))]), [(WarningKind::MatchesNobody, all.to_owned())]);
    assert_eq!(said(&[not(&inner(NS), &inner(ORDERS))]), [alone(WarningKind::MatchesNobody, all)]);
    let nothing = "rule p/a: `not labels app=web` takes nothing away: the others match none of it in `from`";
    assert_eq!(said(&[not(&inner(ORDERS), &inner(WEB))]), [alone(NoEffect, nothing)]);
}
