//! What sources of bindings want done: checked, and told about.

use super::commit::Committed;
use super::inlet::{Lent, What};
use super::rebind::Rebound;
use super::{Shared, lock};
use crate::bindings::{Bindings, CERTIFICATE, Change, Claim, Slot, SourceName};
use crate::exit_code::{Code, Failure, Result};
use crate::governance::places::Places;
use crate::names::Names;
use crate::policy::spiffe::SpiffeId;
use crate::state::Author;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

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

impl fmt::Display for Ambiguity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who: Vec<_> = self.claimants.iter().map(|(id, source)| format!("{id} ({source})")).collect();
        write!(f, "{} is ambiguous, and nobody's: {} claim it", self.slot, who.join(" and "))
    }
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
        let now = Timestamp::now();
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
        let Rebound { changes, compiled, .. } = committed.rebind(&self.maps, source, changes)?;
        if compiled {
            self.hub.rename(Names::of(&committed.state));
            self.untidy.notify_one();
        } else {
            self.hub.rebound();
        }
        let ambiguous = committed.ambiguities(changes.iter().map(Change::slot));
        let contested: BTreeSet<&Slot> = ambiguous.iter().map(|one| &one.slot).collect();
        for lent in lent(&committed.state.bindings, &changes, &contested, Timestamp::now()) {
            self.hub.compare(What::Lease(lent));
        }
        if let Some(host) = self.host.as_ref().filter(|host| host.is_about(&changes)) {
            host.settle(&committed.state);
        }
        let withdrawn = changes.iter().filter(|change| matches!(change, Change::Withdraw(_))).count();
        ambiguous.iter().for_each(|one| tracing::warn!("{one}"));
        Ok(Bound { set: changes.len() - withdrawn, withdrawn, ambiguous })
    }
}

/// The leases that were given, as they stand now: where else their identities are, and whether somebody else claims their addresses, is
/// told with them and looked up no more.
fn lent(bindings: &Bindings, changes: &[Change], contested: &BTreeSet<&Slot>, now: Timestamp) -> Vec<Lent> {
    let holds = |claim: &&Claim| claim.lease.is_none_or(|lease| lease.not_after > now);
    let is_host = |claim: &&Claim| claim.address.bits() == 128;
    let mut known: HashMap<SpiffeId, Arc<Places>> = HashMap::new();
    let mut places = |id: &SpiffeId| {
        let all = bindings.of_identity(id).filter(|claim| is_host(claim) && holds(claim));
        let place = |claim: &Claim| (claim.address.addr().to_ip(), claim.lease.map(|lease| lease.not_after));
        known.entry(id.clone()).or_insert_with(|| Arc::new(all.map(place).collect())).clone()
    };
    let set = changes.iter().filter_map(|change| match change {
        Change::Set(claim) => Some(claim),
        Change::Withdraw(_) => None,
    });
    let told = |claim: &Claim| Lent {
        id: claim.spiffe_id.clone(),
        address: claim.address.addr(),
        until: claim.lease.map(|lease| lease.not_after),
        certificate: claim.evidence.get(CERTIFICATE).map(|sha256| sha256.as_str().into()),
        places: places(&claim.spiffe_id),
        is_contested: contested.contains(&claim.slot()),
    };
    set.filter(is_host).map(told).collect()
}

fn check(claims: &[Claim]) -> Result<()> {
    for claim in claims {
        claim.check().map_err(|e| Failure::new(Code::Usage, format!("{}: {e}", claim.slot())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::document::Lease;
    use crate::policy::scope::Scope;
    use jiff::SignedDuration;

    #[test]
    fn a_lease_is_told_with_where_else_its_identity_has_one_that_holds() {
        let now = Timestamp::now();
        let claim = |address: &str, id: &str, minutes: i64| Claim {
            address: address.parse().expect("an address"),
            scope: Scope::default(),
            spiffe_id: id.parse().expect("a SPIFFE ID"),
            labels: BTreeMap::new(),
            lease: Some(Lease {
                not_after: now + SignedDuration::from_mins(minutes),
                on_expiry: Default::default(),
                grace_s: 0,
            }),
            evidence: BTreeMap::from([(CERTIFICATE.to_owned(), "abc".to_owned())]),
        };
        let (web, db) = ("spiffe://td/web", "spiffe://td/db");
        let old = [claim("10.0.0.1", web, 5), claim("10.0.0.2", web, -1), claim("10.0.0.3", db, 5)];
        let new = [claim("10.0.0.4", web, 9), claim("10.0.0.5", db, 9), claim("10.1.0.0/24", web, 9)];
        let mut bindings = Bindings::default();
        bindings.apply(&SourceName::manual(), old.map(Change::Set));
        let mut changes = bindings.apply(&SourceName::enrol(), new.map(Change::Set));
        changes.push(Change::Withdraw(changes[0].slot()));
        let slot = changes[1].slot();
        let lent = lent(&bindings, &changes, &BTreeSet::from([&slot]), now);
        let told = lent.iter().map(|lent| {
            let places: Vec<_> = lent.places.keys().map(ToString::to_string).collect();
            (lent.id.to_string(), lent.address.to_ip().to_string(), places.join(" "), lent.is_contested)
        });
        let told: Vec<_> = told.collect();
        assert_eq!(
            told,
            [
                (web.into(), "10.0.0.4".into(), "10.0.0.1 10.0.0.4".into(), false),
                (db.into(), "10.0.0.5".into(), "10.0.0.3 10.0.0.5".into(), true),
            ],
            "no prefix is an address, and what was taken back was not given"
        );
        assert_eq!(lent[0].until, Some(now + SignedDuration::from_mins(9)));
        assert_eq!(lent[0].certificate.as_deref(), Some("abc"));
    }
}
