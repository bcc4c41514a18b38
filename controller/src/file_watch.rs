//! Waits until files may have changed: written in place, renamed over, or swapped behind a link, as Kubernetes swaps
//! what it mounts.

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// Of file systems that do not tell (NFS, links over several folders), this is how late one hears.
const LOOK_ANYWAY: Duration = Duration::from_secs(10);
/// Writers are done when they were quiet for so long.
const QUIET: Duration = Duration::from_millis(50);
/// But they are not waited for longer.
const NOT_LATER: Duration = Duration::from_secs(1);

/// Watches the folders of some files.
pub struct FileWatch {
    inotify: AsyncFd<OwnedFd>,
    files: Vec<PathBuf>,
}

impl FileWatch {
    /// Of these files, which need not exist yet.
    pub fn new<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let files = files.into_iter().map(|file| file.as_ref().to_owned()).collect();
        #[expect(
            deprecated,
            reason = "its other constructors are unsafe; an OwnedFd stays the same descriptor"
        )]
        let inotify = AsyncFd::new(inotify)?;
        let watch = Self { inotify, files };
        watch.follow();
        Ok(watch)
    }

    /// Until something happened in a folder of a file, or for ten seconds. Whether the file is another is for the
    /// caller to see.
    pub async fn changed(&mut self) -> io::Result<()> {
        // Folders may have been made since, and links may lead elsewhere.
        self.follow();
        let Ok(told) = timeout(LOOK_ANYWAY, self.told()).await else { return Ok(()) };
        told?;
        let settled = async {
            while let Ok(told) = timeout(QUIET, self.told()).await {
                told?;
            }
            Ok(())
        };
        timeout(NOT_LATER, settled).await.unwrap_or(Ok(()))
    }

    /// Until something is told, which is forgotten.
    async fn told(&self) -> io::Result<()> {
        let mut ready = self.inotify.readable().await?;
        self.drain()?;
        ready.clear_ready();
        Ok(())
    }

    /// Watching a folder twice is watching it once.
    fn follow(&self) {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::ONLYDIR;
        for folder in folders(&self.files) {
            // A folder that is not there is looked at again.
            let _ = inotify::add_watch(self.inotify.get_ref(), &folder, flags);
        }
    }

    fn drain(&self) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        loop {
            let mut reader = inotify::Reader::new(self.inotify.get_ref(), &mut buffer);
            match reader.next() {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Where the names are, and where they lead.
fn folders(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    // A folder that is not there yet comes into one that is.
    let parent = |file: &Path| match file.ancestors().skip(1).find(|folder| folder.is_dir()) {
        Some(folder) => folder.to_owned(),
        None => PathBuf::from("."),
    };
    let targets = files.iter().filter_map(|file| std::fs::canonicalize(file).ok());
    files.iter().cloned().chain(targets).map(|file| parent(&file)).collect()
}
