//! Selectors: which ends of a connection a rule speaks of.

use super::prefix::Prefix;
use super::spiffe::{SpiffeId, SpiffePattern, TrustDomain};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// One selector. A rule's end is a list of them, of which one has to match.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Selector {
    /// One identity.
    SpiffeId(SpiffeId),
    /// Identities by a pattern.
    SpiffePath(SpiffePattern),
    /// All of a trust domain.
    TrustDomain(TrustDomain),
    /// Workloads that have all of these labels.
    Labels(BTreeMap<String, String>),
    /// Addresses, whoever has them.
    Cidr(Prefix),
    /// Everything, also what has no identity.
    Any,
}

impl Selector {
    /// The fields of which a selector has one.
    pub const KINDS: [&'static str; 6] = ["spiffeId", "spiffePath", "trustDomain", "labels", "cidr", "any"];

    /// Whether a workload of this identity and these labels matches, wherever it is.
    pub fn matches_workload(&self, id: &SpiffeId, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::SpiffeId(own) => own == id,
            Self::SpiffePath(pattern) => pattern.matches(id),
            Self::TrustDomain(domain) => domain.as_str() == id.trust_domain(),
            Self::Labels(wanted) => wanted.iter().all(|(k, v)| labels.get(k) == Some(v)),
            Self::Cidr(_) => false,
            Self::Any => true,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SpiffeId(id) => write!(f, "{id}"),
            Self::SpiffePath(pattern) => write!(f, "{pattern}"),
            Self::TrustDomain(domain) => write!(f, "trust domain {domain}"),
            Self::Labels(labels) => {
                f.write_str("labels ")?;
                for (n, (k, v)) in labels.iter().enumerate() {
                    write!(f, "{}{k}={v}", if n == 0 { "" } else { "," })?;
                }
                Ok(())
            }
            Self::Cidr(prefix) => write!(f, "{prefix}"),
            Self::Any => f.write_str("any"),
        }
    }
}

/// Selectors as one text: `a or b`.
pub fn selectors_text(selectors: &[Selector]) -> String {
    selectors.iter().map(Selector::to_string).collect::<Vec<_>>().join(" or ")
}
