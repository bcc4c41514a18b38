//! The control socket: users are known by the kernel's word (SO_PEERCRED).

use super::role::Peer;
use super::serve::{BUSY, Crowd, serve};
use crate::daemon::Shared;
use crate::exit_code::{Failure, Result};
use crate::state::Who;
use axum::Router;
use nix::unistd::{Gid, Uid, User, getgrouplist};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};

/// Connections of users that are not root. Root has as many as it opens.
const MOST: usize = 128;
/// Connections of one of them.
const MOST_OF_ONE: usize = 32;

/// The socket.
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// Binds the socket. One that is there was left behind: whoever holds the lock is the only daemon.
pub fn bind(path: &Path) -> Result<ControlSocket> {
    let bind = || -> std::io::Result<UnixListener> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    let listener = bind().map_err(|e| Failure::io(format!("bind {}", path.display()), &e))?;
    Ok(ControlSocket { listener, path: path.to_owned() })
}

impl ControlSocket {
    /// Serves users that have a role; others are not read.
    pub async fn serve(self, router: Router, shared: Arc<Shared>) {
        let crowd = Crowd::new(MOST, MOST_OF_ONE);
        let mut reload = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        admit(stream, &router, &shared, &crowd);
                    }
                    // Out of descriptors, most likely: others have to be closed first.
                    Err(e) => {
                        tracing::warn!("control socket: {e}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                _ = reload.tick() => {
                    if shared.access.reload() {
                        self.open_to(shared.access.has_users());
                    }
                }
            }
        }
    }

    /// Who may connect at all: all users where some have a role (which then decides), or only the daemon's own.
    pub fn open_to(&self, users: bool) {
        let mode = if users { 0o666 } else { 0o600 };
        if let Err(e) = std::fs::set_permissions(&self.path, std::fs::Permissions::from_mode(mode)) {
            tracing::error!("{}: {e}", self.path.display());
        }
    }
}

/// Gives a user a place, in the order in which they came.
fn admit(stream: UnixStream, router: &Router, shared: &Arc<Shared>, crowd: &Crowd<u32>) {
    let Ok(credentials) = stream.peer_cred() else { return };
    let (uid, gid) = (credentials.uid(), credentials.gid());
    let place = if uid == 0 { None } else { crowd.enter(uid) };
    if uid != 0 && place.is_none() {
        // If it does not fit into the socket's buffer, nobody waits for it.
        let _ = stream.try_write(BUSY);
        return;
    }
    let (router, shared) = (router.clone(), shared.clone());
    tokio::spawn(async move {
        let groups = if uid == 0 { Arc::from([]) } else { groups(uid, gid).await };
        let peer = Peer { who: Who::User(uid), groups };
        if shared.access.role_of(&peer).is_some() {
            serve(stream, router, peer).await;
        }
        drop(place);
    });
}

/// The groups of a user, by this host's word. That may ask a directory and block.
async fn groups(uid: u32, gid: u32) -> Arc<[u32]> {
    let of_host = move || -> Option<Vec<Gid>> {
        let user = User::from_uid(Uid::from_raw(uid)).ok()??;
        getgrouplist(&std::ffi::CString::new(user.name).ok()?, user.gid).ok()
    };
    let found = tokio::task::spawn_blocking(of_host).await.ok().flatten().unwrap_or_default();
    found.into_iter().map(Gid::as_raw).chain([gid]).collect()
}
