//! Grants as the record tells of them: what a commit gives and ends, and from that who had access when.

use super::{Kind, Record};
use crate::exit_code::{Code, Failure, Result};
use crate::policy::grant::Grant;
use crate::state::{Outcome, State, Store};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// What a commit does to grants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Those that begin, and those that are another from now on.
    pub given: Vec<Grant>,
    /// Names of those that are no longer.
    pub ended: Vec<String>,
}

impl Changed {
    /// What the second of two states makes of the grants of the first.
    pub fn between(before: &State, after: &State) -> Self {
        let (was, will) = (before.grants_in_force(), after.grants_in_force());
        let mut before: HashMap<&str, Vec<&Grant>> = HashMap::new();
        was.iter().for_each(|grant| before.entry(&grant.name).or_default().push(grant));
        let is_new = |grant: &&&Grant| before.get(&*grant.name).is_none_or(|was| !was.contains(*grant));
        let given = will.iter().filter(is_new).map(|grant| (*grant).clone()).collect();
        let names: HashSet<&str> = will.iter().map(|grant| &*grant.name).collect();
        let is_gone = |grant: &&&Grant| !names.contains(&*grant.name);
        let ended = was.iter().filter(is_gone).map(|grant| grant.name.clone()).collect();
        Self { given, ended }
    }

    /// Whether nothing changes.
    pub fn is_none(&self) -> bool {
        self.given.is_empty() && self.ended.is_empty()
    }
}

/// A grant that was given.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Given {
    /// What it says.
    pub grant: Grant,
    /// When it began.
    pub since: Timestamp,
    /// Who gave it.
    pub by: String,
    /// How and when it ended before its time.
    pub revoked: Option<Revoked>,
    /// The revision that gave it.
    revision: u64,
}

/// The end of a grant before its time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Revoked {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// By which command.
    pub how: String,
    /// The revision that did it.
    revision: u64,
}

impl Given {
    /// When it ended, or ends.
    pub fn end(&self) -> Timestamp {
        self.revoked.as_ref().map_or(self.grant.not_after, |revoked| revoked.at)
    }

    /// Whether somebody had access by it then.
    pub fn holds_at(&self, at: Timestamp) -> bool {
        self.since <= at && at < self.end()
    }
}

/// Every grant that ever was, in the order in which they were given; nothing in the place of those that were given in vain.
#[derive(Debug, Default)]
pub struct History {
    given: Vec<Option<Given>>,
    /// Of each name, where those are that nobody has ended.
    open: HashMap<String, Vec<usize>>,
    /// Where those are that a revision gave or ended.
    of_revision: HashMap<u64, Vec<usize>>,
    /// Commits of which the outcome is not told yet.
    pending: HashMap<u64, Record>,
}

impl History {
    /// Reads the record of an instance.
    pub fn read(store: &Store) -> Result<Vec<Given>> {
        let mut history = Self::default();
        store.audit(0, |seq, text, _| {
            // Most records are of neither kind, and need not be taken apart.
            if text.contains("\"grants\":") || text.contains("\"kind\":\"outcome\"") {
                let record = Record::read(&text).map_err(|why| {
                    let message = format!("record {seq}: {why}; `tidegate audit verify` says more");
                    Failure::new(Code::Failure, message)
                })?;
                history.take(record);
            }
            Ok(())
        })?;
        Ok(history.given.into_iter().flatten().collect())
    }

    fn take(&mut self, record: Record) {
        let Some(revision) = record.what["revision"].as_u64() else { return };
        if record.kind == Kind::Commit.name() {
            self.pending.insert(revision, record);
        } else if record.kind == Kind::Outcome.name() {
            let outcome = record.what["outcome"].as_str();
            if outcome == Some(Outcome::Committed.name()) {
                self.committed(revision);
            } else if outcome != Some(Outcome::TakenBack.name()) {
                self.undo(revision);
            }
        }
    }

