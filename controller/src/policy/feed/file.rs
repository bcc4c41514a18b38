//! Reading the files that blocklists name.

use super::form::parse;
use super::{Entries, Feed, Format, mistake};
use crate::policy::Documents;
use crate::policy::place::{Mistake, Mistakes};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// Larger files are no feeds: ten times the largest that are known.
const MAX_BYTES: u64 = 512 << 20;

/// Tells whether a file is still the one that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// When it was written.
    pub written_at: Timestamp,
}

impl Stamp {
    /// Of the file at a path; nothing where there is none.
    pub fn of(path: &str) -> Option<Self> {
        Some(Self::new(&Path::new(path).metadata().ok()?))
    }

    fn new(metadata: &Metadata) -> Self {
        let nanoseconds = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        let written_at = Timestamp::from_nanosecond(nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH);
        Self { device: metadata.dev(), inode: metadata.ino(), bytes: metadata.size(), written_at }
    }
}

/// Reads a file, all of it or nothing. Also tells which file it was.
pub fn read(path: &str, format: Format) -> Result<(Stamp, Entries), Vec<Mistake>> {
    let unreadable = |error: &dyn std::fmt::Display| {
        let what = format!("cannot read the feed {path}: {error}");
        vec![Mistake {
            place: None,
            ..mistake(path, 1, what, "the gateway's daemon has to be able to read it")
        }]
    };
    // Whatever else lies at the path must not keep the daemon waiting.
    let options = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
    let file = options.map_err(|e| unreadable(&e))?;
    let metadata = file.metadata().map_err(|e| unreadable(&e))?;
    if !metadata.is_file() {
        return Err(unreadable(&"it is not a file"));
    }
    let stamp = Stamp::new(&metadata);
    let mut bytes = Vec::with_capacity(stamp.bytes.min(MAX_BYTES) as usize);
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| unreadable(&e))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(unreadable(&"it is larger than 512 MB"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() as u32 + 1;
        vec![mistake(path, line, "this is not text in UTF-8", "")]
    })?;
    let entries = parse(path, &text, format)?;
    let mut sha = Sha256::new();
    sha.update(format.name());
    sha.update([0]);
    sha.update(&text);
    let digest = sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((stamp, Entries::new(entries, stamp.written_at, digest)))
}

/// Reads every file that the documents name, each once.
pub fn read_all(documents: &mut Documents) -> Result<(), Mistakes> {
    let mut mistakes = Vec::new();
    let mut read_already: BTreeMap<(String, Format), Arc<Entries>> = BTreeMap::new();
    for feed in documents.feeds_mut() {
        let key = (feed.path.clone(), feed.format);
        if let Some(entries) = read_already.get(&key) {
            feed.entries = entries.clone();
            continue;
        }
        match read(&feed.path, feed.format) {
            Ok((_, entries)) => {
                feed.entries = Arc::new(entries);
                read_already.insert(key, feed.entries.clone());
            }
            Err(found) => mistakes.extend(found.into_iter().map(|m| at_least_there(m, feed))),
        }
    }
    if mistakes.is_empty() { Ok(()) } else { Err(Mistakes(mistakes)) }
}

/// A file that cannot be read has no line: that which names it is shown.
fn at_least_there(mistake: Mistake, feed: &Feed) -> Mistake {
    Mistake { place: mistake.place.or_else(|| Some(feed.place.clone())), ..mistake }
}
