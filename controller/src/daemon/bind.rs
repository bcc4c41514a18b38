//! What sources of bindings want done: checked, and told about.

use super::commit::Committed;
use super::inlet::{Lent, What};
use super::rebind::Rebound;
use super::{Shared, lock};
use crate::bindings::{CERTIFICATE, Change, Claim, Slot, SourceName};
use crate::exit_code::{Code, Failure, Result};
use crate::names::Names;
use crate::state::Author;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Bound {
    /// Claims that are new, or say something else than before.
    pub set: usize,
    /// Claims that are gone.
    pub withdrawn: usize,
    /// Addresses of these that several identities claim now, and who does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ambiguous: Vec<Ambiguity>,
}

/// Claims of one address that contradict each other: it has no identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Ambiguity {
    /// What is claimed.
    pub slot: Slot,
    /// Who claims it: the SPIFFE ID, and by whom that is said.
    pub claimants: Vec<(String, String)>,
}

/// Which claims of a source go.
#[derive(Clone, Debug, PartialEq)]
pub enum Withdraw {
    /// These.
    Slots(Vec<Slot>),
    /// All of them.
    All,
}

impl Shared {
    /// Binds or renews: afterwards the claims are what the source says of their addresses, and packets are judged by it.
    /// A claim that is made again with a later lease renews the first.
    pub(crate) fn bind(&self, source: &SourceName, claims: Vec<Claim>) -> Result<Bound> {
        check(&claims)?;
        self.rebind(source, |_| claims.into_iter().map(Change::Set).collect())
    }

    /// Takes claims of a source back.
    pub(crate) fn withdraw(&self, source: &SourceName, which: Withdraw) -> Result<Bound> {
        self.rebind(source, |committed| match which {
            Withdraw::Slots(slots) => slots.into_iter().map(Change::Withdraw).collect(),
            Withdraw::All => committed.state.bindings.replacing(source, Vec::new()),
        })
    }

    /// Has a source say this and nothing else.
    pub(crate) fn bind_only(&self, source: &SourceName, claims: Vec<Claim>) -> Result<Bound> {
        check(&claims)?;
        self.rebind(source, |committed| committed.state.bindings.replacing(source, claims))
    }

    /// Forgets claims whose leases have been over for long, and settles who an address belongs to whose other claimant's
    /// lease is over.
    pub(super) fn let_leases_end(&self) -> Result<()> {
        let now = jiff::Timestamp::now();
        let mut outdated: BTreeMap<SourceName, Vec<Change>> = BTreeMap::new();
        for (source, change) in self.with_state(|state| state.bindings.outdated(now)) {
            outdated.entry(source).or_default().push(change);
        }
        for (source, changes) in outdated {
            self.rebind(&source, |_| changes)?;
        }
        if lock(&self.committed).is_settled_by_time(now) {
            self.commit(&Author::daemon("a lease of a claimant is over"), |_| {})?;
        }
        Ok(())
    }

    fn rebind(&self, source: &SourceName, changes: impl FnOnce(&Committed) -> Vec<Change>) -> Result<Bound> {
        let mut committed = lock(&self.committed);
        let changes = changes(&committed);
        let Rebound { changes, given, compiled, .. } = committed.rebind(&self.maps, source, changes)?;
        if compiled {
            self.hub.rename(Names::of(&committed.state));
        } else {
            self.hub.learn(&given);
        }
        for change in &changes {
            if let Change::Set(claim) = change
                && claim.address.bits() == 128
            {
                let certificate = claim.evidence.get(CERTIFICATE).map(|sha256| sha256.as_str().into());
                let until = claim.lease.map(|lease| lease.not_after);
                let (id, address) = (claim.spiffe_id.clone(), claim.address.addr());
                self.hub.compare(What::Lease(Lent { id, address, until, certificate }));
            }
        }
        if let Some(host) = self.host.as_ref().filter(|host| host.is_about(&changes)) {
            host.settle(&committed.state);
        }
        let withdrawn = changes.iter().filter(|change| matches!(change, Change::Withdraw(_))).count();
        let ambiguous = committed.ambiguities(changes.iter().map(Change::slot));
        for Ambiguity { slot, claimants } in &ambiguous {
            let who: Vec<_> = claimants.iter().map(|(id, source)| format!("{id} ({source})")).collect();
            tracing::warn!("{slot} is ambiguous, and nobody's: {} claim it", who.join(" and "));
        }
        Ok(Bound { set: changes.len() - withdrawn, withdrawn, ambiguous })
    }
}

fn check(claims: &[Claim]) -> Result<()> {
    for claim in claims {
        claim.check().map_err(|e| Failure::new(Code::Usage, format!("{}: {e}", claim.slot())))?;
    }
    Ok(())
}
