//! Files of events: a line of JSON an event, a file named by the number of its first.

use crate::exit_code::{Code, Failure, Result};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Bytes at the end of a file among which its last event is looked for.
const TAIL: u64 = 1 << 20;

/// A folder of them.
#[derive(Clone, Debug)]
pub struct Files {
    folder: PathBuf,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventFile {
    /// The number of its first event.
    pub first: u64,
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

impl Files {
    /// Of a folder, which need not be there.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the one with this first event is.
    pub fn path(&self, first: u64) -> PathBuf {
        // As wide as the widest number: `ls` and `cat *.ndjson` have them in their order.
        self.folder.join(format!("{first:020}.ndjson"))
    }

    /// The files, the oldest first.
    pub fn list(&self) -> Result<Vec<EventFile>> {
        let failed = |e: &std::io::Error| Failure::io(format!("read {}", self.folder.display()), e);
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed(&e)),
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| failed(&e))?;
            let path = entry.path();
            let is_ours = path.extension().is_some_and(|extension| extension == "ndjson");
            let first = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            if let (true, Some(first)) = (is_ours, first) {
                let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
                files.push(EventFile { first, path, bytes });
            }
        }
        files.sort();
        Ok(files)
    }

    /// The number of the last event; 0 where there is none.
    pub fn last(&self) -> Result<u64> {
        match self.list()?.last() {
            // A file without a whole line: its number was given all the same.
            Some(file) => Ok(file.last_id()?.unwrap_or(file.first)),
            None => Ok(0),
        }
    }

    /// One event.
    pub fn find(&self, id: u64) -> Result<Value> {
        let files = self.list()?;
        let missing = |why: String| Failure::new(Code::Usage, format!("event {id} is not kept: {why}"));
        let Some(file) = files.iter().rev().find(|file| file.first <= id) else {
            return Err(match files.first() {
                Some(oldest) => missing(format!("the oldest that is has the number {}", oldest.first)),
                None => missing(format!("there are no events in {}", self.folder.display())),
            });
        };
        let mut found = None;
        let own = format!("\"id\":{id}");
        file.each(
            |line: &str| line.contains(&own),
            |event| {
                found = (number(&event) == id).then_some(event);
                found.is_none()
            },
        )?;
        let last = self.last()?;
        found.ok_or_else(|| match id > last {
            true => missing(format!("the last one has the number {last}")),
            false => missing("there was no room for it in the queue (tidegate_lost_events_total)".into()),
        })
    }

    /// Every event whose line is wanted, the oldest first.
    pub fn each(&self, wants: impl Fn(&str) -> bool, mut take: impl FnMut(Value)) -> Result<()> {
        for file in self.list()? {
            file.each(&wants, |event| {
                take(event);
                true
            })?;
        }
        Ok(())
    }
}

impl EventFile {
    fn open(&self) -> Result<Option<File>> {
        match File::open(&self.path) {
            Ok(file) => Ok(Some(file)),
            // It was the oldest, and made room.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Failure::io(format!("open {}", self.path.display()), &e)),
        }
    }

    /// Its events whose lines are wanted, as long as more are. What was not written whole is left out.
    fn each(&self, wants: impl Fn(&str) -> bool, mut take: impl FnMut(Value) -> bool) -> Result<()> {
        let Some(file) = self.open()? else { return Ok(()) };
        let mut reader = BufReader::with_capacity(1 << 16, file);
        let mut line = String::new();
        loop {
            line.clear();
            match reader.read_line(&mut line) {
                Ok(_) if !line.ends_with('\n') => return Ok(()),
                Ok(_) => {}
                // A line that the disk spoiled.
                Err(e) if e.kind() == std::io::ErrorKind::InvalidData => continue,
                Err(e) => return Err(Failure::io(format!("read {}", self.path.display()), &e)),
            }
            if wants(&line)
                && let Ok(event) = serde_json::from_str(&line)
                && !take(event)
            {
                return Ok(());
            }
        }
    }

    fn last_id(&self) -> Result<Option<u64>> {
        let Some(mut file) = self.open()? else { return Ok(None) };
        let mut tail = Vec::new();
        let mut read = || {
            file.seek(SeekFrom::Start(self.bytes.saturating_sub(TAIL)))?;
            file.read_to_end(&mut tail)
        };
        read().map_err(|e| Failure::io(format!("read {}", self.path.display()), &e))?;
        let whole = tail.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        let lines = tail[..whole].split(|byte| *byte == b'\n').rev();
        Ok(lines
            .filter_map(|line| serde_json::from_slice(line).ok())
            .map(|event| number(&event))
            .find(|n| *n > 0))
    }
}

/// The number of an event.
pub fn number(event: &Value) -> u64 {
    event.get("id").and_then(Value::as_u64).unwrap_or_default()
}
