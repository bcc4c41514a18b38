//! A request of the daemon's API, as any client sends it, and the moment from which packets are judged by what it brought.

use anyhow::{Context, Result, bail};
use loader::Maps;
use serde_json::json;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// So often is looked for the new epoch.
const LOOK: Duration = Duration::from_micros(50);

/// What a request took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// From connecting until the epoch was seen that it brought.
    pub judged: Duration,
    /// From connecting until the whole answer was there: by then it also is on the disk.
    pub answered: Duration,
}

/// Applies one file beside all others that count, over a connection of its own.
pub fn apply_only(socket: &Path, maps: &Maps, name: &str, text: &str) -> Result<Took> {
    let body = json!({"files": [{"name": name, "text": text}], "only": true}).to_string();
    let head = format!(
        "POST /v1/policy HTTP/1.1\r\nhost: tidegate\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let epoch = maps.config.get()?.epoch;
    let (seen, judged) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let end = Instant::now() + Duration::from_secs(10);
            while Instant::now() < end {
                if maps.config.get().is_ok_and(|config| config.epoch != epoch) {
                    let _ = seen.send(Instant::now()); // nobody asks once a request has failed
                    return;
                }
                std::thread::sleep(LOOK);
            }
        });
        let begin = Instant::now();
        let mut stream = UnixStream::connect(socket).context("connecting to the daemon")?;
        stream.write_all((head + &body).as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let answered = begin.elapsed();
        if !answer.starts_with("HTTP/1.1 200") {
            bail!("the daemon answered {answer}");
        }
        let judged = judged.recv().context("no packet is judged by it")?.duration_since(begin);
        Ok(Took { judged, answered })
    })
}
