//! What one more binding comes to, without a compile: of a workload whose kind is known.
//!
//! A kind is known where every selector that fits the workload is in force, and some end has the class of just these. Then the
//! policy has all that it needs, and the binding is one entry in one table.

use super::compile::Compiled;
use super::document::{Documents, Workload};
use super::numbering::{Numbered, Numbering};
use super::prefix::Prefix;
use super::selector::Selector;
use super::spiffe::SpiffeId;
use super::time::boot_time_ns;
use super::trie::TrieKey;
use datapath::abi::policy::LeaseEnd;
use datapath::abi::{Binding, NEVER};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// A binding, and the number that its identity was given for it.
pub type NewBinding = (Binding, Option<(SpiffeId, u32)>);

/// The kinds of what is in force.
#[derive(Debug)]
pub struct Kinds {
    /// With their numbers; those of addresses lie apart.
    selectors: Vec<(u32, Selector)>,
    by_id: HashMap<SpiffeId, u32>,
    cidrs: BTreeMap<Prefix, u32>,
    /// The lengths of those, so that not every length is tried.
    lengths: BTreeSet<u32>,
    /// What blocks, quarantines and limits say of identities: who fits any of these takes a compile.
    guarded: Vec<Selector>,
    /// Prefixes that the files claim.
    claimed: HashSet<Prefix>,
    labels: HashMap<SpiffeId, BTreeMap<String, String>>,
    wall_of_boot_ns: i128,
}

impl Kinds {
    /// Of what was compiled. `files` are the workloads of the policy's files alone.
    pub fn of(documents: &Documents, files: &[Workload], numbering: &Numbering) -> Self {
        let named: BTreeSet<&Selector> = documents.selectors().collect();
        let mut kinds = Self {
            selectors: Vec::new(),
            by_id: HashMap::new(),
            cidrs: BTreeMap::new(),
            lengths: BTreeSet::new(),
            guarded: guarded(documents),
            claimed: files.iter().flat_map(|w| w.addresses.iter().copied()).collect(),
            labels: HashMap::new(),
            wall_of_boot_ns: i128::from(numbering.kept_wall_of_boot_ns().unwrap_or(0)),
        };
        for workload in files {
            kinds.labels.entry(workload.spiffe_id.clone()).or_insert_with(|| workload.labels.clone());
        }
        for selector in named {
            let Some(number) = numbering.number_of(Numbered::Selector, &selector.to_string()) else {
                continue;
            };
            match selector {
                Selector::Any | Selector::Not(_) => {}
                Selector::Cidr(prefix) => {
                    kinds.lengths.insert(prefix.bits());
                    kinds.cidrs.insert(*prefix, number);
                }
                Selector::SpiffeId(id) => {
                    kinds.by_id.insert(id.clone(), number);
                }
                other => kinds.selectors.push((number, other.clone())),
            }
        }
        kinds
    }

    /// Has other blocks, quarantines and limits count.
    pub fn guard(&mut self, documents: &Documents) {
        self.guarded = guarded(documents);
    }

    /// Whether more than the claims of sources say something of just this prefix.
    pub fn is_contested(&self, prefix: &Prefix) -> bool {
        self.claimed.contains(prefix) || self.cidrs.contains_key(prefix)
    }

    /// What the only workload that claims an address is bound as; nothing where that takes a compile.
    pub fn binding(
        &self,
        workload: &Workload,
        prefix: &Prefix,
        compiled: &Compiled,
        numbering: &mut Numbering,
    ) -> Option<NewBinding> {
        let id = &workload.spiffe_id;
        let labels = match self.labels.get(id) {
            Some(labels) if workload.labels.is_empty() => labels,
            _ => &workload.labels,
        };
        if self.guarded.iter().any(|selector| selector.matches_workload(id, labels)) {
            return None;
        }
        let fits = |(_, selector): &&(u32, Selector)| selector.matches_workload(id, labels);
        let mut set: Vec<u32> = self.selectors.iter().filter(fits).map(|(number, _)| *number).collect();
        set.extend(self.by_id.get(id));
        let covering =
            self.lengths.iter().filter_map(|bits| self.cidrs.get_key_value(&prefix.truncated(*bits)));
        set.extend(covering.filter(|(cidr, _)| cidr.covers(prefix)).map(|(_, number)| *number));
        set.sort_unstable();
        let key = set.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let class =
            numbering.number_of(Numbered::Class, &key).filter(|n| compiled.classes.contains_key(n))?;
        let known = numbering.identity_number(id);
        // A limit is an identity's, also where only another workload of that identity fits it.
        if known.is_some_and(|number| compiled.limits.contains_key(&number)) {
            return None;
        }
        let identity = known.unwrap_or_else(|| numbering.identity(id));
        let given = known.is_none().then(|| (id.clone(), identity));
        let (not_after_ns, on_expiry, grace_s) = match workload.lease {
            None => (NEVER, LeaseEnd::Deny, 0),
            Some(lease) => {
                let end = boot_time_ns(lease.not_after, self.wall_of_boot_ns);
                (end, lease.on_expiry.in_kernel(), lease.grace_s)
            }
        };
        let on_expiry = on_expiry as u8;
        Some((Binding { identity, class, not_after_ns, on_expiry, limits: 0, grace_s, guards: 0 }, given))
    }
}

fn guarded(documents: &Documents) -> Vec<Selector> {
    let blocked =
        documents.blocklists.iter().flat_map(|b| &b.entries).filter_map(|e| e.target.selector.as_ref());
    let blocked = blocked.filter(|selector| !matches!(selector, Selector::Cidr(_)));
    let quarantined = documents.quarantines.iter().flat_map(|q| &q.identities);
    let limited = documents.limits.iter().flat_map(|limit| &limit.identities);
    blocked.chain(quarantined).chain(limited).cloned().collect()
}
