use super::files::number;
use super::story::{Story, Wanted};
use super::{Cursor, Files, Follow, Log, Pen};
use serde_json::{Value, json};
use std::path::Path;
use std::thread::JoinHandle;
use tempfile::tempdir;

const MIB: u64 = 1 << 20;

fn write(folder: &Path, budget: u64) -> (Pen, JoinHandle<()>) {
    let (pen, log) = Log::open(Files::new(folder), budget).unwrap();
    (pen, std::thread::spawn(move || log.run()))
}

fn end((pen, writer): (Pen, JoinHandle<()>)) {
    pen.finish();
    drop(pen);
    writer.join().unwrap();
}

fn all(files: &Files) -> Vec<u64> {
    let mut numbers = Vec::new();
    files.each(|_| true, |event| numbers.push(number(&event))).unwrap();
    numbers
}

fn verdict(n: usize) -> Value {
    json!({"event": "verdict", "n": n, "text": "x".repeat(1000)})
}

#[test]
fn numbers_go_on_after_a_restart_and_every_event_can_be_found() {
    let folder = tempdir().unwrap();
    let files = Files::new(folder.path());
    assert_eq!(files.last().unwrap(), 0);
    for run in 0..3 {
        let log = write(folder.path(), MIB);
        (0..10).for_each(|n| drop(log.0.write(json!({"event": "finding", "run": run, "n": n}))));
        end(log);
    }
    assert_eq!(all(&files), (1..=30).collect::<Vec<_>>());
    assert_eq!(files.list().unwrap().iter().map(|file| file.first).collect::<Vec<_>>(), [1, 11, 21]);
    assert_eq!(files.find(17).unwrap(), json!({"id": 17, "event": "finding", "run": 1, "n": 6}));
    let error = files.find(31).unwrap_err().to_string();
    assert_eq!(error, "event 31 is not kept: the last one has the number 30");
}

#[test]
fn the_oldest_make_room_and_a_torn_line_costs_no_other() {
    let folder = tempdir().unwrap();
    let log = write(folder.path(), MIB);
    // The queue holds fewer than these: they are written as they come.
    for n in 0..3000 {
        drop(log.0.write(verdict(n)));
        if n % 500 == 0 {
            log.0.finish();
        }
    }
    assert_eq!(log.0.lost.load(std::sync::atomic::Ordering::Relaxed), 0);
    end(log);
    let files = Files::new(folder.path());
    let bytes: u64 = files.list().unwrap().iter().map(|file| file.bytes).sum();
    assert!(bytes <= MIB && bytes > MIB / 2, "{bytes}");
    let kept = all(&files);
    assert_eq!((kept.last(), kept.len()), (Some(&3000), (3001 - kept[0]) as usize), "whole from {}", kept[0]);
    let error = files.find(1).unwrap_err().to_string();
    assert_eq!(error, format!("event 1 is not kept: the oldest that is has the number {}", kept[0]));
    // What was not written whole.
    let last = files.list().unwrap().pop().unwrap();
    let text = std::fs::read(&last.path).unwrap();
    std::fs::write(&last.path, &text[..text.len() - 10]).unwrap();
    assert_eq!(files.last().unwrap(), 2999);
    let log = write(folder.path(), MIB);
    drop(log.0.write(verdict(1)));
    end(log);
    assert_eq!(
        all(&files)[kept.len() - 2..],
        [2999, 3000],
        "a number that nobody can have read is given again"
    );
}

#[test]
fn decisions_are_written_where_traffic_has_no_room() {
    let folder = tempdir().unwrap();
    // Nobody writes.
    let (pen, _log) = Log::open(Files::new(folder.path()), MIB).unwrap();
    let lost = || pen.lost.load(std::sync::atomic::Ordering::Relaxed);
    (0..16_384).for_each(|n| drop(pen.write(json!({"event": "verdict", "n": n}))));
    assert_eq!(lost(), 2048);
    (0..2048).for_each(|n| drop(pen.write(json!({"event": "finding", "n": n}))));
    assert_eq!(lost(), 2048);
    drop(pen.write(json!({"event": "finding"})));
    assert_eq!(lost(), 2049);
}

#[test]
fn a_reader_goes_on_from_where_it_was_through_files_that_come_and_go() {
    let folder = tempdir().unwrap();
    let files = Files::new(folder.path());
    let mut follow = Follow::after(files.clone(), 0);
    assert_eq!(follow.batch().unwrap().events.len(), 0);
    let log = write(folder.path(), MIB);
    let mut read = Vec::new();
    for n in 0..900 {
        drop(log.0.write(verdict(n)));
        if n % 7 == 0 {
            log.0.finish();
            let batch = follow.batch().unwrap();
            assert_eq!(batch.missing, 0);
            read.extend(batch.events.iter().map(number));
        }
    }
    end(log);
    assert!(files.list().unwrap().len() > 10);
    let mut rest = |follow: &mut Follow| {
        let mut missing = 0;
        loop {
            let batch = follow.batch().unwrap();
            missing += batch.missing;
            if batch.events.is_empty() {
                return missing;
            }
            read.extend(batch.events.iter().map(number));
        }
    };
    assert_eq!(rest(&mut follow), 0);
    // Another that begins in the middle, and one whose next events are gone.
    assert_eq!(rest(&mut Follow::after(files.clone(), 890)), 0);
    let list = files.list().unwrap();
    std::fs::remove_file(&list[0].path).unwrap();
    assert_eq!(rest(&mut Follow::after(files, 0)), list[1].first - 1);
    let expected: Vec<u64> = (1..=900).chain(891..=900).chain(list[1].first..=900).collect();
    assert_eq!(read, expected);
}

