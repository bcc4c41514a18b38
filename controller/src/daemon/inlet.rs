//! Where the reader of the ring buffer leaves what the governance loop compares. It hands over and never waits: what finds the
//! queue full is counted and not compared.

use super::enroll::Refused;
use super::usual::{Counted, Usual};
use crate::governance::places::Places;
use crate::hello::{ClientHello, Found};
use crate::names::Names;
use crate::policy::intent::facts::Facts;
use crate::policy::spiffe::SpiffeId;
use crate::view::flow::Moment;
use datapath::abi::{
    Action, Addr, Binding, ClosedEvent, Event, EventKind, FlowKey, HandshakeKind, HandshakeOutcome,
    HelloSegment, Reason, Side,
};
use jiff::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// Events that wait to be compared, about 8 MB.
const QUEUE: usize = 65_536;
/// The part of it that connections which passed cannot take: what was denied, failed or was asked for is told of less often, and says more.
const FOR_ALL_ELSE: usize = QUEUE / 4;

/// What was told, with the names that its numbers had then.
pub struct Judged {
    /// What.
    pub what: What,
    /// By which names.
    pub names: Arc<Names>,
    /// When.
    pub time: Timestamp,
}

/// What is compared.
pub enum What {
    /// A connection was judged, and where that was by a lease that was over, whether it was the client's and the server's.
    Verdict(Event, [bool; 2]),
    /// A handshake of it ended.
    Handshake(Event, HandshakeKind, HandshakeOutcome),
    /// Its ClientHello was read.
    Hello(Ends, Arc<ClientHello>),
    /// It is over, after so many bytes.
    Closed(Ends, u64),
    /// It is a query for a name.
    Query(Ends, Arc<str>),
    /// A process executed a program: which.
    Exec(Local, Arc<str>),
    /// A process connected a socket: its name, and to where.
    Connect(Local, Arc<str>, Called),
    /// An identity was given a lease.
    Lease(Lent),
    /// An enrolment was refused.
    Refused(Knocked),
    /// Connections that are known were counted.
    Usual,
}

/// A process of a local workload, and where the workload was when it did something.
pub struct Local {
    /// Who.
    pub id: SpiffeId,
    /// Where; the loopback's address where it has none.
    pub address: Addr,
    /// The number of the process.
    pub pid: u32,
}

/// Where a socket was connected to, and who was there then.
#[derive(Clone, Copy)]
pub struct Called {
    /// The number of the identity; 0 where there was none.
    pub identity: u32,
    /// Where.
    pub address: Addr,
    /// IP protocol number.
    pub proto: u8,
    /// The port.
    pub port: u16,
}

/// A lease that was given or renewed.
pub struct Lent {
    /// To whom.
    pub id: SpiffeId,
    /// On which address.
    pub address: Addr,
    /// Until when; without an end where it has none.
    pub until: Option<Timestamp>,
    /// The SHA-256 of the certificate that it was given for, where it was for one.
    pub certificate: Option<Arc<str>>,
    /// Where the identity was then, by all of its leases.
    pub places: Arc<Places>,
    /// Whether somebody else claimed the address too: nobody knows who is there.
    pub is_contested: bool,
}

/// An enrolment that was refused, and who was where it came from.
pub struct Knocked {
    /// Who proved to be who he is, or has the address; nobody where neither is known.
    pub id: Option<SpiffeId>,
    /// Whether that was proven.
    pub is_proven: bool,
    /// From where.
    pub address: Addr,
    /// Why.
    pub why: Refused,
    /// That in words.
    pub detail: Arc<str>,
}

impl Judged {
    /// Reasons of what the kernel judges not, in evidence and for rules.
    pub const EXECUTED: &str = "EXEC";
    pub const CONNECTED: &str = "CONNECT";
    pub const GRANTED: &str = "LEASE_GRANTED";

