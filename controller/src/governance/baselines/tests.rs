//! Whose counts are unusual, and beside whose.

use super::*;
use crate::policy::Documents;
use datapath::abi::Addr;

const INTENTS: &str = "\
apiVersion: tidegate.dev/v1
kind: Intent
metadata: {name: jobs}
spec:
  identities: [{spiffePath: \"spiffe://a.example/job/*\"}]
  workload: batch
  client: [{to: [{any: true}], ports: [any]}]
";

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn at(hour: i64) -> Timestamp {
    second(hour * 3600)
}

fn intents() -> Vec<Intent> {
    Documents::parse("intents.yaml", INTENTS, at(0)).unwrap_or_else(|e| panic!("{e}")).intents
}

fn seen(job: i64) -> Seen {
    let id = format!("spiffe://a.example/job/j{job}").parse().expect("a SPIFFE ID");
    let client = End::Identified {
        id,
        labels: Default::default(),
        address: Addr::v4([10, 1, 0, 2]),
        is_shared: false,
    };
    Seen { client, server: End::Unidentified(Addr::v4([10, 2, 0, 3])), proto: 6, port: 443 }
}

fn opened(baselines: &mut Baselines, job: i64, hour: i64, many: usize) -> Vec<String> {
    let (intents, seen) = (intents(), seen(job));
    let look = |_| baselines.look(&intents[0], &seen, Adds::Connections(1), (at(hour), None));
    (0..many).flat_map(look).filter_map(|departure| departure.detail).collect()
}

#[test]
fn jobs_of_a_class_share_a_baseline_and_one_that_does_much_more_is_said_once_an_hour() {
    let mut baselines = Baselines::default();
    for hour in 0..24 {
        // A job an hour, each with a name of its own: 40 to 63 connections.
        assert!(opened(&mut baselines, hour, hour, 40 + hour as usize).is_empty());
    }
    assert!(opened(&mut baselines, 100, 24, 156).is_empty(), "three times the usual");
    assert_eq!(
        opened(&mut baselines, 101, 24, 400),
        ["157 connections in an hour; the middle of 24 (as many hours) is 52, and half are within 6 of it"]
    );
    assert_eq!(opened(&mut baselines, 101, 25, 200).len(), 1, "another hour");
}

#[test]
fn with_too_few_hours_and_too_little_nothing_is_unusual() {
    let mut baselines = Baselines::default();
    for hour in 0..23 {
        opened(&mut baselines, 1, hour, 1);
    }
    assert!(opened(&mut baselines, 1, 23, 1000).is_empty(), "nobody knows what is usual");
    assert!(opened(&mut baselines, 1, 24, 99).is_empty(), "that is no matter");
}

#[test]
fn the_same_hour_of_other_days_counts_first() {
    let mut baselines = Baselines::default();
    for day in 0..5 {
        opened(&mut baselines, 1, day * 24 + 2, 1000);
        for hour in 3..20 {
            opened(&mut baselines, 1, day * 24 + hour, 10);
        }
    }
    assert!(opened(&mut baselines, 1, 5 * 24 + 2, 1000).is_empty(), "the backup at two");
    assert_eq!(opened(&mut baselines, 1, 5 * 24 + 3, 1000).len(), 1);
}

#[test]
fn bytes_count_and_what_was_counted_can_be_kept() {
    let (intents, seen) = (intents(), seen(1));
    let mut baselines = Baselines::default();
    for hour in 0..25 {
        assert!(baselines.look(&intents[0], &seen, Adds::Bytes(1 << 20), (at(hour), None)).is_empty());
    }
    let kept = baselines.changes();
    assert_eq!(kept.len(), 24 * 3, "the hour that runs is not known");
    let mut baselines = Baselines::of(kept);
    let found = baselines.look(&intents[0], &seen, Adds::Bytes(11 << 20), (at(26), None));
    let detail = found[0].detail.as_deref().expect("a reason");
    assert!(detail.starts_with("11534336 bytes in an hour; the middle of 24 "), "{detail}");
    // Older than four weeks is forgotten, in the file too.
    assert!(baselines.look(&intents[0], &seen, Adds::Bytes(1), (at(26 + 28 * 24), None)).is_empty());
    assert!(baselines.look(&intents[0], &seen, Adds::Bytes(1), (at(27 + 28 * 24), None)).is_empty());
    let gone = baselines.changes().iter().filter(|sample| sample.most.is_none()).count();
    assert_eq!(gone, 24 * 3);
    assert!(baselines.look(&intents[0], &seen, Adds::Bytes(11 << 20), (at(28 + 28 * 24), None)).is_empty());
}

/// Opens so many connections at once, within a lease of five minutes that was given at `since`.
fn opened_in_lease(
    baselines: &mut Baselines,
    job: i64,
    (since, now): (i64, i64),
    many: usize,
) -> Vec<String> {
    let (intents, seen) = (intents(), seen(job));
    let window = Window { since: second(since), seconds: 299 };
    let look = |_| baselines.look(&intents[0], &seen, Adds::Connections(1), (second(now), Some(window)));
    (0..many).flat_map(look).filter_map(|departure| departure.detail).collect()
}

#[test]
fn who_is_given_five_minutes_at_a_time_is_compared_with_what_others_did_in_five_minutes() {
    let mut baselines = Baselines::default();
    // Jobs with a lease each, begun at any minute, over the edges of hours; one that is renewed is counted lease by lease.
    for job in 0..20 {
        let since = job * 700 + 13;
        assert!(opened_in_lease(&mut baselines, job, (since, since + 1), 30).is_empty());
        assert!(opened_in_lease(&mut baselines, job, (since, since + 299), 20).is_empty());
    }
    for lease in 0..10 {
        let now = 20_000 + lease * 300;
        assert!(opened_in_lease(&mut baselines, 50, (20_000, now), 50).is_empty(), "lease {lease}");
    }
    assert!(opened_in_lease(&mut baselines, 98, (30_000, 30_010), 150).is_empty(), "three times the usual");
    let found = opened_in_lease(&mut baselines, 99, (30_000, 30_020), 151);
    let [said] = &found[..] else { panic!("said once, not {found:?}") };
    assert!(said.starts_with("151 connections in 5m00s of a lease; the middle of "), "{said}");
    assert!(said.ends_with(" (as many times) is 50, and half are within 0 of it"), "{said}");
    // Nobody knows what is usual of others in an hour, and leases of another length are another baseline.
    assert!(opened(&mut baselines, 99, 10, 1000).is_empty());
}

#[test]
fn a_window_is_of_the_longest_length_that_a_lease_is_as_long_as() {
    let of = |seconds: i64| span(1_000_007, Some(Window { since: second(7), seconds }));
    assert_eq!([5, 60, 299, 300, 899, 1799].map(|lease| of(lease).1), [60, 60, 300, 300, 900, 1800]);
    assert_eq!(of(300), (1_000_000 - 1_000_000 % 300 + 7, 300), "from the first lease on");
    assert_eq!(span(7201, None), (7200, 3600), "by the clock");
}

#[test]
fn of_windows_of_leases_as_many_are_remembered_as_of_hours() {
    let mut baselines = Baselines::default();
    for lease in 0..700 {
        opened_in_lease(&mut baselines, 1, (0, lease * 300), 1);
    }
    assert_eq!(baselines.of["jobs a.example"][&300][0].len(), 672);
    let changes = baselines.changes();
    assert_eq!(changes.iter().filter(|sample| sample.most.is_none()).count(), (699 - 672) * 3);
}

#[test]
fn whom_there_is_no_room_for_is_not_counted_and_that_is_said() {
    let mut baselines = Baselines::default();
    let (intents, one) = (intents(), seen(0));
    let look = |n: usize, baselines: &mut Baselines| {
        let End::Identified { labels, address, .. } = one.client.clone() else { unreachable!("somebody") };
        let id = format!("spiffe://a.example/job/j{n}").parse().expect("a SPIFFE ID");
        let client = End::Identified { id, labels, address, is_shared: false };
        let seen = Seen { client, ..one.clone() };
        baselines.look(&intents[0], &seen, Adds::Connections(1), (at(1), None));
        baselines.not_counted
    };
    let most = (0..MOST).map(|n| look(n, &mut baselines)).max();
    assert_eq!(most, Some(0));
    assert_eq!(look(7, &mut baselines), 0, "who is known is counted");
    assert_eq!([MOST, MOST + 1].map(|n| look(n, &mut baselines)), [1, 2]);
}

#[test]
fn nobody_is_blamed_for_an_address_that_is_nobodys() {
    let mut baselines = Baselines::default();
    for hour in 0..24 {
        opened(&mut baselines, 1, hour, 1);
    }
    let (intents, one) = (intents(), seen(1));
    let shared = Seen { client: End::Ambiguous(one.client.address()), ..one };
    for _ in 0..1000 {
        assert!(baselines.look(&intents[0], &shared, Adds::Connections(1), (at(24), None)).is_empty());
    }
}
