//! Limits of rules: what they compile to, what a commit writes of them, what is refused.

use super::*;
use datapath::abi::{Limits as Bits, Rate, RuleSettings, Unit};
use jiff::Timestamp;

const S: u64 = 1_000_000_000;

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().expect("time")
}

fn clock() -> Clock {
    Clock { wall_now: now(), boot_now_ns: 1_000_000_000_000 }
}

fn text(rule: &str) -> String {
    format!(
        "apiVersion: tidegate.dev/v1\nkind: Policy\nmetadata: {{name: p}}\nspec: {{rules: [{{name: r, from: [{{any: true}}], to: [{{any: true}}], {rule}}}]}}\n"
    )
}

fn compiled(rule: &str, numbering: &Numbering) -> Compiled {
    let documents = Documents::parse("p.yaml", &text(rule), now()).unwrap_or_else(|e| panic!("{e}"));
    compile(&documents, numbering, &clock())
}

fn mistake(rule: &str) -> String {
    match Documents::parse("p.yaml", &text(rule), now()) {
        Ok(documents) => panic!("no mistake was found: {documents:?}"),
        Err(mistakes) => mistakes.to_string(),
    }
}

#[test]
fn limits_become_bits_of_the_decision_and_numbers_beside_it() {
    let bits_and_settings = |rule: &str| {
        let compiled = compiled(rule, &Numbering::default());
        let bits: Vec<u8> = compiled.policy.values().map(|d| d.limits).collect();
        assert!(bits.windows(2).all(|pair| pair[0] == pair[1]), "{bits:?}");
        (u32::from(bits[0]), compiled.settings.get(&1).copied())
    };
    assert_eq!(bits_and_settings("action: allow, ports: [tcp/443]"), (0, None));
    assert_eq!(
        bits_and_settings("action: allow, ports: [tcp/443], tls: required"),
        (Bits::TLS_REQUIRED, None)
    );
    assert_eq!(bits_and_settings("action: allow, ports: [tcp/443], tls: optional"), (0, None));
    let hour = RuleSettings { lifetime_ns: 3600 * S, ..RuleSettings::NONE };
    assert_eq!(
        bits_and_settings("action: allow, lifetime: 1h, mode: audit"),
        (Bits::LIFETIME | Bits::AUDIT, Some(hour))
    );
    assert_eq!(bits_and_settings("action: deny"), (0, None));
    assert_eq!(bits_and_settings("action: reject"), (Bits::REJECT, None));
    let mut rated = RuleSettings { per_identity: 1, ..RuleSettings::NONE };
    rated.rates[Unit::Packets as usize] = Rate { units: 1000, period_ns: S, burst_ns: S / 5 };
    rated.rates[Unit::Bytes as usize] = Rate { units: 10_000_000, period_ns: S, burst_ns: S };
    rated.rates[Unit::Connections as usize] = Rate { units: 600, period_ns: 60 * S, burst_ns: S };
    assert_eq!(
        bits_and_settings(
            "action: allow, rate: {packets: 1000/s, bytes: 10MB/s, connections: 600/m, burst: {packets: 200}, per: identity}"
        ),
        (Bits::RATE, Some(rated))
    );
}

#[test]
fn a_rule_says_its_limits_in_its_line_and_in_json() {
    let compiled = compiled(
        "action: allow, ports: [tcp/443], tls: required, lifetime: 90m, rate: {bytes: 1kB/s, per: identity}",
        &Numbering::default(),
    );
    let rule = &compiled.rules[&1];
    assert_eq!(
        rule.text,
        "allow tcp/443 from any to any; tls required, lifetime 1h30m, bytes 1kB/s (burst 65535B), each identity"
    );
    let json = serde_json::to_value(rule).expect("json");
    assert_eq!(
        json["limits"],
        serde_json::json!({
            "tls": "required", "lifetime_seconds": 5400,
            "rate": {
                "bytes": {"rate": {"amount": 1000, "period": "second"}, "burst": 65535},
                "per": "identity",
            },
        })
    );
    assert_eq!(serde_json::from_value::<RuleInfo>(json).expect("a rule"), *rule);
}

