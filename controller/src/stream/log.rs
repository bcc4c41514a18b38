//! Writes events into files, on a thread of its own: who tells of one never waits for a disk.

use super::Weight;
use super::files::Files;
use crate::exit_code::{Failure, Result};
use serde_json::Value;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Events that wait to be written, about 16 MB.
const QUEUE: usize = 16_384;
/// Events that are written before they can be read.
const BATCH: usize = 1024;
/// The part of it that only decisions can take.
const FOR_DECISIONS: usize = QUEUE / 8;
/// All files have so many times the bytes of one.
const FILES: u64 = 16;
/// Files that are kept, however small: each start of the daemon begins one.
const MOST_FILES: usize = 1024;
/// How often a failure is told, and how long what was written may wait for the disk.
const PATIENCE: Duration = Duration::from_secs(1);

/// Gives events their numbers, and leaves them for the files.
pub struct Pen {
    next: AtomicU64,
    queue: Option<SyncSender<(u64, Arc<str>)>>,
    waiting: Arc<AtomicUsize>,
    /// Events that are in no file: the queue was full, or the disk.
    pub lost: Arc<AtomicU64>,
}

impl Pen {
    /// One that writes nothing.
    pub fn without_files() -> Self {
        let (waiting, lost) = Default::default();
        Self { next: AtomicU64::new(1), queue: None, waiting, lost }
    }

    /// Numbers an event and leaves it to be written. Callers hold a lock: numbers and lines are in one order.
    pub fn write(&self, mut event: Value) -> Arc<str> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let weight = Weight::of(&event);
        event["id"] = id.into();
        let line: Arc<str> = event.to_string().into();
        if let Some(queue) = &self.queue {
            let room = if weight == Weight::Decision { QUEUE } else { QUEUE - FOR_DECISIONS };
            let fits = self.waiting.fetch_add(1, Ordering::Relaxed) < room;
            if !fits || queue.try_send((id, line.clone())).is_err() {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        line
    }

    /// Waits until all is written, for a short while.
    pub fn finish(&self) {
        let began = Instant::now();
        while self.waiting.load(Ordering::Relaxed) > 0 && began.elapsed() < 2 * PATIENCE {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The writer's end.
pub struct Log {
    files: Files,
    queue: Receiver<(u64, Arc<str>)>,
    waiting: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
    /// Bytes of all files.
    budget: u64,
    /// The number of the last event that can be read.
    written: watch::Sender<u64>,
}

impl Log {
    /// Opens the files, which hold so many bytes at most.
    pub fn open(files: Files, budget: u64) -> Result<(Pen, Self)> {
        let folder = files.folder();
        std::fs::create_dir_all(folder).map_err(|e| Failure::io(format!("make {}", folder.display()), &e))?;
        let last = files.last()?;
        let (sender, queue) = sync_channel(QUEUE);
        let (waiting, lost): (Arc<AtomicUsize>, Arc<AtomicU64>) = Default::default();
        let pen = Pen {
            next: AtomicU64::new(last + 1),
            queue: Some(sender),
            waiting: waiting.clone(),
            lost: lost.clone(),
        };
        let written = watch::Sender::new(last);
        Ok((pen, Self { files, queue, waiting, lost, budget, written }))
    }

    /// Tells of the number of the last event that can be read.
    pub fn written(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }

    /// Writes until the pen is gone.
    pub fn run(self) {
        let mut file: Option<Open> = None;
        let (mut told, mut synced) = (None::<Instant>, Instant::now());
        loop {
            match self.queue.recv_timeout(PATIENCE) {
                Ok(first) => {
                    if let Err(e) = self.write(&mut file, first) {
                        file = None;
                        if told.is_none_or(|at| at.elapsed() > PATIENCE * 60) {
                            told = Some(Instant::now());
                            tracing::error!("events are lost (tidegate_lost_events_total): {e}");
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return sync(file.as_mut()),
            }
            if synced.elapsed() >= PATIENCE {
                sync(file.as_mut());
                synced = Instant::now();
            }
        }
    }

    /// Writes what waits, and has it be read.
    fn write(&self, file: &mut Option<Open>, first: (u64, Arc<str>)) -> Result<()> {
        let lines: Vec<_> = std::iter::once(first).chain(self.queue.try_iter().take(BATCH)).collect();
        let done = self.put(file, &lines);
        let _before = match (&done, lines.last()) {
            (Ok(()), Some((last, _))) => self.written.send_replace(*last),
            _ => self.lost.fetch_add(lines.len() as u64, Ordering::Relaxed),
        };
        self.waiting.fetch_sub(lines.len(), Ordering::Relaxed);
        done
    }

    fn put(&self, file: &mut Option<Open>, lines: &[(u64, Arc<str>)]) -> Result<()> {
        let failed = |e| Failure::io(format!("write events into {}", self.files.folder().display()), &e);
        for (id, line) in lines {
            let open = match file.take() {
                Some(open) if open.bytes < self.budget / FILES => file.insert(open),
                full => {
                    full.map_or(Ok(()), |mut full| full.out.flush()).map_err(failed)?;
                    file.insert(self.begin(*id)?)
                }
            };
            open.bytes += line.len() as u64 + 1;
            writeln!(open.out, "{line}").map_err(failed)?;
        }
        file.as_mut().map_or(Ok(()), |open| open.out.flush()).map_err(failed)
    }

    /// A new file. Never one that is there: what was not written whole stays at an end.
    fn begin(&self, first: u64) -> Result<Open> {
        let list = self.files.list()?;
        let mut bytes: u64 = list.iter().map(|file| file.bytes).sum();
        for (n, file) in list.iter().enumerate() {
            let is_one_too_many = list.len() - n >= MOST_FILES;
            if bytes + self.budget / FILES <= self.budget && !is_one_too_many {
                break;
            }
            bytes -= file.bytes;
            std::fs::remove_file(&file.path)
                .map_err(|e| Failure::io(format!("remove {}", file.path.display()), &e))?;
        }
        let path = self.files.path(first);
        let file = File::create(&path).map_err(|e| Failure::io(format!("make {}", path.display()), &e))?;
        Ok(Open { out: BufWriter::with_capacity(1 << 16, file), bytes: 0, synced: 0 })
    }
}

/// The file that is written.
struct Open {
    out: BufWriter<File>,
    bytes: u64,
    synced: u64,
}

/// Has the disk keep what was written.
fn sync(file: Option<&mut Open>) {
    let Some(open) = file.filter(|open| open.synced < open.bytes) else { return };
    open.synced = open.bytes;
    if let Err(e) = open.out.flush().and_then(|()| open.out.get_ref().sync_data()) {
        tracing::error!("events: {e}");
    }
}
