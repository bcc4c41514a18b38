//! The API over mTLS: workloads are known by their SVIDs.

use super::role::Peer;
use super::serve::{BUSY, Crowd, serve};
use super::waiting::{Room, Waiting};
use crate::daemon::quiet::Quiet;
use crate::exit_code::{Failure, Result};
use crate::policy::spiffe::SpiffeId;
use crate::state::Who;
use crate::svid::tls::server_config;
use crate::svid::{Live, Refusal};
use axum::Router;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a handshake may take.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// Handshakes at once.
const HANDSHAKES: Room = Room { most: 256, most_of_one: 32 };
/// Connections of all workloads.
const MOST: usize = 512;
/// Connections of one of them.
const MOST_OF_ONE: usize = 32;

/// What every connection needs.
struct Door {
    acceptor: TlsAcceptor,
    live: Live,
    router: Router,
    waiting: Waiting,
    crowd: Crowd<SpiffeId>,
    /// Of refusals.
    told: Quiet,
}

/// Serves workloads whose SVID is believed and that have a role.
pub async fn listen(listener: TcpListener, live: Live, router: Router) -> Result<()> {
    let config = server_config(&live).map_err(|e| Failure::failed("--listen", e))?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let crowd = Crowd::new(MOST, MOST_OF_ONE);
    let (waiting, told) = (Waiting::new(HANDSHAKES), Quiet::default());
    let door = Arc::new(Door { acceptor, live, router, waiting, crowd, told });
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                // Here and not in the task: who came later gives way later.
                let (waits, given_up) = door.waiting.enter(from.ip());
                let door = door.clone();
                tokio::spawn(async move {
                    if let Some(tls) = door.shake(stream, from, given_up).await {
                        drop(waits);
                        door.serve(tls, from).await;
                    }
                });
            }
            // Out of descriptors, most likely: others have to be closed first.
            Err(e) => {
                tracing::warn!("API: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Door {
    async fn shake(
        &self,
        stream: TcpStream,
        from: SocketAddr,
        given_up: impl Future<Output = ()>,
    ) -> Option<TlsStream<TcpStream>> {
        let _ = stream.set_nodelay(true);
        let shaken = tokio::select! {
            shaken = timeout(HANDSHAKE_PATIENCE, self.acceptor.accept(stream)) => shaken,
            () = given_up => {
                tracing::debug!("API: {from} waited too long among too many");
                return None;
            }
        };
        match shaken {
            Ok(Ok(tls)) => return Some(tls),
            Ok(Err(e)) => match Refusal::of_handshake(&e) {
                Some(refusal) => self.told.warn(|| format!("API: {from} is refused: {refusal}")),
                None => tracing::debug!("API: {from}: {e}"),
            },
            Err(_) => tracing::debug!("API: the handshake of {from} took too long"),
        }
        None
    }

    async fn serve(&self, mut tls: TlsStream<TcpStream>, from: SocketAddr) {
        let chain: Vec<_> = tls
            .get_ref()
            .1
            .peer_certificates()
            .unwrap_or_default()
            .iter()
            .map(|c| c.clone().into_owned())
            .collect();
        let peer = match self.live.verify_again(&chain) {
            Ok(peer) => peer,
            Err(refusal) => return self.told.warn(|| format!("API: {from} is refused: {refusal}")),
        };
        let Some(_place) = self.crowd.enter(peer.id.clone()) else {
            self.told.warn(|| format!("API: {} has as many connections as it can have", peer.id));
            let _ = timeout(Duration::from_secs(1), async {
                tls.write_all(BUSY).await?;
                tls.shutdown().await
            })
            .await;
            return;
        };
        let who = Peer { who: Who::Workload(peer.id), groups: [].into() };
        tokio::select! {
            () = serve(tls, self.router.clone(), who) => {}
            refusal = revoked(&self.live, &chain, peer.not_after) => {
                tracing::warn!("API: a connection of {from} is cut: {refusal}");
            }
        }
    }
}

/// Until a peer would not be let in any more: its SVID is over, or a bundle says otherwise now.
async fn revoked(live: &Live, chain: &[CertificateDer<'_>], mut not_after: Timestamp) -> Refusal {
    let mut changes = live.changes();
    // What changed since it was verified is looked at too.
    changes.mark_changed();
    loop {
        let left = not_after.as_second().saturating_sub(Timestamp::now().as_second()).clamp(0, 3600);
        // The wall clock may be set: it is asked again each hour, and a second late at most.
        let over = tokio::time::sleep(Duration::from_secs(left as u64 + 1));
        tokio::select! {
            _ = changes.changed() => {}
            () = over => {}
        }
        match live.verify_again(chain) {
            Ok(peer) => not_after = peer.not_after,
            Err(refusal) => return refusal,
        }
    }
}
