//! Grants: what they compile to, what comes before them, what their end leaves, and what is a mistake in them.

use super::explain::Explanation;
use super::*;
use datapath::abi::{Addr, Limits as Bits};

const WORKLOADS: &str = "\
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: oncall}
spec: {spiffeId: spiffe://acme.example/oncall, addresses: [10.1.0.2]}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: db}
spec: {spiffeId: spiffe://acme.example/db, addresses: [10.2.0.3], labels: {app: db}}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: web}
spec: {spiffeId: spiffe://acme.example/web, addresses: [10.1.0.9]}
";
const POLICY: &str = "\
kind: Policy
metadata: {name: shop}
spec:
  rules:
    - {name: no-admin, action: deny, from: [{any: true}], to: [{labels: {app: db}}], ports: [tcp/8443]}
    - {name: watch, action: deny, from: [{any: true}], to: [{labels: {app: db}}], ports: [tcp/9000], mode: audit}
    - {name: web, action: allow, from: [{any: true}], to: [{labels: {app: db}}], ports: [tcp/443], lifetime: 1h}
";
const GRANT: &str = "\
kind: Grant
metadata: {name: incident}
spec:
  from: [{spiffeId: spiffe://acme.example/oncall}]
  to: [{spiffeId: spiffe://acme.example/db}]
  ports: [tcp/8000-9999, tcp/443]
  for: 15m
  reason: looks into an incident
";
const NOW: &str = "2026-11-22T12:00:00Z";
const BOOT_NS: u64 = 1_000_000_000_000;
const S: u64 = 1_000_000_000;

fn read(parts: &[&str]) -> Result<Documents, String> {
    let parts = parts.iter().map(|part| format!("---\napiVersion: tidegate.dev/v1\n{part}"));
    let text = WORKLOADS.to_owned() + &parts.collect::<String>();
    Documents::parse("g.yaml", &text, NOW.parse().expect("time")).map_err(|e| e.to_string())
}

/// What becomes of a connection of the person on call, or of somebody else, so many seconds from now.
fn asked(documents: &Documents, from: [u8; 4], port: u16, seconds: u64) -> Explanation {
    let clock = Clock { wall_now: NOW.parse().expect("time"), boot_now_ns: BOOT_NS };
    let compiled = compile(documents, &Numbering::default(), &clock);
    let flow = Flow { src: Addr::v4(from), dst: Addr::v4([10, 2, 0, 3]), proto: 6, port };
    explain(documents, &compiled, flow, BOOT_NS + seconds * S)
}

const ONCALL: [u8; 4] = [10, 1, 0, 2];
const WEB: [u8; 4] = [10, 1, 0, 9];

fn verdict(documents: &Documents, from: [u8; 4], port: u16, seconds: u64) -> (&'static str, Option<String>) {
    let said = asked(documents, from, port, seconds);
    (said.reason, said.rule.map(|rule| rule.label()))
}

#[test]
fn a_grant_lets_pass_what_no_rule_does_until_it_ends() {
    let before = read(&[POLICY]).expect("a policy");
    assert_eq!(verdict(&before, ONCALL, 8443, 0), ("POLICY_DENY", Some("shop/no-admin".into())));
    assert_eq!(verdict(&before, ONCALL, 8080, 0), ("POLICY_DENIED", None));
    let granted = read(&[POLICY, GRANT]).expect("a grant");
    let by_grant = ("FORWARDED", Some("grant/incident".to_owned()));
    assert_eq!(verdict(&granted, ONCALL, 8443, 0), by_grant);
    assert_eq!(verdict(&granted, ONCALL, 8080, 899), by_grant);
    for port in [8443, 8080] {
        assert_eq!(verdict(&granted, ONCALL, port, 900), ("GRANT_EXPIRED", Some("grant/incident".into())));
    }
    let over = asked(&granted, ONCALL, 8443, 900);
    assert_eq!(
        over.rule.map(|rule| rule.text).as_deref(),
        Some(
            "grant tcp/8000-9999, tcp/443 from spiffe://acme.example/oncall to spiffe://acme.example/db \
             until 2026-11-22T12:15:00Z: looks into an incident"
        )
    );
    // Nobody else, and no other port.
    assert_eq!(verdict(&granted, WEB, 8443, 0), ("POLICY_DENY", Some("shop/no-admin".into())));
    assert_eq!(verdict(&granted, ONCALL, 22, 0), ("POLICY_DENIED", None));
}

#[test]
fn what_rules_let_pass_is_theirs_with_their_limits_and_goes_on_behind_a_grant() {
    let granted = read(&[POLICY, GRANT]).expect("a grant");
    for seconds in [0, 900] {
        assert_eq!(verdict(&granted, ONCALL, 443, seconds), ("FORWARDED", Some("shop/web".into())));
        assert_eq!(verdict(&granted, ONCALL, 9000, seconds), ("POLICY_DENY", Some("shop/watch".into())));
        assert_eq!(asked(&granted, ONCALL, 9000, seconds).verdict, "AUDIT");
    }
    let without_policy = read(&[GRANT]).expect("a grant");
    assert_eq!(verdict(&without_policy, ONCALL, 8443, 900), ("FORWARDED", None));
}

#[test]
fn a_block_a_quarantine_and_a_lease_come_before_a_grant() {
    let block =
        "kind: Blocklist\nmetadata: {name: b}\nspec: {entries: [{cidr: 10.1.0.2/32, ports: [tcp/8443]}]}\n";
    let quarantine =
        "kind: Quarantine\nmetadata: {name: q}\nspec: {identities: [{labels: {app: db}}], for: 1h}\n";
    for (cut, reason, rule) in
        [(block, "BLOCKLISTED", "b/10.1.0.2/32 tcp/8443"), (quarantine, "QUARANTINED", "quarantine/q")]
    {
        let documents = read(&[POLICY, GRANT, cut]).expect(reason);
        assert_eq!(verdict(&documents, ONCALL, 8443, 0), (reason, Some(rule.into())));
    }
    let mut documents = read(&[POLICY, GRANT]).expect("a grant");
    let not_after = NOW.parse().expect("time");
    std::sync::Arc::make_mut(&mut documents.workloads)[0].lease =
        Some(document::Lease { not_after, on_expiry: document::OnExpiry::Deny, grace_s: 0 });
    assert_eq!(verdict(&documents, ONCALL, 8443, 0), ("LEASE_EXPIRED", None));
}

#[test]
fn of_several_grants_the_one_that_lasts_longest_holds_and_one_that_is_over_is_none() {
    let longer = GRANT.replace("incident}", "longer}").replace("15m", "1h");
    let documents = read(&[POLICY, GRANT, &longer]).expect("two grants");
    assert_eq!(verdict(&documents, ONCALL, 8443, 0), ("FORWARDED", Some("grant/longer".into())));
    assert_eq!(verdict(&documents, ONCALL, 8443, 900), ("FORWARDED", Some("grant/longer".into())));
    let over = GRANT.replace("for: 15m", "notAfter: 2026-11-22T12:00:00Z");
    let documents = read(&[POLICY, &over]).expect("a grant that is over");
    assert_eq!(verdict(&documents, ONCALL, 8080, 0), ("POLICY_DENIED", None));
}

#[test]
fn entries_of_a_grant_ask_for_its_end_and_the_rest_of_the_policy_is_what_it_was() {
    let clock = Clock { wall_now: NOW.parse().expect("time"), boot_now_ns: BOOT_NS };
    let granted = compile(&read(&[POLICY, GRANT]).expect("a grant"), &Numbering::default(), &clock);
    let (number, _) =
        granted.rules.iter().find(|(_, rule)| rule.label() == "grant/incident").expect("the grant");
    let settings = granted.settings[number];
    assert_eq!((settings.timed, settings.lifetime_ns), (1, BOOT_NS + 900 * S));
    let entries: Vec<_> = granted.policy.values().filter(|decision| decision.rule == *number).collect();
    assert!(
        !entries.is_empty() && entries.iter().all(|decision| u32::from(decision.limits) == Bits::LIFETIME)
    );
    let later =
        Clock { wall_now: "2026-11-22T12:15:00Z".parse().expect("time"), boot_now_ns: BOOT_NS + 900 * S };
    let again = compile(&read(&[POLICY, GRANT]).expect("a grant"), &granted.numbering, &later);
    assert!(again.policy.values().all(|decision| decision.rule != *number));
    assert!(!again.settings.contains_key(number));
}

#[test]
fn a_check_says_which_grants_do_nothing() {
    let warnings = |parts: &[&str]| -> Vec<String> {
        let documents = read(parts).expect("documents");
        check::check_documents(&documents, NOW.parse().expect("time"))
            .warnings
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    assert_eq!(warnings(&[POLICY, GRANT]), [""; 0]);
    let no_effect = GRANT.replace("tcp/8000-9999, ", "");
    assert_eq!(
        warnings(&[POLICY, &no_effect]),
        [
            "g.yaml:25:1: warning: the grant incident changes nothing: all that it is for passes without it, for the workloads that these files name: one that enrols may differ"
        ]
    );
    let over = GRANT.replace("for: 15m", "notAfter: 2026-11-22T11:00:00Z").replace("/oncall", "/nobody");
    assert_eq!(
        warnings(&[POLICY, &over]),
        [
            "g.yaml:25:1: warning: the grant incident ended at 2026-11-22T11:00:00Z",
            "g.yaml:25:1: warning: no workload that these files name matches spiffe://acme.example/nobody"
        ]
    );
}

#[test]
fn what_cannot_be_is_a_mistake() {
    for (from, to, what) in [
        ("  for: 15m\n", "", "a grant says when it ends"),
        (
            "  for: 15m\n",
            "  for: 15m\n  notAfter: 2027-01-01T00:00:00Z\n",
            "`for` and `notAfter` both say when it ends",
        ),
        ("  reason: looks into an incident\n", "", "has no `reason`"),
        ("  ports: [tcp/8000-9999, tcp/443]\n", "", "has no `ports`"),
        ("{spiffeId: spiffe://acme.example/db}", "{any: true}", "a grant is for somebody: `to` is everybody"),
        ("  for: 15m\n", "  for: 15m\n  tier: 1\n", "unknown field `tier` in the spec of a Grant"),
    ] {
        let said = read(&[&GRANT.replace(from, to)]).expect_err("a mistake");
        assert!(said.contains(what), "{said}");
    }
}