    fn committed(&mut self, revision: u64) {
        let Some(commit) = self.pending.remove(&revision) else { return };
        let Ok(Changed { given, ended }) = Changed::deserialize(&commit.what["grants"]) else { return };
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let (by, how) = (text(&commit.by["who"]), text(&commit.by["how"]));
        let over = ended.iter().chain(given.iter().map(|grant| &grant.name));
        for at in over.filter_map(|name| self.open.remove(name)).flatten().collect::<Vec<_>>() {
            let Some(known) = &mut self.given[at] else { continue };
            // One that ended by itself was not ended by anybody.
            if known.grant.not_after > commit.at {
                let (by, how) = (by.clone(), how.clone());
                known.revoked = Some(Revoked { at: commit.at, by, how, revision });
                self.of_revision.entry(revision).or_default().push(at);
            }
        }
        for grant in given {
            let at = self.given.len();
            self.open.entry(grant.name.clone()).or_default().push(at);
            self.of_revision.entry(revision).or_default().push(at);
            self.given.push(Some(Given { grant, since: commit.at, by: by.clone(), revoked: None, revision }));
        }
    }

    /// A revision that was made in vain, and perhaps counted for a moment.
    fn undo(&mut self, revision: u64) {
        self.pending.remove(&revision);
        for at in self.of_revision.remove(&revision).unwrap_or_default() {
            let place = &mut self.given[at];
            place.take_if(|given| given.revision == revision);
            let Some(given) = place else { continue };
            if given.revoked.take_if(|revoked| revoked.revision == revision).is_some() {
                self.open.entry(given.grant.name.clone()).or_default().push(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Author, Given, InKernel, Who, manual_grant, manual_grant_place};
    use jiff::SignedDuration;
    use serde_json::json;

    fn grant(n: u64, lasts: SignedDuration) -> Grant {
        let end = |id: &str| vec![json!({"spiffeId": format!("spiffe://acme.example/{id}")})];
        serde_json::from_value(json!({
            "name": manual_grant(n), "from": end("oncall"), "to": end("db"), "ports": ["tcp/5432"],
            "not_after": Timestamp::now() + lasts, "reason": "why", "place": manual_grant_place(),
        }))
        .unwrap()
    }

    /// Makes a revision, and has it count or not.
    fn commit(
        store: &mut Store,
        before: &State,
        how: &str,
        counts: bool,
        change: impl FnOnce(&mut State),
    ) -> State {
        let revision = store.next_revision().unwrap();
        let mut state = State { revision, applied_at: Some(Timestamp::now()), ..before.clone() };
        change(&mut state);
        let by = Author { who: Who::User(0), how: how.into() };
        let kernel = InKernel { epoch: revision as u32, generation: "these maps".into() };
        store.begin(&state, &kernel, &by, before, || Some(Given::default())).unwrap();
        if counts {
            store.mark(&state, before.revision, &[]).unwrap();
            return state;
        }
        store.refuse(revision, "no room").unwrap();
        before.clone()
    }

    fn texts(store: &Store) -> Vec<String> {
        let mut texts = Vec::new();
        let take = |_, text: String, _| {
            texts.push(text);
            Ok(())
        };
        store.audit(0, take).unwrap();
        texts
    }

    fn held_at(store: &Store, at: Timestamp) -> Vec<String> {
        let given = History::read(store).unwrap();
        given.into_iter().filter(|given| given.holds_at(at)).map(|given| given.grant.name).collect()
    }

    #[test]
    fn who_had_what_then_is_told_from_the_record_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("state.db")).unwrap();
        let hour = SignedDuration::from_hours(1);
        let nobody = Timestamp::now();
        let state = commit(&mut store, &State::default(), "grant", true, |s| s.grants.push(grant(1, hour)));
        let first = Timestamp::now();
        // What did not count was never held, and ends nothing.
        let state = commit(&mut store, &state, "grant", false, |s| s.grants = vec![grant(2, hour)]);
        let state = commit(&mut store, &state, "grant", true, |s| s.grants.push(grant(3, hour * 2)));
        let both = Timestamp::now();
        let state = commit(&mut store, &state, "grant revoke g1", true, |s| {
            s.grants.retain(|g| g.name != manual_grant(1))
        });
        let second = Timestamp::now();
        // A commit that has nothing to do with it says nothing of it.
        commit(&mut store, &state, "block add", true, |_| {});

        assert_eq!(held_at(&store, nobody), [""; 0]);
        assert_eq!(held_at(&store, first), ["manual:g1"]);
        assert_eq!(held_at(&store, both), ["manual:g1", "manual:g3"]);
        assert_eq!(held_at(&store, second), ["manual:g3"]);
        assert_eq!(held_at(&store, second + hour * 3), [""; 0], "it ended by itself");
        let given = History::read(&store).unwrap();
        assert_eq!((given.len(), given[0].by.as_str()), (2, "root"));
        let revoked = given[0].revoked.as_ref().unwrap();
        assert_eq!((revoked.by.as_str(), revoked.how.as_str()), ("root", "grant revoke g1"));
        assert_eq!(given[1].revoked, None);
        let about = |text: &str| {
            text.contains("\"about\":[\"spiffe://acme.example/db\",\"spiffe://acme.example/oncall\"]")
        };
        let commits: Vec<_> = texts(&store)
            .iter()
            .filter(|text| text.contains("\"grants\":"))
            .map(|text| about(text))
            .collect();
        assert_eq!(commits, [true; 4]);
    }

    #[test]
    fn a_grant_that_is_over_is_no_longer_in_force_when_the_next_commit_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("state.db")).unwrap();
        let state = commit(&mut store, &State::default(), "grant", true, |s| {
            s.grants.push(grant(1, SignedDuration::from_millis(1)))
        });
        assert_eq!(state.grants_in_force().len(), 1);
        while state.grants_at(Timestamp::now()).len() == 1 {
            std::thread::yield_now();
        }
        commit(&mut store, &state, "over: grant manual:g1", true, |_| {});
        let told = texts(&store).into_iter().find(|text| text.contains("over: grant")).unwrap();
        assert!(told.contains("\"grants\":{\"ended\":[\"manual:g1\"],\"given\":[]}"), "{told}");
        assert!(told.contains("\"what\":\"grant\""), "{told}");
        let given = History::read(&store).unwrap();
        assert_eq!((given.len(), &given[0].revoked), (1, &None), "nobody revoked it");
    }

    #[test]
    fn a_hundred_thousand_records_take_no_longer_each_than_an_eighth_of_them() {
        let time = |number: u64| {
            let lasting = grant(1, SignedDuration::from_hours(1));
            let record = |kind: Kind, what: Value| {
                let at = Timestamp::now();
                let by = json!({"who": "root", "how": "grant add"});
                let text = json!({"v": 1, "seq": 1, "prev": "", "at": at, "kind": kind.name(), "by": by, "what": what, "about": []});
                serde_json::from_value::<Record>(text).unwrap()
            };
            let records: Vec<Record> = (1..=number / 2)
                .flat_map(|revision| {
                    let given = Changed {
                        given: vec![Grant { name: manual_grant(revision), ..lasting.clone() }],
                        ended: (revision % 2 == 0).then(|| manual_grant(revision - 1)).into_iter().collect(),
                    };
                    let outcome = if revision % 10 == 0 { Outcome::Refused } else { Outcome::Committed };
                    [
                        record(Kind::Commit, json!({"revision": revision, "grants": given})),
                        record(Kind::Outcome, json!({"revision": revision, "outcome": outcome.name()})),
                    ]
                })
                .collect();
            let mut history = History::default();
            let began = std::time::Instant::now();
            records.into_iter().for_each(|record| history.take(record));
            let took = began.elapsed();
            assert_eq!(history.given.iter().flatten().count() as u64, number / 2 - number / 20);
            took
        };
        let least = |number| (0..3).map(|_| time(number)).min().unwrap();
        let (few, many) = (least(12_500), least(100_000));
        // Eight times as many; looked through for each it is sixty-four times.
        assert!(many < few * 32, "{few:?} {many:?}");
    }
}
