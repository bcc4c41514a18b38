//! Selectors: which ends of a connection a rule speaks of.

use super::prefix::Prefix;
use super::spiffe::{SpiffeId, SpiffePattern, TrustDomain};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// One selector. A rule's end is a list of them: one has to match, and none of those that take away. See [`fits`].
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
    /// Takes away what the other, which is none of these and not `any`, matches. Only rules of policies have it.
    Not(Box<Selector>),
}

impl Selector {
    /// The fields of which a selector has one.
    pub const KINDS: [&'static str; 6] = ["spiffeId", "spiffePath", "trustDomain", "labels", "cidr", "any"];

    /// What it speaks of, whether it adds or takes away.
    pub fn subject(&self) -> &Self {
        if let Self::Not(taken) = self { taken } else { self }
    }

    /// What it takes away, if it does.
    pub fn taken(&self) -> Option<&Self> {
        if let Self::Not(taken) = self { Some(taken) } else { None }
    }

    /// Whether a workload of this identity and these labels matches, wherever it is. What takes away matches nobody.
    pub fn matches_workload(&self, id: &SpiffeId, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::SpiffeId(own) => own == id,
            Self::SpiffePath(pattern) => pattern.matches(id),
            Self::TrustDomain(domain) => domain.as_str() == id.trust_domain(),
            Self::Labels(wanted) => wanted.iter().all(|(k, v)| labels.get(k) == Some(v)),
            Self::Cidr(_) | Self::Not(_) => false,
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
            Self::Not(taken) => write!(f, "not {taken}"),
        }
    }
}

/// Those of a list that add; `any` alone where all of them take away.
pub fn added(selectors: &[Selector]) -> impl Iterator<Item = &Selector> {
    let everything = selectors.iter().all(|s| s.taken().is_some()).then_some(&Selector::Any);
    selectors.iter().filter(|s| s.taken().is_none()).chain(everything.filter(|_| !selectors.is_empty()))
}

/// What those of a list that take away speak of.
pub fn taken(selectors: &[Selector]) -> impl Iterator<Item = &Selector> {
    selectors.iter().filter_map(Selector::taken)
}

/// Whether a list is about an end that single selectors match or not: one that adds does, and none that takes away.
pub fn fits(selectors: &[Selector], matches: impl Fn(&Selector) -> bool) -> bool {
    added(selectors).any(&matches) && !taken(selectors).any(&matches)
}

/// Selectors as one text: `a or b, but not c`.
pub fn selectors_text(selectors: &[Selector]) -> String {
    let text = |all: &mut dyn Iterator<Item = &Selector>| {
        all.map(Selector::to_string).collect::<Vec<_>>().join(" or ")
    };
    let (added, taken) = (text(&mut added(selectors)), text(&mut taken(selectors)));
    if taken.is_empty() { added } else { format!("{added}, but not {taken}") }
}
