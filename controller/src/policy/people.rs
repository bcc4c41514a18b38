//! Who fits a selector, of very many workloads: found without a look at all of them.

use super::document::{Documents, Workload};
use super::selector::Selector;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Where workloads stand, by what selectors ask for.
#[derive(Debug, Default)]
pub struct People {
    /// The files in which they stand.
    pub homes: HashSet<Arc<str>>,
    /// In order of their SPIFFE IDs.
    by_id: Vec<u32>,
    labels: HashMap<(String, String), Vec<u32>>,
}

impl People {
    /// Of all workloads of documents.
    pub fn of(documents: &Documents) -> Self {
        let workloads = &documents.workloads;
        let mut people = Self { by_id: (0..workloads.len() as u32).collect(), ..Self::default() };
        people.by_id.sort_by_key(|n| workloads[*n as usize].spiffe_id.as_str());
        let mut last: Option<&Arc<str>> = None;
        for (n, workload) in workloads.iter().enumerate() {
            let file = &workload.place.file;
            if last != Some(file) {
                people.homes.insert(file.clone());
                last = Some(file);
            }
            for (key, value) in &workload.labels {
                people.labels.entry((key.clone(), value.clone())).or_default().push(n as u32);
            }
        }
        people
    }

    /// Those that a selector of identities fits; of an address, everybody may.
    pub fn fitting<'w>(
        &'w self,
        workloads: &'w [Workload],
        selector: &Selector,
    ) -> impl Iterator<Item = &'w Workload> {
        let by_prefix = |prefix: &str| {
            let id = |n: &u32| workloads[*n as usize].spiffe_id.as_str();
            let first = self.by_id.partition_point(|n| id(n) < prefix);
            let count = self.by_id[first..].partition_point(|n| id(n).starts_with(prefix));
            &self.by_id[first..first + count]
        };
        let found = match selector {
            Selector::Any | Selector::Not(_) => &[],
            Selector::Cidr(_) => &self.by_id[..],
            Selector::SpiffeId(id) => by_prefix(id.as_str()),
            Selector::SpiffePath(pattern) => {
                by_prefix(pattern.to_string().split('*').next().unwrap_or_default())
            }
            Selector::TrustDomain(domain) => by_prefix(&format!("spiffe://{domain}")),
            Selector::Labels(labels) => {
                let first = labels.first_key_value().map(|(key, value)| (key.clone(), value.clone()));
                first.and_then(|pair| self.labels.get(&pair)).map_or(&[][..], |found| found)
            }
        };
        found.iter().filter_map(|n| workloads.get(*n as usize))
    }
}
