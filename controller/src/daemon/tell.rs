//! From the reader of the ring buffer to those who are told: a queue with an end, so that telling holds up nobody who decides.
//!
//! The reader hands an event to the governance loop first, and leaves it here. Where events come faster than they can be told, those
//! that tell of what passed give way to those that tell of what did not; each that gives way is counted. Findings, records,
//! approvals and enrolments do not come this way and give way to nothing.

use crate::names::Names;
use crate::view::flow::Moment;
use datapath::abi::{Action, ClosedEvent, Event, EventKind, HandshakeOutcome};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Events that wait to be told, about 8 MB.
const QUEUE: usize = 32_768;
/// The part of it that what passed cannot take.
const FOR_WHAT_DID_NOT_PASS: usize = QUEUE / 4;
/// How long the end of the daemon waits for those that are still to be told.
const PATIENCE: Duration = Duration::from_secs(2);

/// An event as it came, and the names that its numbers had then.
pub struct Waiting {
    /// It.
    pub bytes: Box<[u8]>,
    /// By which names it is told.
    pub names: Arc<Names>,
    /// Both clocks when it came.
    pub now: Moment,
}

/// The queue.
pub struct Telling {
    queue: SyncSender<Waiting>,
    outlet: Mutex<Option<Receiver<Waiting>>>,
    waiting: AtomicUsize,
    /// Events that were told to nobody, since the queue was full.
    pub lost: AtomicU64,
}

impl Telling {
    /// An empty one.
    pub fn new() -> Self {
        let (queue, outlet) = sync_channel(QUEUE);
        let outlet = Mutex::new(Some(outlet));
        Self { queue, outlet, waiting: AtomicUsize::new(0), lost: AtomicU64::new(0) }
    }

    /// Leaves an event to be told, where there is room for one of its kind.
    pub fn leave(&self, bytes: &[u8], names: &Arc<Names>, now: &Moment) {
        let room = if has_passed(bytes) { QUEUE - FOR_WHAT_DID_NOT_PASS } else { QUEUE };
        let fits = self.waiting.fetch_add(1, Ordering::Relaxed) < room;
        let waiting = || Waiting { bytes: bytes.into(), names: names.clone(), now: *now };
        if !fits || self.queue.try_send(waiting()).is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tells one after the other, for as long as there is a queue. Only the first who asks is the one who tells.
    pub fn run(&self, tell: impl Fn(&Waiting)) {
        let outlet = self.outlet.lock().unwrap_or_else(PoisonError::into_inner).take();
        for waiting in outlet.iter().flatten() {
            tell(&waiting);
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Waits until all is told, for a short while.
    pub fn finish(&self) {
        let began = Instant::now();
        while self.waiting.load(Ordering::Relaxed) > 0 && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Whether an event tells of what went as it should.
fn has_passed(bytes: &[u8]) -> bool {
    let event = match bytemuck::try_pod_read_unaligned::<ClosedEvent>(bytes) {
        Ok(closed) => closed.event,
        Err(_) => match bytemuck::try_pod_read_unaligned::<Event>(bytes) {
            Ok(event) => event,
            Err(_) => return true,
        },
    };
    match event.kind() {
        Some(EventKind::Handshake) => event.outcome == HandshakeOutcome::Completed as u8,
        Some(EventKind::Closed) => true,
        _ => event.action() == Action::Forwarded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    fn verdict(action: Action) -> Vec<u8> {
        let event = Event { kind: EventKind::Verdict as u8, action: action as u8, ..Event::zeroed() };
        bytemuck::bytes_of(&event).to_vec()
    }

    #[test]
    fn where_there_are_too_many_what_passed_gives_way_and_each_is_told_or_counted() {
        let telling = Arc::new(Telling::new());
        let (names, now) = (Arc::new(Names::default()), Moment::now());
        let (passed, dropped) = (verdict(Action::Forwarded), verdict(Action::Dropped));
        for _ in 0..QUEUE {
            telling.leave(&passed, &names, &now);
        }
        let lost = || telling.lost.load(Ordering::Relaxed) as usize;
        assert_eq!(lost(), FOR_WHAT_DID_NOT_PASS);
        for _ in 0..FOR_WHAT_DID_NOT_PASS {
            telling.leave(&dropped, &names, &now);
        }
        assert_eq!(lost(), FOR_WHAT_DID_NOT_PASS, "there is room for what did not pass");
        telling.leave(&dropped, &names, &now);
        assert_eq!(lost(), FOR_WHAT_DID_NOT_PASS + 1);

        let told: Arc<Mutex<[usize; 2]>> = Arc::default();
        let (teller, counts) = (telling.clone(), told.clone());
        std::thread::spawn(move || {
            teller.run(|waiting| {
                counts.lock().unwrap()[usize::from(!has_passed(&waiting.bytes))] += 1;
            });
        });
        while telling.waiting.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
        assert_eq!(*told.lock().unwrap(), [QUEUE - FOR_WHAT_DID_NOT_PASS, FOR_WHAT_DID_NOT_PASS]);
    }
}
