//! Every claim of every source.

use super::{Claim, Slot, SourceName};
use crate::policy::Prefix;
use crate::policy::document::Workload;
use crate::policy::scope::Scope;
use crate::policy::spiffe::SpiffeId;
use jiff::{SignedDuration, Timestamp};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A claim whose lease is over is kept for so long: until then its end is what packets are judged by, and told by.
pub const KEPT_AFTER_END: SignedDuration = SignedDuration::from_mins(10);

/// What a claim is about, and who makes it.
type Key = (Slot, SourceName);

/// Claims by what they are about and who makes them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bindings {
    claims: BTreeMap<Key, Claim>,
    /// Where the claims of each identity are.
    of: HashMap<SpiffeId, BTreeSet<Key>>,
}

/// What is to be done to the claims of one source.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Made, renewed, or made to say something else.
    Set(Claim),
    /// Taken back.
    Withdraw(Slot),
}

impl Change {
    /// What it is about.
    pub fn slot(&self) -> Slot {
        match self {
            Self::Set(claim) => claim.slot(),
            Self::Withdraw(slot) => slot.clone(),
        }
    }
}

impl Bindings {
    /// Does what a source wants done. What is as it says already is left out of the answer.
    pub fn apply(&mut self, source: &SourceName, changes: impl IntoIterator<Item = Change>) -> Vec<Change> {
        let mut done = Vec::new();
        for change in changes {
            let key = (change.slot(), source.clone());
            let (before, after) = match &change {
                Change::Set(claim) => (self.claims.insert(key.clone(), claim.clone()), Some(claim)),
                Change::Withdraw(_) => (self.claims.remove(&key), None),
            };
            let whose = |claim: &Claim| claim.spiffe_id.clone();
            let (was, is) = (before.as_ref().map(whose), after.map(whose));
            if was != is {
                if let Some(id) = was {
                    self.forget(id, &key);
                }
                if let Some(id) = is {
                    self.of.entry(id).or_default().insert(key.clone());
                }
            }
            if before.as_ref() != after {
                done.push(change);
            }
        }
        done
    }

    fn forget(&mut self, id: SpiffeId, key: &Key) {
        if let Entry::Occupied(mut keys) = self.of.entry(id) {
            keys.get_mut().remove(key);
            if keys.get().is_empty() {
                keys.remove();
            }
        }
    }

    /// What of it changes anything: what is as a source says already is left out.
    pub fn news(&self, source: &SourceName, changes: impl IntoIterator<Item = Change>) -> Vec<Change> {
        let is_news = |change: &Change| match change {
            Change::Set(claim) => self.get(source, &claim.slot()) != Some(claim),
            Change::Withdraw(slot) => self.get(source, slot).is_some(),
        };
        changes.into_iter().filter(is_news).collect()
    }

    /// The claims of just this address or prefix.
    pub fn at(&self, address: Prefix) -> impl Iterator<Item = (&SourceName, &Claim)> {
        let first = (Slot { address, scope: Scope::default() }, SourceName::first());
        let here = self.claims.range(first..).take_while(move |((slot, _), _)| slot.address == address);
        here.map(|((_, source), claim)| (source, claim))
    }

    /// The claims that name an identity, in the order of what they are about.
    pub fn of_identity(&self, id: &SpiffeId) -> impl Iterator<Item = &Claim> {
        self.of.get(id).into_iter().flatten().filter_map(|key| self.claims.get(key))
    }

    /// What makes the claims of a source these and no others.
    pub fn replacing(&self, source: &SourceName, claims: Vec<Claim>) -> Vec<Change> {
        let wanted: BTreeSet<Slot> = claims.iter().map(Claim::slot).collect();
        let gone = self.of_source(source).map(Claim::slot).filter(|slot| !wanted.contains(slot));
        gone.map(Change::Withdraw).chain(claims.into_iter().map(Change::Set)).collect()
    }

    /// What takes back claims whose leases have been over for long.
    pub fn outdated(&self, now: Timestamp) -> Vec<(SourceName, Change)> {
        let is_old = |claim: &Claim| claim.lease.is_some_and(|lease| lease.end() + KEPT_AFTER_END < now);
        let old = self.claims.iter().filter(|(_, claim)| is_old(claim));
        old.map(|((slot, source), _)| (source.clone(), Change::Withdraw(slot.clone()))).collect()
    }

    /// The claim of a source.
    pub fn get(&self, source: &SourceName, slot: &Slot) -> Option<&Claim> {
        self.claims.get(&(slot.clone(), source.clone()))
    }

