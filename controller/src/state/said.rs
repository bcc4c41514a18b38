//! What one file says, apart from all others: what the store keeps once for all sets of files that have it.

use crate::policy::Documents;
use crate::policy::document::{Blocklist, Policy, Workload};
use crate::policy::gateway::Gateway;
use crate::policy::grant::Grant;
use crate::policy::identity_limits::IdentityLimit;
use crate::policy::intent::Intent;
use crate::policy::place::Place;
use crate::policy::quarantine::Quarantine;
use serde::Serialize;
use std::collections::HashMap;

/// Documents of one file, as [`Documents`] are written.
#[derive(Default, Serialize)]
pub struct Said<'d> {
    workloads: Vec<&'d Workload>,
    policies: Vec<&'d Policy>,
    blocklists: Vec<&'d Blocklist>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    quarantines: Vec<&'d Quarantine>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    grants: Vec<&'d Grant>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    limits: Vec<&'d IdentityLimit>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    intents: Vec<&'d Intent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<&'d Gateway>,
}

impl<'d> Said<'d> {
    /// What `file` says of this.
    pub fn of(documents: &'d Documents, file: &str) -> Self {
        Self::apart(documents, [file].into_iter()).swap_remove(0)
    }

    /// What each file says, and last what no file does.
    pub fn apart<'f>(documents: &'d Documents, files: impl Iterator<Item = &'f str>) -> Vec<Self> {
        let files: Vec<&str> = files.collect();
        let none = files.len();
        let mut at: HashMap<&str, usize> = files.into_iter().enumerate().map(|(n, file)| (file, n)).collect();
        if at.len() != none {
            at.clear(); // of two files of one name nobody knows whose it is
        }
        let mut all: Vec<Self> = std::iter::repeat_with(Self::default).take(none + 1).collect();
        let home = |place: &Place| at.get(&*place.file).copied().unwrap_or(none);
        // Every kind has to be here: a new one does not compile before it is.
        let Documents { workloads, policies, blocklists, quarantines, grants, limits, intents, gateway } =
            documents;
        workloads.iter().for_each(|one| all[home(&one.place)].workloads.push(one));
        policies.iter().for_each(|one| all[home(&one.place)].policies.push(one));
        blocklists.iter().for_each(|one| all[home(&one.place)].blocklists.push(one));
        quarantines.iter().for_each(|one| all[home(&one.place)].quarantines.push(one));
        grants.iter().for_each(|one| all[home(&one.place)].grants.push(one));
        limits.iter().for_each(|one| all[home(&one.place)].limits.push(one));
        intents.iter().for_each(|one| all[home(&one.place)].intents.push(one));
        gateway.iter().for_each(|one| all[home(&one.place)].gateway = Some(one));
        all
    }
}
