//! SVID and bundles from PEM files, where no SPIFFE agent runs. They are read again when they change.

use super::ids;
use super::live::Live;
use super::material::{Material, MaterialError};
use crate::file_watch::FileWatch;
use crate::policy::spiffe::{SpiffeError, TrustDomain};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use spiffe::{X509Bundle, X509BundleSet, X509Svid};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// A file that is longer is not one of these.
const MAX_BYTES: u64 = 4 << 20;
/// Without watches (there are only so many of them), files are read as often.
const WATCH_AGAIN: Duration = Duration::from_secs(10);

/// What is wrong with the files.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// A file cannot be read.
    #[error("read {}: {error}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Longer than such files are.
    #[error("{}: longer than {} MiB", .0.display(), MAX_BYTES >> 20)]
    TooLong(PathBuf),
    /// Not PEM, or cut off.
    #[error("{}: {why}", file.display())]
    Pem {
        /// Which.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A key of another form.
    #[error("{}: the key is not PKCS #8: `openssl pkcs8 -topk8 -nodes -in {}` writes it so", .0.display(), .0.display())]
    NotPkcs8(PathBuf),
    /// The certificate is no SVID.
    #[error("{}: {why}", file.display())]
    Svid {
        /// Of which file.
        file: PathBuf,
        /// What is wrong.
        why: spiffe::X509SvidError,
    },
    /// All files are readable, and cannot be used.
    #[error(transparent)]
    Material(#[from] MaterialError),
}

/// The bundle file of a trust domain, written `example.org=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustBundle {
    /// Whose authorities they are.
    pub domain: TrustDomain,
    /// Their certificates.
    pub file: PathBuf,
}

/// What is wrong with `TRUST-DOMAIN=FILE`.
#[derive(Debug, thiserror::Error)]
pub enum TrustBundleError {
    /// No `=`, or nothing behind it.
    #[error("write TRUST-DOMAIN=FILE, such as example.org=/etc/tidegate/example.org.pem")]
    Form,
    /// The trust domain is not one.
    #[error(transparent)]
    TrustDomain(#[from] SpiffeError),
}

impl FromStr for TrustBundle {
    type Err = TrustBundleError;

    fn from_str(text: &str) -> Result<Self, TrustBundleError> {
        let (domain, file) = text.split_once('=').ok_or(TrustBundleError::Form)?;
        if file.is_empty() {
            return Err(TrustBundleError::Form);
        }
        Ok(Self { domain: domain.parse()?, file: file.into() })
    }
}

/// The files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PemFiles {
    /// The SVID, the leaf first.
    pub cert: PathBuf,
    /// Its key, PKCS #8.
    pub key: PathBuf,
    /// Bundles; several files of one trust domain are one bundle.
    pub bundles: Vec<TrustBundle>,
}

impl PemFiles {
    /// Reads all of them.
    pub fn load(&self) -> Result<Material, PemError> {
        let chain = certificates(&self.cert)?.concat();
        let key = key(&self.key)?;
        let svid = X509Svid::parse_from_der(&chain, &key)
            .map_err(|why| PemError::Svid { file: self.cert.clone(), why })?;
        Ok(Material::new(svid, self.bundle_set()?)?)
    }

    fn bundle_set(&self) -> Result<X509BundleSet, PemError> {
        let mut set = X509BundleSet::new();
        let domains: BTreeSet<_> = self.bundles.iter().map(|bundle| &bundle.domain).collect();
        for domain in domains {
            let name = |e: &dyn std::fmt::Display| MaterialError::Authority {
                domain: domain.as_str().to_owned(),
                why: e.to_string(),
            };
            let mut bundle = X509Bundle::new(ids::to_crate(domain).map_err(|e| name(&e))?);
            for part in self.bundles.iter().filter(|part| part.domain == *domain) {
                for authority in certificates(&part.file)? {
                    let why = |e: spiffe::X509BundleError| PemError::Pem {
                        file: part.file.clone(),
                        why: e.to_string(),
                    };
                    bundle.add_authority(&authority).map_err(why)?;
                }
            }
            set.add_bundle(bundle);
        }
        Ok(set)
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        let bundles = self.bundles.iter().map(|bundle| bundle.file.as_path());
        [self.cert.as_path(), self.key.as_path()].into_iter().chain(bundles)
    }

    /// Where the material is said to come from.
    pub fn source(&self) -> String {
        format!("file {}", self.cert.display())
    }

    /// Keeps a live value filled as the files change. Files that are wrong leave what is used as it is; they may come
    /// later.
    pub async fn follow(self, live: Live) {
        let mut is_said = false;
        loop {
            // Watched before it is read: no change is lost between.
            let watch = FileWatch::new(self.paths());
            self.read_again(&live);
            let Err(e) = self.watch(watch, &live).await;
            if !is_said {
                tracing::warn!("watch {}: {e}; it is read every {WATCH_AGAIN:?}", self.cert.display());
                is_said = true;
            }
            tokio::time::sleep(WATCH_AGAIN).await;
        }
    }

    async fn watch(&self, watch: io::Result<FileWatch>, live: &Live) -> io::Result<Infallible> {
        let mut watch = watch?;
        loop {
            watch.changed().await?;
            self.read_again(live);
        }
    }

    fn read_again(&self, live: &Live) {
        match self.load() {
            Ok(material) => drop(live.publish(material)),
            Err(e) => live.trouble(e),
        }
    }
}

fn read(file: &Path) -> Result<Vec<u8>, PemError> {
    let failed = |error| PemError::Read { file: file.to_owned(), error };
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(failed)?;
    opened.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(PemError::TooLong(file.to_owned()));
    }
    Ok(bytes)
}

fn certificates(file: &Path) -> Result<Vec<Vec<u8>>, PemError> {
    let wrong = |why: String| PemError::Pem { file: file.to_owned(), why };
    let bytes = read(file)?;
    let parsed: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&bytes).collect();
    let certificates = parsed.map_err(|e| wrong(e.to_string()))?;
    if certificates.is_empty() {
        return Err(wrong("no certificate in it: `-----BEGIN CERTIFICATE-----` begins one".into()));
    }
    Ok(certificates.into_iter().map(|certificate| certificate.to_vec()).collect())
}

fn key(file: &Path) -> Result<Vec<u8>, PemError> {
    let key = PrivateKeyDer::from_pem_slice(&read(file)?)
        .map_err(|e| PemError::Pem { file: file.to_owned(), why: format!("no private key: {e}") })?;
    match key {
        PrivateKeyDer::Pkcs8(key) => Ok(key.secret_pkcs8_der().to_vec()),
        _ => Err(PemError::NotPkcs8(file.to_owned())),
    }
}
