//! Further network namespaces of a run. They have no names: a descriptor of this process holds them, and they are gone
//! with it, however it ends.

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::os::fd::AsRawFd;

/// A network namespace.
pub struct Netns(File);

impl Netns {
    /// Makes one, its loopback up.
    pub fn new() -> Result<Self> {
        let namespace = on_a_thread(|| {
            // Changes this thread alone, which ends here.
            unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
            File::open("/proc/thread-self/ns/net").map(Self).context("opening the namespace")
        })?;
        namespace.run(|| crate::inside::sh("ip", &["link", "set", "lo", "up"]))?;
        Ok(namespace)
    }

    /// What `ip` and `nsenter` find it by.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Does something on a thread of its own inside. A child process that is to live longer has to be started by
    /// `nsenter`: the kernel counts the thread as its parent.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_a_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET).context("entering a network namespace")?;
            work()
        })
    }
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        scope.spawn(work).join().unwrap_or_else(|_| Err(anyhow!("a thread in a network namespace panicked")))
    })
}
