//! What was applied last: it outlives the daemon and gives the numbers in the maps their names.

use crate::exit_code::{Failure, Result};
use crate::policy::compile::RuleInfo;
use crate::policy::document::{BlockEntry, Blocklist};
use crate::policy::quarantine::Quarantine;
use crate::policy::{Documents, Numbering, Place};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// The blocklist that `tidegate block add` writes to.
pub const MANUAL_BLOCKLIST: &str = "manual";

/// The saved state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Counts commits.
    pub revision: u64,
    /// The epoch of the last commit.
    pub epoch: u32,
    /// When it was.
    pub applied_at: Option<Timestamp>,
    /// What the files said.
    pub documents: Documents,
    /// What `tidegate block add` said.
    pub blocks: Vec<BlockEntry>,
    /// What `tidegate quarantine add` said.
    #[serde(default)]
    pub quarantines: Vec<Quarantine>,
    /// A candidate that is judged beside what counts.
    #[serde(default)]
    pub shadow: Option<Shadow>,
    /// Numbers of identities, classes and rules.
    pub numbering: Numbering,
    /// Every rule that ever had a number; the current ones and older ones.
    pub rules: BTreeMap<u32, RuleInfo>,
    /// Selectors of each class.
    pub classes: BTreeMap<u32, Vec<String>>,
}

/// A candidate policy that is judged beside the one that counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadow {
    /// What its files say.
    pub documents: Documents,
    /// One of so many flows is judged by it.
    pub sample: u32,
    /// When it began.
    pub since: Timestamp,
}

impl State {
    /// Reads the state; an empty one where there is none.
    pub fn load(path: &Path) -> Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(Failure::io(format!("read {}", path.display()), &e)),
        };
        serde_json::from_str(&text).map_err(|e| {
            Failure::failed(format!("{} is damaged; move it away to start anew", path.display()), e)
        })
    }

    /// Replaces the file, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<()> {
        let write = || -> std::io::Result<()> {
            let dir = path.parent().unwrap_or(Path::new("/"));
            std::fs::create_dir_all(dir)?;
            let new = path.with_extension("json.new");
            let mut file = std::fs::File::create(&new)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()?;
            std::fs::rename(&new, path)?;
            std::fs::File::open(dir)?.sync_all()
        };
        write().map_err(|e| Failure::io(format!("write {}", path.display()), &e))
    }

    /// The documents with the manual blocklist and quarantines, less what is over.
    pub fn effective(&self, now: Timestamp) -> Documents {
        let mut documents = self.documents.clone();
        let holds = |entry: &&BlockEntry| entry.not_after.is_none_or(|end| end > now);
        let entries: Vec<_> = self.blocks.iter().filter(holds).cloned().collect();
        if !entries.is_empty() {
            documents.blocklists.push(Blocklist {
                name: MANUAL_BLOCKLIST.into(),
                entries,
                place: manual_place(),
            });
        }
        let holds = |quarantine: &&Quarantine| quarantine.not_after.is_none_or(|end| end > now);
        documents.quarantines.extend(self.quarantines.iter().filter(holds).cloned());
        documents
    }
}

/// The name of a quarantine that `tidegate quarantine add` made: no document can have it.
pub fn manual_quarantine(identity: &str) -> String {
    format!("{MANUAL_BLOCKLIST}:{identity}")
}

/// Where a quarantine of the command line stands.
pub fn manual_quarantine_place() -> Place {
    Place { file: "tidegate quarantine add".into(), line: 1, column: 1 }
}

/// Where an entry of the manual blocklist stands.
pub fn manual_place() -> Place {
    Place { file: "tidegate block add".into(), line: 1, column: 1 }
}
