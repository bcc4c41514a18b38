//! The one consumer of the ring buffer, and those who listen to it.

use super::half_open::Begun;
use super::inlet::{Inlet, What};
use super::leases::{self, Ask, Leases};
use super::recent::{Recent, RecentFlow};
use super::tell::{Telling, Waiting};
use crate::bindings::SourceName;
use crate::dns::{self, Asked};
use crate::exit_code::Result;
use crate::hello::{ClientHello, Found, Hellos};
use crate::names::{Names, Published};
use crate::state::Store;
use crate::stream::{Cursor, Pen};
use crate::view::event;
use crate::view::flow::{Moment, ReadHello, ReadHellos, key_hex};
use datapath::abi::{ClosedEvent, Event, EventKind, HandshakeKind, HelloSegment};
use rustix::event::{PollFd, PollFlags};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;

/// Events that a listener may lag behind, and that are kept for those who come later.
const KEPT: usize = 4096;

/// Events that are read before hellos are.
const AT_A_TIME: usize = 4096;
/// Pieces of hellos and queries that are read before events are: verdicts, and what follows from them, wait for no storm of these. What comes
/// faster than that finds the ring full, and is counted there (`hello_ring_buffer`).
const HELLOS_AT_A_TIME: usize = 256;

/// Where events go.
pub struct Hub {
    listeners: broadcast::Sender<Arc<str>>,
    recent: Mutex<VecDeque<Arc<str>>>,
    names: Arc<Published>,
    hellos: Mutex<Hellos>,
    asked: Mutex<Asked>,
    begun: Mutex<Begun>,
    flows: Mutex<Recent>,
    governance: Arc<Inlet>,
    /// What addresses are bound to, for whoever may not wait for `leases`.
    ask: Ask,
    leases: Mutex<Leases>,
    /// Events that are still to be told.
    pub telling: Telling,
    /// Numbers events, and writes them down.
    pub pen: Pen,
    recorded: Mutex<Cursor>,
    /// Events that slow listeners did not get.
    pub lost: AtomicU64,
    /// Held while a connection is removed and counted as over, and by who counts both.
    pub ending: Mutex<()>,
}

impl Hub {
    /// A hub without listeners.
    pub fn new(
        names: Arc<Published>,
        leases: Leases,
        governance: Arc<Inlet>,
        pen: Pen,
        recorded: Cursor,
    ) -> Self {
        Self {
            listeners: broadcast::Sender::new(KEPT),
            recent: Mutex::default(),
            names,
            hellos: Mutex::default(),
            asked: Mutex::default(),
            begun: Mutex::default(),
            flows: Mutex::default(),
            governance,
            ask: leases.ask.clone(),
            leases: Mutex::new(leases),
            telling: Telling::new(),
            pen,
            recorded: Mutex::new(recorded),
            lost: AtomicU64::new(0),
            ending: Mutex::default(),
        }
    }

    /// The names by which events are told from now on.
    pub fn rename(&self, names: Names) {
        self.names.rename(names);
        self.rebound();
    }

    /// Bindings are others than before.
    pub fn rebound(&self) {
        self.leases().forget();
    }

