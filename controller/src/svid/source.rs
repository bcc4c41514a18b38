//! Where SVID and bundles come from, as the command line says it.

use super::live::Live;
use super::pem::{PemFiles, TrustBundle};
use super::workload_api;
use crate::exit_code::{Code, Failure, Result};
use spiffe::transport::Endpoint;
use std::path::PathBuf;

const ENDPOINT_VARIABLE: &str = "SPIFFE_ENDPOINT_SOCKET";

/// Options of the commands that have an SVID.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SourceArgs {
    /// SPIFFE Workload API that SVID and trust bundles come from, such as unix:///run/spire/agent.sock [default:
    /// $SPIFFE_ENDPOINT_SOCKET]
    #[arg(long, value_name = "URI", conflicts_with_all = ["svid_cert", "svid_key", "trust_bundle"])]
    pub workload_api: Option<Endpoint>,
    /// SVID of this host where no agent runs: a PEM file, the leaf first, read again when it changes
    #[arg(long, value_name = "FILE", requires = "svid_key", requires = "trust_bundle")]
    pub svid_cert: Option<PathBuf>,
    /// Its key: a PEM file, PKCS #8
    #[arg(long, value_name = "FILE", requires = "svid_cert")]
    pub svid_key: Option<PathBuf>,
    /// Authorities of a trust domain: a PEM file (may be repeated)
    #[arg(long, value_name = "TRUST-DOMAIN=FILE", requires = "svid_cert")]
    pub trust_bundle: Vec<TrustBundle>,
}

/// A source.
#[derive(Clone, Debug)]
pub enum Source {
    /// Files.
    Pem(PemFiles),
    /// An agent.
    WorkloadApi(Endpoint),
}

impl SourceArgs {
    /// The source that is asked for: by option, or else by the environment.
    pub fn source(&self) -> Result<Option<Source>> {
        if let (Some(cert), Some(key)) = (&self.svid_cert, &self.svid_key) {
            let bundles = self.trust_bundle.clone();
            return Ok(Some(Source::Pem(PemFiles { cert: cert.clone(), key: key.clone(), bundles })));
        }
        if let Some(endpoint) = &self.workload_api {
            return Ok(Some(Source::WorkloadApi(endpoint.clone())));
        }
        let Some(text) = std::env::var_os(ENDPOINT_VARIABLE).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let text = text.to_string_lossy();
        let wrong = |e| Failure::new(Code::Usage, format!("{ENDPOINT_VARIABLE}={text}: {e}"));
        Endpoint::parse(&text).map(|endpoint| Some(Source::WorkloadApi(endpoint))).map_err(wrong)
    }
}

impl Source {
    /// A live value that the source fills from now on. Within a runtime.
    pub fn start(self) -> Live {
        match self {
            Self::Pem(files) => {
                let live = Live::new(files.source());
                tokio::spawn(files.follow(live.clone()));
                live
            }
            Self::WorkloadApi(endpoint) => {
                let live = Live::new(match &endpoint {
                    Endpoint::Unix(path) => format!("Workload API unix://{}", path.display()),
                    Endpoint::Tcp { host, port } => format!("Workload API tcp://{host}:{port}"),
                    other => format!("Workload API {other:?}"),
                });
                tokio::spawn(workload_api::follow(endpoint, live.clone()));
                live
            }
        }
    }
}
