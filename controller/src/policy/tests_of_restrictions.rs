//! What is done about identities and is no cut: what the maps hold of it, and until when.

use super::act::Act;
use super::limits::{Bucket, Per, RateLimit};
use super::quarantine::Quarantine;
use super::time::Clock;
use super::{Compiled, Documents, Numbering, Place, Prefix, compile};
use datapath::abi::{Binding, LimitOf, NEVER, Rate, Restriction, Unit};
use jiff::{SignedDuration, Timestamp};

const S: u64 = 1_000_000_000;
const ORDERS: &str = "spiffe://td/orders";
const WORKLOADS: &str = "apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: orders}
spec: {spiffeId: spiffe://td/orders, addresses: [10.1.0.2], lease: {for: 1h, grace: 5m, onExpiry: grace}}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: guest}
spec: {spiffeId: spiffe://td/guest, addresses: [10.1.0.4]}
";
const LIMIT: &str = "---
apiVersion: tidegate.dev/v1
kind: Limit
metadata: {name: own}
spec: {identities: [{spiffeId: spiffe://td/orders}], rate: {packets: 10/s, connections: 100/s}, maxConnections: 7}
";

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().expect("time")
}

/// What is done about `orders` for so many seconds, 1000 s after boot.
fn done(act: Act, seconds: i64) -> Quarantine {
    Quarantine {
        name: format!("manual:{act}"),
        identities: vec![super::selector::Selector::SpiffeId(ORDERS.parse().expect("an ID"))],
        except: Vec::new(),
        act,
        since: Some(now()),
        reason: None,
        not_after: Some(now() + SignedDuration::from_secs(seconds)),
        place: Place { file: "test".into(), line: 1, column: 1 },
    }
}

fn compiled(files: &str, quarantines: Vec<Quarantine>) -> Compiled {
    let mut documents =
        Documents::parse("r.yaml", &format!("{WORKLOADS}{files}"), now()).unwrap_or_else(|e| panic!("{e}"));
    documents.quarantines.extend(quarantines);
    compile(&documents, &Numbering::default(), &Clock { wall_now: now(), boot_now_ns: 1_000 * S })
}

fn binding(compiled: &Compiled, addr: &str) -> Binding {
    let host: Prefix = addr.parse().expect("an address");
    super::trie::lookup(&compiled.bindings, &host).map_or(Binding::NONE, |(_, binding)| *binding)
}

fn limit(compiled: &Compiled) -> LimitOf {
    compiled.limits.get(&binding(compiled, "10.1.0.2").identity).copied().unwrap_or(LimitOf::NONE)
}

fn connections(text: &str) -> Act {
    let connections = Some(Bucket::of_a_second(text.parse().expect("a rate")));
    Act::Limit(RateLimit { connections, per: Per::Identity, ..RateLimit::default() })
}

#[test]
fn tls_and_a_cut_have_their_end_and_the_one_that_ends_last_holds() {
    let mut short = done(Act::RequireTls, 10);
    short.name = "short".into();
    let compiled = compiled("", vec![short, done(Act::RequireTls, 60), done(Act::CutFlows, 30)]);
    let of = limit(&compiled);
    assert_eq!(of.tls.not_after_ns, 1_060 * S);
    assert_eq!(compiled.rules[&of.tls.rule].label(), "quarantine/manual:require-tls");
    assert_eq!((of.cut.not_after_ns, of.opened_before_ns), (1_030 * S, 1_000 * S));
    assert_eq!(compiled.rules[&of.cut.rule].text, format!("cut-flows {ORDERS} until 2026-11-22T12:00:30Z"));
    assert_eq!((of.rule, of.rate), (0, Restriction::NONE));
    assert_eq!(binding(&compiled, "10.1.0.2").limits, Binding::RESTRICTED);
    assert_eq!(binding(&compiled, "10.1.0.4").limits, 0);
    assert!(compiled.guards.is_empty(), "nothing is cut off");
}

#[test]
fn a_limit_for_a_while_is_never_laxer_than_the_one_in_whose_place_it_stands() {
    let alone = compiled("", vec![done(connections("5/s"), 60)]);
    let of = limit(&alone);
    assert_eq!((of.rule, of.rate.not_after_ns), (0, 1_060 * S));
    assert_eq!(alone.settings[&of.rate.rule].rates[Unit::Connections as usize], Rate::new(5, S, 5));

    for (asked, connections_then) in [("5/s", Rate::new(5, S, 5)), ("1000/s", Rate::new(100, S, 100))] {
        let both = compiled(LIMIT, vec![done(connections(asked), 60)]);
        let of = limit(&both);
        assert_eq!(both.rules[&of.rule].label(), "limit/own");
        let settings = both.settings[&of.rate.rule];
        assert_eq!(settings.rates[Unit::Connections as usize], connections_then);
        assert_eq!(settings.rates[Unit::Packets as usize], Rate::new(10, S, 10));
        assert_eq!((settings.max_connections, settings.per_identity), (7, 1));
        assert_eq!(both.settings[&of.rule].rates[Unit::Connections as usize], Rate::new(100, S, 100));
    }
}

#[test]
fn a_revoked_lease_is_over_at_once_and_has_no_grace() {
    let before = binding(&compiled("", Vec::new()), "10.1.0.2");
    assert_eq!((before.not_after_ns, before.grace_s), (4_600 * S, 300));
    let revoked = compiled("", vec![done(Act::RevokeLease, 60)]);
    let after = binding(&revoked, "10.1.0.2");
    assert_eq!((after.not_after_ns, after.grace_s, after.on_expiry), (1_000 * S, 0, 0));
    assert_eq!(binding(&revoked, "10.1.0.4").not_after_ns, NEVER);
}
