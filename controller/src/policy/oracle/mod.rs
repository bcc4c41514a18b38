//! Property tests: what is compiled against a naive reading of the documents, and commits against what packets see.
//!
//! The naive reading knows nothing of classes, tries or versions: it goes through workloads and rules one by one.

mod commits;
mod differences;
mod reach;

use super::act::Act;
use super::compile::{Compiled, compile};
use super::document::*;
use super::explain::{Flow, explain};
use super::grant::Grant;
use super::identity_limits::IdentityLimit;
use super::limits::Limits;
use super::native::host_rules;
use super::numbering::Numbering;
use super::place::Place;
use super::ports::PortMatch;
use super::prefix::Prefix;
use super::quarantine::Quarantine;
use super::scope::Scope;
use super::selector::Selector;
use super::target::Target;
use super::time::Clock;
use super::trie::{PolicyPrefix, lookup};
use datapath::abi::{Addr, Binding, Config, Decision, NEVER, Reason, Side};
use datapath::limits::timed;
use datapath::policy::{Ends, Moment, decide};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

const NOW: &str = "2026-11-22T12:00:00Z";
const PREFIXES: [&str; 22] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.0/25",
    "10.1.2.3/32",
    "10.1.2.4/32",
    "10.2.0.0/16",
    "10.2.0.1/32",
    "192.0.2.0/24",
    "192.0.2.1/32",
    "::/0",
    "::/1",
    "::/95",
    "fd00::/8",
    "fd00:1::/32",
    "fd00:1::/64",
    "fd00:1::1/128",
    "fd00:2::1/128",
    "2001:db8::/32",
    "2001:db8::1/128",
    "10.1.2.128/25",
];
const ADDRESSES: [&str; 16] = [
    "10.1.2.3",
    "10.1.2.4",
    "10.1.2.5",
    "10.1.2.200",
    "10.1.3.1",
    "10.2.0.1",
    "10.2.0.2",
    "10.9.9.9",
    "192.0.2.1",
    "192.0.2.2",
    "8.8.8.8",
    "fd00:1::1",
    "fd00:2::1",
    "fd00:1:0:1::9",
    "2001:db8::1",
    "2620::1",
];
const IDS: [&str; 5] = [
    "spiffe://a.example/ns/shop/sa/orders",
    "spiffe://a.example/ns/shop/sa/payments",
    "spiffe://a.example/ns/hr/sa/x",
    "spiffe://b.example/ns/shop/sa/orders",
    "spiffe://b.example/y",
];
const PATTERNS: [&str; 5] = [
    "spiffe://a.example/ns/shop/*",
    "spiffe://a.example/ns/*/sa/orders",
    "spiffe://b.example/*",
    "spiffe://a.example/ns/shop/sa/o*s",
    "spiffe://c.example/*",
];
const PORTS: [&str; 19] = [
    "any",
    "tcp",
    "tcp/443",
    "tcp/442-444",
    "tcp/0-1023",
    "tcp/1024-65535",
    "tcp/8000-8010",
    "tcp/443-8005",
    "udp",
    "udp/53",
    "udp/0",
    "udp/65535",
    "icmp",
    "icmp/8",
    "icmp/0-13",
    "icmpv6",
    "icmpv6/128",
    "proto/47",
    "tcp/1-65535",
];
const PROTOS: [u8; 6] = [6, 17, 1, 58, 47, 132];
const FLOW_PORTS: [u16; 20] =
    [0, 1, 8, 14, 53, 128, 441, 442, 443, 444, 445, 1023, 1024, 7999, 8000, 8005, 8006, 8010, 8011, 65535];

fn place() -> Place {
    Place { file: "test".into(), line: 1, column: 1 }
}

fn clock() -> Clock {
    Clock { wall_now: NOW.parse().expect("time"), boot_now_ns: 1_000_000_000_000 }
}

/// A moment some seconds from now.
fn moment(seconds: i64) -> jiff::Timestamp {
    clock().wall_now + jiff::SignedDuration::from_secs(seconds)
}

fn prefix() -> impl Strategy<Value = Prefix> {
    select(&PREFIXES[..]).prop_map(|text| text.parse().expect(text))
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(
        select(&["app", "env"][..]).prop_map(str::to_owned),
        select(&["x", "y"][..]).prop_map(str::to_owned),
        0..3,
    )
}

