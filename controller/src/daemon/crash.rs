//! Where a commit can be cut off. Each step leaves something else behind; a test ends the daemon at each.
//!
//! Only builds with debug assertions can: what is shipped has no such place. The test names the step in a file, so that
//! it chooses the commit as well.

/// What has just been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// All is compiled, and the transaction that records the revision is open. A commit by difference has no such step.
    Compiled,
    /// The revision stands in the store, pending.
    Recorded,
    /// Half of the second versions are in the maps.
    HalfWritten,
    /// All of them are.
    Written,
    /// The kernel judges by the new epoch.
    Flipped,
    /// The store says that the revision counts.
    Marked,
    /// What only the epoch before it needed is gone. That happens by and by: the sweep of the commit before may come late.
    Swept {
        /// The commit's.
        revision: u64,
    },
}

/// Ends the daemon as `kill -9` would if the file that `TIDEGATE_END_AT` names holds the name of this step.
#[cfg(debug_assertions)]
pub fn may_end(step: Step) {
    let Some(file) = std::env::var_os("TIDEGATE_END_AT") else { return };
    if std::fs::read_to_string(file).is_ok_and(|name| name.trim() == format!("{step:?}")) {
        let own = rustix::process::getpid();
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
    }
}

/// Does nothing.
#[cfg(not(debug_assertions))]
pub fn may_end(_step: Step) {}
