//! Feeds: files of prefixes that somebody else keeps. A blocklist names the file; what stands in it is blocked.
//!
//! All prefixes of a feed share one number in the maps, that of the feed: a million of them are a million entries of a trie and
//! one line of the rule table. Which line of the file an address stands in is looked up when somebody asks.

mod encode;
mod file;
mod form;

pub use file::{Stamp, read, read_all};
pub use form::Format;

use super::fields::{Context, Fields};
use super::place::{Mistake, Place};
use super::prefix::Prefix;
use super::time::parse_duration;
use super::yaml::Node;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

const EXAMPLE: &str = "for example `feeds: [{name: drop, path: /var/lib/tidegate/feeds/drop.txt}]`";

/// A file of prefixes, as a blocklist names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feed {
    /// Unique in its blocklist.
    pub name: String,
    /// The file on the gateway, from the root.
    pub path: String,
    /// What its lines look like.
    pub format: Format,
    /// When its blocks end.
    pub ends: Ends,
    /// Where it is named.
    pub place: Place,
    /// What stood in the file when it was read; nothing before that.
    #[serde(skip)]
    pub entries: Arc<Entries>,
}

/// When the blocks of a feed end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ends {
    /// When they are in the file no more.
    Never,
    /// So many seconds after the file was written, if it is not written again.
    AfterSeconds(i64),
    /// At a time.
    At(Timestamp),
}

/// What stands in a file.
#[derive(Clone, Default)]
pub struct Entries {
    /// By prefix, each once.
    list: Vec<Entry>,
    /// When the file was written; `None` where no file was read.
    written_at: Option<Timestamp>,
    /// SHA-256 of the text and of how it was read, in hexadecimal.
    digest: String,
}

/// A line of a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it blocks.
    pub prefix: Prefix,
    /// Where it stands, from 1.
    pub line: u32,
    /// The number of the Spamhaus listing (SBL) that it names, 0 for none.
    pub sbl: u32,
}

impl Entries {
    /// Of lines in any order; of a prefix that stands twice, the first is kept.
    fn new(mut list: Vec<Entry>, written_at: Timestamp, digest: String) -> Self {
        list.sort_by_key(|entry| entry.prefix);
        list.dedup_by_key(|entry| entry.prefix);
        list.shrink_to_fit();
        Self { list, written_at: Some(written_at), digest }
    }

    /// By prefix.
    pub fn list(&self) -> &[Entry] {
        &self.list
    }

    /// When the file was written; `None` where none was read.
    pub fn written_at(&self) -> Option<Timestamp> {
        self.written_at
    }

    /// Tells one content from another; empty where no file was read.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The entries in which a prefix lies, the widest first.
    pub fn covering<'e>(&'e self, prefix: &Prefix) -> impl Iterator<Item = &'e Entry> + use<'e> {
        let addr = prefix.addr();
        let inside = *prefix;
        (0..=prefix.bits() as u8)
            .filter_map(move |bits| {
                let wider = Prefix::new(addr, bits);
                let at = self.list.binary_search_by_key(&wider, |entry| entry.prefix).ok()?;
                Some(&self.list[at])
            })
            .filter(move |entry| entry.prefix.covers(&inside))
    }
}

impl PartialEq for Entries {
    /// A million entries are not compared where their digests tell.
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.written_at == other.written_at
    }
}

impl Eq for Entries {}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} prefixes of {:?}", self.list.len(), self.written_at)
    }
}

impl fmt::Display for Feed {
    /// `1013 prefixes of /var/lib/tidegate/feeds/drop.txt, written at 2027-01-01T00:00:00Z (0123456789ab), until ...`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entries { list, written_at, digest } = &*self.entries;
        write!(f, "{} prefixes of {}", list.len(), self.path)?;
        if let Some(written_at) = written_at {
            write!(f, ", written at {written_at:.0} ({})", digest.get(..12).unwrap_or(digest))?;
        }
        match self.not_after() {
            Some(end) => write!(f, ", until {end:.0}"),
            None => Ok(()),
        }
    }
}

