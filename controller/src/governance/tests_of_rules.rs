//! Rules of intents: what they find, under which name, and where a mistake in one points.

use super::compare::{Role, Signal};
use super::decide::{Decision, decide};
use super::*;
use crate::policy::Documents;
use crate::policy::intent::Sensitivity;
use crate::policy::intent::facts::Facts;
use datapath::abi::Addr;
use std::collections::BTreeMap;

const INTENT: &str = r#"apiVersion: tidegate.dev/v1
kind: Intent
metadata: {name: web}
spec:
  identities: [{spiffeId: spiffe://a.example/web}]
  workload: service
  rules:
    - {name: plain, when: 'role == "client" && port == 80', message: HTTP without TLS}
    - name: odd-protocol
      when: event == "client_hello" && alpn.exists(p, p.startsWith("x-"))
      severity: high
      message: a tunnel
    - {name: fails, when: '100 / size(sni) > 5', message: fails without a name}
  response: {action: contain, for: 1h}
"#;

fn parse(text: &str) -> Result<Documents, crate::policy::Mistakes> {
    Documents::parse("web.yaml", text, jiff::Timestamp::UNIX_EPOCH)
}

fn end(path: &str) -> End {
    let id = format!("spiffe://a.example/{path}").parse().expect("a SPIFFE ID");
    End::Identified { id, labels: BTreeMap::new(), address: Addr::v4([10, 1, 0, 2]), is_shared: false }
}

#[test]
fn a_rule_finds_what_it_looks_for_on_the_side_of_its_identity_and_contains_nobody() {
    // Of a name that is empty nothing can be said by the third.
    let documents = parse(
        &INTENT
            .replace("    - {name: fails, when: '100 / size(sni) > 5', message: fails without a name}\n", ""),
    )
    .unwrap_or_else(|e| panic!("{e}"));
    let mut rules = Rules::default();
    let mut found = |client: &str, server: &str, told: &Facts| -> Vec<_> {
        let seen = Seen { client: end(client), server: end(server), proto: 6, port: 80 };
        let departures = rules.look(&documents.intents, &seen, told);
        let all = departures.iter().map(|d| {
            assert_eq!((d.signal, decide(d, &seen.service()).0), (Signal::Rule, Decision::Flag));
            (d.rule.map(|rule| rule.name.clone()).expect("a rule"), d.role, d.severity())
        });
        all.collect()
    };
    let verdict = Facts { event: "verdict", ..Facts::default() };
    let plain = ("plain".to_owned(), Role::Client, Sensitivity::Medium);
    assert_eq!(found("web", "db", &verdict), std::slice::from_ref(&plain));
    assert_eq!(found("db", "web", &verdict), []);
    let hello = Facts { event: "client_hello", alpn: vec!["x-shell".into()], ..Facts::default() };
    let odd = |role| ("odd-protocol".to_owned(), role, Sensitivity::High);
    assert_eq!(found("web", "db", &hello), [plain, odd(Role::Client)]);
    assert_eq!(found("db", "web", &hello), [odd(Role::Server)]);
}

#[test]
fn a_mistake_in_an_expression_points_into_it() {
    let said = parse(INTENT).expect_err("it divides by zero").to_string();
    assert!(said.contains("web.yaml:13:28: error: the expression fails"), "{said}");
    let said = parse(&INTENT.replace("port == 80", "prot == 80")).expect_err("no such name").to_string();
    assert!(
        said.contains(
            "web.yaml:8:48: error: an event has no `prot`\n  |\n8 |     - {name: plain, when: 'role == \"client\" && prot == 80', message: HTTP without TLS}\n  |                                                ^"
        ),
        "{said}"
    );
    let twice =
        parse(&INTENT.replace("name: fails, when: '100 / size(sni) > 5'", "name: plain, when: 'true'"));
    assert!(
        twice.expect_err("one name twice").to_string().contains("two rules of this intent are named `plain`")
    );
}

#[test]
fn findings_of_two_rules_are_two_with_the_severity_that_each_says() {
    let documents =
        parse(&INTENT.replace("100 / size(sni) > 5", "port == 80")).unwrap_or_else(|e| panic!("{e}"));
    let dir = tempfile::tempdir().expect("a folder");
    let mut book = Book::open(&dir.path().join("findings.db")).expect("a book");
    let seen = Seen { client: end("web"), server: end("db"), proto: 6, port: 80 };
    let mut rules = Rules::default();
    for departure in rules.look(&documents.intents, &seen, &Facts::default()) {
        let evidence = Evidence {
            time: jiff::Timestamp::UNIX_EPOCH,
            identity: departure.id.clone(),
            address: [10, 1, 0, 2].into(),
            peer_address: [10, 1, 0, 2].into(),
            peer: None,
            service: seen.service(),
            verdict: "FORWARDED".into(),
            reason: "FORWARDED".into(),
            rule: None,
            epoch: 1,
            detail: departure.detail.clone(),
        };
        book.note(&departure, &seen, evidence).expect("room");
    }
    let why: Vec<_> = book.all().map(|f| (f.key.rule.clone().expect("a rule"), f.why.clone())).collect();
    assert_eq!(why.len(), 2);
    assert!(book.all().all(|f| f.workload == Some(crate::policy::intent::WorkloadKind::Service)));
    assert_eq!((why[0].0.as_str(), why[1].0.as_str()), ("plain", "fails"));
    assert_eq!(
        why[0].1,
        "spiffe://a.example/web did what a rule of its intent looks for: spiffe://a.example/db (10.1.0.2) at tcp/80, \
         HTTP without TLS; intent web (web.yaml:1:1) looks for plain: role == \"client\" && port == 80"
    );
}

/// What rules find of an event whose ends are these.
fn found<'s>(rules: &mut Rules, documents: &'s Documents, seen: &'s Seen, told: &Facts) -> Vec<&'s str> {
    let departures = rules.look(&documents.intents, seen, told);
    departures.iter().filter_map(|departure| Some(departure.rule?.name.as_str())).collect()
}

#[test]
fn a_rule_that_fails_on_an_event_is_counted_and_named_until_other_intents_count() {
    let documents = parse(&INTENT.replace("100 / size(sni) > 5", "100 / (port - 80) > 5"))
        .unwrap_or_else(|e| panic!("{e}"));
    let mut rules = Rules::default();
    let seen = |port| Seen { client: end("web"), server: end("db"), proto: 6, port };
    let verdict = Facts { event: "verdict", ..Facts::default() };
    assert_eq!(found(&mut rules, &documents, &seen(81), &verdict), ["fails"]);
    assert_eq!((rules.failed, rules.failing()), (0, Vec::new()));
    for _ in 0..2 {
        assert_eq!(found(&mut rules, &documents, &seen(80), &verdict), ["plain"], "the others are asked");
    }
    let [failing] = &rules.failing()[..] else { panic!("one, not {:?}", rules.failing()) };
    assert_eq!((failing.intent.as_str(), failing.rule.as_str(), failing.times), ("web", "fails", 2));
    assert!(failing.error.to_lowercase().contains("zero"), "{}", failing.error);
    rules.clear();
    assert_eq!((rules.failed, rules.failing()), (2, Vec::new()));
}

#[test]
fn rules_are_asked_of_processes_sockets_and_enrolments_and_know_what_kind_of_workload_it_is() {
    let text = INTENT.replace(
        "    - {name: fails, when: '100 / size(sni) > 5', message: fails without a name}\n",
        r#"    - {name: shell, when: 'event == "process" && process.endsWith("/sh") && port == 0 && peer == ""', message: a shell}
    - {name: by-shell, when: 'event == "socket" && process == "sh" && port == 443', message: a shell connects}
    - {name: refused, when: 'event == "enrolment" && outcome == "refused" && reason == "address"', message: knocks}
    - {name: leased, when: 'event == "enrolment" && outcome == "granted" && workload == "agent"', message: an agent}
"#,
    );
    let documents =
        parse(&text.replace("workload: service", "workload: agent")).unwrap_or_else(|e| panic!("{e}"));
    let service = parse(&text).unwrap_or_else(|e| panic!("{e}"));
    let mut rules = Rules::default();
    let (alone, host) = (Seen::alone(end("web")), Seen::on_host(end("web")));
    let to = Seen { client: end("web"), server: end("db"), proto: 6, port: 443 };
    let facts = |event, process: &str| Facts { event, process: process.into(), ..Facts::default() };
    // On one side, once.
    assert_eq!(found(&mut rules, &documents, &host, &facts("process", "/bin/sh")), ["shell"]);
    assert!(found(&mut rules, &documents, &host, &facts("process", "/bin/true")).is_empty());
    assert_eq!(found(&mut rules, &documents, &to, &facts("socket", "sh")), ["by-shell"]);
    let enrolment = |outcome, reason| Facts { outcome, reason, ..facts("enrolment", "") };
    assert_eq!(found(&mut rules, &documents, &alone, &enrolment("refused", "address")), ["refused"]);
    assert!(found(&mut rules, &documents, &alone, &enrolment("refused", "revoked")).is_empty());
    assert_eq!(found(&mut rules, &documents, &alone, &enrolment("granted", "LEASE_GRANTED")), ["leased"]);
    rules.clear();
    assert!(
        found(&mut rules, &service, &alone, &enrolment("granted", "LEASE_GRANTED")).is_empty(),
        "a service"
    );
}
