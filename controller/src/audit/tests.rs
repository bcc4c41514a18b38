//! Whatever is done to the record is found.

use super::cli::take_lines;
use super::*;
use crate::policy::SourceFile;
use crate::state::{Author, Given, InKernel, PolicySet, State, Store, Who, manual_place};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

const FILE: &str = "\
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: orders}
spec: {spiffeId: spiffe://acme.example/orders, addresses: [10.1.0.2/32], labels: {app: orders}}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: payments}
spec: {spiffeId: spiffe://acme.example/payments, addresses: [10.2.0.2/32]}
---
apiVersion: tidegate.dev/v1
kind: Policy
metadata: {name: shop}
spec: {rules: [{name: pay, action: ACTION, from: [{labels: {app: orders}}], to: [{any: true}], ports: [tcp/8443]}]}
";

fn set(action: &str) -> Arc<PolicySet> {
    let file = SourceFile { name: "shop.yaml".into(), text: FILE.replace("ACTION", action).into() };
    Arc::new(PolicySet::read(vec![file], Timestamp::now()).unwrap())
}

fn operator(how: &str) -> Author {
    Author { who: Who::User(0), how: how.into() }
}

fn commit(store: &mut Store, before: &State, by: &Author, change: impl FnOnce(&mut State)) -> State {
    let revision = store.next_revision().unwrap();
    let mut state = State { revision, epoch: before.epoch + 1, ..before.clone() };
    state.applied_at = Some(Timestamp::now());
    change(&mut state);
    let kernel = InKernel { epoch: state.epoch, generation: "these maps".into() };
    store.begin(&state, &kernel, by, before, || Some(Given::default())).unwrap();
    store.mark(&state, before.revision, &[]).unwrap();
    state
}

/// Two commits with a checkpoint after each, and one record that none signs.
fn recorded(folder: &Path) -> (Store, Key) {
    let mut store = Store::open(&folder.join("state.db")).unwrap();
    let key = Key::of(&folder.join("audit.key")).unwrap();
    let first =
        commit(&mut store, &State::default(), &operator("policy apply"), |state| state.apply(set("allow")));
    store.checkpoint(&key, true).unwrap();
    commit(&mut store, &first, &operator("policy apply"), |state| state.apply(set("deny")));
    store.checkpoint(&key, true).unwrap();
    store.record(&Entry::new(Kind::Stop, &Author::daemon("run"), json!({"why": "it was asked to"}))).unwrap();
    (store, key)
}

fn records(store: &Store) -> Vec<Value> {
    let mut records = Vec::new();
    let take = |_, text: String, _| {
        records.push(serde_json::from_str(&text).unwrap());
        Ok(())
    };
    store.audit(0, take).unwrap();
    records
}

fn lines(store: &Store) -> Vec<String> {
    let mut lines = Vec::new();
    let take = |_, record, hash| {
        let line = Line { record: RawValue::from_string(record).unwrap(), hash };
        lines.push(serde_json::to_string(&line).unwrap() + "\n");
        Ok(())
    };
    store.audit(0, take).unwrap();
    lines
}

fn check(text: &[u8], trusted: &[PublicKey], wanted: Option<&str>) -> Summary {
    let mut chain = Chain::new(trusted.to_vec(), wanted.map(str::to_owned));
    take_lines(text, &mut chain).unwrap();
    chain.end()
}

fn findings(lines: &[String]) -> Vec<String> {
    let summary = check(lines.concat().as_bytes(), &[], None);
    assert_eq!(summary.ok, summary.findings.is_empty());
    summary.findings.into_iter().map(|finding| finding.what).collect()
}

#[test]
fn a_record_that_nobody_touched_is_whole_and_says_how_far_it_is_signed() {
    let folder = tempfile::tempdir().unwrap();
    let (store, key) = recorded(folder.path());
    let head = store.audit_head().unwrap();
    let summary = check(lines(&store).concat().as_bytes(), &[key.public()], Some(&head.hash));
    assert_eq!(summary.findings, []);
    assert_eq!((summary.ok, summary.records, summary.checkpoints, summary.signed_to), (true, 7, 2, 5));
    assert_eq!(summary.head, head);
    assert_eq!(summary.keys, [key.public().hex()].into());
    // In pieces, as exports of several times are.
    let (first, second) = (lines(&store)[..3].concat(), lines(&store)[3..].concat());
    let mut chain = Chain::new(vec![key.public()], None);
    take_lines(first.as_bytes(), &mut chain).unwrap();
    take_lines(second.as_bytes(), &mut chain).unwrap();
    assert!(chain.end().ok);
}

#[test]
fn any_byte_that_is_changed_is_found_and_so_is_any_that_is_missing_or_added() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = recorded(folder.path());
    let text = lines(&store)[..3].concat().into_bytes();
    assert!(check(&text, &[], None).ok);
    for at in 0..text.len() {
        let mut other = text.clone();
        // Another case of a letter, another digit, another sign.
        other[at] ^= if text[at].is_ascii_alphabetic() { 0x20 } else { 0x01 };
        assert!(!check(&other, &[], None).ok, "byte {at}, {:?}", text[at] as char);
        let mut other = text.clone();
        other.remove(at);
        // One of two that are alike is the other.
        assert!(other == text || !check(&other, &[], None).ok, "without byte {at}");
        let mut other = text.clone();
        other.insert(at, b' ');
        assert!(!check(&other, &[], None).ok, "a blank ahead of byte {at}");
    }
}

#[test]
fn what_is_removed_moved_repeated_or_cut_off_is_found_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = recorded(folder.path());
    let all = lines(&store);
    let last = all.len() - 1;
    for n in 0..last {
        let mut other = all.clone();
        other.remove(n);
        let found = findings(&other);
        assert_eq!(found[0], format!("record {} is missing before record {}", n + 1, n + 2));
        let mut other = all.clone();
        other.swap(n, n + 1);
        assert!(!findings(&other).is_empty(), "{n}");
        let mut other = all.clone();
        other.insert(n + 1, all[n].clone());
        let wanted = format!("record {0} comes again, or at another place, after record {0}", n + 1);
        assert_eq!(findings(&other)[0], wanted);
    }
    let mut other = all.clone();
    other.drain(1..4);
    assert_eq!(findings(&other)[0], "records 2 to 4 are missing before record 5");

    // What is cut off at the end leaves a chain that is whole: the head that was kept elsewhere tells.
    let head = store.audit_head().unwrap().hash;
    for kept in 0..=last {
        let text = all[..kept].concat();
        assert!(check(text.as_bytes(), &[], None).ok);
        let summary = check(text.as_bytes(), &[], Some(&head));
        assert!(
            summary.findings[0]
                .what
                .starts_with(&format!("no record has the hash {head}: those after record {kept} were"))
        );
    }
    assert!(check(all.concat().as_bytes(), &[], Some(&head)).ok);
}

