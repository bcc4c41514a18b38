//! Network namespaces: made, entered and removed as `ip netns` does, so that its `list` shows them.
//!
//! Only the network namespace changes, never the mount namespace: `ip netns exec` remounts /sys, which hides bpffs.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// Where named network namespaces are.
pub const FOLDER: &str = "/run/netns";

/// The path of a name.
pub fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// Makes a namespace that lives until [`remove`].
pub fn create(name: &str) -> Result<()> {
    fs::create_dir_all(FOLDER).with_context(|| format!("cannot make {FOLDER}"))?;
    let target = path(name);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&target)
        .with_context(|| format!("cannot make {}", target.display()))?;
    // unshare changes the calling thread alone, and this one ends here.
    let made = on_a_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET)")?;
        let own = Some("/proc/thread-self/ns/net");
        mount(own, &target, None::<&str>, MsFlags::MS_BIND, None::<&str>).context("bind mount")?;
        Ok(())
    });
    made.inspect_err(|_| drop(fs::remove_file(&target)))
        .with_context(|| format!("cannot make the network namespace {name}"))
}

/// Moves the calling thread into a namespace.
pub fn enter(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", path.display()))
}

/// Runs something on a thread of its own inside a namespace.
pub fn within<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let path = path(name);
    on_a_thread(|| {
        enter(&path)?;
        work()
    })
}

/// Unmounts and unlinks; what is not there is fine.
pub fn remove(name: &str) -> Result<()> {
    let path = path(name);
    match umount2(&path, MntFlags::MNT_DETACH) {
        // EINVAL: a file without a mount, left by a run that was killed between the two.
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(error) => return Err(error).with_context(|| format!("cannot unmount {}", path.display())),
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        scope.spawn(work).join().unwrap_or_else(|_| Err(anyhow!("a namespace thread panicked")))
    })
}
