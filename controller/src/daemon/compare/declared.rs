//! What is declared, as it is in force, and what is remembered of who was held against it.

use crate::daemon::inlet::Ends;
use crate::governance::{End, Seen};
use crate::names::Names;
use crate::policy::spiffe::SpiffeId;
use crate::state::PolicySet;
use datapath::abi::{Addr, Binding};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Connections that are known to be expected, so that they are not compared again.
const EXPECTED: usize = 65_536;

/// What was declared, as it is in force.
#[derive(Default)]
pub(super) struct Declared {
    pub(super) set: Arc<PolicySet>,
    labels: HashMap<SpiffeId, BTreeMap<String, String>>,
    expected: HashSet<Ends>,
    /// Who the ends of connections are by `names`, and by the labels of the set.
    ends: HashMap<Ends, Arc<Seen>>,
    names: Arc<Names>,
    /// Since when the inlet knows what is expected.
    pub(super) generation: u64,
    /// The first intent of identities, by its place.
    classes: HashMap<u32, Option<usize>>,
    /// Identities of whose habits no intent says anything.
    without_habits: HashSet<u32>,
    /// Whether every event has to be looked at.
    pub(super) has_rules: bool,
}

impl Declared {
    /// Follows the policy, and says whether it is another. Who was expected may not be any more.
    pub(super) fn follow(&mut self, set: Arc<PolicySet>) -> bool {
        if Arc::ptr_eq(&set, &self.set) {
            return false;
        }
        self.has_rules = set.documents.intents.iter().any(|intent| !intent.rules.is_empty());
        // They can be very many, and most changes are of something else.
        if !Arc::ptr_eq(&set.documents.workloads, &self.set.documents.workloads) {
            let workloads = set.documents.workloads.iter().filter(|w| !w.labels.is_empty());
            self.labels = workloads.map(|w| (w.spiffe_id.clone(), w.labels.clone())).collect();
        }
        self.expected.clear();
        self.ends.clear();
        self.classes.clear();
        self.without_habits.clear();
        self.set = set;
        true
    }

    /// Who the ends are. In a storm the same ones come by the thousand, so that they are remembered.
    pub(super) fn seen(&mut self, names: &Arc<Names>, ends: &Ends) -> Arc<Seen> {
        if !Arc::ptr_eq(names, &self.names) || self.ends.len() >= EXPECTED {
            self.ends.clear();
            self.names = names.clone();
        }
        if let Some(seen) = self.ends.get(ends) {
            return seen.clone();
        }
        let [client, server] = ends.of.map(|(number, address)| self.end(names, number, address));
        let seen = Arc::new(Seen { client, server, proto: ends.proto, port: ends.port });
        self.ends.insert(*ends, seen.clone());
        seen
    }

    /// Whose class the client of a connection is of.
    pub(super) fn class(&mut self, number: u32, client: &End) -> Option<usize> {
        if !matches!(client, End::Identified { .. }) {
            return None;
        }
        if self.classes.len() >= EXPECTED {
            self.classes.clear();
        }
        let intents = &self.set.documents.intents;
        let of = || intents.iter().position(|intent| client.is_any_of(&intent.identities));
        *self.classes.entry(number).or_insert_with(of)
    }

    /// An identity, at this address.
    pub(super) fn own(&self, id: &SpiffeId, address: Addr) -> End {
        let labels = self.labels.get(id).cloned().unwrap_or_default();
        let end = End::Identified { id: id.clone(), labels, address, is_shared: false };
        end.known_by(&self.set.documents.intents)
    }

    /// Who the end of a connection is.
    pub(super) fn end(&self, names: &Names, number: u32, address: Addr) -> End {
        if number == Binding::AMBIGUOUS {
            return End::Ambiguous(address);
        }
        match names.identity(number).and_then(|id| id.parse::<SpiffeId>().ok()) {
            Some(id) => self.own(&id, address),
            None => End::Unidentified(address),
        }
    }

    /// Whether nothing of a connection has to be looked at.
    pub(super) fn is_known(&self, ends: &Ends) -> bool {
        !self.has_rules && self.expected.contains(ends) && self.without_habits.contains(&ends.of[0].0)
    }

    /// Notes that nothing departs in a connection. Returns whether all others had to be forgotten for that.
    pub(super) fn note_expected(&mut self, ends: Ends) -> bool {
        let is_full = self.expected.len() == EXPECTED;
        if is_full {
            self.expected.clear();
        }
        self.expected.insert(ends);
        is_full
    }

    /// Notes that no intent says anything of an identity's habits.
    pub(super) fn note_without_habits(&mut self, number: u32) {
        self.without_habits.insert(number);
    }
}
