//! Feeds are read again when their files are written. What stood in one goes on until its new content counts, all of it at once; a
//! file that is wrong changes nothing.

use super::{Shared, lock};
use crate::exit_code::{Failure, Result};
use crate::file_watch::FileWatch;
use crate::policy::Mistakes;
use crate::policy::feed::{self, Entries, Feed, Format, Stamp};
use crate::state::{Author, How, PolicySet};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// Who writes a file in place and pauses for longer loses: half of it may be taken. Those that are renamed never are.
const WRITTEN_FOR: SignedDuration = SignedDuration::from_secs(1);
/// So often is looked whether a file that was just written still is.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How reading went.
#[derive(Debug, Default)]
pub struct Feeds {
    /// Times that changed files were taken.
    pub taken: AtomicU64,
    /// Times that they were wrong, or not there.
    pub refused: AtomicU64,
    /// Feeds whose files are wrong, and what they said before goes on.
    pub wrong: AtomicU64,
    /// Told after each commit: other feeds may be named now.
    pub renamed: Notify,
}

/// A file, and how it is read.
type Source = (String, Format);

/// What was read of each file last, or the stamp of what could not be taken.
#[derive(Default)]
struct Seen(BTreeMap<Source, (Option<Stamp>, Option<Arc<Entries>>)>);

/// Follows the files of all feeds that count.
pub(super) async fn follow(shared: Arc<Shared>) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    loop {
        let paths = shared.with_state(|state| -> BTreeSet<String> {
            state.documents().feeds().map(|feed| feed.path.clone()).collect()
        });
        let watch = if paths.is_empty() { None } else { FileWatch::new(&paths).ok() };
        let (again, book) = (shared.clone(), seen.clone());
        match tokio::task::spawn_blocking(move || again.read_feeds(&mut lock(&book))).await {
            Ok(Ok(Look::Done)) => {}
            Ok(Ok(Look::Again)) => {
                tokio::time::sleep(LOOK_AGAIN).await;
                continue;
            }
            Ok(Err(e)) => tracing::error!("feeds: {e}; what they said before goes on"),
            Err(e) => tracing::error!("feeds: {e}"),
        }
        match watch {
            Some(mut watch) => tokio::select! {
                _ = watch.changed() => {}
                () = shared.feeds.renamed.notified() => {}
            },
            None => shared.feeds.renamed.notified().await,
        }
    }
}

/// What comes of a look at the files.
enum Look {
    /// All are as they count.
    Done,
    /// One is being written.
    Again,
}

impl Shared {
    /// Takes what stands in files that were written, in one commit.
    fn read_feeds(&self, seen: &mut Seen) -> Result<Look> {
        let set = self.with_state(|state| state.set.clone());
        let named: BTreeSet<Source> = set.documents.feeds().map(source).collect();
        seen.0.retain(|source, _| named.contains(source));
        let mut look = Look::Done;
        for source in &named {
            if seen.look(source, &self.feeds) {
                look = Look::Again;
            }
        }
        let wrong = seen.0.iter().filter(|(_, (_, entries))| entries.is_none()).map(|(source, _)| source);
        let wrong: BTreeSet<&Source> = wrong.collect();
        let count = set.documents.feeds().filter(|feed| wrong.contains(&source(feed))).count();
        self.feeds.wrong.store(count as u64, Ordering::Relaxed);
        if seen.renewed(&set).is_some() {
            let mut committed = lock(&self.committed);
            // Others may be named since.
            if let Some((set, names)) = seen.renewed(&committed.state.set) {
                let by = Author::daemon(How::Feeds(names.clone()));
                let revision = self.commit_locked(&mut committed, &by, |state| state.set = Arc::new(set))?;
                self.feeds.taken.fetch_add(names.len() as u64, Ordering::Relaxed);
                tracing::info!("revision {revision}: feeds read again: {}", names.join(", "));
            }
        }
        Ok(look)
    }
}

fn source(feed: &Feed) -> Source {
    (feed.path.clone(), feed.format)
}

impl Seen {
    /// Looks at a file; reads it where it is another than the last time. Returns whether it is being written.
    fn look(&mut self, source: &Source, told: &Feeds) -> bool {
        let (path, format) = source;
        let stamp = Stamp::of(path);
        if self.0.get(source).is_some_and(|(last, _)| *last == stamp) {
            return false;
        }
        let now = Timestamp::now();
        let since = |stamp: Stamp| now.duration_since(stamp.written_at);
        // A time that is yet to come says nothing.
        if stamp.is_some_and(|stamp| (SignedDuration::ZERO..WRITTEN_FOR).contains(&since(stamp))) {
            return true;
        }
        match feed::read(path, *format) {
            Ok((stamp, entries)) => {
                self.0.insert(source.clone(), (Some(stamp), Some(Arc::new(entries))));
            }
            Err(mistakes) => {
                told.refused.fetch_add(1, Ordering::Relaxed);
                let e = Failure::from(Mistakes(mistakes));
                tracing::error!("feed {path}: {e}; what it said before goes on");
                self.0.insert(source.clone(), (stamp, None));
            }
        }
        false
    }

    /// The same set with what the files say now, and the feeds that are others by it; nothing where none is.
    fn renewed(&self, set: &PolicySet) -> Option<(PolicySet, Vec<String>)> {
        let now = |feed: &Feed| {
            let (_, entries) = self.0.get(&source(feed))?;
            entries.clone().filter(|entries| feed.differs(entries))
        };
        let mut names = Vec::new();
        for list in &set.documents.blocklists {
            let other = list.feeds.iter().filter(|feed| now(feed).is_some());
            names.extend(other.map(|feed| format!("{}/{}", list.name, feed.name)));
        }
        if names.is_empty() {
            return None;
        }
        let mut set = set.clone();
        for feed in set.documents.feeds_mut() {
            if let Some(entries) = now(feed) {
                feed.entries = entries;
            }
        }
        Some((set, names))
    }
}

/// Reads the feeds of a set of which nothing is kept, as of a revision of long ago. What cannot be read blocks nothing until it can.
pub(super) fn fill(set: &mut Arc<PolicySet>) {
    if set.documents.feeds().all(|feed| feed.entries.written_at().is_some()) {
        return;
    }
    let mut filled = PolicySet::clone(set);
    for feed in filled.documents.feeds_mut().filter(|feed| feed.entries.written_at().is_none()) {
        match feed::read(&feed.path, feed.format) {
            Ok((_, entries)) => feed.entries = Arc::new(entries),
            Err(mistakes) => {
                let e = Failure::from(Mistakes(mistakes));
                tracing::error!("feed {}: {e}; it blocks nothing until it can be read", feed.path);
            }
        }
    }
    *set = Arc::new(filled);
}
