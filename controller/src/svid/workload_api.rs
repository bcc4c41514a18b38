//! SVID and bundles from the SPIFFE Workload API, streamed: the agent tells of rotations and of bundles that change.

use super::live::Live;
use super::material::Material;
use futures_util::StreamExt;
use spiffe::transport::Endpoint;
use spiffe::{WorkloadApiClient, WorkloadApiError, X509Context};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// An agent that restarts is back soon.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// For the connection; the stream itself is quiet for as long as nothing changes.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keeps a live value filled. An agent that is away is looked for again, less and less often; what it said last is used
/// on.
pub async fn follow(endpoint: Endpoint, live: Live) {
    let mut wait = FIRST_WAIT;
    loop {
        let error = match stream(&endpoint, &live, &mut wait).await {
            Ok(()) => "the agent closed the stream".to_owned(),
            Err(WorkloadApiError::NoIdentityIssued) => {
                "the agent has no identity for this process: register it (`spire-server entry create`)"
                    .to_owned()
            }
            Err(e) => e.to_string(),
        };
        live.trouble(error);
        sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

async fn stream(endpoint: &Endpoint, live: &Live, wait: &mut Duration) -> Result<(), WorkloadApiError> {
    let connect = WorkloadApiClient::connect(endpoint.clone());
    let client = timeout(PATIENCE, connect).await.unwrap_or(Err(WorkloadApiError::EmptyResponse))?;
    let mut contexts = client.stream_x509_contexts().await?;
    while let Some(context) = contexts.next().await {
        match material(&context?) {
            Ok(material) => {
                live.publish(material);
                *wait = FIRST_WAIT;
            }
            Err(e) => live.trouble(e),
        }
    }
    Ok(())
}

/// Of several SVIDs the first is the one to use without a reason for another (Workload API, section 5.3).
fn material(context: &X509Context) -> Result<Material, String> {
    let svid = context.svids().first().ok_or("the agent sent no SVID")?;
    Material::new((**svid).clone(), (**context.bundle_set()).clone()).map_err(|e| e.to_string())
}
