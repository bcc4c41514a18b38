//! `kind: Limit`: what is read, what the maps hold of it, what people are told.

use super::check::{self, WarningKind};
use super::compile::RuleKind;
use super::time::Clock;
use super::{Compiled, Documents, MapDelete, MapWrite, Numbering, Prefix, compile, diff, sweep};
use datapath::abi::{LimitOf, Limits as Bits, Rate, RuleSettings, Unit};
use jiff::Timestamp;

const S: u64 = 1_000_000_000;
const WORKLOADS: &str = "apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: orders}
spec: {spiffeId: spiffe://td/orders, addresses: [10.1.0.2], labels: {app: orders}}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: orders-beta}
spec: {spiffeId: spiffe://td/orders, addresses: [10.1.0.3], labels: {app: orders, track: beta}}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: guest}
spec: {spiffeId: spiffe://td/guest, addresses: [10.1.0.4]}
";

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().expect("time")
}

fn limit(name: &str, spec: &str) -> String {
    format!("---\napiVersion: tidegate.dev/v1\nkind: Limit\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
}

fn documents(limits: &[(&str, &str)]) -> Documents {
    let text: String = limits.iter().map(|(name, spec)| limit(name, spec)).collect();
    Documents::parse("l.yaml", &format!("{WORKLOADS}{text}"), now()).unwrap_or_else(|e| panic!("{e}"))
}

fn compiled(limits: &[(&str, &str)], numbering: &Numbering) -> Compiled {
    compile(&documents(limits), numbering, &Clock { wall_now: now(), boot_now_ns: 1_000 * S })
}

/// Bits of the binding that an address has, and the name of its limit.
fn limit_of(compiled: &Compiled, addr: &str) -> (u32, Option<String>) {
    let host: Prefix = addr.parse().expect("an address");
    let binding = super::trie::lookup(&compiled.bindings, &host).map(|(_, binding)| *binding);
    let (bits, identity) =
        binding.map_or((0, 0), |b| (u32::from(b.limits) << Bits::IDENTITY_SHIFT, b.identity));
    let limit = compiled.limits.get(&identity).filter(|_| bits != 0);
    (bits, limit.map(|limit| compiled.rules[&limit.rule].label()))
}

#[test]
fn a_limit_becomes_bits_of_bindings_and_numbers_by_identity() {
    let all = "rate: {packets: 1000/s, connections: 60/m, burst: {connections: 5}}, maxAttempts: 100, maxConnections: 4000, mode: audit";
    let compiled = compiled(
        &[("a", &format!("identities: [{{labels: {{app: orders}}}}], {all}"))],
        &Numbering::default(),
    );
    let bits = Bits::IDENTITY_HELD | Bits::IDENTITY_RATE | Bits::IDENTITY_OPENS;
    let label = Some("limit/a".to_owned());
    assert_eq!(limit_of(&compiled, "10.1.0.2"), (bits, label.clone()));
    assert_eq!(limit_of(&compiled, "10.1.0.3"), (bits, label));
    assert_eq!(limit_of(&compiled, "10.1.0.4"), (0, None));
    assert_eq!(limit_of(&compiled, "192.0.2.1"), (0, None));
    let mut settings = RuleSettings {
        per_identity: 1,
        audit: 1,
        max_attempts: 100,
        max_connections: 4000,
        ..RuleSettings::NONE
    };
    settings.rates[Unit::Packets as usize] = Rate { units: 1000, period_ns: S, burst_ns: S };
    settings.rates[Unit::Connections as usize] = Rate { units: 60, period_ns: 60 * S, burst_ns: 5 * S };
    let [(_, LimitOf { rule, .. })] = compiled.limits.iter().collect::<Vec<_>>()[..] else {
        panic!("{:?}", compiled.limits)
    };
    assert_eq!(compiled.settings[rule], settings);
    let info = &compiled.rules[rule];
    assert_eq!(info.kind, RuleKind::Limit);
    assert_eq!(
        info.text,
        "limit (audit) labels app=orders to 100 attempts at once, 4000 connections at once, packets 1000/s (burst 1000), connections 60/m (burst 5)"
    );
}

#[test]
fn the_bits_ask_for_no_more_than_the_limit_says() {
    for (spec, bits) in [
        ("maxAttempts: 1", Bits::IDENTITY_HELD),
        ("maxConnections: 1", Bits::IDENTITY_HELD),
        ("rate: {packets: 1/s}", Bits::IDENTITY_RATE),
        ("rate: {bytes: 1MB/s}", Bits::IDENTITY_RATE),
        ("rate: {connections: 1/s}", Bits::IDENTITY_OPENS),
    ] {
        let spec = format!("identities: [{{spiffeId: spiffe://td/guest}}], {spec}");
        let compiled = compiled(&[("a", &spec)], &Numbering::default());
        assert_eq!(limit_of(&compiled, "10.1.0.4").0, bits, "{spec}");
        assert_eq!(limit_of(&compiled, "10.1.0.2").0, 0, "{spec}");
    }
}

#[test]
fn the_first_limit_that_fits_an_identity_holds_for_all_of_its_addresses() {
    let compiled = compiled(
        &[
            ("beta", "identities: [{labels: {track: beta}}], maxAttempts: 1"),
            ("strangers", "unidentified: true, maxAttempts: 2"),
            ("all", "identities: [{any: true}], maxAttempts: 3"),
        ],
        &Numbering::default(),
    );
    let of = |addr| limit_of(&compiled, addr).1;
    // One workload of the identity has the label.
    assert_eq!(of("10.1.0.2").as_deref(), Some("limit/beta"));
    assert_eq!(of("10.1.0.3").as_deref(), Some("limit/beta"));
    assert_eq!(of("10.1.0.4").as_deref(), Some("limit/all"));
    assert_eq!(of("192.0.2.1").as_deref(), Some("limit/strangers"));
    assert_eq!(of("2001:db8::1").as_deref(), Some("limit/strangers"));
    // Whom several identities claim is limited as a stranger.
    assert_eq!(compiled.limits[&datapath::abi::Binding::AMBIGUOUS], compiled.limits[&0]);
    assert_eq!(compiled.limits.len(), 4);
}

#[test]
fn limits_come_and_go_with_their_epoch() {
    let none = compiled(&[], &Numbering::default());
    let some =
        compiled(&[("a", "identities: [{spiffeId: spiffe://td/guest}], maxAttempts: 1")], &none.numbering);
    let guest = some.limits.keys().next().copied().expect("a limit");
    let writes = |old, new| -> Vec<(u32, u32, u32, u32)> {
        let writes = diff(old, new, 9).into_iter();
        writes
            .filter_map(|write| match write {
                MapWrite::Limit(id, v) => Some((id, v.since, v.old.rule, v.new.rule)),
                _ => None,
            })
            .collect()
    };
    let rule = some.limits[&guest].rule;
    assert_eq!(writes(&none, &some), [(guest, 9, 0, rule)]);
    assert_eq!(writes(&some, &none), [(guest, 9, rule, 0)]);
    let swept = sweep(&some, &none);
    assert!(swept.contains(&MapDelete::Limit(guest)) && swept.contains(&MapDelete::Rule(rule)));
    let given_up = diff(&none, &some, 9).into_iter().map(MapWrite::given_up);
    assert!(given_up.into_iter().any(|w| matches!(w, MapWrite::Limit(_, v) if v.new == LimitOf::NONE)));
}

#[test]
fn limits_that_cannot_hold_are_mistakes() {
    for (spec, what, accepted) in [
        ("maxAttempts: 1", "has no `identities`", "for everyone"),
        ("identities: [{any: true}]", "the Limit limits nothing", "maxAttempts: 100"),
        ("identities: [{cidr: 10.0.0.0/8}], maxAttempts: 1", "not for 10.0.0.0/8", "unidentified: true"),
        ("identities: [{any: true}], maxAttempts: 0", "`0` is no number of connections", "from 1 to 1000000"),
        ("identities: [{any: true}], maxConnections: many", "`many` is no number", "a whole number"),
        ("identities: [{any: true}], rate: {packets: 1/s, per: rule}", "unknown field `per`", "`packets`"),
        ("unidentified: maybe, maxAttempts: 1", "`maybe` is no value of `unidentified`", "`true`, `false`"),
        (
            "identities: [{any: true}], maxAttempt: 1",
            "unknown field `maxAttempt`",
            "did you mean `maxAttempts`?",
        ),
    ] {
        let text = format!("{WORKLOADS}{}", limit("a", spec));
        let said = match Documents::parse("l.yaml", &text, now()) {
            Ok(documents) => panic!("no mistake was found: {documents:?}"),
            Err(mistakes) => mistakes.to_string(),
        };
        assert!(said.contains(what) && said.contains(accepted), "{spec}:\n{said}");
    }
}

#[test]
fn a_limit_of_nobody_is_a_finding() {
    let documents = documents(&[("a", "identities: [{spiffeId: spiffe://td/nobody}], maxAttempts: 1")]);
    let report = check::check_documents(&documents, now());
    let found = report.warnings.iter().filter(|w| w.kind == WarningKind::MatchesNobody);
    assert_eq!(
        found.map(|w| w.text.as_str()).collect::<Vec<_>>(),
        ["no workload that these files name matches spiffe://td/nobody"]
    );
}

#[test]
fn a_limit_that_changes_is_told_among_the_changes() {
    let before = documents(&[("a", "unidentified: true, maxAttempts: 5")]);
    let after = documents(&[("a", "unidentified: true, maxAttempts: 6")]);
    let told: Vec<_> = super::changes::changes(&before, &after).iter().map(ToString::to_string).collect();
    let [one] = &told[..] else { panic!("{told:?}") };
    let wanted = "~ limit a: limit what has no identity to 5 attempts at once\n    now limit what has no identity to 6 attempts at once";
    assert!(one.starts_with(wanted), "{one}");
}
