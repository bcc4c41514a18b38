//! Those whom quarantines are about, found among very many.

use super::State;
use crate::policy::contain::Changed;
use crate::policy::document::{Documents, Workload};
use crate::policy::selector::Selector;
use crate::policy::spiffe::SpiffeId;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// More identities than these are compiled with all others.
const FEW: usize = 1024;

impl State {
    /// Blocklists and quarantines that count, and all workloads of each identity that some of these quarantines are about, in the order in
    /// which a compile has them. Nothing where they are many, or not found without a look at all.
    pub fn concerned(&self, changed: &Changed<'_>, now: Timestamp) -> Option<Documents> {
        let (files, people) = (&self.documents().workloads, self.set.people());
        let mut ids: BTreeSet<&SpiffeId> = BTreeSet::new();
        for selector in changed.all().flat_map(|quarantine| &quarantine.identities) {
            let is_known = !matches!(selector, Selector::Any | Selector::Cidr(_) | Selector::Not(_));
            // What a source binds may have its labels from the files.
            let is_of_files = matches!(selector, Selector::Labels(_)) && !self.bindings.is_empty();
            if !is_known || is_of_files {
                return None;
            }
            let fitting = people.fitting(files, selector);
            ids.extend(
                fitting.filter(|w| selector.matches_workload(&w.spiffe_id, &w.labels)).map(|w| &w.spiffe_id),
            );
            if ids.len() > FEW {
                return None;
            }
        }
        let none = BTreeMap::new();
        ids.extend(
            self.bindings.iter().map(|(_, claim)| &claim.spiffe_id).filter(|id| changed.fit(id, &none)),
        );
        if ids.len() > FEW {
            return None;
        }
        let mut own: Vec<&Workload> = Vec::new();
        for id in &ids {
            let selector = Selector::SpiffeId((*id).clone());
            own.extend(people.fitting(files, &selector).filter(|workload| workload.spiffe_id == **id));
        }
        let labels: BTreeMap<&SpiffeId, &BTreeMap<String, String>> =
            own.iter().rev().map(|workload| (&workload.spiffe_id, &workload.labels)).collect();
        let bound = self.bindings.iter().filter(|(_, claim)| ids.contains(&claim.spiffe_id));
        let bound = bound.map(|(source, claim)| {
            let of_files = labels.get(&claim.spiffe_id).copied().unwrap_or(&none);
            claim.workload(source, if claim.labels.is_empty() { of_files } else { &claim.labels })
        });
        // In the order of the files: it is that of numbers.
        own.sort_by_key(|workload| std::ptr::from_ref(*workload));
        let workloads = Arc::new(own.into_iter().cloned().chain(bound).collect());
        let (blocklists, quarantines) =
            (self.documents().blocklists.clone(), self.documents().quarantines.clone());
        let mut documents = Documents { workloads, blocklists, quarantines, ..Documents::default() };
        self.add_guards(&mut documents, now);
        Some(documents)
    }
}
