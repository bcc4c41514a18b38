//! One step after the other: which is next, and when.

use super::compare::End;
use super::*;
use crate::policy::Documents;
use crate::policy::act::ActName;
use crate::policy::spiffe::SpiffeId;
use datapath::abi::Addr;
use jiff::Timestamp;
use std::collections::BTreeMap;

const INTENT: &str = "\
apiVersion: tidegate.dev/v1
kind: Intent
metadata: {name: orders}
spec:
  identities: [{spiffeId: spiffe://a.example/orders}]
  workload: service
  client: []
  response:
    action: contain
    steps:
      - {act: limit, rate: {connections: 10/s}, for: 10m}
      - {act: restrict, after: 30s, for: 20m}
      - {act: quarantine, for: 1h}
";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(4_900_000_000 + second).unwrap()
}

fn orders() -> SpiffeId {
    "spiffe://a.example/orders".parse().unwrap()
}

struct Case {
    documents: Documents,
    book: Book,
    _folder: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let book = Book::open(&folder.path().join("findings.db")).unwrap();
        let documents = Documents::parse("i.yaml", INTENT, at(0)).unwrap_or_else(|e| panic!("{e}"));
        Self { documents, book, _folder: folder }
    }

    /// What is to be done where it departs then.
    fn departs(&mut self, second: i64) -> Option<(usize, ActName)> {
        let address = |last| Addr::v4([10, 1, 0, last]);
        let client =
            End::Identified { id: orders(), labels: BTreeMap::new(), address: address(2), is_shared: false };
        let seen = Seen { client, server: End::Unidentified(address(9)), proto: 6, port: 22 };
        let [departure] = &compare(&self.documents.intents, &seen)[..] else { panic!("it departs") };
        let evidence = Evidence {
            time: at(second),
            identity: orders(),
            address: address(2).to_ip(),
            peer_address: address(9).to_ip(),
            peer: None,
            service: seen.service(),
            verdict: "FORWARDED".into(),
            reason: "FORWARDED".into(),
            rule: None,
            epoch: 1,
            detail: None,
        };
        let contain = self.book.note(departure, &seen, evidence)?.contain?;
        Some((contain.number, contain.step.act.name()))
    }

    /// That it was done, until then.
    fn done(&mut self, second: i64, step: usize, act: ActName, until: i64) {
        let (at, until) = (at(second), at(until));
        self.book.contained(
            1,
            Containment {
                identity: orders(),
                act,
                step,
                at,
                until,
                revision: 1,
                by_people: false,
                undone: false,
            },
        );
    }
}

#[test]
fn the_next_step_is_for_what_goes_on_after_its_patience_and_the_last_for_what_goes_on_after_its_end() {
    let mut case = Case::new();
    assert_eq!(case.departs(0), Some((0, ActName::Limit)));
    // It was not done, and is asked for again.
    assert_eq!(case.departs(1), Some((0, ActName::Limit)));
    case.done(2, 0, ActName::Limit, 602);
    assert_eq!(case.departs(31), None, "the limit has 30 s to show what it does");
    assert_eq!(case.departs(32), Some((1, ActName::Restrict)));
    case.done(32, 1, ActName::Restrict, 1232);
    assert_eq!(case.departs(41), None, "without a word it has 10 s");
    assert_eq!(case.departs(42), Some((2, ActName::Quarantine)));
    case.done(42, 2, ActName::Quarantine, 3642);
    assert_eq!(case.departs(3641), None);
    assert_eq!(case.departs(3642), Some((2, ActName::Quarantine)), "there is nothing beyond it");
}

#[test]
fn what_begins_anew_after_a_step_is_over_goes_on_where_that_was_and_a_resolved_one_begins_again() {
    let mut case = Case::new();
    case.departs(0);
    case.done(0, 0, ActName::Limit, 600);
    assert_eq!(case.departs(90_000), Some((1, ActName::Restrict)));
    let resolved = FindingState::Resolved { at: at(90_001), by: "root".into(), note: None };
    case.book.set_state(1, resolved).unwrap();
    assert_eq!(case.departs(90_002), Some((0, ActName::Limit)));
}

#[test]
fn an_intent_says_its_steps_in_words() {
    let said = Case::new().documents.intents[0].to_string();
    let steps = "limit connections 10/s (burst 10) for 10m00s, after 30s restrict for 20m00s, after 10s quarantine for 1h00m";
    assert!(said.ends_with(&format!("; contained by {steps}")), "{said}");
}
