//! A cgroup for tests and tracepoints by tracefs: of the loader's tests, and of the daemon's.

use loader::host::cgroup_root;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const TRACEFS: &str = "/sys/kernel/tracing";

/// A cgroup that is gone with the guard.
pub struct Cgroup(pub PathBuf);

impl Cgroup {
    /// One of this process, named for a test.
    pub fn new(name: &str) -> Self {
        let root = cgroup_root().expect("cgroups of version 2");
        let path = root.join(format!("tidegate-test-{}-{name}", std::process::id()));
        fs::create_dir(&path).expect("a cgroup");
        Self(path)
    }

    /// One in it. To be dropped before it.
    #[allow(dead_code, reason = "not every test that takes this file in has need of it")]
    pub fn below(&self) -> Self {
        let path = self.0.join("below");
        fs::create_dir(&path).expect("a cgroup below");
        Self(path)
    }

    /// Runs a script in it, to its end.
    pub fn run(&self, script: &str) {
        let enter = format!("echo $$ > {}/cgroup.procs && {script}", self.0.display());
        assert!(Command::new("bash").args(["-c", &enter]).status().expect("bash").success(), "{script}");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that has just ended may still be counted.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Tracepoints by tracefs, in a mount namespace of this thread and its children where the machine has mounted none.
pub fn with_tracepoints() {
    if Path::new(TRACEFS).join("events").is_dir() {
        return;
    }
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
    mount(Some("tracefs"), TRACEFS, Some("tracefs"), MsFlags::empty(), none).expect("tracefs");
}
