//! What time brings about: attempts without an answer, blocks that are over, new addresses, a machine that slept.

use super::{Shared, failsafe, half_open, lock, metrics, service_manager};
use crate::daemon::expire::Expiry;
use crate::exit_code::{Failure, Result};
use crate::state::{Reserve, Store};
use crate::view::flow::Moment;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A hello of which nothing came for so long is read as far as it goes.
const HELLO_PATIENCE: Duration = Duration::from_secs(2);

/// One thing that has to be looked at now and then.
struct Job {
    /// What it sees to, for people.
    what: &'static str,
    run: fn(&Shared) -> Result<()>,
}

const EVERY_SECOND: &[Job] = &[
    Job { what: "old versions in the maps", run: Shared::tidy },
    Job { what: "the checkpoint of the audit record", run: |s| s.sign(false) },
    Job { what: "records that are events too", run: tell_of_records },
    Job { what: "a commit that nobody confirmed", run: Shared::take_back_late },
    Job { what: "approvals that lapse", run: Shared::let_approvals_lapse },
    Job { what: "ports of the host", run: |s| Ok(loader::refresh_ports(&s.maps)?) },
    Job { what: "attempts without an answer", run: |s| half_open::sweep(&s.maps, &s.hub) },
    Job { what: "handshakes without an end", run: |s| half_open::time_out(&s.maps, &s.hub) },
    Job { what: "hellos without an end", run: give_up_hellos },
    Job { what: "a wall clock that was set", run: Shared::follow_clock },
    Job { what: "leases that end", run: Shared::let_leases_end },
    Job { what: "grants that end", run: Shared::let_grants_end },
    Job { what: "the log of the state", run: |s| Store::copy_log(&s.instance.state_file()) },
    Job { what: "hours of rules", run: Shared::let_hours_change },
    Job { what: "acts that end", run: Shared::let_acts_end },
];

const EVERY_TEN_SECONDS: &[Job] = &[
    Job { what: "failsafe services", run: |s| failsafe::sync(&s.maps, &s.failsafe) },
    Job { what: "interfaces", run: Shared::follow_interfaces },
    Job { what: "pairs of identities without news", run: metrics::retire },
    Job { what: "what is kept for a full disk", run: fill_reserve },
    Job { what: "the clock", run: |s| Ok(lock(&s.kernel).recalibrate().map(drop)?) },
];

/// Runs them all as long as the daemon lives. One that fails is tried again, and holds no other up.
pub(super) async fn every_second(shared: Arc<Shared>) {
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let expiry = Arc::new(Mutex::new(Expiry::default()));
    for second in 0u64.. {
        interval.tick().await;
        let (shared, expiry) = (shared.clone(), expiry.clone());
        let work = move || {
            all(EVERY_SECOND, &shared);
            warn("connections that are over", lock(&expiry).sweep(&shared.maps, &shared.hub));
            if second % 10 == 9 {
                all(EVERY_TEN_SECONDS, &shared);
            }
        };
        if let Err(e) = tokio::task::spawn_blocking(work).await {
            tracing::error!("{e}");
        }
        // What hangs does not come here, and is started anew.
        service_manager::alive();
    }
}

fn all(jobs: &[Job], shared: &Shared) {
    for job in jobs {
        warn(job.what, (job.run)(shared));
    }
}

fn warn(what: &str, done: Result<()>) {
    if let Err(e) = done {
        tracing::warn!("{what}: {e}");
    }
}

fn fill_reserve(shared: &Shared) -> Result<()> {
    let filled = Reserve::of(&shared.instance.state_file()).fill();
    filled.map_err(|e| Failure::io("take room on the disk", &e))
}

fn tell_of_records(shared: &Shared) -> Result<()> {
    shared.tell_of_records(&lock(&shared.committed));
    Ok(())
}

fn give_up_hellos(shared: &Shared) -> Result<()> {
    let before_ns = loader::boot_ns().saturating_sub(HELLO_PATIENCE.as_nanos() as u64);
    shared.hub.give_up_hellos(before_ns, &Moment::now());
    Ok(())
}
