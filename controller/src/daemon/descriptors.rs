//! How many files the daemon may have open: connections are files, and so are maps.
//!
//! systemd and shells set the soft limit to 1,024 for programs that use `select`. This is none of them, and all connections that it
//! takes at once (docs/api.md) are more.

use rustix::process::{Resource, Rlimit, setrlimit};

/// All kinds of connections, each as many as there can be, and maps, links and files beside them.
const ENOUGH: u64 = 4096;

/// Raises the soft limit to the hard one.
pub fn raise() {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let Some((soft, hard)) = of(&limits) else { return };
    if soft < hard
        && let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: Some(hard), maximum: Some(hard) })
    {
        tracing::warn!("the limit of open files stays at {soft}: {e}");
        return;
    }
    if hard < ENOUGH {
        tracing::warn!(
            "{hard} files can be open at once, {ENOUGH} are wanted (LimitNOFILE= of systemd): where connections of the API, of \
             enrolment and of scrapers are many, new ones wait"
        );
    }
}

/// The soft and the hard limit of open files, by `/proc/self/limits`.
fn of(limits: &str) -> Option<(u64, u64)> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut numbers = line.split_whitespace().map(|word| word.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_the_kernel_writes_them() {
        let text = "Max processes             127000               127000               processes \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(of(text), Some((1024, 524_288)));
        assert_eq!(of("Max open files            unlimited            unlimited            files"), None);
        let own = std::fs::read_to_string("/proc/self/limits").expect("procfs");
        assert!(of(&own).is_some_and(|(soft, hard)| 0 < soft && soft <= hard), "{own}");
    }
}