    /// The claims of a source.
    pub fn of_source<'b>(&'b self, source: &'b SourceName) -> impl Iterator<Item = &'b Claim> {
        self.claims.iter().filter(move |((_, by), _)| by == source).map(|(_, claim)| claim)
    }

    /// Every claim, and who makes it.
    pub fn iter(&self) -> impl Iterator<Item = (&SourceName, &Claim)> {
        self.claims.iter().map(|((_, source), claim)| (source, claim))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.claims.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// As the compiler takes them. A claim without labels has those of the workload in the files that has its SPIFFE ID.
    pub fn workloads(&self, files: &[Workload]) -> Vec<Workload> {
        let labels = labels(files);
        let none = BTreeMap::new();
        let labels_of = |claim: &Claim| match labels.get(&claim.spiffe_id) {
            Some(labels) if claim.labels.is_empty() => (*labels).clone(),
            _ if claim.labels.is_empty() => none.clone(),
            _ => claim.labels.clone(),
        };
        self.iter().map(|(source, claim)| claim.workload(source, &labels_of(claim))).collect()
    }
}

/// The labels that the files give an identity: of several workloads that have it, the first's.
pub fn labels(files: &[Workload]) -> HashMap<&SpiffeId, &BTreeMap<String, String>> {
    let mut labels = HashMap::new();
    for workload in files {
        labels.entry(&workload.spiffe_id).or_insert(&workload.labels);
    }
    labels
}

/// The same of one identity; none where no file names it.
pub fn labels_of<'f>(files: &'f [Workload], id: &SpiffeId) -> &'f BTreeMap<String, String> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    files.iter().find(|workload| workload.spiffe_id == *id).map_or(&NONE, |workload| &workload.labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_identity_the_labels_are_those_of_all() {
        let text = "\
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: one}
spec: {spiffeId: spiffe://a.example/w, addresses: [10.0.0.1], labels: {app: one}}
---
apiVersion: tidegate.dev/v1
kind: Workload
metadata: {name: two}
spec: {spiffeId: spiffe://a.example/w, addresses: [10.0.0.2], labels: {app: two}}
";
        let now = Timestamp::now();
        let files = crate::policy::Documents::parse("w.yaml", text, now).expect("documents").workloads;
        let id: SpiffeId = "spiffe://a.example/w".parse().expect("a SPIFFE ID");
        let other: SpiffeId = "spiffe://a.example/other".parse().expect("a SPIFFE ID");
        assert_eq!(labels_of(&files, &id), labels(&files)[&id]);
        assert_eq!(labels_of(&files, &id)["app"], "one", "the first's");
        assert!(labels_of(&files, &other).is_empty());
    }

    fn claim(address: &str, id: &str) -> Claim {
        Claim {
            address: address.parse().unwrap(),
            scope: Scope::default(),
            spiffe_id: id.parse().unwrap(),
            labels: BTreeMap::new(),
            lease: None,
            evidence: BTreeMap::new(),
        }
    }

    #[test]
    fn a_source_that_says_something_else_replaces_its_own_claims_alone() {
        let (enrol, manual) = (SourceName::enrol(), SourceName::manual());
        let mut bindings = Bindings::default();
        let (a, b) = (claim("10.0.0.1", "spiffe://td/a"), claim("10.0.0.2", "spiffe://td/b"));
        bindings.apply(&enrol, [Change::Set(a.clone()), Change::Set(b.clone())]);
        bindings.apply(&manual, [Change::Set(claim("10.0.0.1", "spiffe://td/c"))]);
        assert_eq!(bindings.apply(&enrol, [Change::Set(a.clone())]), [], "nothing new");
        let moved = claim("10.0.0.2", "spiffe://td/moved");
        let changes = bindings.replacing(&enrol, vec![moved.clone()]);
        assert_eq!(changes, [Change::Withdraw(a.slot()), Change::Set(moved.clone())]);
        bindings.apply(&enrol, changes);
        assert_eq!(bindings.of_source(&enrol).collect::<Vec<_>>(), [&moved]);
        let of = |bindings: &Bindings, id: &str| {
            let id = id.parse().unwrap();
            bindings.of_identity(&id).map(|claim| claim.address.to_string()).collect::<Vec<_>>()
        };
        let all = ["a", "b", "c", "moved"].map(|id| of(&bindings, &format!("spiffe://td/{id}")));
        assert_eq!(all, [vec![], vec![], vec!["10.0.0.1/32".to_owned()], vec!["10.0.0.2/32".to_owned()]]);
        assert_eq!(bindings.of.len(), 2, "whom nothing names takes no room");
        assert_eq!(bindings.of_source(&manual).count(), 1);
    }
}
