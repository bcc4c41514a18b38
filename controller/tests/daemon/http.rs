//! Requests as anybody can send them, byte by byte where that matters.

use crate::lab::Lab;
use rustix::process::{Gid, Uid};
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// A status and what the body says; null where it is no JSON.
pub type Answer = (u16, Value);

/// Sends a request and reads the answer to its end.
pub fn ask(mut stream: impl Read + Write, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: gw\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    // The daemon may answer and close before it has read a body that it does not want.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    answer(stream)
}

/// Reads an answer to its end.
pub fn answer(mut stream: impl Read) -> Answer {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut piece) {
        bytes.extend_from_slice(&piece[..n]);
    }
    let text = String::from_utf8_lossy(&bytes);
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_default();
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, serde_json::from_str(body).unwrap_or_default())
}

impl Lab {
    pub fn socket(&self) -> PathBuf {
        self.dir().join("run").join(format!("{}.sock", self.name()))
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).expect("the control socket");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        stream
    }

    pub fn get(&self, path: &str) -> Answer {
        ask(self.connect(), "GET", path, "", b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        let json = "content-type: application/json\r\n";
        ask(self.connect(), "POST", path, json, body.to_string().as_bytes())
    }

    /// Runs on a thread that is another user.
    pub fn as_user<T: Send>(&self, uid: u32, gid: u32, work: impl FnOnce() -> T + Send) -> T {
        let become_user = || {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::thread::set_thread_groups(&[]).expect("setgroups");
            rustix::thread::set_thread_res_gid(gid, gid, gid).expect("setresgid");
            rustix::thread::set_thread_res_uid(uid, uid, uid).expect("setresuid");
            work()
        };
        std::thread::scope(|scope| scope.spawn(become_user).join().expect("thread"))
    }
}
