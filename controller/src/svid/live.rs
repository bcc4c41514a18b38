//! The newest material, shared by all who show it or verify by it.

use super::material::Material;
use super::refusal::{Reason, Refusal, Refused};
use super::verify::{Peer, Side};
use crate::policy::spiffe::{SpiffeId, TrustDomain};
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, UnixTime};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// How it stands with the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceState {
    /// Nothing came yet.
    Waiting,
    /// What is used is the newest.
    Current,
    /// Something newer was refused, or the source is away: the last that was good is used.
    Stale,
}

impl SourceState {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Current => "current",
            Self::Stale => "stale",
        }
    }
}

/// What is to be said of the gateway's own identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Status {
    /// Where it comes from.
    pub source: String,
    /// How it stands with that.
    pub state: SourceState,
    /// Since when.
    pub since: Timestamp,
    /// What the source says is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Who the gateway is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<SpiffeId>,
    /// The end of its SVID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// Whose SVIDs it can verify.
    pub trust_domains: Vec<TrustDomain>,
    /// How often new material came.
    pub updates: u64,
    /// How often the source failed.
    pub failures: u64,
}

struct Source {
    name: String,
    state: SourceState,
    since: Timestamp,
    error: Option<String>,
    updates: u64,
    failures: u64,
}

struct Shared {
    material: watch::Sender<Option<Arc<Material>>>,
    source: Mutex<Source>,
    refused: Refused,
}

/// The live value. Clones are the same one.
#[derive(Clone)]
pub struct Live(Arc<Shared>);

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Live").field(&*self.0.material.borrow()).finish()
    }
}

impl Live {
    /// Empty, until its source fills it.
    pub fn new(source: impl Into<String>) -> Self {
        let source = Source {
            name: source.into(),
            state: SourceState::Waiting,
            since: Timestamp::now(),
            error: None,
            updates: 0,
            failures: 0,
        };
        let (material, _) = watch::channel(None);
        Self(Arc::new(Shared { material, source: Mutex::new(source), refused: Refused::default() }))
    }

    /// The newest.
    pub fn material(&self) -> Option<Arc<Material>> {
        self.0.material.borrow().clone()
    }

    /// Tells of every change: a new SVID, or other bundles.
    pub fn changes(&self) -> watch::Receiver<Option<Arc<Material>>> {
        self.0.material.subscribe()
    }

    /// Verifies a peer's chain by what is trusted now. A handshake that is refused is counted by [`super::tls`].
    pub fn verify(&self, chain: &[CertificateDer<'_>], side: Side, now: UnixTime) -> Result<Peer, Refusal> {
        let material = self.material();
        let material = material.ok_or_else(|| {
            Reason::NoTrustBundles.because(format_args!("nothing came from {} yet", self.source().name))
        })?;
        material.verify(chain, side, now)
    }

    /// Whether a client whose connection lives would be let in now.
    pub fn verify_again(&self, chain: &[CertificateDer<'_>]) -> Result<Peer, Refusal> {
        self.verify(chain, Side::Client, UnixTime::now())
    }

    /// How often handshakes were refused.
    pub fn refused(&self) -> &Refused {
        &self.0.refused
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        let material = self.material();
        let source = self.source();
        let material = material.as_deref();
        Status {
            source: source.name.clone(),
            state: source.state,
            since: source.since,
            error: source.error.clone(),
            spiffe_id: material.map(|m| m.id().clone()),
            not_after: material.map(Material::not_after),
            trust_domains: material.into_iter().flat_map(Material::trust_domains).cloned().collect(),
            updates: source.updates,
            failures: source.failures,
        }
    }

    /// From a source: this is the newest. Says whether it is another than before.
    pub(super) fn publish(&self, mut material: Material) -> bool {
        let mut source = self.source();
        if source.state != SourceState::Current {
            source.since = Timestamp::now();
        }
        source.state = SourceState::Current;
        source.error = None;
        let changed = self.0.material.send_if_modified(|current| {
            match current {
                Some(current) if current.is_same(&material) => return false,
                Some(current) => material.retire(current),
                None => {}
            }
            tracing::info!("{} until {}, from {}", material.id(), material.not_after(), source.name);
            *current = Some(Arc::new(material));
            true
        });
        source.updates += u64::from(changed);
        changed
    }

    /// From a source: it failed. What is used stays.
    pub(super) fn trouble(&self, error: impl std::fmt::Display) {
        let error = error.to_string();
        let has_material = self.0.material.borrow().is_some();
        let mut source = self.source();
        source.failures += 1;
        let state = if has_material { SourceState::Stale } else { SourceState::Waiting };
        if source.error.as_ref() == Some(&error) {
            return;
        }
        let goes_on = if has_material { "; what came last is used on" } else { "" };
        tracing::warn!("{}: {error}{goes_on}", source.name);
        if source.state != state {
            source.since = Timestamp::now();
        }
        source.state = state;
        source.error = Some(error);
    }

    fn source(&self) -> MutexGuard<'_, Source> {
        self.0.source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
