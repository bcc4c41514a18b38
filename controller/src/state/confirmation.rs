//! A revision that has to be confirmed in time, or what counted before it counts again.

use super::PolicySet;
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

/// A revision that waits to be confirmed, with those that changed blocks since.
#[derive(Clone, Debug, PartialEq)]
pub struct Confirmation {
    /// The revision that brought it.
    pub revision: u64,
    /// What counts again without it.
    pub before: Arc<PolicySet>,
    /// The boot of the host in which it can be confirmed.
    pub boot_id: String,
    /// Until when, ns of the boot clock: whoever sets the wall clock moves no deadline.
    pub deadline_ns: u64,
    /// Until when, as the wall clock said when it began; for people.
    pub deadline_at: Timestamp,
}

impl Confirmation {
    /// One that begins now. A `revision` that is taken back gives way to `before`.
    pub fn begin(revision: u64, before: Arc<PolicySet>, within: SignedDuration) -> Self {
        let within_ns = u64::try_from(within.as_nanos()).unwrap_or(0);
        Self {
            revision,
            before,
            boot_id: boot_id(),
            deadline_ns: loader::boot_ns().saturating_add(within_ns),
            deadline_at: Timestamp::now().checked_add(within).unwrap_or(Timestamp::MAX),
        }
    }

    /// Whether it is too late. After a restart of the host it is: nobody can say how long that took.
    pub fn is_over(&self) -> bool {
        self.boot_id != boot_id() || loader::boot_ns() >= self.deadline_ns
    }
}

/// Which boot of the host this is.
pub fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_passes_with_the_boot_clock_and_with_the_boot() {
        let begin = |seconds| Confirmation::begin(7, Arc::default(), SignedDuration::from_secs(seconds));
        assert!(!begin(60).is_over());
        assert!(begin(0).is_over());
        assert!(Confirmation { boot_id: "another boot".into(), ..begin(60) }.is_over());
        // The wall clock has no say.
        assert!(!Confirmation { deadline_at: Timestamp::UNIX_EPOCH, ..begin(60) }.is_over());
    }
}