    /// What rules can ask of it, beside its ends.
    pub fn facts(&self) -> Facts {
        let judged = |event: &Event| Facts {
            verdict: event.action().name(),
            reason: event.reason().name(),
            rule: self.names.rule(event.rule).unwrap_or_default().to_owned(),
            ..Facts::default()
        };
        let passed = |reason| Facts { verdict: Action::Forwarded.name(), reason, ..Facts::default() };
        match &self.what {
            What::Verdict(event, _) => Facts { event: "verdict", ..judged(event) },
            What::Handshake(event, kind, outcome) => {
                Facts { event: "handshake", handshake: kind.name(), outcome: outcome.name(), ..judged(event) }
            }
            What::Hello(_, hello) => Facts {
                event: "client_hello",
                sni: hello.tls_sni.clone().unwrap_or_default(),
                alpn: hello.tls_alpn.clone().unwrap_or_default(),
                ja4: hello.tls_ja4.clone().unwrap_or_default(),
                ech: hello.tls_ech.is_some(),
                ..Facts::default()
            },
            What::Query(_, name) => Facts { event: "dns_query", query: name.to_string(), ..Facts::default() },
            What::Exec(_, path) => {
                Facts { event: "process", process: path.to_string(), ..passed(Self::EXECUTED) }
            }
            What::Connect(_, name, _) => {
                Facts { event: "socket", process: name.to_string(), ..passed(Self::CONNECTED) }
            }
            What::Lease(_) => Facts { event: "enrolment", outcome: "granted", ..passed(Self::GRANTED) },
            What::Refused(knocked) => Facts {
                event: "enrolment",
                outcome: "refused",
                verdict: Action::Dropped.name(),
                reason: knocked.why.name(),
                ..Facts::default()
            },
            // Rules are not asked of these.
            What::Closed(..) | What::Usual => Facts::default(),
        }
    }
}

/// The ends of a connection: who opened it, and who answers.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ends {
    /// Number and address of each.
    pub of: [(u32, Addr); 2],
    /// IP protocol number.
    pub proto: u8,
    /// Where it is answered; the type for ICMP.
    pub port: u16,
}

impl Ends {
    /// Of a connection. `identity` is of `a` and of `b`.
    fn new(key: &FlowKey, originator: u8, identity: [u32; 2]) -> Self {
        let opener = if originator == 0 { Side::A } else { Side::B };
        let of = [opener, opener.other()].map(|side| (identity[side.index()], key.end(side).0));
        Self { of, proto: key.proto, port: key.end(opener.other()).1 }
    }

    /// Of the connection that an event tells of.
    pub fn of_event(event: &Event) -> Self {
        Self::new(&event.key, event.originator, event.identity)
    }

    /// Of the connection that a piece is of.
    fn of_piece(segment: &HelloSegment) -> Self {
        // A hello names its sender first.
        let [client, server] = segment.identity;
        let identity = if segment.originator == 0 { [client, server] } else { [server, client] };
        Self::new(&segment.key, segment.originator, identity)
    }
}

/// How time passes for what is compared. In a story an hour may pass in a minute; a gateway has the clock of the wall.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    began: Timestamp,
    times: i32,
}

impl Pace {
    /// So many times as fast as on the wall, from now on.
    pub fn new(times: u16) -> Self {
        Self { began: Timestamp::now(), times: i32::from(times.max(1)) }
    }

    fn of(&self, time: Timestamp) -> Timestamp {
        if self.times == 1 {
            return time;
        }
        let since = time.duration_since(self.began).saturating_mul(self.times);
        self.began.checked_add(since).unwrap_or(time)
    }
}

/// Where events are left.
pub struct Inlet {
    queue: SyncSender<Judged>,
    waiting: Arc<AtomicUsize>,
    pace: Pace,
    /// Connections that need not be compared.
    pub usual: Usual,
    /// Whether the loop has to be told that some of them were counted: it looks by itself only now and then.
    dozes: Arc<AtomicBool>,
    /// Events that were not compared, since the queue was full.
    pub shed: AtomicU64,
}

impl Inlet {
    /// An inlet, and where its events come out.
    pub fn new(pace: Pace) -> (Self, Outlet) {
        let (queue, events) = sync_channel(QUEUE);
        let (waiting, dozes): (Arc<AtomicUsize>, Arc<AtomicBool>) = Default::default();
        let outlet = Outlet { events, waiting: waiting.clone(), dozes: dozes.clone() };
        (Self { queue, waiting, pace, usual: Usual::default(), dozes, shed: AtomicU64::new(0) }, outlet)
    }

    /// Takes an event, where it is of somebody. `over` says whose lease was over where it was judged by one.
    pub fn offer(
        &self,
        bytes: &[u8],
        names: &Arc<Names>,
        now: &Moment,
        over: impl FnOnce(&Event) -> [bool; 2],
    ) {
        let Ok(event) = bytemuck::try_pod_read_unaligned::<Event>(bytes) else {
            return self.offer_closed(bytes, names, now);
        };
        if event.key.family == 0 || !event.identity.into_iter().any(is_somebody) {
            return;
        }
        let time = now.timestamp(event.time_ns);
        if let Some(what) = what(event, over)
            && !self.is_usual(&event, names, time)
        {
            self.put(what, names, time);
        }
    }