fn selector() -> impl Strategy<Value = Selector> {
    prop_oneof![
        select(&IDS[..]).prop_map(|t| Selector::SpiffeId(t.parse().expect(t))),
        select(&PATTERNS[..]).prop_map(|t| Selector::SpiffePath(t.parse().expect(t))),
        select(&["a.example", "b.example"][..]).prop_map(|t| Selector::TrustDomain(t.parse().expect(t))),
        labels().prop_filter("a label", |l| !l.is_empty()).prop_map(Selector::Labels),
        prefix().prop_map(Selector::Cidr),
        Just(Selector::Any),
    ]
}

/// An end of a rule.
fn ends() -> impl Strategy<Value = Vec<Selector>> {
    let taken = selector().prop_filter("`not` of something", |s| *s != Selector::Any);
    vec(prop_oneof![3 => selector(), 1 => taken.prop_map(|s| Selector::Not(Box::new(s)))], 1..4)
}

fn rule() -> impl Strategy<Value = Rule> {
    let action = select(
        &[RuleAction::Allow, RuleAction::Allow, RuleAction::Deny, RuleAction::Deny, RuleAction::Pass][..],
    );
    let mode = select(&[RuleMode::Enforce, RuleMode::Audit][..]);
    let ports = vec(select(&PORTS[..]).prop_map(|t| t.parse::<PortMatch>().expect(t)), 1..4);
    let lifetime = select(&[None, Some(60), Some(3600)][..]);
    (action, ends(), ends(), ports, mode, lifetime).prop_map(
        |(action, from, to, ports, mode, lifetime_seconds)| Rule {
            name: String::new(),
            action,
            from,
            to,
            ports,
            mode,
            limits: Limits { lifetime_seconds, ..Limits::default() },
            hours: None,
            place: place(),
        },
    )
}

/// Source, destination, protocol, port.
type FlowTuple = (&'static str, &'static str, u8, u16);

fn flows() -> impl Strategy<Value = Vec<FlowTuple>> {
    vec((select(&ADDRESSES[..]), select(&ADDRESSES[..]), select(&PROTOS[..]), select(&FLOW_PORTS[..])), 150)
}

fn end() -> impl Strategy<Value = Option<i64>> {
    proptest::option::of(-20_i64..100)
}

fn workload() -> impl Strategy<Value = Workload> {
    (select(&IDS[..]), vec(prefix(), 1..3), labels(), end()).prop_map(|(id, addresses, labels, end)| {
        Workload {
            name: String::new(),
            spiffe_id: id.parse().expect(id),
            addresses,
            scope: Scope::default(),
            labels,
            lease: end.map(|s| Lease { not_after: moment(s), on_expiry: OnExpiry::Alert, grace_s: 0 }),
            place: place(),
        }
    })
}

fn target() -> impl Strategy<Value = Target> {
    let end = selector().prop_filter("everyone is said by ports alone", |s| *s != Selector::Any);
    let some_end = proptest::option::weighted(0.8, end);
    let ports = vec(select(&PORTS[..]).prop_map(|t| t.parse::<PortMatch>().expect(t)), 0..3);
    let speaks = |t: &Target| t.selector.is_some() || !t.ports.is_empty();
    (some_end, ports)
        .prop_map(|(selector, ports)| Target { selector, ports })
        .prop_filter("of something", speaks)
}

fn block() -> impl Strategy<Value = BlockEntry> {
    (target(), end()).prop_map(|(target, end)| BlockEntry {
        target,
        reason: None,
        not_after: end.map(moment),
        place: place(),
    })
}

fn quarantine() -> impl Strategy<Value = Quarantine> {
    let identity = selector().prop_filter("identities", |s| !matches!(s, Selector::Any | Selector::Cidr(_)));
    (vec(identity, 1..3), vec(target(), 0..3), end()).prop_map(|(identities, except, end)| Quarantine {
        name: String::new(),
        identities,
        except,
        act: Act::Quarantine,
        since: None,
        reason: None,
        not_after: end.map(moment),
        place: place(),
    })
}

fn limit() -> impl Strategy<Value = IdentityLimit> {
    let identity = selector().prop_filter("identities", |s| !matches!(s, Selector::Cidr(_)));
    (vec(identity, 1..3), any::<bool>(), 1..9_u32).prop_map(|(identities, unidentified, max)| IdentityLimit {
        name: String::new(),
        identities,
        unidentified,
        rate: None,
        max_attempts: Some(max),
        max_connections: None,
        mode: RuleMode::Enforce,
        place: place(),
    })
}