    /// The names by which events are told now.
    pub(super) fn names(&self) -> Arc<Names> {
        self.names.now()
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody what became of what a source of bindings said.
    pub fn tell_of_source(&self, source: &SourceName, outcome: &str, text: &str) {
        self.send(event::source_json(source, outcome, text));
    }

    /// Tells everybody of what was recorded since it was last told, in this daemon or in one before.
    pub fn tell_of_records(&self, store: &Store) -> Result<()> {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        let before = recorded.last();
        let mut last = before;
        store.audit(before, |seq, text, _| {
            event::record_json(&text).into_iter().for_each(|event| self.send(event));
            last = seq;
            Ok(())
        })?;
        if last > before { recorded.advance(last) } else { Ok(()) }
    }

    /// Hands over to be compared what no packet tells of.
    pub(super) fn compare(&self, what: What) {
        self.governance.offer_told(what, &self.names());
    }

    /// Hands an event of the ring buffer to everybody: to the governance loop first.
    pub fn publish(&self, bytes: &[u8], now: &Moment) {
        let names = self.names();
        self.governance.offer(bytes, &names, now, |event| leases::over(&*self.ask, event));
        self.flows.lock().unwrap_or_else(PoisonError::into_inner).note(bytes);
        self.telling.leave(bytes, &names, now);
    }

    /// Tells everybody of events that were handed over, on a thread of its own.
    pub fn tell_all(&self) {
        self.telling.run(|Waiting { bytes, names, now }| {
            let hello = self.hello_of(bytes);
            if let Some(mut value) = event::json(bytes, names, now, hello.as_deref()) {
                self.leases().add(bytes, &mut value, now);
                self.send(value);
            }
        });
    }

    /// The ClientHello of the connection that an event is about, where it tells of TLS.
    fn hello_of(&self, bytes: &[u8]) -> Option<Arc<ClientHello>> {
        let hellos = self.hellos.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(closed) = bytemuck::try_pod_read_unaligned::<ClosedEvent>(bytes) {
            return hellos.of(&closed.event.key, closed.connection.client_hello_ns);
        }
        let event = bytemuck::try_pod_read_unaligned::<Event>(bytes).ok()?;
        let is_tls =
            event.kind() == Some(EventKind::Handshake) && event.handshake == HandshakeKind::Tls as u8;
        is_tls.then(|| hellos.latest(&event.key)).flatten()
    }

    /// Takes a piece of a ClientHello, and tells everybody of those that can be read now.
    fn take_hello(&self, bytes: &[u8], now: &Moment) {
        let Ok(piece) = bytemuck::try_pod_read_unaligned::<HelloSegment>(bytes) else { return };
        if piece.kind == HelloSegment::QUERY {
            return self.take_query(&piece, now);
        }
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).note(&piece);
        let found = self.hellos.lock().unwrap_or_else(PoisonError::into_inner).take(&piece);
        self.tell(&found, now);
    }

    /// Takes a query for a name, and tells everybody of it, once.
    fn take_query(&self, piece: &HelloSegment, now: &Moment) {
        let Some(question) = dns::question(piece.payload()) else { return };
        if !self.asked.lock().unwrap_or_else(PoisonError::into_inner).is_new(piece, question.id) {
            return;
        }
        let names = self.names();
        self.governance.offer_query(piece, &question.name, &names, now);
        let mut told = event::query_json(piece, &question.name, &names, now);
        self.leases().add_to_hello((&piece.key, piece.originator, piece.identity), &mut told, now);
        self.send(told);
    }

    /// Reads as far as they go the hellos of which nothing came since `before_ns`.
    pub fn give_up_hellos(&self, before_ns: u64, now: &Moment) {
        let found = self.hellos.lock().unwrap_or_else(PoisonError::into_inner).give_up(before_ns);
        self.tell(&found, now);
    }

    fn tell(&self, found: &[Found], now: &Moment) {
        let names = self.names();
        for found in found {
            self.governance.offer_hello(found, &names, now);
            let mut told = event::hello_json(found, &names, now);
            let piece = &found.segment;
            self.leases().add_to_hello((&piece.key, piece.originator, piece.identity), &mut told, now);
            self.send(told);
        }
    }

    /// Handshakes of TLS and QUIC that began too long ago to go on: key, and when.
    pub fn overdue(&self, now_ns: u64) -> Vec<(datapath::abi::FlowKey, u64)> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).overdue(now_ns)
    }

    /// Every hello that is remembered.
    pub fn hellos(&self) -> ReadHellos {
        let hellos = self.hellos.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |(key, began_ns, hello): (_, _, &ClientHello)| ReadHello {
            flow: key_hex(key),
            began_ns,
            hello: hello.clone(),
        };
        hellos.all().map(read).collect()
    }

    /// The flows that events told of lately.
    pub fn recent_flows(&self) -> Vec<RecentFlow> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner).flows()
    }

    /// Hands an event to everybody.
    pub(super) fn send(&self, event: serde_json::Value) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let line = self.pen.write(event);
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

/// The next line for a listener, `None` at the end. What a slow one missed is counted, and it is told, as Hubble does.
pub async fn next(hub: &Hub, receiver: &mut broadcast::Receiver<Arc<str>>) -> Option<Arc<str>> {
    match receiver.recv().await {
        Ok(line) => Some(line),
        Err(broadcast::error::RecvError::Lagged(n)) => {
            hub.lost.fetch_add(n, Ordering::Relaxed);
            let lost = serde_json::json!({"source": "observer_queue", "num_events_lost": n});
            Some(serde_json::json!({ "lost_events": lost }).to_string().into())
        }
        Err(broadcast::error::RecvError::Closed) => None,
    }
}

