//! What was applied last: it outlives the daemon and gives the numbers in the maps their names.

mod author;
mod concerned;
mod confirmation;
mod reserve;
mod said;
mod set;
mod store;

pub use author::{Author, How, Who};
pub use confirmation::{Confirmation, boot_id};
pub use reserve::Reserve;
pub use set::{PolicySet, digest};
pub use store::{Given, InKernel, KEPT_REVISIONS, Outcome, Revision, Store};

use crate::bindings::Bindings;
use crate::policy::act::ActName;
use crate::policy::compile::RuleInfo;
use crate::policy::document::{BlockEntry, Blocklist};
use crate::policy::grant::Grant;
use crate::policy::quarantine::Quarantine;
use crate::policy::{Documents, Numbering, Place};
use jiff::Timestamp;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The blocklist that `tidegate block add` writes to.
pub const MANUAL_BLOCKLIST: &str = "manual";

/// What counts, and what is needed to read the maps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Counts commits, those that failed too.
    pub revision: u64,
    /// The epoch of the last commit.
    pub epoch: u32,
    /// When it was.
    pub applied_at: Option<Timestamp>,
    /// What the files said.
    pub set: Arc<PolicySet>,
    /// What `tidegate block add` said.
    pub blocks: Vec<BlockEntry>,
    /// What `tidegate quarantine add` said.
    pub quarantines: Vec<Quarantine>,
    /// What `tidegate grant` gave.
    pub grants: Vec<Grant>,
    /// What sources of bindings say.
    pub bindings: Arc<Bindings>,
    /// Until when this has to be confirmed, and what counts again if it is not.
    pub confirmation: Option<Confirmation>,
    /// A candidate that is judged beside what counts.
    pub shadow: Option<Shadow>,
    /// Numbers of identities, classes and rules.
    pub numbering: Numbering,
    /// Every rule that ever had a number; the current ones and older ones.
    pub rules: BTreeMap<u32, RuleInfo>,
}

/// A candidate policy that is judged beside the one that counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Shadow {
    /// What its files say.
    pub set: Arc<PolicySet>,
    /// One of so many flows is judged by it.
    pub sample: u32,
    /// When it began.
    pub since: Timestamp,
}

impl State {
    /// What the files said.
    pub fn documents(&self) -> &Documents {
        &self.set.documents
    }

    /// Has other files count. A candidate was one for what counted before, and goes.
    pub fn apply(&mut self, set: Arc<PolicySet>) {
        self.set = set.with_ends_of(&self.set);
        self.shadow = None;
        self.confirmation = None;
    }

    /// Every grant that is not over then, of files and given by hand.
    pub fn grants_at(&self, at: Timestamp) -> Vec<&Grant> {
        let all = self.documents().grants.iter().chain(&self.grants);
        all.filter(|grant| grant.not_after > at).collect()
    }

    /// Those that the last commit had count.
    pub fn grants_in_force(&self) -> Vec<&Grant> {
        self.applied_at.map_or_else(Vec::new, |at| self.grants_at(at))
    }

    /// The documents with what sources bind, the manual blocklist, quarantines and grants, less what is over. They are copied only
    /// where that makes a difference: they can be long.
    pub fn effective(&self, now: Timestamp) -> Cow<'_, Documents> {
        let mut documents = Cow::Borrowed(self.documents());
        let is_alone = self.blocks.is_empty() && self.quarantines.is_empty() && self.grants.is_empty();
        let nothing_is_over = documents.grants.iter().all(|grant| grant.not_after > now);
        if is_alone && nothing_is_over && self.bindings.iter().next().is_none() {
            return documents;
        }
        self.add_what_is_beside(documents.to_mut(), now);
        documents
    }

    fn add_what_is_beside(&self, documents: &mut Documents, now: Timestamp) {
        if self.bindings.iter().next().is_some() {
            let bound = self.bindings.workloads(&self.documents().workloads);
            Arc::make_mut(&mut documents.workloads).extend(bound);
        }
        self.add_guards(documents, now);
        documents.grants = self.grants_at(now).into_iter().cloned().collect();
    }

    /// Blocks and quarantines of the command line, less what is over.
    fn add_guards(&self, documents: &mut Documents, now: Timestamp) {
        let holds = |entry: &&BlockEntry| entry.not_after.is_none_or(|end| end > now);
        let entries: Vec<_> = self.blocks.iter().filter(holds).cloned().collect();
        if !entries.is_empty() {
            documents.blocklists.push(Blocklist {
                name: MANUAL_BLOCKLIST.into(),
                entries,
                feeds: Vec::new(),
                place: manual_place(),
            });
        }
        let holds = |quarantine: &&Quarantine| quarantine.not_after.is_none_or(|end| end > now);
        documents.quarantines.extend(self.quarantines.iter().filter(holds).cloned());
    }
}

/// The name of a quarantine that `tidegate quarantine add` made: no document can have it.
pub fn manual_quarantine(identity: &str) -> String {
    format!("{MANUAL_BLOCKLIST}:{identity}")
}

/// The name of what was done about an identity by hand or by the governance loop.
pub fn manual_act(act: ActName, identity: &str) -> String {
    match act {
        ActName::Quarantine => manual_quarantine(identity),
        less => format!("{MANUAL_BLOCKLIST}:{less}:{identity}"),
    }
}

/// Whether a quarantine has such a name: it is of no file, and `tidegate quarantine del` ends it.
pub fn is_manual(name: &str) -> bool {
    name.strip_prefix(MANUAL_BLOCKLIST).is_some_and(|rest| rest.starts_with(':'))
}

/// Where a quarantine of the command line stands.
pub fn manual_quarantine_place() -> Place {
    Place { file: "tidegate quarantine add".into(), line: 1, column: 1 }
}

/// The name of the grant that a revision gave by hand: no document can have it.
pub fn manual_grant(revision: u64) -> String {
    format!("{MANUAL_BLOCKLIST}:g{revision}")
}

/// What people call such a grant; nothing for one of a file.
pub fn manual_grant_id(name: &str) -> Option<&str> {
    name.strip_prefix(MANUAL_BLOCKLIST)?.strip_prefix(':')
}

/// Where a grant of the command line stands.
pub fn manual_grant_place() -> Place {
    Place { file: "tidegate grant".into(), line: 1, column: 1 }
}

/// Where an entry of the manual blocklist stands.
pub fn manual_place() -> Place {
    Place { file: "tidegate block add".into(), line: 1, column: 1 }
}
