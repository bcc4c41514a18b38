//! Bindings that come from elsewhere than the policy's files: claims of sources, each with a lease and evidence.
//!
//! A source says that an address is an identity's, until when, and what it goes by. Sources know nothing of each other: what
//! two of them say of one address is put together when it is compiled, and where they disagree, nobody is believed.

mod table;

pub use table::{Bindings, Change, labels, labels_of};

use crate::policy::document::{Lease, Workload};
use crate::policy::scope::{Scope, ScopeError};
use crate::policy::spiffe::SpiffeId;
use crate::policy::{Place, Prefix};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The evidence of a claim that names the certificate by which an identity was proven: its SHA-256 in hexadecimal.
pub const CERTIFICATE: &str = "svid_sha256";

/// Who makes claims: `manual` for `tidegate identity bind`, `enrol` for enrolment, and so on.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
pub struct SourceName(String);

/// What keeps a text from being the name of a source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no name of a source: write 1 to 32 of a-z, 0-9 and `-`; `policy` is that of the policy's own files"
)]
pub struct SourceNameError(String);

impl SourceName {
    /// What operators bind by hand.
    pub fn manual() -> Self {
        Self("manual".into())
    }

    /// What workloads proved to the gateway themselves.
    pub fn enrol() -> Self {
        Self("enrol".into())
    }

    /// What `--identities` reads.
    pub fn files() -> Self {
        Self("files".into())
    }

    /// Before all names.
    fn first() -> Self {
        Self(String::new())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SourceName {
    type Err = SourceNameError;

    fn from_str(text: &str) -> Result<Self, SourceNameError> {
        let is_fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if (1..=32).contains(&text.len()) && text.chars().all(is_fine) && text != "policy" {
            return Ok(Self(text.to_owned()));
        }
        Err(SourceNameError(text.to_owned()))
    }
}

impl TryFrom<String> for SourceName {
    type Error = SourceNameError;

    fn try_from(text: String) -> Result<Self, SourceNameError> {
        text.parse()
    }
}

impl From<SourceName> for String {
    fn from(name: SourceName) -> Self {
        name.0
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a source says: these addresses, here, are this identity's, until then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Claim {
    /// An address, or a prefix.
    pub address: Prefix,
    /// Where it holds.
    #[serde(flatten)]
    pub scope: Scope,
    /// Whose it is.
    pub spiffe_id: SpiffeId,
    /// What label selectors go by. Empty: those of the policy's workload that has the same SPIFFE ID.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Until when; for ever without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// What the source goes by, for people: `serial`, `issuer`, `uri`, `file` and the like.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub evidence: BTreeMap<String, String>,
}

/// What keeps a claim from being one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Its scope.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// X509-SVID, section 5.2: a leaf's ID has a path.
    #[error("{0} has no path: the SPIFFE ID of a workload has one")]
    NoPath(SpiffeId),
    /// Too much of it.
    #[error("evidence of more than {MOST_EVIDENCE} bytes: say less")]
    Evidence,
}

/// Evidence is kept with each binding.
const MOST_EVIDENCE: usize = 4096;

impl Claim {
    /// Whether it can be bound.
    pub fn check(&self) -> Result<(), ClaimError> {
        self.scope.check(std::slice::from_ref(&self.address))?;
        if self.spiffe_id.path().is_empty() {
            return Err(ClaimError::NoPath(self.spiffe_id.clone()));
        }
        let evidence: usize = self.evidence.iter().map(|(name, text)| name.len() + text.len()).sum();
        if evidence > MOST_EVIDENCE { Err(ClaimError::Evidence) } else { Ok(()) }
    }

    /// What it is about.
    pub fn slot(&self) -> Slot {
        Slot { address: self.address, scope: self.scope.clone() }
    }

    /// As the compiler takes it, beside the workloads of the policy's files.
    pub fn workload(&self, source: &SourceName, labels: &BTreeMap<String, String>) -> Workload {
        Workload {
            name: format!("{source}:{}{}", self.address, self.scope),
            spiffe_id: self.spiffe_id.clone(),
            addresses: vec![self.address],
            scope: self.scope.clone(),
            labels: labels.clone(),
            lease: self.lease,
            place: place(source),
        }
    }
}

/// Where bindings of a source stand: no file can be named so.
pub fn place(source: &SourceName) -> Place {
    Place { file: format!("source {source}").into(), line: 1, column: 1 }
}

/// What a claim is about: a source has one claim for each.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct Slot {
    /// An address, or a prefix.
    pub address: Prefix,
    /// Where.
    #[serde(flatten)]
    pub scope: Scope,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.address, self.scope)
    }
}