/// The chain again with other contents, as somebody makes it who can compute hashes and has not the key.
fn forged(lines: &[String], forge: impl Fn(&mut Value)) -> Vec<String> {
    let mut last = Head::default();
    let again = lines.iter().map(|line| {
        let line: Line = serde_json::from_str(line).unwrap();
        let mut record: Value = serde_json::from_str(line.record.get()).unwrap();
        forge(&mut record);
        record["prev"] = last.hash.clone().into();
        if record["kind"] == "checkpoint" {
            record["what"]["hash"] = last.hash.clone().into();
        }
        let text = canonical::text(&record);
        last = Head { seq: record["seq"].as_u64().unwrap(), hash: record::hash(&text) };
        let line = Line { record: RawValue::from_string(text).unwrap(), hash: last.hash.clone() };
        serde_json::to_string(&line).unwrap() + "\n"
    });
    again.collect()
}

#[test]
fn a_chain_that_was_made_anew_fails_at_its_signatures() {
    let folder = tempfile::tempdir().unwrap();
    let (store, key) = recorded(folder.path());
    let all = lines(&store);
    assert_eq!(findings(&forged(&all, |_| {})), [""; 0], "the forger makes what we make");
    let other_author = |record: &mut Value| {
        if record["seq"] == 4 {
            record["by"]["who"] = "mallory".into();
        }
    };
    assert_eq!(findings(&forged(&all, other_author)), ["the signature of checkpoint 6 is wrong"]);
    // With a key of his own, only who knows ours can tell.
    let other = Key::of(&folder.path().join("other.key")).unwrap();
    let resigned: Vec<_> = forged(&all, |_| {});
    let resign = |record: &mut Value| {
        if record["kind"] == "checkpoint" {
            let of = Head {
                seq: record["what"]["seq"].as_u64().unwrap(),
                hash: record["what"]["hash"].as_str().unwrap().into(),
            };
            record["what"]["key"] = other.public().hex().into();
            record["what"]["signature"] = other.sign(signed(&of).as_bytes()).into();
        }
    };
    let resigned = forged(&resigned[..3], resign);
    assert!(check(resigned.concat().as_bytes(), &[], None).ok);
    let summary = check(resigned.concat().as_bytes(), &[key.public()], None);
    let by_another = format!("checkpoint 3 is signed by another key: {}", other.public().hex());
    assert_eq!(summary.findings[0].what, by_another);
    let none = check(all[..2].concat().as_bytes(), &[key.public()], None);
    assert_eq!(none.findings[0].what, "no checkpoint is signed by the key that was given");
    // A checkpoint that was taken from elsewhere signs another record.
    let moved = forged(&all, |record| {
        if record["seq"] == 6 {
            record["what"]["seq"] = 2.into();
        }
    });
    assert_eq!(findings(&moved), ["checkpoint 6 signs another record than the one before it"]);
}

