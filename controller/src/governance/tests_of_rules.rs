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
    End::Identified { id, labels: BTreeMap::new(), address: Addr::v4([10, 1, 0, 2]) }
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
    assert_eq!((why[0].0.as_str(), why[1].0.as_str()), ("plain", "fails"));
    assert_eq!(
        why[0].1,
        "spiffe://a.example/web did what a rule of its intent looks for: spiffe://a.example/db (10.1.0.2) at tcp/80, \
         HTTP without TLS; intent web (web.yaml:1:1) looks for plain: role == \"client\" && port == 80"
    );
}
