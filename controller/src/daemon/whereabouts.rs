//! Where identities are, and who is where: by bindings, as they are now.

use super::Shared;
use crate::governance::{End, places};
use crate::names::Names;
use crate::policy::Prefix;
use crate::policy::spiffe::SpiffeId;
use datapath::abi::Addr;
use jiff::Timestamp;
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

    /// An address of an identity, by leases first; the loopback's where it has none.
    pub(super) fn address_of(&self, id: &SpiffeId) -> Addr {
        self.with_state(|state| {
            let leased = state.bindings.iter().find(|(_, claim)| claim.spiffe_id == *id);
            let written = state.documents().workloads.iter().find(|workload| workload.spiffe_id == *id);
            let prefix = leased.map(|(_, claim)| claim.address);
            let prefix = prefix.or_else(|| written.and_then(|workload| workload.addresses.first().copied()));
            prefix.map_or(Addr::v4([127, 0, 0, 1]), |prefix| prefix.addr())
        })
    }

    /// Who has an address by what counts now.
    pub(super) fn who_is_at(&self, address: Addr, names: &Names) -> Option<SpiffeId> {
        let versions = self.maps.bindings.longest(&address, 128).ok().flatten()?;
        let number = versions.at(self.maps.config.get().ok()?.epoch).identity;
        names.identity(number)?.parse().ok()
    }
}
