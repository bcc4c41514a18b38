//! The source `files`: workloads of YAML files, read again when these change. Files that are wrong change nothing.

use super::Shared;
use crate::bindings::{Claim, SourceName};
use crate::exit_code::{Code, Failure, Result};
use crate::policy::document::Workload;
use crate::policy::{Documents, SourceFile, read_files};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Files change in several steps, one after the other: they are read when so long nothing has happened.
const QUIET: Duration = Duration::from_millis(50);
/// So often it is looked whether folders are others than before, under the same name.
const LOOK: Duration = Duration::from_secs(1);

/// How reading went, for metrics.
#[derive(Debug, Default)]
pub struct Reloads {
    /// Times that changed files were taken.
    pub taken: AtomicU64,
    /// Times that they were wrong.
    pub refused: AtomicU64,
    /// 1 while what stands in the files is not what counts.
    pub is_wrong: AtomicU64,
}

/// What the files say.
pub(super) fn read(paths: &[PathBuf]) -> Result<(Vec<SourceFile>, Vec<Claim>)> {
    let files = read_files(paths)?;
    let texts: Vec<_> = files.iter().map(|file| (file.name.as_str(), &*file.text)).collect();
    let documents = Documents::parse_all(&texts, jiff::Timestamp::now())?;
    let only_workloads = Documents { workloads: documents.workloads.clone(), ..Documents::default() };
    if documents != only_workloads {
        let message = "--identities takes documents of `kind: Workload` alone: apply others as policy, with `tidegate policy apply`";
        return Err(Failure::new(Code::Usage, message));
    }
    let claims = documents.workloads.iter().flat_map(claims).collect();
    Ok((files, claims))
}

fn claims(workload: &Workload) -> impl Iterator<Item = Claim> {
    workload.addresses.iter().map(|address| Claim {
        address: *address,
        scope: workload.scope.clone(),
        spiffe_id: workload.spiffe_id.clone(),
        labels: workload.labels.clone(),
        lease: workload.lease,
        evidence: BTreeMap::from([
            ("workload".to_owned(), workload.name.clone()),
            ("file".to_owned(), workload.place.to_string()),
        ]),
    })
}

impl Shared {
    /// Follows files from now on, on a thread of its own. What stands in them counts when this returns.
    pub(super) fn follow_files(self: &Arc<Self>, paths: Vec<PathBuf>) -> Result<()> {
        let io = |e: rustix::io::Errno| Failure::io("watch files", &e.into());
        let notices = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(io)?;
        let mut watched = watch(&notices, &paths);
        let (mut last, claims) = read(&paths)?;
        self.bind_only(&SourceName::files(), claims)?;
        let shared = self.clone();
        std::thread::spawn(move || {
            loop {
                let changed = wait(&notices);
                let now = watch(&notices, &paths);
                if changed || now != watched {
                    watched = now;
                    shared.read_again(&paths, &mut last);
                }
            }
        });
        Ok(())
    }

    fn read_again(&self, paths: &[PathBuf], last: &mut Vec<SourceFile>) {
        let taken = read(paths).and_then(|(files, claims)| {
            let is_wrong = self.reloads.is_wrong.load(Ordering::Relaxed) != 0;
            if files != *last || is_wrong {
                let bound = self.bind_only(&SourceName::files(), claims)?;
                *last = files;
                return Ok(Some(bound));
            }
            Ok(None)
        });
        match taken {
            Ok(None) => {}
            Ok(Some(bound)) => {
                self.reloads.taken.fetch_add(1, Ordering::Relaxed);
                self.reloads.is_wrong.store(0, Ordering::Relaxed);
                let text = format!("{} bindings set, {} withdrawn", bound.set, bound.withdrawn);
                tracing::info!("identities of {} read again: {text}", list(paths));
                self.hub.tell_of_source(&SourceName::files(), "taken", &text);
            }
            Err(e) => {
                self.reloads.refused.fetch_add(1, Ordering::Relaxed);
                self.reloads.is_wrong.store(1, Ordering::Relaxed);
                tracing::error!("identities of {}: {e}; what they said before goes on", list(paths));
                self.hub.tell_of_source(&SourceName::files(), "refused", &e.message);
            }
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Watches the folders of these paths. Returns which these are: the same ones again are no other.
fn watch(notices: &OwnedFd, paths: &[PathBuf]) -> BTreeSet<i32> {
    let flags = WatchFlags::CLOSE_WRITE
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO;
    let folder = |path: &PathBuf| if path.is_dir() { path.clone() } else { parent(path) };
    paths.iter().filter_map(|path| inotify::add_watch(notices, folder(path), flags).ok()).collect()
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => ".".into(),
    }
}

/// Waits until something has changed and nothing does any more. Returns whether something has.
fn wait(notices: &OwnedFd) -> bool {
    let mut changed = false;
    let mut patience = LOOK;
    while is_ready(notices, patience) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(notices, &mut buffer);
        while reader.next().is_ok() {}
        changed = true;
        patience = QUIET;
    }
    changed
}

fn is_ready(notices: &OwnedFd, patience: Duration) -> bool {
    let timeout = rustix::event::Timespec {
        tv_sec: patience.as_secs() as i64,
        tv_nsec: i64::from(patience.subsec_nanos()),
    };
    let mut fds = [PollFd::new(notices, PollFlags::IN)];
    poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
}