#[test]
fn a_cursor_is_kept_and_one_that_is_spoiled_says_what_to_do() {
    let folder = tempdir().unwrap();
    let open = || Cursor::open(folder.path(), "webhook", || Ok(7));
    assert_eq!(open().unwrap().last(), 7);
    open().unwrap().advance(12).unwrap();
    assert_eq!(open().unwrap().last(), 12);
    std::fs::write(folder.path().join("webhook.cursor"), "x").unwrap();
    let error = open().unwrap_err();
    assert!(error.to_string().contains("webhook.cursor holds no number"), "{error}");
}

const ORDERS: &str = "spiffe://a.example/orders";

fn seen(second: u32, verdict: &str, port: u16) -> Value {
    json!({
        "time": format!("2026-11-01T12:00:{second:02}Z"), "event": "verdict", "verdict": verdict,
        "drop_reason_desc": if verdict == "DROPPED" { "POLICY_DENIED" } else { "FORWARDED" },
        "rule": (verdict == "FORWARDED").then_some("shop/pay"), "l4": {"TCP": {"source_port": 40_000 + second, "destination_port": port}},
        "IP": {"source": "10.0.0.1", "destination": "10.0.0.2"},
        "source": {"spiffe_id": ORDERS}, "destination": {"spiffe_id": null},
    })
}

#[test]
fn a_story_tells_what_repeats_once_and_decisions_each() {
    let finding = json!({
        "time": "2026-11-01T12:00:07Z", "event": "finding",
        "finding": {"id": 3, "decision": "flag", "why": "because", "identities": [ORDERS]},
    });
    let record = json!({
        "time": "2026-11-01T12:00:08Z", "event": "record",
        "record": {"v": 1, "seq": 9, "prev": "", "at": "2026-11-01T12:00:08Z", "kind": "finding",
            "by": {"who": "root", "how": "findings resolve"}, "about": [ORDERS], "what": {"finding": 3}},
    });
    let failed = json!({
        "time": "2026-11-01T12:00:05Z", "event": "handshake", "verdict": "FORWARDED",
        "handshake": {"kind": "tls", "outcome": "alert", "alert": "unknown_ca"}, "l4": {"TCP": {"destination_port": 443}},
        "source": {"spiffe_id": ORDERS}, "destination": {"spiffe_id": "spiffe://a.example/pay"},
    });
    let other = json!({"time": "2026-11-01T12:00:09Z", "event": "enrolment", "source": {"spiffe_id": "spiffe://a.example/orders2"}});
    let events = [
        seen(1, "FORWARDED", 443),
        seen(2, "DROPPED", 22),
        seen(3, "FORWARDED", 443),
        failed,
        seen(6, "FORWARDED", 443),
        finding,
        record,
        other,
    ];
    let told = |identity: &str, since: Option<&str>| {
        let since = since.map(|since| since.parse().unwrap());
        let wanted = Wanted { identity: identity.into(), since, until: None };
        let (mut story, mut chosen) = (Story::of(identity), wanted.chosen());
        events.iter().filter(|event| chosen.takes(event)).for_each(|event| story.add(event));
        story.lines().collect::<Vec<_>>()
    };
    assert_eq!(
        told(ORDERS, None),
        [
            "2026-11-01T12:00:01Z  spiffe://a.example/orders -> 10.0.0.2 tcp/443: FORWARDED, rule shop/pay (2 times more, the last at 2026-11-01T12:00:06Z)",
            "2026-11-01T12:00:02Z  spiffe://a.example/orders -> 10.0.0.2 tcp/22: DROPPED, POLICY_DENIED",
            "2026-11-01T12:00:05Z  spiffe://a.example/orders -> spiffe://a.example/pay tcp/443: tls handshake alert (unknown_ca)",
            "2026-11-01T12:00:07Z  finding 3 (flag): because",
            "2026-11-01T12:00:08Z  root (findings resolve): finding finding 3",
        ]
    );
    assert_eq!(told(ORDERS, Some("2026-11-01T12:00:08Z")).len(), 1);
    assert_eq!(
        told("orders", Some("2026-11-01T12:00:08Z")).len(),
        2,
        "a part of a SPIFFE ID is one of several"
    );
}