impl Feed {
    /// Where an entry stands: `/var/lib/tidegate/feeds/drop.txt:17 (SBL256894)`.
    pub fn source(&self, entry: &Entry) -> String {
        let Entry { line, sbl, .. } = entry;
        if *sbl == 0 { format!("{}:{line}", self.path) } else { format!("{}:{line} (SBL{sbl})", self.path) }
    }

    /// Until when its blocks hold; `None` for no end.
    pub fn not_after(&self) -> Option<Timestamp> {
        match self.ends {
            Ends::Never => None,
            Ends::At(end) => Some(end),
            Ends::AfterSeconds(seconds) => {
                let end = self.entries.written_at?.checked_add(SignedDuration::from_secs(seconds));
                Some(end.unwrap_or(Timestamp::MAX))
            }
        }
    }

    /// Whether other contents would block something else, or until another time.
    pub fn differs(&self, entries: &Entries) -> bool {
        let renews = matches!(self.ends, Ends::AfterSeconds(_));
        self.entries.digest != entries.digest || (renews && self.entries.written_at != entries.written_at)
    }
}

/// The feeds of a blocklist.
pub(super) fn decode(cx: &mut Context<'_>, node: &Node) -> Vec<Feed> {
    let mut feeds: Vec<Feed> = Vec::new();
    for item in cx.items(node, "`feeds`", EXAMPLE) {
        let Some(feed) = one(cx, item) else { continue };
        if let Some(first) = feeds.iter().find(|other| other.name == feed.name && !feed.name.is_empty()) {
            let what = format!("two feeds of this blocklist are named `{}`", feed.name);
            cx.mistake(item, what, format!("the first is at {}", first.place));
        }
        feeds.push(feed);
    }
    feeds
}

fn one(cx: &mut Context<'_>, node: &Node) -> Option<Feed> {
    let fields = Fields::of(cx, node, "a feed", &["name", "path", "format", "expiresAfter", "notAfter"])?;
    let name = fields.required(cx, "name", "verdicts show it").and_then(|node| cx.name(node, "`name`"));
    let path = fields.required(cx, "path", EXAMPLE).and_then(|node| {
        let text = cx.text(node, "`path`")?;
        if !text.starts_with('/') {
            cx.mistake(node, format!("`{text}` is not a path from the root"), EXAMPLE);
        }
        Some(text.to_owned())
    });
    let format = match fields.optional("format") {
        Some(node) => cx.word(node, "format", &Format::WORDS),
        None => Some(Format::Auto),
    };
    let ends = ends(cx, &fields);
    let place = cx.place(node);
    Some(Feed { name: name?, path: path?, format: format?, ends: ends?, place, entries: Arc::default() })
}

fn ends(cx: &mut Context<'_>, fields: &Fields<'_>) -> Option<Ends> {
    let Some(node) = fields.optional("expiresAfter") else {
        return match fields.optional("notAfter") {
            Some(_) => super::decode::end(cx, fields).map(Ends::At),
            None => Some(Ends::Never),
        };
    };
    if fields.optional("notAfter").is_some() {
        cx.mistake(node, "`expiresAfter` and `notAfter` both say when it ends", "keep one of them");
        return None;
    }
    let text = cx.text(node, "`expiresAfter`")?;
    let duration = parse_duration(text);
    if duration.is_none() {
        cx.mistake(node, format!("`{text}` is not a duration"), "such as 90m, 24h, 7d");
    }
    duration.map(|duration| Ends::AfterSeconds(duration.as_secs()))
}

/// What is wrong in a feed. What stands there is not told: who names a file need not be allowed to read it.
fn mistake(path: &str, line: u32, what: impl Into<String>, accepted: impl Into<String>) -> Mistake {
    let place = Some(Place { file: path.into(), line, column: 1 });
    Mistake { place, what: what.into(), accepted: accepted.into(), source_line: String::new(), width: 0 }
}

#[cfg(test)]
mod tests;
