//! What is expected, what departs, what that leads to, and what is kept of it.

use super::compare::{Departure, Role};
use super::decide::{Confidence, Decision, decide};
use super::signal::Signal;
use super::*;
use crate::exit_code::Code;
use crate::policy::Documents;
use crate::policy::act::{ActName, Step};
use crate::policy::spiffe::SpiffeId;
use datapath::abi::Addr;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

const INTENTS: &str = "\
apiVersion: tidegate.dev/v1
kind: Intent
metadata: {name: orders}
spec:
  identities: [{spiffeId: spiffe://a.example/orders}]
  workload: service
  owner: team-shop
  sensitivity: high
  client:
    - {to: [{spiffeId: spiffe://a.example/payments}], ports: [tcp/8443]}
    - {to: [{cidr: 10.9.0.0/16}], ports: [udp/53]}
  server: []
  response: {action: contain, for: 15m}
---
apiVersion: tidegate.dev/v1
kind: Intent
metadata: {name: jobs}
spec:
  identities: [{spiffePath: spiffe://a.example/jobs/*}]
  workload: batch
  client: [{to: [{labels: {app: store}}]}]
";

/// Far enough: what is muted is muted until a time to come.
fn now() -> Timestamp {
    "2126-11-22T12:00:00Z".parse().expect("time")
}

fn documents() -> Documents {
    Documents::parse("intents.yaml", INTENTS, now()).unwrap_or_else(|e| panic!("{e}"))
}

fn id(path: &str) -> SpiffeId {
    format!("spiffe://a.example/{path}").parse().expect("a SPIFFE ID")
}

fn end(path: &str, address: [u8; 4]) -> End {
    End::Identified { id: id(path), labels: BTreeMap::new(), address: Addr::v4(address), is_shared: false }
}

fn seen(client: End, server: End, proto: u8, port: u16) -> Seen {
    Seen { client, server, proto, port }
}

fn orders_to(server: End, proto: u8, port: u16) -> Seen {
    seen(end("orders", [10, 1, 0, 2]), server, proto, port)
}

/// The side and the signal of each departure.
fn departs(seen: &Seen) -> Vec<(Role, Signal)> {
    let documents = documents();
    compare(&documents.intents, seen).iter().map(|d| (d.role, d.signal)).collect()
}

#[test]
fn what_is_declared_is_expected_and_a_departure_says_whether_peer_or_service_is_new() {
    let payments = || end("payments", [10, 2, 0, 2]);
    let dns = || End::Unidentified(Addr::v4([10, 9, 0, 53]));
    assert_eq!(departs(&orders_to(payments(), 6, 8443)), []);
    assert_eq!(departs(&orders_to(dns(), 17, 53)), []);
    assert_eq!(departs(&orders_to(payments(), 6, 22)), [(Role::Client, Signal::NewService)]);
    assert_eq!(departs(&orders_to(dns(), 6, 53)), [(Role::Client, Signal::NewService)]);
    let outside = End::Unidentified(Addr::v4([203, 0, 113, 9]));
    assert_eq!(departs(&orders_to(outside, 6, 443)), [(Role::Client, Signal::NewPeer)]);
    // Nobody is expected to call it; whoever calls declared nothing himself.
    let called = seen(payments(), end("orders", [10, 1, 0, 2]), 6, 80);
    assert_eq!(departs(&called), [(Role::Server, Signal::NewPeer)]);
    // Of what has no intent, and of what it says nothing of, nothing departs.
    assert_eq!(departs(&seen(payments(), end("web", [10, 3, 0, 2]), 6, 80)), []);
    assert_eq!(departs(&seen(payments(), end("jobs/7", [10, 4, 0, 7]), 6, 80)), []);
}

#[test]
fn labels_of_the_peer_count_and_each_end_is_compared_with_its_own_intent() {
    let labels = BTreeMap::from([("app".to_owned(), "store".to_owned())]);
    let store = End::Identified { id: id("s3"), labels, address: Addr::v4([10, 5, 0, 2]), is_shared: false };
    assert_eq!(departs(&seen(end("jobs/7", [10, 4, 0, 7]), store, 6, 9000)), []);
    let both = seen(end("jobs/7", [10, 4, 0, 7]), end("orders", [10, 1, 0, 2]), 6, 80);
    assert_eq!(departs(&both), [(Role::Client, Signal::NewPeer), (Role::Server, Signal::NewPeer)]);
}

#[test]
fn an_ambiguous_identity_is_not_blamed_and_nobody_is_contained_for_an_ambiguous_peer() {
    let documents = documents();
    let address = Addr::v4([10, 7, 0, 1]);
    assert_eq!(departs(&seen(End::Ambiguous(address), end("payments", [10, 2, 0, 2]), 6, 22)), []);
    let met = orders_to(End::Ambiguous(address), 6, 22);
    let departures = compare(&documents.intents, &met);
    let (decision, confidence, _) = decide(&departures[0], &met.service());
    assert_eq!((decision, confidence), (Decision::Flag, Confidence::Low));
}

#[test]
fn an_identity_that_several_act_under_is_marked_and_neither_it_nor_who_meets_it_is_contained() {
    let text = INTENTS.replacen(
        "  workload: batch",
        "  workload: batch\n  shared: true\n  response: {action: contain, for: 15m}",
        1,
    );
    let documents = Documents::parse("intents.yaml", &text, now()).unwrap_or_else(|e| panic!("{e}"));
    let known = |path: &str, address| end(path, address).known_by(&documents.intents);
    let (job, orders) = (known("jobs/7", [10, 4, 0, 7]), known("orders", [10, 1, 0, 2]));
    assert_eq!((job.is_several(), orders.is_several()), (true, false));
    for (met, marked) in [
        (
            seen(job.clone(), end("payments", [10, 2, 0, 2]), 6, 22),
            "spiffe://a.example/jobs/7, which several are, opened",
        ),
        (seen(orders, job, 6, 22), "spiffe://a.example/jobs/7 (10.4.0.7, shared) at tcp/22"),
    ] {
        let departures = compare(&documents.intents, &met);
        let departure = departures.iter().find(|d| d.role == Role::Client).expect("a departure");
        let (decision, confidence, why) = decide(departure, &met.service());
        assert_eq!((decision, confidence), (Decision::Flag, Confidence::Low));
        assert!(why.contains(marked), "{why}");
    }
}

#[test]
fn who_opens_is_contained_who_is_opened_to_never_and_the_reason_names_the_line() {
    let documents = documents();
    let of = |seen: &Seen| {
        let departures = compare(&documents.intents, seen);
        decide(&departures[0], &seen.service())
    };
    let (decision, confidence, why) = of(&orders_to(end("payments", [10, 2, 0, 2]), 6, 22));
    assert_eq!((decision, confidence), (Decision::Contain { seconds: 900 }, Confidence::High));
    assert_eq!(
        why,
        "spiffe://a.example/orders opened a connection to a service that its intent does not name: \
         spiffe://a.example/payments (10.2.0.2) at tcp/22; intent orders (intents.yaml:1:1) opens connections to \
         spiffe://a.example/payments at tcp/8443, 10.9.0.0/16 at udp/53"
    );
    let (decision, confidence, _) = of(&orders_to(End::Unidentified(Addr::v4([203, 0, 113, 9])), 6, 443));
    assert_eq!((decision, confidence), (Decision::Contain { seconds: 900 }, Confidence::Medium));
    let (decision, _, why) = of(&seen(end("web", [10, 3, 0, 2]), end("orders", [10, 1, 0, 2]), 6, 80));
    assert_eq!(decision, Decision::Flag);
    assert!(why.ends_with("is opened to by nobody"), "{why}");
}

fn evidence(of: &Departure<'_>, service: &str, at: Timestamp) -> Evidence {
    Evidence {
        time: at,
        identity: of.id.clone(),
        address: [10, 1, 0, 2].into(),
        peer_address: of.peer.address().to_ip(),
        peer: None,
        service: service.to_owned(),
        verdict: "FORWARDED".into(),
        reason: "FORWARDED".into(),
        rule: Some("shop/all".into()),
        epoch: 7,
        detail: None,
    }
}

fn note(book: &mut Book, seen: &Seen, at: Timestamp) -> Noted {
    note_by(&documents(), book, seen, at).expect("room")
}

fn note_by(documents: &Documents, book: &mut Book, seen: &Seen, at: Timestamp) -> Option<Noted> {
    let departures = compare(&documents.intents, seen);
    book.note(&departures[0], seen, evidence(&departures[0], &seen.service(), at))
}

#[test]
fn a_scan_is_one_finding_and_so_are_jobs_that_come_and_go() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut book = Book::open(&dir.path().join("findings.db")).expect("a book");
    for n in 1..=100 {
        let victim = End::Unidentified(Addr::v4([203, 0, 113, n]));
        let noted = note(&mut book, &orders_to(victim, 6, u16::from(n)), now());
        assert_eq!((noted.id, noted.is_new), (1, n == 1));
    }
    for n in 1..=20 {
        let job = seen(end(&format!("jobs/{n}"), [10, 4, 0, n]), end("payments", [10, 2, 0, 2]), 6, 443);
        assert_eq!(note(&mut book, &job, now()).id, 2);
    }
    let [scan, jobs] = &book.all().collect::<Vec<_>>()[..] else { panic!("two findings") };
    assert_eq!((scan.count, scan.services.len(), scan.evidence.len()), (100, 16, 16));
    assert_eq!(scan.services.back().map(String::as_str), Some("tcp/100"));
    assert_eq!((jobs.count, jobs.identities.len()), (20, 16));
    assert_eq!(jobs.identities.back(), Some(&id("jobs/20")));
}

#[test]
fn findings_outlive_the_daemon_and_a_resolved_one_is_not_begun_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("findings.db");
    let drift = || orders_to(end("payments", [10, 2, 0, 2]), 6, 22);
    let quarantine = || Contain { identity: id("orders"), number: 0, step: Step::quarantine(900) };
    let mut book = Book::open(&path).expect("a book");
    assert_eq!(note(&mut book, &drift(), now()).contain, Some(quarantine()));
    let until = now() + SignedDuration::from_mins(15);
    let act = ActName::Quarantine;
    book.contained(
        1,
        Containment {
            identity: id("orders"),
            act,
            step: 0,
            at: now(),
            until,
            revision: 4,
            by_people: false,
            undone: false,
        },
    );
    book.pause(Some("tonight")).expect("written");
    let changes = book.changes(99);
    book.file().lock().expect("the file").write(&changes).expect("written");
    let before: Vec<_> = book.all().cloned().collect();
    drop(book);

    let mut book = Book::open(&path).expect("a book");
    assert_eq!(book.all().cloned().collect::<Vec<_>>(), before);
    assert_eq!(book.paused().expect("read").as_deref(), Some("tonight"));
    // Contained already; behind its end the same departure asks for it again.
    assert_eq!(note(&mut book, &drift(), now()).contain, None);
    assert_eq!(note(&mut book, &drift(), until).contain, Some(quarantine()));

    let resolved = FindingState::Resolved { at: now(), by: "root".into(), note: None };
    book.set_state(1, resolved.clone()).expect("resolved");
    let again = book.set_state(1, resolved).expect_err("it is resolved");
    assert_eq!(again.code, Code::Conflict);
    assert_eq!(book.get(9).expect_err("there is none").code, Code::NotFound);
    let noted = note(&mut book, &drift(), until);
    assert_eq!((noted.id, noted.is_new), (2, true));
}

#[test]
fn a_muted_finding_counts_and_asks_for_nothing_until_the_muting_is_over() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut book = Book::open(&dir.path().join("findings.db")).expect("a book");
    let drift = || orders_to(end("payments", [10, 2, 0, 2]), 6, 22);
    note(&mut book, &drift(), now());
    let until = now() + SignedDuration::from_hours(1);
    book.set_state(1, FindingState::Muted { until, by: "root".into() }).expect("muted");
    assert_eq!(note(&mut book, &drift(), now()).contain, None);
    assert_eq!(book.get(1).expect("finding").state.name(now()), "muted");
    assert_eq!(book.get(1).expect("finding").state.name(until), "open");
    assert!(note(&mut book, &drift(), until).contain.is_some());
    assert_eq!(book.get(1).expect("finding").count, 3);
}

#[test]
fn the_brake_holds_when_it_is_pulled_and_when_an_hour_has_had_its_share() {
    let mut brake = Brake::new(2, None, Vec::new());
    for _ in 0..2 {
        assert_eq!(brake.holds(now()), None);
        brake.count(now());
    }
    assert_eq!(brake.holds(now()).as_deref(), Some("2 containments in an hour are the most"));
    let later = now() + SignedDuration::from_hours(1);
    assert_eq!(brake.holds(later), None);
    brake.paused = Some("root: tonight".into());
    assert_eq!(brake.holds(later).as_deref(), Some("containment is paused (root: tonight)"));
}

#[test]
fn a_file_of_a_newer_version_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("findings.db");
    drop(Book::open(&path).expect("a book"));
    let db = rusqlite::Connection::open(&path).expect("SQLite");
    db.execute_batch("PRAGMA user_version = 9").expect("a newer form");
    let why = Book::open(&path).expect_err("it is newer").to_string();
    assert!(why.contains("has form 9, this tidegate knows 2"), "{why}");
}

fn mistakes(spec: &str) -> String {
    let text = format!("apiVersion: tidegate.dev/v1\nkind: Intent\nmetadata: {{name: i}}\nspec: {spec}\n");
    match Documents::parse("i.yaml", &text, now()) {
        Ok(documents) => panic!("no mistake was found: {documents:?}"),
        Err(mistakes) => mistakes.to_string(),
    }
}

#[test]
fn an_intent_that_says_nothing_or_contains_for_ever_is_refused() {
    let who = "identities: [{spiffeId: spiffe://a.example/orders}], workload: service";
    let nothing = mistakes(&format!("{{{who}}}"));
    assert!(nothing.contains("the Intent says nothing of connections"), "{nothing}");
    let forever = mistakes(&format!("{{{who}, client: [], response: {{action: contain}}}}"));
    assert!(forever.contains("the containment does not say when it ends"), "{forever}");
    let flag = mistakes(&format!("{{{who}, client: [], response: {{action: flag, for: 1m}}}}"));
    assert!(flag.contains("`for` is for `action: contain`"), "{flag}");
    let cidr = mistakes("{identities: [{cidr: 10.0.0.0/8}], workload: batch, client: []}");
    assert!(cidr.contains("an intent is of identities, not of 10.0.0.0/8"), "{cidr}");
}

#[test]
fn a_flood_of_flags_keeps_nobody_from_being_contained_and_pushes_no_other_flag_out() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut book = Book::open(&dir.path().join("findings.db")).expect("a book");
    let documents = documents();
    let job = |n: u32| {
        let peer = end(&format!("p{n}"), [10, 2, 0, 2]);
        seen(end("jobs/7", [10, 4, 0, 7]), peer, 6, 22)
    };
    for n in 0..10_000 {
        let noted = note_by(&documents, &mut book, &job(n), now() + SignedDuration::from_secs(n.into()));
        assert_eq!(noted.map(|noted| noted.id), Some(u64::from(n) + 1));
    }
    // One more of the same kind finds no room, and takes none away.
    assert!(note_by(&documents, &mut book, &job(10_000), now()).is_none());
    assert_eq!((book.turned_away, book.get(1).expect("the first").id), (1, 1));
    // What is contained does: the flag that was heard of least lately gives way.
    let noted = note(&mut book, &orders_to(end("payments", [10, 2, 0, 2]), 6, 22), now());
    assert!(noted.is_new && noted.contain.is_some());
    assert_eq!((book.turned_away, book.all().count()), (2, 10_000));
    assert_eq!(book.get(1).expect_err("it gave way").code, Code::NotFound);
    // Numbers are given once: records name findings by them.
    let newest = FindingState::Resolved { at: now(), by: "root".into(), note: None };
    assert_eq!(book.set_state(noted.id, newest).expect("resolved").id, 10_001);
    let noted = note(&mut book, &orders_to(end("ledger", [10, 2, 0, 3]), 6, 22), now());
    assert_eq!((noted.id, noted.is_new), (10_002, true));
    assert!(book.get(10_001).is_ok() && book.get(2).is_err(), "the next flag gave way");
}

#[test]
fn what_was_done_is_kept_while_it_holds_and_for_the_hour_that_the_brake_counts() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("findings.db");
    let mut book = Book::open(&path).expect("a book");
    note(&mut book, &orders_to(end("payments", [10, 2, 0, 2]), 6, 22), now());
    let minute = SignedDuration::from_mins(1);
    let did = |book: &mut Book, n: i32, at: Timestamp, by_people: bool| {
        let (identity, until) = (id(&format!("jobs/{n}")), at + minute);
        book.contained(
            1,
            Containment {
                identity,
                act: ActName::Quarantine,
                step: 0,
                at,
                until,
                revision: 1,
                by_people,
                undone: false,
            },
        );
    };
    (0..20).for_each(|n| did(&mut book, n, now() + minute * n, n % 2 == 1));
    let changes = book.changes(99);
    book.file().lock().expect("the file").write(&changes).expect("written");
    drop(book);
    let mut book = Book::open(&path).expect("a book");
    let kept = |book: &Book| book.get(1).expect("the finding").containments.len();
    assert_eq!(kept(&book), 20, "all are of the last hour");
    // What people decided is none of the brake's.
    assert_eq!(book.done().len(), 10);
    let mut brake = Brake::new(10, None, book.done());
    assert!(brake.holds(now() + minute * 20).is_some(), "ten in the hour");
    assert_eq!(brake.holds(now() + minute * 60), None, "the first is an hour ago");
    did(&mut book, 20, now() + minute * 120, false);
    assert_eq!(kept(&book), 16, "what is over goes, down to the last 16");
}