fn grant() -> impl Strategy<Value = Grant> {
    let end = || selector().prop_filter("a grant is somebody's", |s| *s != Selector::Any);
    let ports = vec(select(&PORTS[..]).prop_map(|t| t.parse::<PortMatch>().expect(t)), 1..3);
    (vec(end(), 1..3), vec(end(), 1..3), ports, -20_i64..100).prop_map(|(from, to, ports, seconds)| Grant {
        name: String::new(),
        from,
        to,
        ports,
        not_after: moment(seconds),
        lasts_s: None,
        reason: "why".into(),
        place: place(),
    })
}

fn priority() -> impl Strategy<Value = Option<u32>> {
    select(&[None, Some(0), Some(1), Some(1000)][..])
}

fn documents() -> impl Strategy<Value = Documents> {
    let policy = (select(&[1_u32, 100, 200][..]), priority(), vec(rule(), 0..5));
    let guards = (vec(block(), 0..5), vec(quarantine(), 0..3), vec(grant(), 0..4));
    (vec(workload(), 0..6), vec(policy, 0..4), guards, vec(limit(), 0..3)).prop_map(
        |(mut workloads, policies, (entries, mut quarantines, mut grants), mut limits)| {
            // The files may not claim a prefix twice.
            let mut seen = HashSet::new();
            for workload in &mut workloads {
                workload.addresses.retain(|prefix| seen.insert(*prefix));
            }
            let named = |(n, (tier, priority, mut rules)): (usize, (u32, Option<u32>, Vec<Rule>))| {
                rules.iter_mut().enumerate().for_each(|(m, rule)| rule.name = format!("r{m}"));
                Arc::new(Policy { name: format!("p{n}"), tier, priority, rules, place: place() })
            };
            let policies = policies.into_iter().enumerate().map(named).collect();
            let blocklists = vec![Blocklist { name: "b".into(), entries, feeds: Vec::new(), place: place() }];
            quarantines.iter_mut().enumerate().for_each(|(n, q)| q.name = format!("q{n}"));
            grants.iter_mut().enumerate().for_each(|(n, grant)| grant.name = format!("g{n}"));
            limits.iter_mut().enumerate().for_each(|(n, limit)| limit.name = format!("l{n}"));
            let workloads = Arc::new(workloads);
            Documents { workloads, policies, blocklists, quarantines, grants, limits, ..Documents::default() }
        },
    )
}

fn addr(text: &str) -> Addr {
    text.parse::<std::net::IpAddr>().expect(text).into()
}

/// The workload of the longest prefix that covers an address.
fn naive_workload(documents: &Documents, at: Addr) -> Option<&Workload> {
    let claims = documents.workloads.iter().flat_map(|w| w.addresses.iter().map(move |p| (p, w)));
    claims.filter(|(p, _)| p.covers(&Prefix::host(at))).max_by_key(|(p, _)| p.bits()).map(|(_, w)| w)
}

fn naive_matches(documents: &Documents, selectors: &[Selector], at: Addr) -> bool {
    let workload = naive_workload(documents, at);
    let one = |selector: &Selector| match selector {
        Selector::Any => true,
        Selector::Cidr(prefix) => prefix.covers(&Prefix::host(at)),
        other => workload.is_some_and(|w| other.matches_workload(&w.spiffe_id, &w.labels)),
    };
    let (mut listed, mut found) = (false, false);
    for selector in selectors {
        match selector {
            Selector::Not(taken) if one(taken) => return false,
            Selector::Not(_) => {}
            other => (listed, found) = (true, found || one(other)),
        }
    }
    found || !listed
}

/// The first rule that matches: policy, rule and what it decides.
fn naive_rule(d: &Documents, src: Addr, dst: Addr, proto: u8, port: u16) -> Option<(&Policy, &Rule)> {
    let tiers: BTreeSet<u32> = d.policies.iter().map(|policy| policy.tier).collect();
    let of_tier = |tier| naive_rule_of_tier(d, tier, (src, dst), (proto, port));
    tiers.into_iter().filter_map(of_tier).find(|(_, rule)| rule.action != RuleAction::Pass)
}

fn naive_rule_of_tier(
    d: &Documents,
    tier: u32,
    (src, dst): (Addr, Addr),
    (proto, port): (u8, u16),
) -> Option<(&Policy, &Rule)> {
    let mut best: Option<(&Policy, &Rule)> = None;
    for policy in d.policies.iter().filter(|policy| policy.tier == tier) {
        for rule in &policy.rules {
            let matches = rule.ports.iter().any(|p| p.matches(proto, port))
                && naive_matches(d, &rule.from, src)
                && naive_matches(d, &rule.to, dst);
            let order = |r: &Rule| match r.action {
                RuleAction::Deny => 1,
                RuleAction::Pass => 2,
                RuleAction::Allow => 3,
            };
            let rank = |p: &Policy, r: &Rule| (p.priority.map_or(u64::MAX, u64::from), order(r));
            if matches && best.is_none_or(|(p, r)| rank(policy, rule) < rank(p, r)) {
                best = Some((policy, rule));
            }
        }
    }
    best
}