    /// Counts a connection of which it is known that it is expected.
    fn is_usual(&self, event: &Event, names: &Arc<Names>, time: Timestamp) -> bool {
        if event.kind() != Some(EventKind::Verdict) || !has_passed(event) {
            return false;
        }
        let judged = || Judged {
            what: What::Verdict(*event, [false; 2]),
            names: names.clone(),
            time: self.pace.of(time),
        };
        match self.usual.count(&Ends::of_event(event), judged) {
            Counted::Unknown => return false,
            Counted::First if self.dozes.swap(false, Ordering::Relaxed) => self.put(What::Usual, names, time),
            Counted::First | Counted::Another => {}
        }
        true
    }

    /// Takes a connection that is over.
    fn offer_closed(&self, bytes: &[u8], names: &Arc<Names>, now: &Moment) {
        let Ok(closed) = bytemuck::try_pod_read_unaligned::<ClosedEvent>(bytes) else { return };
        let carried = closed.flow.bytes.iter().sum();
        if carried != 0 && closed.event.identity.into_iter().any(is_somebody) {
            self.put(
                What::Closed(Ends::of_event(&closed.event), carried),
                names,
                now.timestamp(closed.event.time_ns),
            );
        }
    }

    /// Takes a ClientHello.
    pub fn offer_hello(&self, found: &Found, names: &Arc<Names>, now: &Moment) {
        if found.segment.identity.into_iter().any(is_somebody) {
            let what = What::Hello(Ends::of_piece(&found.segment), found.hello.clone());
            self.put(what, names, now.timestamp(found.segment.time_ns));
        }
    }

    /// Takes a query for a name.
    pub fn offer_query(&self, piece: &HelloSegment, name: &str, names: &Arc<Names>, now: &Moment) {
        // Whoever answers it is asked by everybody.
        if is_somebody(piece.identity[0]) {
            self.put(What::Query(Ends::of_piece(piece), name.into()), names, now.timestamp(piece.time_ns));
        }
    }

    /// Takes what the daemon itself was told.
    pub fn offer_told(&self, what: What, names: &Arc<Names>) {
        let what = match what {
            // What is compared has one clock.
            What::Lease(lent) => {
                What::Lease(Lent { until: lent.until.map(|until| self.pace.of(until)), ..lent })
            }
            what => what,
        };
        self.put(what, names, Timestamp::now());
    }

    fn put(&self, what: What, names: &Arc<Names>, time: Timestamp) {
        let time = self.pace.of(time);
        let room = match &what {
            What::Verdict(event, _) if has_passed(event) => QUEUE - FOR_ALL_ELSE,
            _ => QUEUE,
        };
        let fits = self.waiting.fetch_add(1, Ordering::Relaxed) < room;
        let judged = || Judged { what, names: names.clone(), time };
        if !fits || self.queue.try_send(judged()).is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.shed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Where they come out.
pub struct Outlet {
    events: Receiver<Judged>,
    waiting: Arc<AtomicUsize>,
    dozes: Arc<AtomicBool>,
}

impl Outlet {
    /// The next, if one comes in time.
    pub fn wait(&self, for_as_long_as: Duration) -> Result<Judged, RecvTimeoutError> {
        self.events.recv_timeout(for_as_long_as).inspect(|_| self.taken())
    }

    /// Those that have come.
    pub fn come(&self) -> impl Iterator<Item = Judged> {
        self.events.try_iter().inspect(|_| self.taken())
    }

    /// Has the loop be told when known connections are counted: nobody looks for them any more.
    pub fn doze(&self) {
        self.dozes.store(true, Ordering::Relaxed);
    }

    fn taken(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a connection was let pass, as the policy says.
fn has_passed(event: &Event) -> bool {
    event.action() == Action::Forwarded && event.reason() == Reason::Forwarded
}

fn what(event: Event, over: impl FnOnce(&Event) -> [bool; 2]) -> Option<What> {
    match event.kind()? {
        EventKind::Verdict => is_judged(event.reason()).then(|| {
            let is_over = event.reason() == Reason::LeaseExpired;
            What::Verdict(event, if is_over { over(&event) } else { [false; 2] })
        }),
        EventKind::Handshake => {
            let kind = HandshakeKind::from_u8(event.handshake)?;
            Some(What::Handshake(event, kind, HandshakeOutcome::from_u8(event.outcome)?))
        }
        EventKind::Drop | EventKind::Closed => None,
    }
}

fn is_somebody(identity: u32) -> bool {
    identity != 0 && identity != Binding::AMBIGUOUS
}

/// Whether a policy was asked about the connection. What the gateway lets pass for the network's sake, what it could not read and
/// what a quarantine cuts says nothing of what the workload is for.
fn is_judged(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Forwarded
            | Reason::PolicyDenied
            | Reason::PolicyDeny
            | Reason::Blocklisted
            | Reason::LeaseExpired
            | Reason::TlsRequired
            | Reason::RateLimited
            | Reason::TooManyAttempts
            | Reason::TooManyConnections
            | Reason::AmbiguousIdentity
    )
}
