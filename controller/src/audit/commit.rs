//! What a commit changes, in words: months later the files may be gone, and the numbers have other meanings.

use super::grants::Changed;
use super::{Entry, Kind};
use crate::policy::changes::{Change, What, changes};
use crate::policy::document::{Blocklist, Documents, Workload};
use crate::policy::selector::Selector;
use crate::state::{Author, MANUAL_BLOCKLIST, PolicySet, State, manual_place};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// Changes that a record tells one by one, and their bytes. What is more is counted; the digests bind the rest.
const TOLD: usize = 500;
const TOLD_BYTES: usize = 256 << 10;
/// Identities that a record names.
const NAMED: usize = 256;

/// The record of a revision that is about to be made.
pub fn commit(before: &State, after: &State, by: &Author) -> Entry {
    let other_files = !Arc::ptr_eq(&before.set, &after.set);
    // What did not change need not be compared: most commits are blocks, and files can be long.
    let (was, will) = if other_files {
        (
            with_manual(Cow::Borrowed(before.documents()), before),
            with_manual(Cow::Borrowed(after.documents()), after),
        )
    } else {
        (with_manual(Cow::default(), before), with_manual(Cow::default(), after))
    };
    let mut changes = changes(&was, &will);
    let about = about(&changes, [(&was, &before.set), (&will, &after.set)]);
    let mut bytes = 0;
    let mut told = 0;
    for change in &changes {
        bytes += change.before.as_ref().map_or(0, String::len) + change.after.as_ref().map_or(0, String::len);
        if told == TOLD || bytes > TOLD_BYTES {
            break;
        }
        told += 1;
    }
    let granted = Changed::between(before, after);
    let left_out = changes.len() - told;
    changes.truncate(told);
    let mut what = json!({
        "revision": after.revision,
        "epoch": after.epoch,
        "digest": after.set.digest,
        "changes": changes.iter().map(told_change).collect::<Vec<_>>(),
    });
    if left_out > 0 {
        what["changes_left_out"] = left_out.into();
    }
    if !granted.is_none() {
        what["grants"] = json!(granted);
    }
    if other_files {
        let files = after.set.files_with_digests();
        what["files"] = files.map(|(name, digest)| json!({"name": name, "digest": digest})).collect();
    }
    if let Some(waits) = &after.confirmation {
        what["confirm"] = json!({"revision": waits.revision, "by": waits.deadline_at.to_string()});
    }
    Entry { kind: Kind::Commit, by: by.clone(), about, what }
}

fn with_manual<'d>(mut documents: Cow<'d, Documents>, state: &State) -> Cow<'d, Documents> {
    if !state.blocks.is_empty() {
        let entries = state.blocks.clone();
        documents.to_mut().blocklists.push(Blocklist {
            name: MANUAL_BLOCKLIST.into(),
            entries,
            feeds: Vec::new(),
            place: manual_place(),
        });
    }
    if !state.quarantines.is_empty() {
        documents.to_mut().quarantines.extend(state.quarantines.iter().cloned());
    }
    // One that is over is no longer there, whoever has taken it out.
    let grants: Vec<_> = state.grants_in_force().into_iter().cloned().collect();
    if documents.grants != grants {
        documents.to_mut().grants = grants;
    }
    documents
}

fn told_change(change: &Change) -> Value {
    let mut told = json!({"what": change.what.name(), "name": change.name});
    for (field, text) in [("before", &change.before), ("after", &change.after)] {
        if let Some(text) = text {
            told[field] = text.as_str().into();
        }
    }
    if let Some(place) = &change.place {
        told["place"] = place.to_string().into();
    }
    told
}

/// The SPIFFE IDs of which the changed documents speak, by the workloads of before and after. A rule for everything names
/// nobody.
fn about(changes: &[Change], sides: [(&Documents, &PolicySet); 2]) -> BTreeSet<String> {
    let changed: HashSet<(What, &str)> = changes.iter().map(|c| (c.what, c.name.as_str())).collect();
    let is_changed = |what, name: &str| changed.contains(&(what, name));
    let rules = changes.iter().filter(|change| change.what == What::Rule);
    let policies: HashSet<&str> =
        rules.filter_map(|rule| rule.name.split_once('/')).map(|(policy, _)| policy).collect();
    let mut named = BTreeSet::new();
    for (documents, people) in sides {
        if changes.iter().any(|change| change.what == What::Workload) {
            for workload in documents.workloads.iter().filter(|w| is_changed(What::Workload, &w.name)) {
                if named.len() < NAMED {
                    named.insert(workload.spiffe_id.to_string());
                }
            }
        }
        let mut selectors: Vec<&Selector> = Vec::new();
        for policy in documents.policies.iter().filter(|policy| policies.contains(policy.name.as_str())) {
            for rule in &policy.rules {
                if is_changed(What::Rule, &Documents::rule_key(&policy.name, &rule.name)) {
                    selectors.extend(rule.from.iter().chain(&rule.to).map(Selector::subject));
                }
            }
        }
        for list in &documents.blocklists {
            let entries = list.entries.iter();
            let changed = entries
                .filter(|e| is_changed(What::Block, &Documents::rule_key(&list.name, &e.target.to_string())));
            selectors.extend(changed.filter_map(|entry| entry.target.selector.as_ref()));
        }
        for quarantine in documents.quarantines.iter().filter(|q| is_changed(What::Quarantine, &q.name)) {
            selectors.extend(&quarantine.identities);
        }
        for grant in documents.grants.iter().filter(|g| is_changed(What::Grant, &g.name)) {
            selectors.extend(grant.from.iter().chain(&grant.to));
        }
        for selector in selectors {
            name(selector, people, &mut named);
        }
    }
    named
}

fn name(selector: &Selector, set: &PolicySet, named: &mut BTreeSet<String>) {
    let fits = |workload: &&Workload| match selector {
        Selector::Any => false,
        Selector::Cidr(prefix) => {
            workload.addresses.iter().any(|own| prefix.covers(own) || own.covers(prefix))
        }
        selector => selector.matches_workload(&workload.spiffe_id, &workload.labels),
    };
    if let Selector::SpiffeId(id) = selector {
        named.insert(id.to_string());
    }
    let room = NAMED.saturating_sub(named.len());
    let people = &set.documents.workloads;
    let mut add = |all: &mut dyn Iterator<Item = &Workload>| {
        named.extend(all.filter(fits).take(room).map(|workload| workload.spiffe_id.to_string()));
    };
    match set.known_people() {
        Some(known) => add(&mut known.fitting(people, selector)),
        None => add(&mut people.iter()),
    }
}
