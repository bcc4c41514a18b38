//! What a rule takes away of its ends with `not`, and in which order policies are asked: what it compiles to, how it is told, and
//! what is a mistake in it.

use super::check::{WarningKind, check_documents};
use super::explain::Explanation;
use super::*;
use datapath::abi::Addr;
use jiff::Timestamp;

const WORKLOADS: &str = "\
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: web}
spec: {spiffeId: spiffe://acme.example/ns/shop/sa/web, addresses: [10.1.0.1, 10.9.0.1], labels: {app: web}}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: batch}
spec: {spiffeId: spiffe://acme.example/ns/batch/sa/job, addresses: [10.1.0.2], labels: {app: batch}}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: db}
spec: {spiffeId: spiffe://acme.example/ns/shop/sa/db, addresses: [10.2.0.3], labels: {app: db}}
";
const WEB: [u8; 4] = [10, 1, 0, 1];
const WEB_ELSEWHERE: [u8; 4] = [10, 9, 0, 1];
const BATCH: [u8; 4] = [10, 1, 0, 2];
const DB: [u8; 4] = [10, 2, 0, 3];
const STRANGER: [u8; 4] = [192, 0, 2, 1];
const BOOT_NS: u64 = 1_000_000_000_000_000;

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().expect("time")
}

/// Policies: what stands beside their rules, and these.
fn read(policies: &[(&str, &[&str])]) -> Result<Documents, String> {
    let mut text = WORKLOADS.to_owned();
    for (n, (spec, rules)) in policies.iter().enumerate() {
        let rules = rules.iter().map(|rule| format!("    - {{{rule}}}\n")).collect::<String>();
        text += &format!(
            "---\napiVersion: tidegate.dev/v1\nkind: Policy\nmetadata: {{name: p{n}}}\nspec:\n{spec}  rules:\n{rules}"
        );
    }
    Documents::parse("p.yaml", &text, now()).map_err(|e| e.to_string())
}

fn asked(documents: &Documents, src: [u8; 4], port: u16) -> Explanation {
    let clock = Clock { wall_now: now(), boot_now_ns: BOOT_NS };
    let compiled = compile(documents, &Numbering::default(), &clock);
    explain(documents, &compiled, Flow { src: Addr::v4(src), dst: Addr::v4(DB), proto: 6, port }, BOOT_NS)
}

/// The verdict, and the rule that decided.
fn judged(documents: &Documents, src: [u8; 4], port: u16) -> (&'static str, Option<String>) {
    let said = asked(documents, src, port);
    (said.verdict, said.rule.map(|rule| rule.label()))
}

fn warnings(documents: &Documents) -> Vec<(WarningKind, String)> {
    check_documents(documents, now()).warnings.into_iter().map(|w| (w.kind, w.text)).collect()
}

/// Who of web, web at its other address, batch and a stranger gets through to the database, with this for `from`.
fn let_through(from: &str) -> [bool; 4] {
    let rule = format!("name: r, action: allow, from: {from}, to: [{{labels: {{app: db}}}}]");
    let documents = read(&[("", &[&rule])]).expect("right");
    [WEB, WEB_ELSEWHERE, BATCH, STRANGER].map(|src| judged(&documents, src, 443).0 == "FORWARDED")
}

#[test]
fn not_takes_away_by_each_kind_of_selector() {
    let all = "{trustDomain: acme.example}";
    for taken in [
        "{spiffeId: spiffe://acme.example/ns/batch/sa/job}",
        "{spiffePath: \"spiffe://acme.example/ns/batch/*\"}",
        "{labels: {app: batch}}",
        "{cidr: 10.1.0.2/32}",
    ] {
        let from = format!("[{all}, {{not: {taken}}}]");
        assert_eq!(let_through(&from), [true, true, false, false], "{from}");
        let the_other_way_round = format!("[{{not: {taken}}}, {all}]");
        assert_eq!(let_through(&the_other_way_round), [true, true, false, false], "{the_other_way_round}");
    }
    assert_eq!(
        let_through("[{cidr: 0.0.0.0/0}, {not: {trustDomain: acme.example}}]"),
        [false, false, false, true]
    );
}

#[test]
fn an_address_is_taken_away_where_a_packet_has_it_and_not_where_its_identity_has_another() {
    let taken = "[{spiffeId: spiffe://acme.example/ns/shop/sa/web}, {not: {cidr: 10.9.0.0/16}}]";
    assert_eq!(let_through(taken), [true, false, false, false]);
}

#[test]
fn a_list_of_not_alone_is_everything_else_and_several_take_away_all_that_they_match() {
    assert_eq!(let_through("[{not: {labels: {app: batch}}}]"), [true, true, false, true]);
    let several = "[{not: {labels: {app: batch}}}, {not: {cidr: 192.0.2.0/24}}]";
    assert_eq!(let_through(several), [true, true, false, false]);
}

#[test]
fn a_rule_says_whom_it_takes_away_and_so_does_a_near_miss() {
    let rule = "name: r, action: allow, from: [{trustDomain: acme.example}, {not: {labels: {app: batch}}}], \
                to: [{not: {cidr: 10.1.0.0/16}}], ports: [tcp/443]";
    let documents = read(&[("", &[rule])]).expect("right");
    let text =
        "allow tcp/443 from trust domain acme.example, but not labels app=batch to any, but not 10.1.0.0/16";
    assert_eq!(asked(&documents, WEB, 443).rule.expect("a rule").text, text);
    let misses = asked(&documents, BATCH, 443).near_misses;
    assert_eq!(misses.len(), 1);
    assert!(
        misses[0].text.contains("allows it from trust domain acme.example, but not labels app=batch"),
        "{misses:?}"
    );
    let saved = serde_json::to_string(&documents).expect("JSON");
    assert!(saved.contains(r#"{"not":{"labels":{"app":"batch"}}}"#), "{saved}");
    assert_eq!(serde_json::from_str::<Documents>(&saved).expect("saved"), documents);
}

#[test]
fn what_takes_away_everything_or_nothing_is_found() {
    let rule = |from: &str| format!("name: r, action: allow, from: {from}, to: [{{labels: {{app: db}}}}]");
    let found = |from: &str| warnings(&read(&[("", &[&rule(from)])]).expect("right"));
    assert_eq!(
        found("[{labels: {app: web}}, {not: {trustDomain: acme.example}}]"),
        [(
            WarningKind::MatchesNobody,
            "rule p0/r: `not` takes away all that the others match in `from`, for the workloads that these files name: one that enrols may differ".to_owned()
        )]
    );
    assert_eq!(
        found("[{labels: {app: web}}, {not: {labels: {app: batch}}}]"),
        [(
            WarningKind::NoEffect,
            "rule p0/r: `not labels app=batch` takes nothing away: the others match none of it in `from`"
                .to_owned()
        )]
    );
    assert_eq!(
        found("[{not: {trustDomain: other.example}}]"),
        [(
            WarningKind::MatchesNobody,
            "rule p0/r: no workload that these files name matches `not trust domain other.example` in `from`"
                .to_owned()
        )]
    );
    assert_eq!(found("[{trustDomain: acme.example}, {not: {labels: {app: batch}}}]"), []);
}

#[test]
fn a_rule_is_shadowed_only_by_what_takes_nothing_of_it_away() {
    let deny = |from: &str| format!("name: d, action: deny, from: {from}, to: [{{any: true}}]");
    let allow = "name: a, action: allow, from: [{labels: {app: batch}}], to: [{labels: {app: db}}]";
    let found = |from: &str| warnings(&read(&[("", &[&deny(from), allow])]).expect("right"));
    assert_eq!(found("[{trustDomain: acme.example}, {not: {labels: {app: batch}}}]"), []);
    let shadowed = found("[{trustDomain: acme.example}, {not: {labels: {app: web}}}]");
    assert_eq!(shadowed.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [WarningKind::Contradiction]);
}

#[test]
fn mistakes_in_not_point_at_it() {
    let wrong = |from: &str| {
        let rule = format!("name: r, action: allow, from: {from}, to: [{{any: true}}]");
        read(&[("", &[&rule])]).expect_err("a mistake")
    };
    for (from, what) in [
        ("[{not: {any: true}}]", "`not` of everything leaves nothing"),
        ("[{not: {not: {trustDomain: a.example}}}]", "unknown field `not` in a selector"),
        ("[{not: acme.example}]", "a selector is"),
        ("[{trustDomain: a.example, not: {trustDomain: b.example}}]", "a selector has one field"),
    ] {
        let text = wrong(from);
        assert!(text.contains(what) && text.contains("p.yaml:"), "{from}: {text}");
    }
    let grant = format!(
        "{WORKLOADS}---\napiVersion: tidegate.dev/v1\nkind: Grant\nmetadata: {{name: g}}\nspec: {{from: [{{not: {{cidr: 10.0.0.0/8}}}}], \
         to: [{{labels: {{app: db}}}}], ports: [tcp/1], for: 1h, reason: x}}\n"
    );
    let text = Documents::parse("g.yaml", &grant, now()).expect_err("a mistake").to_string();
    assert!(text.contains("unknown field `not` in a selector"), "{text}");
}

const TO_DB: &str = "from: [{trustDomain: acme.example}], to: [{labels: {app: db}}]";

#[test]
fn a_lower_priority_is_asked_first_and_a_policy_without_one_last() {
    let (allow, deny) =
        (format!("name: a, action: allow, {TO_DB}"), format!("name: d, action: deny, {TO_DB}"));
    let first = |specs: [&str; 2]| {
        let documents = read(&[(specs[0], &[&deny]), (specs[1], &[&allow])]).expect("right");
        judged(&documents, WEB, 443)
    };
    let denied = ("DROPPED", Some("p0/d".to_owned()));
    let allowed = ("FORWARDED", Some("p1/a".to_owned()));
    assert_eq!(first(["", ""]), denied, "a deny comes first");
    assert_eq!(first(["  priority: 5\n", "  priority: 5\n"]), denied);
    assert_eq!(first(["  priority: 5\n", "  priority: 4\n"]), allowed);
    assert_eq!(first(["", "  priority: 4000000000\n"]), allowed);
    assert_eq!(first(["  priority: 0\n", ""]), denied);
    assert_eq!(first(["  tier: 1\n", "  tier: 2\n  priority: 0\n"]), denied, "the tier comes first");
}

#[test]
fn a_rule_tells_its_priority_and_one_that_it_hides_is_found() {
    let (allow, deny) =
        (format!("name: a, action: allow, {TO_DB}"), format!("name: d, action: deny, {TO_DB}"));
    let documents = read(&[("  priority: 7\n", &[&deny]), ("  priority: 3\n", &[&allow])]).expect("right");
    let said = asked(&documents, WEB, 443);
    assert_eq!(said.rule.as_ref().map(|rule| (rule.tier, rule.priority)), Some((100, Some(3))));
    assert!(said.to_string().contains("rule  p1/a (tier 100, priority 3, p.yaml:"), "{said}");
    let found = warnings(&documents);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, WarningKind::Contradiction);
    assert!(found[0].1.ends_with("its priority puts that first, so it is never reached"), "{}", found[0].1);
    let text = read(&[("  priority: -1\n", &[&allow])]).expect_err("a mistake");
    assert!(text.contains("`-1` is no priority"), "{text}");
}

#[test]
fn a_pass_leaves_what_it_is_about_to_the_next_tier_that_speaks_of_it() {
    let cut = "name: batch-is-somebody-elses, action: pass, from: [{labels: {app: batch}}], to: [{any: true}], ports: [tcp/443-444]";
    let allow = format!("name: all, action: allow, {TO_DB}");
    let below = "name: cut, action: deny, from: [{any: true}], to: [{any: true}], ports: [tcp/443]";
    let documents = read(&[("  tier: 1\n", &[&allow, cut]), ("  tier: 2\n", &[below])]).expect("right");
    let by = |rule: &str| Some(rule.to_owned());
    assert_eq!(judged(&documents, BATCH, 443), ("DROPPED", by("p1/cut")));
    assert_eq!(judged(&documents, BATCH, 444), ("DROPPED", None), "no further tier speaks of it");
    assert_eq!(judged(&documents, BATCH, 445), ("FORWARDED", by("p0/all")));
    assert_eq!(judged(&documents, WEB, 443), ("FORWARDED", by("p0/all")));
    assert_eq!(warnings(&documents), []);
    for port in [443, 444] {
        let misses = asked(&documents, BATCH, port).near_misses;
        let text = "p0/all would allow it, but p0/batch-is-somebody-elses passes its tier by";
        assert!(misses.iter().any(|miss| miss.text.starts_with(text)), "{port}: {misses:?}");
    }
}

#[test]
fn a_deny_of_its_tier_comes_before_a_pass_and_a_priority_before_both() {
    let deny = format!("name: d, action: deny, {TO_DB}, ports: [tcp/1]");
    let pass = format!("name: p, action: pass, {TO_DB}");
    let allow = format!("name: a, action: allow, {TO_DB}");
    let documents = read(&[("  tier: 1\n", &[&pass, &deny]), ("  tier: 2\n", &[&allow])]).expect("right");
    assert_eq!(judged(&documents, WEB, 1), ("DROPPED", Some("p0/d".to_owned())));
    assert_eq!(judged(&documents, WEB, 2), ("FORWARDED", Some("p1/a".to_owned())));
    let first = "  tier: 1\n  priority: 1\n";
    let documents =
        read(&[("  tier: 1\n", &[&deny]), (first, &[&pass]), ("  tier: 2\n", &[&allow])]).expect("right");
    assert_eq!(judged(&documents, WEB, 1), ("FORWARDED", Some("p2/a".to_owned())));
}

#[test]
fn a_pass_that_changes_nothing_and_a_rule_that_one_passes_by_are_found() {
    let pass = format!("name: p, action: pass, {TO_DB}");
    let allow = format!("name: a, action: allow, {TO_DB}");
    let found = |policies: &[(&str, &[&str])]| warnings(&read(policies).expect("right"));
    let idle = found(&[("  tier: 1\n", &[&pass]), ("  tier: 2\n", &[&allow])]);
    assert_eq!(
        idle,
        [(
            WarningKind::NoEffect,
            "rule p0/p changes nothing: no rule of its tier comes after it that it could pass by".to_owned()
        )]
    );
    let passed_by = found(&[("", &[&pass, &allow])]);
    assert_eq!(passed_by.len(), 1);
    assert_eq!(passed_by[0].0, WarningKind::Unreachable);
    assert!(passed_by[0].1.ends_with("passes its tier by"), "{}", passed_by[0].1);
    let again = found(&[("  tier: 1\n", &[&pass, &allow_all()]), ("  tier: 2\n", &[&pass, &allow])]);
    assert!(
        !again.iter().any(|(_, text)| text.starts_with("rule p1/p ")),
        "the first tier is passed by: {again:?}"
    );
    let deny = format!("name: d, action: deny, {TO_DB}");
    let hidden = found(&[("", &[&deny, &pass])]);
    assert_eq!(hidden.len(), 1);
    assert!(hidden[0].1.starts_with("rule p0/p is never reached: p0/d ("), "{}", hidden[0].1);
}

#[test]
fn a_pass_has_neither_limits_nor_audit() {
    for (field, what) in [
        ("lifetime: 1h", "`lifetime` in a rule that passes on to the next tier"),
        ("mode: audit", "`mode: audit` of a rule with `action: pass`"),
    ] {
        let text =
            read(&[("", &[&format!("name: p, action: pass, {field}, {TO_DB}")])]).expect_err("a mistake");
        assert!(text.contains(what), "{text}");
    }
}

fn allow_all() -> String {
    "name: everything, action: allow, from: [{any: true}], to: [{any: true}]".to_owned()
}