/// Reads the ring buffers for ever, on a thread of its own; returns only with an error.
pub fn read(mut events: loader::maps::Events, mut hellos: loader::maps::Events, hub: &Hub) -> std::io::Error {
    loop {
        let mut ready = [PollFd::new(&events, PollFlags::IN), PollFd::new(&hellos, PollFlags::IN)];
        match rustix::event::poll(&mut ready, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return e.into(),
        }
        turn(&mut events, &mut hellos, hub);
    }
}

/// A ring buffer, as far as it is read.
trait Ring {
    /// Hands so many of those that are there to `take` at most.
    fn take_some(&mut self, most: usize, take: impl FnMut(&[u8]));
}

impl Ring for loader::maps::Events {
    fn take_some(&mut self, most: usize, take: impl FnMut(&[u8])) {
        self.drain_some(most, take);
    }
}

/// Reads so much of each that neither waits for a storm of the other.
fn turn<R: Ring>(events: &mut R, hellos: &mut R, hub: &Hub) {
    let now = Moment::now();
    // Hellos first: the events of a handshake that has ended tell of its hello.
    hellos.take_some(HELLOS_AT_A_TIME, |bytes| hub.take_hello(bytes, &now));
    events.take_some(AT_A_TIME, |bytes| hub.publish(bytes, &now));
}

#[cfg(test)]
mod tests {
    use super::super::inlet::Pace;
    use super::*;
    use bytemuck::Zeroable;
    use datapath::abi::{Action, Reason};

    fn hub(folder: &std::path::Path, inlet: Arc<Inlet>) -> Hub {
        let recorded = Cursor::open(folder, "records", || Ok(0)).expect("a cursor");
        let leases = Leases::new(Arc::new(|_| None));
        Hub::new(Arc::default(), leases, inlet, Pen::without_files(), recorded)
    }

    impl Ring for VecDeque<Vec<u8>> {
        fn take_some(&mut self, most: usize, mut take: impl FnMut(&[u8])) {
            self.drain(..most.min(self.len())).for_each(|bytes| take(&bytes));
        }
    }

    #[test]
    fn a_storm_of_hellos_keeps_no_verdict_waiting_nor_one_of_verdicts_a_hello() {
        let folder = tempfile::tempdir().expect("a folder");
        let (inlet, outlet) = Inlet::new(Pace::new(1));
        let hub = hub(folder.path(), Arc::new(inlet));
        let mut event = Event {
            kind: EventKind::Verdict as u8,
            action: Action::Dropped as u8,
            reason: Reason::PolicyDenied as u8,
            identity: [7, 0],
            ..Event::zeroed()
        };
        event.key.family = 4;
        let mut events = VecDeque::from([bytemuck::bytes_of(&event).to_vec()]);
        let piece = bytemuck::bytes_of(&HelloSegment::zeroed()).to_vec();
        let mut hellos = VecDeque::from(vec![piece; 10_000]);
        turn(&mut events, &mut hellos, &hub);
        assert_eq!(outlet.come().count(), 1, "it is compared after a few hellos");
        assert_eq!(hellos.len(), 10_000 - HELLOS_AT_A_TIME);
        events.extend(vec![bytemuck::bytes_of(&event).to_vec(); 10_000]);
        turn(&mut events, &mut hellos, &hub);
        assert_eq!((events.len(), hellos.len()), (10_000 - AT_A_TIME, 10_000 - 2 * HELLOS_AT_A_TIME));
    }

    #[tokio::test]
    async fn a_slow_listener_is_told_what_it_lost_and_holds_nobody_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let hub = hub(folder.path(), Arc::new(Inlet::new(Pace::new(1)).0));
        let (_, mut slow) = hub.listen();
        let (_, mut quick) = hub.listen();
        for n in 1..=KEPT as u64 + 10 {
            hub.send(serde_json::json!({ "n": n }));
            let line = format!("{{\"id\":{n},\"n\":{n}}}");
            assert_eq!(next(&hub, &mut quick).await.as_deref(), Some(line.as_str()));
        }
        let told = next(&hub, &mut slow).await.expect("a line");
        assert_eq!(&*told, r#"{"lost_events":{"num_events_lost":10,"source":"observer_queue"}}"#);
        assert_eq!(next(&hub, &mut slow).await.as_deref(), Some(r#"{"id":11,"n":11}"#));
        assert_eq!(hub.lost.load(Ordering::Relaxed), 10);
    }
}
