//! Connections: how many, for how long, and of whom. None may cost the others theirs.

use super::patient::{Patient, WRITE_PATIENCE};
use super::role::Peer;
use axum::{Extension, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// How long a request's head may take to arrive, and how long a connection may lie idle.
pub const HEAD_PATIENCE: Duration = Duration::from_secs(15);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 32 << 10;
/// Header fields of a request.
const HEADERS: usize = 64;

/// Answers requests of a peer on a connection until it ends.
pub async fn serve<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(io: I, router: Router, peer: Peer) {
    answer(io, router.layer(Extension(peer))).await;
}

/// Answers requests on a connection until it ends.
pub async fn answer<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(io: I, router: Router) {
    let service = TowerToHyperService::new(router);
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE);
    http.max_buf_size(HEAD_BYTES).max_headers(HEADERS);
    if let Err(e) = http.serve_connection(TokioIo::new(Patient::new(io, WRITE_PATIENCE)), service).await {
        tracing::debug!("a connection ended: {e}");
    }
}

/// What is written to a connection that is one too many, before it is closed.
pub const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n\
    content-length: 68\r\n\r\n{\"code\":\"busy\",\"message\":\"there are as many connections as can be\"}\n";

/// How many connections there are, in all and of each.
#[derive(Debug)]
pub struct Crowd<K> {
    counts: Arc<Mutex<HashMap<K, usize>>>,
    most: usize,
    most_of_one: usize,
}

impl<K: Hash + Eq + Clone> Crowd<K> {
    /// Nobody yet.
    pub fn new(most: usize, most_of_one: usize) -> Self {
        Self { counts: Arc::default(), most, most_of_one }
    }

    /// A place, until it is dropped; none where all are taken or the peer has its share.
    pub fn enter(&self, who: K) -> Option<Place<K>> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = counts.values().sum();
        let own = counts.get(&who).copied().unwrap_or_default();
        if all >= self.most || own >= self.most_of_one {
            return None;
        }
        counts.insert(who.clone(), own + 1);
        Some(Place { who, counts: self.counts.clone() })
    }
}

/// A connection's place among the others.
#[derive(Debug)]
pub struct Place<K: Hash + Eq> {
    who: K,
    counts: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Hash + Eq> Drop for Place<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = counts.get_mut(&self.who) {
            *own -= 1;
            if *own == 0 {
                counts.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_its_share_takes_no_place_of_others_and_gives_back_what_it_leaves() {
        let crowd = Crowd::new(3, 2);
        let (a, b) = (crowd.enter("a").expect("room"), crowd.enter("a").expect("room"));
        assert!(crowd.enter("a").is_none(), "its share");
        let c = crowd.enter("b").expect("room");
        assert!(crowd.enter("c").is_none(), "all");
        drop(a);
        let d = crowd.enter("c").expect("room");
        assert!(crowd.enter("a").is_none(), "all again");
        drop((b, c, d));
        assert_eq!(crowd.counts.lock().expect("whole").len(), 0);
    }

    #[test]
    fn the_answer_to_one_too_many_is_whole() {
        let text = std::str::from_utf8(BUSY).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a body");
        assert!(
            head.contains(&format!("content-length: {}\r\n", body.len()))
                || head.ends_with(&format!("content-length: {}", body.len())),
            "{}",
            body.len()
        );
        let failure: crate::exit_code::Failure = serde_json::from_str(body).expect("a failure");
        assert_eq!(failure.code, crate::exit_code::Code::Busy);
    }
}
