//! What can judge a frame: the shipped program in the kernel, or the same path compiled natively.

use datapath::abi::packet::Trace;
use datapath::abi::{ClosedEvent, Connection, FlowKey, FlowRecord, HelloSegment};

/// What an engine holds when the last frame is through.
#[derive(Debug, Default)]
pub struct Tables {
    /// Flow records of both levels; one flow may have several, which add up.
    pub flows: Vec<(FlowKey, FlowRecord)>,
    /// Answered and half-open connections.
    pub connections: Vec<(FlowKey, Connection)>,
    /// Events that the ring buffer had no room for.
    pub lost_events: u64,
}

/// A packet path with tables of its own.
pub trait Engine {
    /// Judges one Ethernet frame of at least 14 and at most [`MAX_FRAME_BYTES`] bytes at a boot-clock time.
    fn judge(&mut self, frame: &[u8], now_ns: u64) -> Result<Trace, EngineError>;
    /// Connections that gave way to others since the last call.
    fn closed(&mut self) -> Result<Vec<ClosedEvent>, EngineError>;
    /// Pieces of ClientHellos that were handed up since the last call.
    fn hellos(&mut self) -> Result<Vec<HelloSegment>, EngineError>;
    /// The tables as they are.
    fn tables(&mut self) -> Result<Tables, EngineError>;
}

impl<E: Engine> Engine for &mut E {
    fn judge(&mut self, frame: &[u8], now_ns: u64) -> Result<Trace, EngineError> {
        (**self).judge(frame, now_ns)
    }

    fn closed(&mut self) -> Result<Vec<ClosedEvent>, EngineError> {
        (**self).closed()
    }

    fn hellos(&mut self) -> Result<Vec<HelloSegment>, EngineError> {
        (**self).hellos()
    }

    fn tables(&mut self) -> Result<Tables, EngineError> {
        (**self).tables()
    }
}

/// The longest frame that is given to an engine: an IP packet of the greatest length behind three VLAN tags. What is
/// longer (segments for the hardware to cut, "BIG TCP") is cut to this, for both engines.
pub const MAX_FRAME_BYTES: usize = 14 + 3 * 4 + 65_535;

/// How much of a frame the kernel's test-run puts into the first buffer, in which the program reads headers: a page
/// without 256 bytes before the frame and 320 behind it. A TLS record that starts later is not followed, by neither
/// engine.
pub const FIRST_BUFFER_BYTES: usize = 4096 - 256 - 320;

/// The interface that frames seem to come from: the loopback, which is what the kernel's test-run says.
pub const IFINDEX: u32 = 1;

/// An engine that failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The kernel refused.
    #[error("the kernel engine failed: {0}; `--engine host` runs the same path without the kernel")]
    Kernel(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Its tables hold what they cannot.
    #[error("the engine left no trace of frame {0}: program and controller are of different builds")]
    NoTrace(u64),
}
