//! Tenants that share an intent: what is usual in one is no baseline of the other.

use super::*;
use crate::policy::Documents;
use crate::policy::intent::Intent;
use datapath::abi::{Addr, HandshakeKind, HandshakeOutcome};
use jiff::Timestamp;
use std::collections::BTreeMap;

const INTENTS: &str = "\
apiVersion: tidegate.dev/v1
kind: Intent
metadata: {name: jobs}
spec:
  identities: [{spiffePath: \"spiffe://a.example/*\"}, {spiffePath: \"spiffe://b.example/*\"}]
  workload: batch
  client: [{to: [{any: true}], ports: [any]}]
";

/// Two namespaces, and another trust domain with a namespace of the same name.
const JOBS: [&str; 3] = [
    "spiffe://a.example/ns/shop/sa/job",
    "spiffe://a.example/ns/bank/sa/job",
    "spiffe://b.example/ns/shop/sa/job",
];

fn intents() -> Vec<Intent> {
    Documents::parse("intents.yaml", INTENTS, at(0)).unwrap_or_else(|e| panic!("{e}")).intents
}

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(minute * 60).expect("a time")
}

fn seen(id: &str) -> Seen {
    let id = id.parse().expect("a SPIFFE ID");
    let client =
        End::Identified { id, labels: BTreeMap::new(), address: Addr::v4([10, 1, 0, 2]), is_shared: false };
    Seen { client, server: End::Unidentified(Addr::v4([10, 2, 0, 3])), proto: 6, port: 443 }
}

fn said(departures: &[Departure<'_>]) -> Vec<String> {
    departures.iter().filter_map(|departure| departure.detail.clone()).collect()
}

#[test]
fn counts_of_one_tenant_are_no_baseline_of_another() {
    let (intents, mut baselines) = (intents(), Baselines::default());
    let mut opened = |id: &str, hour: i64, many: u64| {
        said(&baselines.look(&intents[0], &seen(id), Adds::Connections(many), (at(hour * 60), None)))
    };
    for hour in 0..24 {
        // What is little in one would be very much in the other.
        assert!(opened(JOBS[0], hour, 10).is_empty());
        assert!(opened(JOBS[1], hour, 5000).is_empty(), "hour {hour}");
    }
    let found = opened(JOBS[0], 24, 5000);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].ends_with("the middle of 24 (as many hours) is 10, and half are within 0 of it"),
        "{found:?}"
    );
    assert!(opened(JOBS[1], 24, 5000).is_empty(), "that is usual there");
    assert!(opened(JOBS[2], 24, 5000).is_empty(), "nobody knows what is usual there");
}

#[test]
fn baselines_that_were_kept_stay_those_of_their_tenants_and_those_of_no_tenant_are_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("observed.db");
    let intents = intents();
    let (mut file, kept) = ObservedFile::open(&path, at(0)).expect("a file");
    let mut baselines = kept.baselines;
    for hour in 0..25 {
        baselines.look(&intents[0], &seen(JOBS[0]), Adds::Connections(10), (at(hour * 60), None));
    }
    let mut changes = Changes { baselines: baselines.changes(), ..Changes::default() };
    assert!(changes.baselines.iter().all(|sample| sample.class == "jobs a.example/ns/shop"));
    // As a version wrote it that told no tenants apart.
    let old = |sample: &Sample| Sample { class: "jobs".into(), most: Some(9999), ..sample.clone() };
    let old: Vec<_> = changes.baselines.iter().map(old).collect();
    let many = changes.baselines.len();
    changes.baselines.extend(old);
    file.write(&changes).expect("written");
    drop(file);
    let rows = |path| -> usize {
        let db = rusqlite::Connection::open(path).expect("the file");
        db.query_row("SELECT count(*) FROM baselines", [], |row| row.get(0)).expect("a count")
    };
    assert_eq!(rows(&path), 2 * many);
    let (_, kept) = ObservedFile::open(&path, at(0)).expect("the same");
    assert_eq!(rows(&path), many);
    let mut baselines = kept.baselines;
    let look =
        |id| baselines.look(&intents[0], &seen(id), Adds::Connections(1000), (at(26 * 60), None)).len();
    assert_eq!(JOBS.map(look), [1, 0, 0]);
}

#[test]
fn handshakes_that_fail_or_are_slow_in_one_tenant_say_nothing_of_another() {
    use HandshakeOutcome::{Alert, Completed};
    let (intents, mut failures, mut latencies) = (intents(), Failures::default(), Latencies::default());
    // The server's side of nobody: each class is a tenant's clients with it.
    for _ in 0..100 {
        failures.look(&intents, &seen(JOBS[0]), (HandshakeKind::Tls, Completed), at(0));
        failures.look(&intents, &seen(JOBS[1]), (HandshakeKind::Tls, Alert), at(0));
        latencies.look(&intents, &seen(JOBS[0]), (HandshakeKind::Tls, 1_000_000), at(0));
        latencies.look(&intents, &seen(JOBS[1]), (HandshakeKind::Tls, 90_000_000), at(0));
    }
    let fail = |failures: &mut Failures, id| {
        let found =
            (0..5).map(|_| failures.look(&intents, &seen(id), (HandshakeKind::Tls, Alert), at(20)).len());
        found.sum::<usize>()
    };
    assert_eq!(fail(&mut failures, JOBS[0]), 1, "the fifth, where all went well before");
    assert_eq!(fail(&mut failures, JOBS[1]), 0, "where all fail, that is usual");
    let shift = |latencies: &mut Latencies, id| {
        let slow = (HandshakeKind::Tls, 90_000_000);
        (0..20).map(|_| latencies.look(&intents, &seen(id), slow, at(20)).len()).sum::<usize>()
    };
    assert_eq!(shift(&mut latencies, JOBS[0]), 1);
    assert_eq!(shift(&mut latencies, JOBS[1]), 0, "as ever");
    assert_eq!(shift(&mut latencies, JOBS[2]), 0, "nobody knows what is usual there");
}
