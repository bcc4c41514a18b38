//! What systemd is told: that the gateway enforces, that the daemon lives, that it ends. Nothing where it was not systemd that
//! started it (no `NOTIFY_SOCKET`).

use sd_notify::{NotifyState, notify};

/// The policy counts and the programs are attached.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// For `WatchdogSec=`.
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(e) = notify(state) {
        tracing::warn!("tell systemd: {e}");
    }
}
