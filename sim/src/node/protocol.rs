//! What the simulator and its children say to each other: one JSON document a line.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::hello::Hello;
use crate::ca::Bundle;
use crate::topology::plan::{Listener, Outcome, Tls};

/// To a child.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// Comes back with the answer.
    pub id: u64,
    /// What to do.
    pub command: Command,
}

/// What a child does.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Serves a port until the child ends, or is told to stop; answered when the port is open.
    Listen {
        /// Which.
        listener: Listener,
        /// For mtls.
        svid: Option<Bundle>,
    },
    /// Serves no port any more.
    StopServing,
    /// Each handshake of TLS waits so long from now on.
    SlowDown {
        /// Milliseconds.
        delay_ms: u64,
    },
    /// One exchange.
    Exchange {
        /// How.
        action: Action,
        /// With whom.
        to: SocketAddr,
        /// Payload, each way.
        bytes: u64,
        /// When it is given up.
        timeout_ms: u64,
    },
}

/// Kinds of exchange.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Mutual TLS.
    Mtls {
        /// The version that is offered.
        tls: Tls,
        /// What the client shows.
        svid: Bundle,
        /// What the server must show; its trust domain alone if not said.
        peer: Option<String>,
        /// How long requests go on.
        lasting_ms: u64,
    },
    /// Plain TCP.
    Tcp,
    /// A datagram.
    Udp,
    /// A ClientHello of one's own making.
    Hello {
        /// What it says.
        hello: Hello,
    },
    /// A question to a name server.
    Dns {
        /// The name.
        query: String,
    },
    /// ICMP echo.
    Ping,
}

/// From a child.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// A request is done.
    Done {
        /// Which.
        id: u64,
        /// How.
        done: Done,
    },
    /// How a server saw a handshake.
    Served(Served),
}

/// How a server saw a handshake.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Served {
    /// The client.
    pub client: SocketAddr,
    /// The SPIFFE ID that it proved.
    pub spiffe_id: Option<String>,
    /// Why it was refused.
    pub refused: Option<String>,
}

/// How an exchange went.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    /// In one word.
    pub outcome: Outcome,
    /// When it started.
    pub started_unix_ns: u64,
    /// How long it took.
    pub duration_us: u64,
    /// TCP: SYN to established.
    pub connect_us: Option<u64>,
    /// TLS: as the client sees it.
    pub handshake_us: Option<u64>,
    /// mtls: requests that were answered.
    pub requests: u64,
    /// Payload that came back.
    pub bytes: u64,
    /// The client's own end.
    pub local: Option<SocketAddr>,
    /// The version of TLS that was agreed.
    pub tls: Option<String>,
    /// The SPIFFE ID that the server proved.
    pub peer: Option<String>,
    /// The TLS alert that ended it, by its IANA name.
    pub alert: Option<String>,
    /// What went wrong, in words.
    pub detail: Option<String>,
}

impl Done {
    /// An exchange that starts now.
    pub fn begin() -> Running {
        let started_unix_ns = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX));
        Running {
            clock: Instant::now(),
            done: Self {
                outcome: Outcome::Error,
                started_unix_ns,
                duration_us: 0,
                connect_us: None,
                handshake_us: None,
                requests: 0,
                bytes: 0,
                local: None,
                tls: None,
                peer: None,
                alert: None,
                detail: None,
            },
        }
    }

    /// It could not be done.
    pub fn error(detail: impl Into<String>) -> Self {
        Self::begin().end(Outcome::Error, detail)
    }
}

/// An exchange under way.
#[derive(Debug)]
pub struct Running {
    clock: Instant,
    /// What is known so far.
    pub done: Done,
}

impl Running {
    /// Microseconds since it began.
    pub fn elapsed_us(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// It went well.
    pub fn ok(mut self) -> Done {
        self.done.outcome = Outcome::Ok;
        self.done.duration_us = self.elapsed_us();
        self.done
    }

    /// It did not.
    pub fn end(mut self, outcome: Outcome, detail: impl Into<String>) -> Done {
        self.done.outcome = outcome;
        self.done.detail = Some(detail.into());
        self.done.duration_us = self.elapsed_us();
        self.done
    }

    /// It ended by what the kernel said.
    pub fn end_io(self, error: &std::io::Error) -> Done {
        use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
        let outcome = match error.kind() {
            ConnectionRefused => Outcome::Refused,
            HostUnreachable | NetworkUnreachable => Outcome::Unreachable,
            TimedOut => Outcome::Timeout,
            _ => Outcome::Error,
        };
        self.end(outcome, error.to_string())
    }
}