#[test]
fn the_table_takes_records_and_nothing_else_and_what_was_changed_all_the_same_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = recorded(folder.path());
    drop(store);
    let path = folder.path().join("state.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    for sql in ["UPDATE audit SET hash = '' WHERE seq = 2", "DELETE FROM audit WHERE seq = 7"] {
        let said = db.execute(sql, []).unwrap_err().to_string();
        assert!(said.contains("the audit record is append-only"), "{said}");
    }
    let verify = || {
        let mut chain = Chain::default();
        let take = |_, text: String, hash: String| {
            chain.take(&text, &hash);
            Ok(())
        };
        Store::read(&path).unwrap().unwrap().audit(0, take).unwrap();
        chain.end()
    };
    assert!(verify().ok);
    db.execute_batch("DROP TRIGGER audit_is_not_changed").unwrap();
    db.execute("UPDATE audit SET record = replace(record, 'policy apply', 'policy check') WHERE seq = 4", [])
        .unwrap();
    let found = verify().findings;
    assert_eq!((found.len(), found[0].seq), (1, 4));
    assert!(found[0].what.starts_with("record 4 was changed: its hash is "), "{}", found[0].what);
}

#[test]
fn a_commit_is_told_in_words_with_those_whom_it_concerns_and_what_became_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(&folder.path().join("state.db")).unwrap();
    let first =
        commit(&mut store, &State::default(), &operator("policy apply"), |state| state.apply(set("allow")));
    let second = commit(&mut store, &first, &operator("policy apply"), |state| state.apply(set("deny")));
    let block = |state: &mut State| {
        state.blocks = serde_json::from_value(json!([{
            "cidr": "10.2.0.0/16", "reason": "it scans", "not_after": null, "place": manual_place(),
        }]))
        .unwrap();
    };
    commit(&mut store, &second, &operator("block add"), block);
    let records = records(&store);
    let told: Vec<_> =
        records.iter().map(|r| (r["seq"].as_u64().unwrap(), r["kind"].as_str().unwrap())).collect();
    let pair = ["commit", "outcome"];
    assert_eq!(told, (1..=6).zip(pair.into_iter().cycle()).collect::<Vec<_>>());
    assert_eq!(records[1]["what"], json!({"revision": 1, "outcome": "committed"}));

    let denial = &records[2];
    assert_eq!(denial["by"], json!({"who": "root", "uid": 0, "how": "policy apply"}));
    let text = |action: &str| format!("tier 100: {action} tcp/8443 from labels app=orders to any");
    let change = json!({
        "what": "rule", "name": "shop/pay", "before": text("allow"), "after": text("deny"), "place": "shop.yaml:14:16",
    });
    assert_eq!(denial["what"]["changes"], json!([change]));
    assert_eq!(denial["about"], json!(["spiffe://acme.example/orders"]));
    let digest = record::hash(&FILE.replace("ACTION", "deny"));
    assert_eq!(denial["what"]["files"], json!([{"name": "shop.yaml", "digest": digest}]));

    let block = &records[4];
    assert_eq!(block["what"]["changes"][0]["name"], "manual/10.2.0.0/16");
    assert_eq!(block["what"]["changes"][0]["after"], "blocked (it scans)");
    assert_eq!(block["about"], json!(["spiffe://acme.example/payments"]), "whose address it is");
    assert_eq!(block["what"]["files"], Value::Null, "no file changed");
}

