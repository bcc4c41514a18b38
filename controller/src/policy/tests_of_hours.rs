//! Rules with hours: what they compile to inside and outside, what their end cuts and what not, and what is a mistake in them.

use super::check::{WarningKind, check_documents};
use super::explain::{Explanation, MissKind};
use super::*;
use datapath::abi::{Addr, Limits as Bits, RuleSettings};
use jiff::Timestamp;

const WORKLOADS: &str = "\
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: batch}
spec: {spiffeId: spiffe://acme.example/batch, addresses: [10.1.0.2]}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: db}
spec: {spiffeId: spiffe://acme.example/db, addresses: [10.2.0.3]}
---
apiVersion: tidegate.dev/v1
kind: Policy
metadata: {name: p}
spec:
  rules:
";
const ENDS: &str =
    "from: [{spiffeId: spiffe://acme.example/batch}], to: [{spiffeId: spiffe://acme.example/db}]";
/// A Sunday.
const NOON: &str = "2026-11-22T12:00:00Z";
const DAY: &str = "hours: {zone: Europe/Berlin, open: [{days: [sun], from: \"08:00\", to: \"18:00\"}]}";
const HOUR_S: u64 = 3600;
const BOOT_NS: u64 = 1_000_000_000_000_000;

fn read(rules: &[&str]) -> Result<Documents, String> {
    let rules = rules.iter().map(|rule| format!("    - {{{rule}, {ENDS}}}\n")).collect::<String>();
    let text = WORKLOADS.to_owned() + &rules;
    Documents::parse("h.yaml", &text, NOON.parse().expect("time")).map_err(|e| e.to_string())
}

/// What becomes of a connection so many hours after the compile of a moment.
fn asked(documents: &Documents, compiled_at: &str, port: u16, hours: u64) -> Explanation {
    let clock = Clock { wall_now: compiled_at.parse().expect("time"), boot_now_ns: BOOT_NS };
    let compiled = compile(documents, &Numbering::default(), &clock);
    let flow = Flow { src: Addr::v4([10, 1, 0, 2]), dst: Addr::v4([10, 2, 0, 3]), proto: 6, port };
    explain(documents, &compiled, flow, BOOT_NS + hours * HOUR_S * 1_000_000_000)
}

fn verdict(
    documents: &Documents,
    compiled_at: &str,
    port: u16,
    hours: u64,
) -> (&'static str, Option<String>) {
    let said = asked(documents, compiled_at, port, hours);
    (said.reason, said.rule.map(|rule| rule.label()))
}

#[test]
fn what_a_rule_lets_pass_ends_with_its_hours_and_is_not_there_outside_them() {
    let documents = read(&[&format!("name: day, action: allow, ports: [tcp/443], {DAY}")]).expect("right");
    let by_rule = |reason| (reason, Some("p/day".to_owned()));
    assert_eq!(verdict(&documents, NOON, 443, 0), by_rule("FORWARDED"));
    // 18:00 in Berlin is 17:00 UTC in November: nobody compiled since.
    assert_eq!(verdict(&documents, NOON, 443, 4), by_rule("FORWARDED"));
    assert_eq!(verdict(&documents, NOON, 443, 5), by_rule("OUTSIDE_HOURS"));
    let late = asked(&documents, "2026-11-22T17:00:00Z", 443, 0);
    assert_eq!((late.reason, late.rule), ("POLICY_DENIED", None));
    assert_eq!(late.near_misses[0].kind, MissKind::Hours);
    assert_eq!(
        late.near_misses[0].text,
        "p/day would allow it sun 08:00-18:00 (Europe/Berlin); now it is sun 18:00 (Europe/Berlin) (h.yaml:16:7)"
    );
    assert_eq!(verdict(&documents, "2026-11-23T12:00:00Z", 443, 0), ("POLICY_DENIED", None), "it is Monday");
}

#[test]
fn its_end_cuts_nothing_that_another_rule_lets_pass() {
    let day = format!("name: day, action: allow, ports: [tcp/443-445], {DAY}");
    let always = "name: always, action: allow, ports: [tcp/444]";
    let documents = read(&[&day, always]).expect("right");
    let after = |port| verdict(&documents, NOON, port, 6).0;
    assert_eq!([443, 444, 445].map(after), ["OUTSIDE_HOURS", "FORWARDED", "OUTSIDE_HOURS"]);
    assert_eq!(verdict(&documents, "2026-11-22T18:00:00Z", 444, 0).1, Some("p/always".into()));
}

#[test]
fn a_deny_is_there_in_its_hours_and_the_daemon_alone_lifts_it() {
    let deny = format!("name: rest, action: deny, ports: [any], {DAY}");
    let documents = read(&["name: web, action: allow, ports: [tcp/443]", &deny]).expect("right");
    assert_eq!(verdict(&documents, NOON, 443, 0), ("POLICY_DENY", Some("p/rest".into())));
    assert_eq!(verdict(&documents, NOON, 443, 9).0, "POLICY_DENY", "no daemon, no change");
    assert_eq!(verdict(&documents, "2026-11-22T17:00:00Z", 443, 0).0, "FORWARDED");
}

#[test]
fn limits_go_with_hours_and_hours_that_never_end_are_none() {
    let clock = Clock { wall_now: NOON.parse().expect("time"), boot_now_ns: BOOT_NS };
    let with = |hours: &str| {
        let rule = format!("name: day, action: allow, ports: [tcp/443], rate: {{connections: 5/s}}, {hours}");
        let compiled = compile(&read(&[&rule]).expect("right"), &Numbering::default(), &clock);
        (*compiled.policy.values().next().expect("an entry"), compiled.settings[&1])
    };
    let (decision, settings) = with(DAY);
    assert_eq!(u64::from(decision.limits), u64::from(Bits::RATE | Bits::LIFETIME));
    let end = BOOT_NS + 5 * HOUR_S * 1_000_000_000;
    assert_eq!((settings.timed, settings.lifetime_ns), (RuleSettings::HOURS, end));
    assert_ne!(settings.rates, RuleSettings::NONE.rates);
    let (decision, settings) = with("hours: {zone: UTC, open: [{from: \"00:00\", to: \"24:00\"}]}");
    assert_eq!((u64::from(decision.limits), settings.timed), (u64::from(Bits::RATE), 0));
}

#[test]
fn what_cannot_be_meant_is_a_mistake_and_a_rule_behind_hours_is_reached() {
    for (rule, said) in [
        (format!("name: a, action: allow, lifetime: 1h, {DAY}"), "with `hours` and `lifetime`"),
        (format!("name: a, action: allow, mode: audit, {DAY}"), "with `hours` and `mode: audit`"),
        ("name: a, action: allow, hours: {zone: Nowhere, open: []}".into(), "`Nowhere` is no time zone"),
    ] {
        let error = read(&[&rule]).expect_err("a mistake");
        assert!(error.contains(said), "{error}");
    }
    let day = format!("name: day, action: allow, {DAY}");
    let warned = |rules: &[&str], now: &str| -> Vec<WarningKind> {
        let now: Timestamp = now.parse().expect("time");
        check_documents(&read(rules).expect("right"), now).warnings.into_iter().map(|w| w.kind).collect()
    };
    for now in [NOON, "2026-11-23T12:00:00Z"] {
        assert_eq!(warned(&[&day, "name: web, action: allow, ports: [tcp/443]"], now), [], "{now}");
        let behind = warned(&["name: all, action: allow", &day], now);
        assert_eq!(behind, [WarningKind::Unreachable], "{now}");
    }
}
