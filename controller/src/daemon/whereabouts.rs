//! Where identities are, and who is where: by bindings, as they are now.

use super::{Shared, leases};
use crate::policy::spiffe::SpiffeId;
use crate::view::flow::Moment;
use datapath::abi::{Addr, Binding};
use serde_json::{Value, json};

impl Shared {
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

    /// The lease that an identity had on an address in an epoch, as an event tells it; where none is known, the one that it has.
    pub(super) fn lease_then(&self, id: &SpiffeId, address: Addr, epoch: u32, now: &Moment) -> Value {
        let names = self.hub.names();
        let is_its = |binding: &&Binding| names.identity(binding.identity) == Some(id.as_str());
        let versions = self.maps.bindings.longest(&address, 128).ok().flatten();
        let own = versions.as_ref().and_then(|versions| match epoch {
            0 => [&versions.new, &versions.old].into_iter().find(is_its),
            epoch => Some(versions.at(epoch)).filter(is_its),
        });
        own.map_or_else(|| json!({"ambiguous": true}), |binding| leases::told(binding, now))
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
