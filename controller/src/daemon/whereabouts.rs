//! Where identities are, and who is where: by bindings, as they are now.

use super::{Shared, leases};
use crate::governance::{End, places};
use crate::policy::Prefix;
use crate::policy::spiffe::SpiffeId;
use crate::view::flow::Moment;
use datapath::abi::{Addr, Binding};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;

impl Shared {
    /// Who is at an address, as far as that is certain, and where else the identity has leases that hold.
    pub(super) fn leases_of(&self, id: &SpiffeId, address: Addr, own: End) -> (End, Vec<places::Lease>) {
        let bindings = self.with_state(|state| state.bindings.clone());
        let now = Timestamp::now();
        let here = Prefix::host(address);
        let mut others = BTreeMap::new();
        let mut is_contested = false;
        for (_, claim) in bindings.iter().filter(|(_, claim)| claim.lease.is_none_or(|l| l.not_after > now)) {
            is_contested |= claim.address == here && claim.spiffe_id != *id;
            if claim.spiffe_id == *id && claim.address != here && claim.address.bits() == 128 {
                let until = claim.lease.map(|lease| lease.not_after);
                others.insert(claim.address.addr().to_ip(), until);
            }
        }
        let peer = if is_contested { End::Ambiguous(address) } else { own };
        (peer, others.into_iter().collect())
    }

    /// What is bound to an address by what counts now, somebody's or not.
    pub(super) fn binding_at(&self, address: Addr) -> Option<Binding> {
        let versions = self.maps.bindings.longest(&address, 128).ok().flatten()?;
        Some(*versions.at(self.maps.config.get().ok()?.epoch))
    }

    /// Who has an address by what counts now.
    pub(super) fn who_is_at(&self, address: Addr) -> Option<SpiffeId> {
        self.hub.names().identity(self.binding_at(address)?.identity)?.parse().ok()
    }

    /// The lease of an identity on an address, as an event tells it; nothing where it has none there.
    pub(super) fn lease_at(&self, id: &SpiffeId, address: Addr, now: &Moment) -> Option<Value> {
        let binding = self.binding_at(address)?;
        let is_its = self.hub.names().identity(binding.identity) == Some(id.as_str());
        is_its.then(|| leases::told(&binding, now))
    }

    /// An end, as an event tells it.
    pub(super) fn end_json(&self, binding: &Binding, now: &Moment) -> Value {
        let names = self.hub.names();
        let mut end = json!({"identity": binding.identity, "spiffe_id": names.identity(binding.identity)});
        if binding.identity != 0 && binding.identity != Binding::AMBIGUOUS {
            end["lease"] = leases::told(binding, now);
        }
        end
    }
}
