//! What this process may do.

use crate::exit_code::{Code, Failure, Result};
use rustix::thread::CapabilitySet;

/// What loading, attaching and reading maps needs. The kernel takes CAP_SYS_ADMIN for each of them too, but for
/// CAP_NET_ADMIN.
const NEEDED: [(CapabilitySet, &str, &str); 3] = [
    (CapabilitySet::BPF, "CAP_BPF", "load programs, make and read maps"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN", "load programs of the network and attach them"),
    (CapabilitySet::PERFMON, "CAP_PERFMON", "have programs that do arithmetic with pointers"),
];

/// All of them, or an error that says how to get them.
pub fn need(what: &str) -> Result<()> {
    let absent: Vec<_> = absent(effective()).into_iter().map(|(name, _)| name).collect();
    if absent.is_empty() {
        return Ok(());
    }
    let message =
        format!("{what} needs root: run it with sudo (or with {}, which are not held)", absent.join(", "));
    Err(Failure::new(Code::NotPermitted, message))
}

/// Those of [`NEEDED`] that are not held, with what they are for.
pub fn absent(held: CapabilitySet) -> Vec<(&'static str, &'static str)> {
    let by_admin =
        |one: CapabilitySet| one != CapabilitySet::NET_ADMIN && held.contains(CapabilitySet::SYS_ADMIN);
    let absent = NEEDED.iter().filter(|(one, _, _)| !held.contains(*one) && !by_admin(*one));
    absent.map(|(_, name, why)| (*name, *why)).collect()
}

/// The capabilities that count now; none where the kernel does not tell.
pub fn effective() -> CapabilitySet {
    rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cap_sys_admin_stands_for_all_but_the_network() {
        let names = |held| absent(held).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(CapabilitySet::SYS_ADMIN), ["CAP_NET_ADMIN"]);
        assert_eq!(names(CapabilitySet::NET_ADMIN | CapabilitySet::BPF), ["CAP_PERFMON"]);
        assert!(names(CapabilitySet::NET_ADMIN | CapabilitySet::BPF | CapabilitySet::PERFMON).is_empty());
    }
}