#[test]
fn a_binding_is_told_with_what_it_takes_from_whom_and_why_it_was_believed() {
    use crate::bindings::{Change, Claim, SourceName};
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(&folder.path().join("state.db")).unwrap();
    let claim = |id: &str| -> Claim {
        serde_json::from_value(
            json!({"address": "10.1.0.9/32", "spiffe_id": id, "evidence": {"serial": "07"}}),
        )
        .unwrap()
    };
    let (old, new) = (claim("spiffe://acme.example/old"), claim("spiffe://acme.example/new"));
    let slot = old.slot();
    let bind = |store: &mut Store, change: Change| {
        store.bind(&[(SourceName::enrol(), change)], &[]).unwrap();
    };
    bind(&mut store, Change::Set(old));
    bind(&mut store, Change::Set(new));
    bind(&mut store, Change::Withdraw(slot));
    let records = records(&store);
    let said = |id: &str| json!({"spiffe_id": id, "labels": {}, "until": null, "evidence": {"serial": "07"}});
    let (old, new) = ("spiffe://acme.example/old", "spiffe://acme.example/new");
    let moved = json!({"source": "enrol", "address": "10.1.0.9/32", "before": said(old), "after": said(new)});
    assert_eq!(records[1]["what"]["claims"], json!([moved]));
    assert_eq!(records[1]["about"], json!([new, old]));
    assert_eq!(records[1]["by"]["how"], "bindings of enrol");
    let gone = json!({"source": "enrol", "address": "10.1.0.9/32", "before": said(new)});
    assert_eq!((&records[2]["what"]["claims"], &records[2]["about"]), (&json!([gone]), &json!([new])));
}

#[test]
fn what_a_daemon_left_pending_has_an_outcome_before_the_next_does_anything() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(&folder.path().join("state.db")).unwrap();
    let first =
        commit(&mut store, &State::default(), &operator("policy apply"), |state| state.apply(set("allow")));
    let kernel = InKernel { epoch: 2, generation: "these maps".into() };
    let second = State { revision: 2, epoch: 2, ..first.clone() };
    store.begin(&second, &kernel, &operator("block add"), &first, || Some(Given::default())).unwrap();
    store.resolve(&InKernel { epoch: 1, ..kernel }).unwrap();
    let last = records(&store).pop().unwrap();
    let why = "the daemon ended before it counted";
    assert_eq!(last["what"], json!({"revision": 2, "outcome": "abandoned", "why": why}));
}

