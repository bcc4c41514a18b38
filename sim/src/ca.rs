//! The certificate authority of a run. Its key and those of the SVIDs exist in memory only.

use anyhow::Result;
use authority::{Duration, OffsetDateTime, leaf_params};
use serde::{Deserialize, Serialize};

use crate::topology::plan::Svid;

/// A certificate with its key, and the root that peers are checked against. All of it DER.
#[derive(Clone, Serialize, Deserialize)]
pub struct Bundle {
    /// The X.509-SVID.
    pub certificate: Vec<u8>,
    /// PKCS #8.
    pub key: Vec<u8>,
    /// The trust bundle.
    pub root: Vec<u8>,
}

impl std::fmt::Debug for Bundle {
    /// Never the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundle").field("certificate_bytes", &self.certificate.len()).finish_non_exhaustive()
    }
}

/// Issues SVIDs.
pub struct Authority(authority::Authority);

impl Authority {
    /// A new one.
    pub fn new() -> Result<Self> {
        Ok(Self(authority::Authority::new("tidegate-sim")?))
    }

    /// An X.509-SVID.
    pub fn issue(&self, svid: &Svid) -> Result<Bundle> {
        let now = OffsetDateTime::now_utc();
        let issued = self.0.issue(leaf_params(
            &svid.spiffe_id,
            now + Duration::milliseconds(svid.not_before_ms),
            now + Duration::milliseconds(svid.not_after_ms),
        )?)?;
        Ok(Bundle { certificate: issued.chain.concat(), key: issued.key, root: self.0.root().to_vec() })
    }
}