#[test]
fn a_commit_is_told_with_what_became_of_it_and_with_what_concerns_the_identity() {
    let record = |seq: u32, kind: &str, about: Value, what: Value| {
        json!({
            "time": format!("2026-11-01T12:00:{seq:02}Z"), "event": "record",
            "record": {"v": 1, "seq": seq, "prev": "", "at": format!("2026-11-01T12:00:{seq:02}Z"), "kind": kind,
                "by": {"who": "the daemon", "how": "finding 2"}, "about": about, "what": what},
        })
    };
    let outcome = |seq, revision: u64, outcome: Value| {
        let mut what = json!({"revision": revision});
        what.as_object_mut().unwrap().extend(outcome.as_object().unwrap().clone());
        record(seq, "outcome", json!([]), what)
    };
    let changes = json!([
        {"what": "quarantine", "name": format!("manual:{ORDERS}"), "before": null, "after": "until later"},
        {"what": "workload", "name": "other", "before": null, "after": "spiffe://a.example/other at 10.1.0.9/32"},
    ]);
    let commit = |seq, revision: u64| {
        record(
            seq,
            "commit",
            json!([ORDERS]),
            json!({"revision": revision, "changes": changes, "files": [{"name": "a", "digest": "b"}]}),
        )
    };
    let events = [
        outcome(1, 1, json!({"outcome": "committed"})),
        commit(2, 2),
        outcome(3, 2, json!({"outcome": "refused", "why": "no room"})),
        commit(4, 3),
        record(5, "commit", json!([]), json!({"revision": 4, "changes": []})),
        outcome(6, 4, json!({"outcome": "committed"})),
    ];
    let wanted = Wanted { identity: ORDERS.into(), since: None, until: None };
    let mut chosen = wanted.chosen();
    let its: Vec<_> = events.iter().filter(|event| chosen.takes(event)).collect();
    let seqs: Vec<_> = its.iter().map(|event| event["record"]["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [2, 3, 4], "for programs what became of it is an event of its own");
    let mut story = Story::of(ORDERS);
    its.into_iter().for_each(|event| story.add(event));
    let change = format!("\n        + quarantine manual:{ORDERS}: until later\n        and 1 more");
    assert_eq!(
        story.lines().collect::<Vec<_>>(),
        [
            format!("2026-11-01T12:00:02Z  the daemon (finding 2): revision 2, refused: no room{change}"),
            format!(
                "2026-11-01T12:00:04Z  the daemon (finding 2): revision 3, its outcome is in another record{change}"
            ),
        ]
    );
    assert!(events.iter().all(|event| wanted.may_be(&event.to_string()) || event["record"]["seq"] == 5));
}

#[test]
fn renewals_are_one_line_with_their_number_until_the_lease_is_another() {
    let enrolment = |second: u32, outcome: &str| {
        json!({
            "time": format!("2026-11-01T12:00:{second:02}Z"), "event": "enrolment", "verdict": "FORWARDED",
            "IP": {"source": "10.1.0.2"}, "source": {"spiffe_id": ORDERS}, "enrolment": {"outcome": outcome},
        })
    };
    let bind = |second: u32, before: Value| {
        json!({
            "time": format!("2026-11-01T12:00:{second:02}Z"), "event": "record",
            "record": {"v": 1, "seq": second, "prev": "", "at": format!("2026-11-01T12:00:{second:02}Z"), "kind": "bind",
                "by": {"who": "the daemon", "how": "bindings of enrol-1"}, "about": [ORDERS],
                "what": {"claims": [{"address": "10.1.0.2/32", "before": before, "after": {"spiffe_id": ORDERS, "until": null}}]}},
        })
    };
    let its = json!({"spiffe_id": ORDERS, "until": null});
    let mut story = Story::default();
    let mut events = vec![bind(0, Value::Null), enrolment(0, "granted")];
    (1..=5).for_each(|n| events.extend([bind(n, its.clone()), enrolment(n, "renewed")]));
    events.extend([enrolment(6, "withdrawn"), enrolment(7, "granted"), enrolment(8, "renewed")]);
    events.iter().for_each(|event| story.add(event));
    let end = "2026-11-01T12:00:05Z";
    assert_eq!(
        story.lines().collect::<Vec<_>>(),
        [
            format!(
                "2026-11-01T12:00:00Z  the daemon (bindings of enrol-1): addresses are bound\n        10.1.0.2/32: {ORDERS} (was nobody's)"
            ),
            format!("2026-11-01T12:00:00Z  FORWARDED  {ORDERS} (10.1.0.2)  enrolment granted"),
            format!(
                "2026-11-01T12:00:01Z  the daemon (bindings of enrol-1): leases are renewed: 10.1.0.2/32 of {ORDERS} (4 times more, the last at {end})"
            ),
            format!(
                "2026-11-01T12:00:01Z  {ORDERS} (10.1.0.2)  enrolment renewed (4 times more, the last at {end})"
            ),
            format!("2026-11-01T12:00:06Z  FORWARDED  {ORDERS} (10.1.0.2)  enrolment withdrawn"),
            format!("2026-11-01T12:00:07Z  FORWARDED  {ORDERS} (10.1.0.2)  enrolment granted"),
            format!("2026-11-01T12:00:08Z  {ORDERS} (10.1.0.2)  enrolment renewed"),
        ]
    );
}
