//! SPIFFE IDs of the `spiffe` crate, in which SVIDs and bundles come, as those of policies, and back. Only here.

use crate::policy::spiffe::{SpiffeError, SpiffeId, TrustDomain};

pub fn id(id: &spiffe::SpiffeId) -> Result<SpiffeId, SpiffeError> {
    id.to_string().parse()
}

pub fn trust_domain(domain: &spiffe::TrustDomain) -> Result<TrustDomain, SpiffeError> {
    domain.as_str().parse()
}

pub fn to_crate(domain: &TrustDomain) -> Result<spiffe::TrustDomain, spiffe::SpiffeIdError> {
    spiffe::TrustDomain::new(domain.as_str())
}
