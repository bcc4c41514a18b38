//! The one consumer of the ring buffer, and those who listen to it.

use crate::names::Names;
use crate::view::event;
use crate::view::flow::Moment;
use rustix::event::{PollFd, PollFlags};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::broadcast;

/// Events that a listener may lag behind, and that are kept for those who come later.
const KEPT: usize = 4096;

/// Where events go.
#[derive(Debug)]
pub struct Hub {
    listeners: broadcast::Sender<Arc<str>>,
    recent: Mutex<VecDeque<Arc<str>>>,
    names: RwLock<Arc<Names>>,
    /// Events that slow listeners did not get.
    pub lost: AtomicU64,
}

impl Hub {
    /// A hub without listeners.
    pub fn new(names: Names) -> Self {
        Self {
            listeners: broadcast::Sender::new(KEPT),
            recent: Mutex::default(),
            names: RwLock::new(Arc::new(names)),
            lost: AtomicU64::new(0),
        }
    }

    /// The names by which events are told from now on.
    pub fn rename(&self, names: Names) {
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(names);
    }

    /// Hands an event of the ring buffer to everybody.
    pub fn publish(&self, bytes: &[u8], now: &Moment) {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(value) = event::json(bytes, &names, now) else { return };
        let line: Arc<str> = value.to_string().into();
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(line.clone());
        // Nobody listens: the event is kept for the next one who asks.
        let _ = self.listeners.send(line);
    }

    /// What was, and what comes; no event is in both or in neither.
    pub fn listen(&self) -> (Vec<Arc<str>>, broadcast::Receiver<Arc<str>>) {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        (recent.iter().cloned().collect(), self.listeners.subscribe())
    }
}

/// The next line for a listener, `None` at the end. What a slow one missed is counted.
pub async fn next(hub: &Hub, receiver: &mut broadcast::Receiver<Arc<str>>) -> Option<Arc<str>> {
    loop {
        match receiver.recv().await {
            Ok(line) => return Some(line),
            Err(broadcast::error::RecvError::Lagged(n)) => {
                hub.lost.fetch_add(n, Ordering::Relaxed);
            }
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}

/// Reads the ring buffer for ever, on a thread of its own; returns only with an error.
pub fn read(mut events: loader::maps::Events, hub: &Hub) -> std::io::Error {
    loop {
        let mut ready = [PollFd::new(&events, PollFlags::IN)];
        match rustix::event::poll(&mut ready, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return e.into(),
        }
        let now = Moment::now();
        events.drain(|bytes| hub.publish(bytes, &now));
    }
}