/// The grant that holds longest of those that are not over, if there is one: where no rule lets pass, it does.
fn naive_grant(d: &Documents, src: Addr, dst: Addr, proto: u8, port: u16) -> Option<&Grant> {
    let fits = |grant: &&Grant| {
        grant.not_after > moment(0)
            && grant.ports.iter().any(|p| p.matches(proto, port))
            && naive_matches(d, &grant.from, src)
            && naive_matches(d, &grant.to, dst)
    };
    // Of those that end alike, the first of the files.
    d.grants.iter().rev().filter(fits).max_by_key(|grant| grant.not_after)
}

/// Whether a target speaks of an end and a service.
fn naive_target(documents: &Documents, target: &Target, at: Addr, proto: u8, port: u16) -> bool {
    let ports = target.ports.is_empty() || target.ports.iter().any(|p| p.matches(proto, port));
    ports && target.selector.iter().all(|s| naive_matches(documents, std::slice::from_ref(s), at))
}

/// BLOCKLISTED, QUARANTINED or neither.
fn naive_guard(
    d: &Documents,
    (src, dst, proto, port): (Addr, Addr, u8, u16),
    seconds: i64,
) -> Option<Reason> {
    let holds = |end: Option<jiff::Timestamp>| end.is_none_or(|end| moment(seconds) < end);
    let blocks = |entry: &BlockEntry| {
        holds(entry.not_after)
            && [src, dst].into_iter().any(|end| naive_target(d, &entry.target, end, proto, port))
    };
    if d.blocklists.iter().flat_map(|b| &b.entries).any(blocks) {
        return Some(Reason::Blocklisted);
    }
    let cuts = |q: &Quarantine, end: Addr, peer: Addr| {
        holds(q.not_after)
            && naive_matches(d, &q.identities, end)
            && !q.except.iter().any(|target| naive_target(d, target, peer, proto, port))
    };
    let cut = d.quarantines.iter().any(|q| cuts(q, src, dst) || cuts(q, dst, src));
    cut.then_some(Reason::Quarantined)
}

/// The first limit that fits any workload of the identity, or what has none.
fn naive_limit<'d>(d: &'d Documents, workload: Option<&Workload>) -> Option<&'d IdentityLimit> {
    let fits = |limit: &&IdentityLimit| match workload {
        None => limit.unidentified || limit.identities.contains(&Selector::Any),
        Some(workload) => d.workloads.iter().filter(|w| w.spiffe_id == workload.spiffe_id).any(|w| {
            limit.identities.iter().any(|selector| selector.matches_workload(&w.spiffe_id, &w.labels))
        }),
    };
    d.limits.iter().find(fits)
}

fn decision(compiled: &Compiled, src: Addr, dst: Addr, proto: u8, port: u16) -> Decision {
    let class = |at| lookup(&compiled.bindings, &Prefix::host(at)).map_or(0, |(_, b)| b.class);
    let key = PolicyPrefix::full(class(src), class(dst), proto, port);
    lookup(&compiled.policy, &key).map_or(Decision::NONE, |(_, d)| *d)
}

