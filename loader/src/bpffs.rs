//! The file system that keeps maps and links when the process that made them is gone.

use crate::error::{Error, Result};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags};
use std::path::{Path, PathBuf};

/// `BPF_FS_MAGIC` of linux/magic.h.
const MAGIC: i64 = 0xcafe_4a11;

/// Whether `dir` lies in a bpffs.
pub fn is_bpffs(dir: &Path) -> bool {
    rustix::fs::statfs(dir).is_ok_and(|stat| stat.f_type == MAGIC)
}

/// Makes sure that `dir` is in a bpffs: mounts one there where none is. Returns whether it mounted.
pub fn ensure(dir: &Path) -> Result<bool> {
    if is_bpffs(dir) {
        return Ok(false);
    }
    std::fs::create_dir_all(dir).map_err(Error::io("create the mount point", dir))?;
    rustix::mount::mount("bpf", dir, "bpf", MountFlags::NOSUID | MountFlags::NOEXEC, None)
        .map_err(|e| Error::io("mount bpffs on", dir)(e.into()))?;
    Ok(true)
}

/// A bpffs of our own that nobody else sees: lets two objects share maps without a name in the system, and is gone
/// with its descriptor however the process ends.
#[derive(Debug)]
pub(crate) struct Private(OwnedFd);

impl Private {
    pub(crate) fn new() -> Result<Self> {
        let mount = || -> rustix::io::Result<OwnedFd> {
            let fs = rustix::mount::fsopen("bpf", FsOpenFlags::FSOPEN_CLOEXEC)?;
            rustix::mount::fsconfig_create(&fs)?;
            rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        };
        mount().map(Self).map_err(|e| Error::io("mount a private", "bpffs")(e.into()))
    }

    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}
