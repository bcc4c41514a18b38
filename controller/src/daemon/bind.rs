//! What sources of bindings want done: recorded, and put before packets.

use super::{Shared, lock};
use crate::bindings::{Change, Claim, Slot, SourceName};
use crate::exit_code::{Code, Failure, Result};
use crate::names::Names;
use crate::state::Author;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Bound {
    /// Claims that are new, or say something else than before.
    pub set: usize,
    /// Claims that are gone.
    pub withdrawn: usize,
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
        let changes = claims.into_iter().map(Change::Set).collect();
        self.rebind(source, changes)
    }

    /// Takes claims of a source back.
    pub(crate) fn withdraw(&self, source: &SourceName, which: Withdraw) -> Result<Bound> {
        let slots = match which {
            Withdraw::Slots(slots) => slots,
            Withdraw::All => {
                self.with_state(|state| state.bindings.of_source(source).map(Claim::slot).collect())
            }
        };
        self.rebind(source, slots.into_iter().map(Change::Withdraw).collect())
    }

    /// Has a source say this and nothing else.
    #[allow(dead_code)]
    pub(crate) fn bind_only(&self, source: &SourceName, claims: Vec<Claim>) -> Result<Bound> {
        check(&claims)?;
        let changes = self.with_state(|state| state.bindings.replacing(source, claims));
        self.rebind(source, changes)
    }

    fn rebind(&self, source: &SourceName, changes: Vec<Change>) -> Result<Bound> {
        let mut committed = lock(&self.committed);
        let mut bindings = (*committed.state.bindings).clone();
        let changes = bindings.apply(source, changes);
        let withdrawn = changes.iter().filter(|change| matches!(change, Change::Withdraw(_))).count();
        let bound = Bound { set: changes.len() - withdrawn, withdrawn };
        if changes.is_empty() {
            return Ok(bound);
        }
        let back = undo(&committed.state.bindings, source, &changes);
        let recorded: Vec<_> = changes.into_iter().map(|change| (source.clone(), change)).collect();
        let numbering = committed.state.numbering.clone();
        committed.store.bind(&recorded, &numbering, &numbering)?;
        let by = Author::daemon(format!("bindings of {source}"));
        let done = committed.commit(&self.maps, &by, |state| state.bindings = Arc::new(bindings));
        if let Err(e) = done {
            committed.store.bind(&back, &numbering, &numbering)?;
            return Err(e);
        }
        self.hub.rename(Names::of(&committed.state));
        Ok(bound)
    }
}

fn check(claims: &[Claim]) -> Result<()> {
    for claim in claims {
        let wrong = |e: &dyn std::fmt::Display| Failure::new(Code::Usage, format!("{}: {e}", claim.slot()));
        claim.check().map_err(|e| wrong(&e))?;
        if !claim.scope.is_none() {
            return Err(wrong(
                &"this version binds addresses wherever they are: leave interface, VLAN and ports out",
            ));
        }
    }
    Ok(())
}

/// What takes changes back.
fn undo(
    before: &crate::bindings::Bindings,
    source: &SourceName,
    changes: &[Change],
) -> Vec<(SourceName, Change)> {
    let undone = changes.iter().map(|change| {
        let slot = change.slot();
        before.get(source, &slot).cloned().map_or(Change::Withdraw(slot), Change::Set)
    });
    undone.map(|change| (source.clone(), change)).collect()
}
