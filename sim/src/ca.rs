//! The certificate authority of a run. Its key and those of the SVIDs exist in memory only, but for those of SVIDs that
//! tidegate itself reads from files.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
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
        let issued = self.issued(svid)?;
        Ok(Bundle { certificate: issued.chain.concat(), key: issued.key, root: self.0.root().to_vec() })
    }

    /// An X.509-SVID in files of a folder, and the options by which tidegate reads it and the trust bundles of these domains.
    pub fn write<'d>(
        &self,
        svid: &Svid,
        folder: &Path,
        domains: impl IntoIterator<Item = &'d str>,
    ) -> Result<Vec<String>> {
        let issued = self.issued(svid)?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let write = |name: &str, text: &str| -> Result<String> {
            let path = folder.join(name);
            let mut options = fs::OpenOptions::new();
            let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
            file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
                .with_context(|| format!("cannot write {}", path.display()))?;
            Ok(path.display().to_string())
        };
        let mut options = vec!["--svid-cert".into(), write("svid.pem", issued.chain_pem())?];
        options.extend(["--svid-key".into(), write("svid.key", issued.key_pem())?]);
        let root = write("root.pem", self.0.root_pem())?;
        for domain in domains {
            options.extend(["--trust-bundle".into(), format!("{domain}={root}")]);
        }
        Ok(options)
    }

    fn issued(&self, svid: &Svid) -> Result<authority::Svid> {
        let now = OffsetDateTime::now_utc();
        Ok(self.0.issue(leaf_params(
            &svid.spiffe_id,
            now + Duration::milliseconds(svid.not_before_ms),
            now + Duration::milliseconds(svid.not_after_ms),
        )?)?)
    }
}
