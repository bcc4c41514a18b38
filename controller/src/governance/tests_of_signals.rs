//! ClientHellos, hours, fan-out and rate: what fits, what departs, and what that leads to.

use super::compare::{Departure, Role};
use super::decide::{Confidence, Decision, decide};
use super::finding::Peer;
use super::signal::Signal;
use super::*;
use crate::hello::ClientHello;
use crate::policy::Documents;
use datapath::abi::Addr;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

const INTENTS: &str = "\
apiVersion: tidegate.dev/v1
kind: Intent
metadata: {name: web}
spec:
  identities: [{spiffePath: spiffe://a.example/web*}]
  workload: service
  client:
    - {to: [{spiffeId: spiffe://a.example/db}], ports: [tcp/5432]}
    - {to: [{any: true}], ports: [tcp/443], sni: [api.example, \"*.cdn.example\"], alpn: [h2]}
    - {to: [{any: true}], ports: [tcp/443], sni: [old.example], alpn: [http/1.1]}
  hours: {zone: Europe/Berlin, open: [{days: [mon-fri], from: \"06:00\", to: \"22:00\"}]}
  fanOut: {peers: 3, per: 10m}
  rate: {connections: 5/m}
  response: {action: contain, for: 15m}
---
apiVersion: tidegate.dev/v1
kind: Intent
metadata: {name: db}
spec:
  identities: [{spiffeId: spiffe://a.example/db}]
  workload: service
  fanOut: {peers: 1, per: 1m}
";

/// A Monday at noon.
fn noon() -> Timestamp {
    "2126-11-25T11:00:00Z".parse().expect("time")
}

fn documents() -> Documents {
    Documents::parse("intents.yaml", INTENTS, noon()).unwrap_or_else(|e| panic!("{e}"))
}

fn end(path: &str, last: u8) -> End {
    let id = format!("spiffe://a.example/{path}").parse().expect("a SPIFFE ID");
    End::Identified { id, labels: BTreeMap::new(), address: Addr::v4([10, 1, 0, last]), is_shared: false }
}

fn host(last: u8) -> End {
    End::Unidentified(Addr::v4([203, 0, 113, last]))
}

fn web_to(server: End, port: u16) -> Seen {
    Seen { client: end("web", 2), server, proto: 6, port }
}

fn hello(sni: Option<&str>, alpn: &[&str]) -> ClientHello {
    ClientHello {
        tls_sni: sni.map(str::to_owned),
        tls_alpn: Some(alpn.iter().map(|p| (*p).to_owned()).collect()),
        tls_hello_partial: Some(false),
        ..ClientHello::default()
    }
}

/// Signals of connections that follow each other by a second.
fn counted(counted: &mut Counted, seen: &[Seen], from: Timestamp) -> Vec<Option<Signal>> {
    let documents = documents();
    let one = |(n, seen): (usize, &Seen)| {
        let habits = Habits::of(&documents.intents, &seen.client).expect("habits");
        let at = from + SignedDuration::from_secs(n as i64);
        let found: Vec<_> = counted.look(&habits, seen, (at, None)).iter().map(|d| d.signal).collect();
        assert!(found.len() <= 1, "{found:?}");
        found.first().copied()
    };
    seen.iter().enumerate().map(one).collect()
}

#[test]
fn a_hello_is_held_against_what_is_expected_of_its_peer_and_port() {
    let documents = documents();
    let signals = |seen: &Seen, hello: &ClientHello| -> Vec<Signal> {
        compare_hello(&documents.intents, seen, hello).iter().map(|d| d.signal).collect()
    };
    let outside = web_to(host(9), 443);
    assert_eq!(signals(&outside, &hello(Some("eu.cdn.example"), &["h2"])), []);
    assert_eq!(signals(&outside, &hello(Some("old.example"), &["http/1.1"])), []);
    assert_eq!(signals(&outside, &hello(Some("old.example"), &["h2"])), [Signal::NewAlpn]);
    assert_eq!(signals(&outside, &hello(Some("c2.example"), &["h2"])), [Signal::NewSni]);
    assert_eq!(signals(&outside, &hello(None, &[])), [Signal::NewSni]);
    // Of this service nothing is said, and of that one the verdict tells.
    assert_eq!(signals(&web_to(end("db", 3), 5432), &hello(Some("c2.example"), &[])), []);
    assert_eq!(signals(&web_to(host(9), 8443), &hello(Some("c2.example"), &[])), []);
}

#[test]
fn a_name_that_may_be_a_cover_is_named_as_such_and_nobody_is_contained_for_it() {
    let documents = documents();
    let outside = web_to(host(9), 443);
    let of = |hello: &ClientHello| {
        let departures = compare_hello(&documents.intents, &outside, hello);
        decide(&departures[0], &outside.service())
    };
    let plain = hello(Some("c2.example"), &["h2"]);
    let (decision, confidence, why) = of(&plain);
    assert_eq!((decision, confidence), (Decision::Contain { seconds: 900 }, Confidence::Medium));
    assert_eq!(
        why,
        "spiffe://a.example/web asked for a server's name that its intent does not name: 203.0.113.9 at tcp/443, \
         ClientHello for c2.example, ALPN h2; intent web (intents.yaml:1:1) opens connections to \
         spiffe://a.example/db at tcp/5432, any at tcp/443 with SNI api.example or *.cdn.example, ALPN h2, \
         any at tcp/443 with SNI old.example, ALPN http/1.1"
    );
    let covered = ClientHello { tls_ech: Some("outer".into()), ..plain };
    let (decision, confidence, why) = of(&covered);
    assert_eq!((decision, confidence), (Decision::Flag, Confidence::Low));
    assert!(why.contains("may be a cover (ECH)") && why.contains("ECH outer"), "{why}");
    // Who pretends to encrypt and asks for what is expected departs from nothing.
    let greased = ClientHello { tls_ech: Some("outer".into()), ..hello(Some("api.example"), &["h2"]) };
    assert_eq!(compare_hello(&documents.intents, &outside, &greased), []);
}

#[test]
fn one_peer_too_many_in_the_window_departs_and_those_that_are_known_do_not() {
    let mut fan = Counted::default();
    let to = |last| web_to(host(last), 443);
    let seen = [to(1), to(2), to(3), to(1)];
    assert_eq!(counted(&mut fan, &seen, noon()), [None; 4]);
    let later = noon() + SignedDuration::from_mins(2);
    assert_eq!(counted(&mut fan, &[to(4), to(4)], later), [Some(Signal::FanOut), None]);
    // When the window is over there is room again.
    let over = noon() + SignedDuration::from_mins(30);
    assert_eq!(counted(&mut fan, &[to(5), to(6), to(7)], over), [None; 3]);
    // Each identity by itself: a job more is not a peer more.
    let job = |n: u8| Seen { client: end(&format!("web-{n}"), n), ..to(n) };
    let jobs: Vec<_> = (10..30).map(job).collect();
    assert_eq!(counted(&mut fan, &jobs, noon()), [None; 20]);
}

#[test]
fn a_connection_more_than_the_rate_departs_until_the_period_is_over() {
    let mut rate = Counted::default();
    let seen: Vec<_> = (0..7).map(|_| web_to(host(1), 443)).collect();
    let expected = [None, None, None, None, None, Some(Signal::Rate), Some(Signal::Rate)];
    assert_eq!(counted(&mut rate, &seen, noon()), expected);
    let next = noon() + SignedDuration::from_mins(1);
    assert_eq!(counted(&mut rate, &seen[..5], next), [None; 5]);
}

#[test]
fn outside_the_hours_every_connection_departs_and_all_are_one_finding_that_contains_nobody() {
    let documents = documents();
    let sunday = noon() - SignedDuration::from_hours(24);
    let seen = web_to(end("db", 3), 5432);
    let habits = Habits::of(&documents.intents, &seen.client).expect("habits");
    let mut counted = Counted::default();
    let departures = counted.look(&habits, &seen, (sunday, None));
    let [departure] = &departures[..] else { panic!("one departure, not {departures:?}") };
    assert_eq!(
        (departure.signal, departure.role, departure.with()),
        (Signal::OffHours, Role::Client, Peer::Several)
    );
    let (decision, confidence, why) = decide(departure, &seen.service());
    assert_eq!((decision, confidence), (Decision::Flag, Confidence::High));
    assert!(why.contains("outside the hours of its intent: spiffe://a.example/db (10.1.0.3) at tcp/5432, sun 12:00 (Europe/Berlin); intent web"), "{why}");
    assert!(why.ends_with("opens connections mon,tue,wed,thu,fri 06:00-22:00 (Europe/Berlin)"), "{why}");
}

#[test]
fn fan_out_is_contained_where_the_intent_says_so_and_a_rate_never() {
    let documents = documents();
    let seen = web_to(host(1), 443);
    let of = |signal| {
        let (intent, own, peer) = (&documents.intents[0], &seen.client, &seen.server);
        let End::Identified { id, .. } = own else { panic!("it has an identity") };
        let departure =
            Departure { intent, id, own, role: Role::Client, peer, signal, detail: None, rule: None };
        decide(&departure, &seen.service()).0
    };
    assert_eq!(of(Signal::FanOut), Decision::Contain { seconds: 900 });
    assert_eq!(of(Signal::Rate), Decision::Flag);
}

#[test]
fn names_and_programs_that_one_intent_has_are_expected_and_where_none_is_declared_nothing_is_said() {
    let declared = "\
---
apiVersion: tidegate.dev/v1
kind: Intent
metadata: {name: names}
spec:
  identities: [{spiffeId: spiffe://a.example/web}]
  workload: service
  dns: [\"*.shop.example\"]
  processes: [/usr/bin/web]
---
apiVersion: tidegate.dev/v1
kind: Intent
metadata: {name: more-names}
spec:
  identities: [{spiffePath: spiffe://a.example/web*}]
  workload: service
  dns: [api.bank.example]
  processes: [/opt/tools/*]
";
    let documents = Documents::parse("intents.yaml", &format!("{INTENTS}{declared}"), noon());
    let documents = documents.unwrap_or_else(|e| panic!("{e}"));
    let resolver = Seen { proto: 17, ..web_to(host(53), 53) };
    let asked = |seen: &Seen, name: &str| {
        let departure = lookups::undeclared(&documents.intents, seen, name);
        departure.map(|d| (d.signal, d.intent.name.clone(), decide(&d, &seen.service()).0))
    };
    assert_eq!(asked(&resolver, "db.shop.example"), None);
    assert_eq!(asked(&resolver, "API.bank.example"), None);
    // An intent that contains does not contain for that.
    let found = Some((Signal::NewName, "names".to_owned(), Decision::Flag));
    assert_eq!(asked(&resolver, "shop.example"), found);
    assert_eq!(asked(&Seen { client: end("db", 3), ..resolver.clone() }, "c2.example"), None);
    assert_eq!(asked(&Seen { client: host(9), ..resolver }, "c2.example"), None);

    let web = Seen::on_host(end("web", 2));
    let executed = |path: &str| processes::undeclared(&documents.intents, &web, path, 7).map(|d| d.signal);
    assert_eq!(executed("/usr/bin/web"), None);
    assert_eq!(executed("/opt/tools/bin/x"), None);
    assert_eq!(executed("./web"), Some(Signal::NewProcess));
    let opened = |name: &str| processes::opener(&documents.intents, &web, name, 7).map(|d| d.signal);
    assert_eq!(opened("curl"), None, "it may be of the folder");
    let db = Seen::on_host(end("db", 3));
    assert_eq!(processes::undeclared(&documents.intents, &db, "/bin/sh", 7), None);
}

#[test]
fn an_identity_at_one_address_too_many_is_contained_unless_nobody_knows_who_is_there() {
    let text = INTENTS.replace("  rate: {connections: 5/m}\n", "  instances: 2\n");
    let documents = Documents::parse("intents.yaml", &text, noon()).unwrap_or_else(|e| panic!("{e}"));
    let lease = |last: u8| (std::net::IpAddr::from([10, 1, 0, last]), Some(noon()));
    let web = Seen::alone(end("web", 9));
    let of = |seen: &Seen, others: &[u8]| {
        let others = others.iter().map(|last| lease(*last)).collect();
        places::one_more(&documents.intents, seen, &others).map(|d| decide(&d, &seen.service()))
    };
    assert_eq!(of(&web, &[2]), None, "two are as declared");
    let (decision, confidence, why) = of(&web, &[3, 2]).expect("a departure");
    assert_eq!((decision, confidence), (Decision::Contain { seconds: 900 }, Confidence::High));
    assert_eq!(
        why,
        "spiffe://a.example/web is at more addresses at once than its intent says: spiffe://a.example/web (10.1.0.9) at \
         enrolment, one of 3, with leases at 10.1.0.2 until 2126-11-25T11:00:00Z, 10.1.0.3 until 2126-11-25T11:00:00Z; intent \
         web (intents.yaml:1:1) is at 2 addresses at once"
    );
    // Somebody else claims the address too.
    let contested = Seen { server: End::Ambiguous(web.client.address()), ..web.clone() };
    let (decision, confidence, _) = of(&contested, &[2, 3]).expect("a departure");
    assert_eq!((decision, confidence), (Decision::Flag, Confidence::Low));
    // Of this one nothing is declared.
    assert_eq!(of(&Seen::alone(end("db", 9)), &[2, 3]), None);
}

#[test]
fn what_is_counted_is_bounded_and_who_was_silent_for_longest_is_forgotten() {
    let documents = documents();
    let mut counted = Counted::default();
    for n in 0..70_000u32 {
        let seen = Seen { client: end(&format!("web-{n}"), 2), ..web_to(host(1), 443) };
        let habits = Habits::of(&documents.intents, &seen.client).expect("habits");
        counted.look(&habits, &seen, (noon() + SignedDuration::from_millis(i64::from(n)), None));
    }
    assert_eq!(counted.forgotten, 16_385);
    // The last is remembered: it has had one of its three peers.
    let last = |host| Seen { client: end("web-69999", 2), server: host, proto: 6, port: 443 };
    let seen = [last(host(2)), last(host(3)), last(host(4))];
    let documents_habits = Habits::of(&documents.intents, &seen[0].client).expect("habits");
    let at = noon() + SignedDuration::from_secs(70);
    let found: Vec<_> =
        seen.iter().map(|seen| counted.look(&documents_habits, seen, (at, None)).len()).collect();
    assert_eq!(found, [0, 0, 1]);
}

#[test]
fn the_page_has_every_signal_with_what_it_leads_to() {
    let page = include_str!("../../../docs/governance.md");
    let rows: BTreeSet<Vec<String>> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|row| row.split('|').map(|cell| cell.trim().replace('`', "")).collect::<Vec<_>>())
        .filter(|cells| cells.len() == 5)
        .map(|cells| vec![cells[0].clone(), cells[2].clone(), cells[3].clone()])
        .collect();
    let row = |signal: Signal| {
        let contains = if signal.may_contain() { "where the intent says so" } else { "never" };
        vec![signal.name().to_owned(), signal.asks().name().to_owned(), contains.to_owned()]
    };
    assert_eq!(rows, Signal::ALL.into_iter().map(row).collect());
}