fn agrees(d: &Documents, compiled: &Compiled, flows: &[FlowTuple]) -> Result<(), TestCaseError> {
    for src in ADDRESSES.map(addr) {
        let binding = lookup(&compiled.bindings, &Prefix::host(src)).map_or(Binding::NONE, |(_, b)| *b);
        let workload = naive_workload(d, src);
        prop_assert_eq!(compiled.numbering.identity_of(binding.identity), workload.map(|w| &w.spiffe_id));
        let end = workload.and_then(|w| w.lease).map_or(NEVER, |lease| {
            (1_000_000_000_000 + (lease.not_after.as_nanosecond() - clock().wall_now.as_nanosecond())) as u64
        });
        prop_assert_eq!(binding.not_after_ns, end);
        let wanted = naive_limit(d, workload);
        prop_assert_eq!(binding.limits != 0, wanted.is_some(), "limits of {}", src.to_ip());
        let found = compiled.limits.get(&binding.identity).filter(|_| binding.limits != 0);
        let found = found.map(|limit| (&compiled.rules[&limit.rule].name, compiled.settings[&limit.rule]));
        prop_assert_eq!(found.map(|(name, _)| name), wanted.map(|limit| &limit.name));
        prop_assert_eq!(found.map(|(_, s)| s.max_attempts), wanted.and_then(|limit| limit.max_attempts));
    }
    for (src, dst, proto, port) in flows {
        let (src, dst) = (addr(src), addr(dst));
        let naive = naive_rule(d, src, dst, *proto, *port);
        let found = decision(compiled, src, dst, *proto, *port);
        let info = compiled.rules.get(&found.rule);
        let drops = naive.is_none_or(|(_, r)| r.action == RuleAction::Deny && r.mode == RuleMode::Enforce);
        let granted = naive_grant(d, src, dst, *proto, *port).filter(|_| drops && !d.policies.is_empty());
        if let Some(grant) = granted {
            prop_assert_eq!(info.map(|i| i.label()), Some(format!("grant/{}", grant.name)));
            prop_assert_eq!((found.action, found.audit), (Decision::ALLOW, 0));
            continue;
        }
        prop_assert_eq!(
            info.map(|i| (i.policy.as_str(), i.name.as_str())),
            naive.map(|(p, r)| (p.name.as_str(), r.name.as_str())),
            "{} -> {} {}/{}",
            src.to_ip(),
            dst.to_ip(),
            proto,
            port
        );
        let action = naive.map_or(Decision::DEFAULT, |(_, r)| match r.action {
            RuleAction::Allow => Decision::ALLOW,
            RuleAction::Deny => Decision::DENY,
            RuleAction::Pass => unreachable!("the next tier decides"),
        });
        prop_assert_eq!(found.action, action);
        prop_assert_eq!(found.audit == 1, naive.is_some_and(|(_, r)| r.mode == RuleMode::Audit));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_compiled_decides_as_the_first_rule_that_matches(documents in documents(), flows in flows()) {
        let compiled = compile(&documents, &Numbering::default(), &clock());
        prop_assert_eq!(compiled.default_allow, documents.policies.is_empty());
        agrees(&documents, &compiled, &flows)?;
    }

    #[test]
    fn explanations_and_the_native_engine_judge_alike(d in documents(), flows in flows(), second in -30_i64..120) {
        let compiled = compile(&d, &Numbering::default(), &clock());
        let rules = host_rules(&compiled);
        let now_ns = (1_000_000_000_000 + second * 1_000_000_000) as u64;
        for (src, dst, proto, port) in flows {
            let flow = Flow { src: addr(src), dst: addr(dst), proto, port };
            let found = explain(&d, &compiled, flow, now_ns);
            let (orig_port, resp_port) = if matches!(proto, 1 | 58) { (port, 0) } else { (40_000, port) };
            let originator = Side::A;
            let ends = Ends { orig: &flow.src, resp: &flow.dst, orig_port, resp_port, proto, originator };
            let at = Moment::at(&Config { epoch: 7, ..rules.config }, now_ns);
            let mut judged = decide(&rules, &at, &ends);
            timed(&rules, &at, &mut judged);
            prop_assert_eq!((found.verdict, found.reason), (judged.action.name(), judged.reason.name()));
            let guard = naive_guard(&d, (flow.src, flow.dst, proto, port), second);
            let said = Some(judged.reason).filter(|r| matches!(r, Reason::Blocklisted | Reason::Quarantined));
            prop_assert_eq!(said, guard, "{:?}", flow);
            prop_assert_eq!(found.rule.as_ref().map(|r| r.number), compiled.rules.get(&judged.rule).map(|r| r.number));
            if judged.reason == Reason::PolicyDenied || judged.reason == Reason::InvalidIdentity {
                prop_assert_eq!(naive_rule(&d, flow.src, flow.dst, proto, port), None);
            }
        }
    }

    #[test]
    fn numbers_of_earlier_documents_change_no_decision(before in documents(), documents in documents(), flows in flows()) {
        let before = compile(&before, &Numbering::default(), &clock());
        let compiled = compile(&documents, &before.numbering, &clock());
        agrees(&documents, &compiled, &flows)?;
        prop_assert_eq!(&compile(&documents, &compiled.numbering, &clock()), &compiled);
        for (number, rule) in before.numbering.rules() {
            prop_assert!(compiled.numbering.rules().any(|known| known == (number, rule)));
        }
    }
}