#[test]
fn a_reject_is_a_deny_that_says_so() {
    let compiled = compiled("action: reject, ports: [tcp/25]", &Numbering::default());
    assert_eq!(compiled.rules[&1].text, "reject tcp/25 from any to any");
    let json = serde_json::to_value(&compiled.rules[&1]).expect("json");
    assert_eq!((&json["action"], &json["limits"]), (&"deny".into(), &serde_json::json!({"reject": true})));
}

#[test]
fn numbers_of_limits_come_and_go_with_their_epoch() {
    let before = compiled("action: allow, lifetime: 1h", &Numbering::default());
    let after = compiled("action: allow, lifetime: 2h", &before.numbering);
    let gone = compiled("action: allow", &after.numbering);
    let rule_writes = |old: &Compiled, new: &Compiled| -> Vec<(u32, u32, u64, u64)> {
        let writes = diff(old, new, 9).into_iter();
        writes
            .filter_map(|write| match write {
                MapWrite::Rule(n, v) => Some((n, v.since, v.old.lifetime_ns / S, v.new.lifetime_ns / S)),
                _ => None,
            })
            .collect()
    };
    assert_eq!(rule_writes(&Compiled::default(), &before), [(1, 9, 0, 3600)]);
    assert_eq!(rule_writes(&before, &before), []);
    assert_eq!(rule_writes(&before, &after), [(1, 9, 3600, 7200)]);
    assert_eq!(rule_writes(&after, &gone), [(1, 9, 7200, 0)]);
    assert_eq!(sweep(&before, &after), []);
    assert!(sweep(&after, &gone).contains(&MapDelete::Rule(1)));
    // Given up, the entry says in both epochs what it said before.
    let given_up: Vec<MapWrite> = diff(&before, &after, 9).into_iter().map(MapWrite::given_up).collect();
    assert!(given_up.iter().any(|w| matches!(w, MapWrite::Rule(1, v) if v.new == v.old)));
}

#[test]
fn limits_that_cannot_hold_are_mistakes() {
    for (rule, what, accepted) in [
        ("action: deny, lifetime: 1h", "`lifetime` in a rule that denies", "`action: allow`"),
        ("action: allow, tls: required", "the rule is for `any` too", "`ports: [tcp/443]`"),
        (
            "action: allow, ports: [tcp/443, udp/443], tls: required",
            "for `udp/443` too",
            "`ports: [tcp/443]`",
        ),
        ("action: allow, ports: [tcp/1], tls: yes", "`yes` is no value of `tls`", "`required`, `optional`"),
        ("action: allow, lifetime: 1w", "`1w` is not a duration", "1h30m"),
        ("action: allow, rate: {}", "`rate` limits nothing", "packets: 1000/s"),
        ("action: allow, rate: {packets: 1000}", "`1000` is no rate", "600/m"),
        ("action: allow, rate: {bytes: 10/s}", "`10/s` is no rate", "10MB/s"),
        (
            "action: allow, rate: {packets: 9/s, burst: {bytes: 1MB}}",
            "a burst of bytes without a rate",
            "10MB/s",
        ),
        (
            "action: allow, rate: {bytes: 1MB/s, burst: {bytes: 1kB}}",
            "less than one packet may have",
            "65535B",
        ),
        ("action: allow, rate: {packet: 9/s}", "unknown field `packet`", "did you mean `packets`?"),
        ("action: allow, rate: {packets: 9/s, per: source}", "`source` is no value of `per`", "`identity`"),
    ] {
        let said = mistake(rule);
        assert!(said.contains(what) && said.contains(accepted), "{rule}:\n{said}");
    }
}

#[test]
fn an_audited_allow_without_limits_is_a_finding_and_with_limits_is_none() {
    let findings = |rule: &str| {
        let documents = Documents::parse("p.yaml", &text(rule), now()).expect("documents");
        let report = check::check_documents(&documents, now());
        report.warnings.iter().filter(|w| w.kind == check::WarningKind::NoEffect).count()
    };
    assert_eq!(findings("action: allow, mode: audit"), 1);
    assert_eq!(findings("action: allow, mode: audit, lifetime: 1h"), 0);
}
