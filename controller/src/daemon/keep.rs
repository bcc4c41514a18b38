//! What the loop found and counted is written on a thread of its own: who compares and decides waits for no disk. What is late is lost with
//! the daemon, and changes no verdict; the audit record of a containment is written before it, by who contains, and behind all records before it.

use super::Shared;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often findings are written that nobody waits for.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// How often it is written who was seen with whom.
const KEEP_EVERY: Duration = Duration::from_secs(30);

/// Writes as long as the daemon lives, sooner where that is asked for.
pub(super) fn run(shared: &Shared, writes: &Receiver<()>) {
    let mut kept = Instant::now();
    loop {
        if let Err(RecvTimeoutError::Disconnected) = writes.recv_timeout(FLUSH_EVERY) {
            return;
        }
        shared.record_findings();
        shared.governance.flush();
        if kept.elapsed() >= KEEP_EVERY {
            kept = Instant::now();
            shared.governance.keep();
        }
    }
}
