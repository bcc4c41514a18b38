//! Reads files of events while they are written, from where somebody had come to.

use super::files::{Files, number};
use crate::exit_code::{Failure, Result};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};

/// Events that are delivered at once.
const BATCH: usize = 500;
/// Their bytes, about.
const BATCH_BYTES: usize = 1 << 20;

/// One reader of the files.
pub struct Follow {
    files: Files,
    last: u64,
    open: Option<Reading>,
}

struct Reading {
    first: u64,
    reader: BufReader<File>,
    /// What was there of a line that is not whole yet.
    rest: Vec<u8>,
}

/// What comes next.
#[derive(Debug, Default, PartialEq)]
pub struct Batch {
    /// The events, in their order.
    pub events: Vec<Value>,
    /// Numbers that are in no file: there was no room, or the file is gone.
    pub missing: u64,
}

impl Follow {
    /// Goes on after an event.
    pub fn after(files: Files, last: u64) -> Self {
        Self { files, last, open: None }
    }

    /// The events after those of the last batch; none where there are no more yet.
    pub fn batch(&mut self) -> Result<Batch> {
        let mut batch = Batch::default();
        let mut bytes = 0;
        while batch.events.len() < BATCH && bytes < BATCH_BYTES {
            let Some(line) = self.line()? else { break };
            bytes += line.len();
            let Ok(event) = serde_json::from_slice::<Value>(&line) else { continue };
            let id = number(&event);
            if id > self.last {
                batch.missing += id - self.last - 1;
                self.last = id;
                batch.events.push(event);
            }
        }
        Ok(batch)
    }

    /// The next whole line of this file or of the one after it.
    fn line(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(line) = self.rest_of_file()? {
                return Ok(Some(line));
            }
            let Some(next) = self.following()? else { return Ok(None) };
            // What came between the two looks.
            if let Some(line) = self.rest_of_file()? {
                return Ok(Some(line));
            }
            self.open = Some(next);
        }
    }

    fn rest_of_file(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(reading) = &mut self.open else { return Ok(None) };
        let read = reading.reader.read_until(b'\n', &mut reading.rest);
        read.map_err(|e| Failure::io("read the files of events", &e))?;
        let is_whole = reading.rest.last() == Some(&b'\n');
        Ok(is_whole.then(|| std::mem::take(&mut reading.rest)))
    }

    fn following(&self) -> Result<Option<Reading>> {
        let list = self.files.list()?;
        let next = match &self.open {
            Some(reading) => list.iter().find(|file| file.first > reading.first),
            // The file that has what comes after the last: the latest that begins no later than that.
            None => list.iter().rfind(|file| file.first <= self.last + 1).or(list.first()),
        };
        let Some(next) = next else { return Ok(None) };
        match File::open(&next.path) {
            Ok(file) => {
                Ok(Some(Reading { first: next.first, reader: BufReader::new(file), rest: Vec::new() }))
            }
            Err(e) => Err(Failure::io(format!("open {}", next.path.display()), &e)),
        }
    }
}