#[test]
fn checkpoints_come_when_they_are_due_and_never_after_one_another() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, key) = recorded(folder.path());
    let count = |store: &Store| records(store).len();
    store.checkpoint(&key, false).unwrap();
    assert_eq!(count(&store), 7, "one new record can wait");
    store.checkpoint(&key, true).unwrap();
    store.checkpoint(&key, true).unwrap();
    assert_eq!(count(&store), 8, "a checkpoint needs no checkpoint");
    for _ in 0..64 {
        store.record(&Entry::new(Kind::Stop, &Author::daemon("run"), json!({}))).unwrap();
    }
    store.checkpoint(&key, false).unwrap();
    assert_eq!(count(&store), 8 + 64 + 1);
    assert_eq!(records(&store)[72]["what"]["seq"], 72);
}

#[test]
fn a_decision_is_told_in_words() {
    let told = |kind: &str, what: Value| {
        let record = json!({
            "v": 1, "seq": 1, "prev": "", "at": "2026-11-01T12:00:00Z", "kind": kind,
            "by": {"who": "root", "how": "a command"}, "about": [], "what": what,
        });
        told(&serde_json::from_value(record).unwrap(), None)
    };
    let later = "2026-11-01T13:00:00.047966427Z";
    let contain = json!({
        "finding": 2, "decision": "contain", "act": "quarantine", "step": 1, "until": later, "why": "w",
    });
    assert_eq!(
        told("finding", contain),
        "root (a command): finding 2: contain (quarantine, step 1) until 2026-11-01T13:00:00Z\n        why: w"
    );
    let flag = |held: Value| json!({"finding": 1, "decision": "flag", "intent": "web", "signal": "new_peer", "held_back": held, "why": "w"});
    assert_eq!(
        told("finding", flag(Value::Null)),
        "root (a command): finding 1: flag (new_peer, intent web)\n        why: w"
    );
    assert_eq!(
        told("finding", flag(json!("paused"))),
        "root (a command): finding 1: flag (new_peer, intent web)\n        held back: paused\n        why: w"
    );
    let state =
        |state: Value| told("finding", json!({"finding": 1, "intent": "web", "why": "w", "state": state}));
    assert_eq!(
        state(json!({"state": "muted", "until": later, "by": "root"})),
        "root (a command): finding 1 is muted until 2026-11-01T13:00:00Z\n        why: w"
    );
    assert_eq!(
        state(json!({"state": "resolved", "at": later, "by": "root", "note": "a new job"})),
        "root (a command): finding 1 is resolved: a new job\n        why: w"
    );
    let asked = json!({
        "approval": 3, "decision": "asked", "asked_by": "the daemon", "why": "w", "finding": 7, "act": "quarantine", "access": null,
        "seconds": 900, "over": "2 peers, more than 1", "radius": {"addresses": 1, "peers": 2, "connections": 3, "service": null}, "approvers": 1,
    });
    assert_eq!(
        told("approval", asked),
        "root (a command): approval 3 is asked for: quarantine for 15m00s, asked for by the daemon for finding 7\n        \
         has to be approved: 2 peers, more than 1\n        touches 1 addresses, 2 peers, 3 connections\n        why: w"
    );
    let lapsed = json!({
        "approval": 4, "decision": "lapsed", "it_is": "not done", "asked_by": "root", "why": "w", "finding": null, "act": null,
        "access": {"to": "spiffe://a.example/db", "ports": ["tcp/5432"]}, "seconds": 60, "agreed": [{"by": "uid 7", "at": later}],
    });
    assert_eq!(
        told("approval", lapsed),
        "root (a command): approval 4 lapsed, and is not done: access to spiffe://a.example/db at tcp/5432 for 1m00s, asked for by \
         root\n        agreed: uid 7\n        why: w"
    );
    assert_eq!(
        told("brake", json!({"paused": "root: x"})),
        "root (a command): containment is paused, root: x"
    );
    assert_eq!(told("brake", json!({"paused": null})), "root (a command): containment goes on");
}
