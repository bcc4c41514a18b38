//! A replay from the first frame to the last.

use super::ReplayError;
use super::capture::{Capture, CaptureError, CapturedFrame, LinkType};
use super::checksum;
use super::clock::ReplayClock;
use super::connection_record::ConnectionRecord;
use super::connections::Connections;
use super::engine::{Engine, EngineError, MAX_FRAME_BYTES};
use super::link::Link;
use super::packet_record::{FrameFacts, PacketRecord};
use super::rules::RuleNames;
use datapath::abi::packet::Trace;
use datapath::abi::{Action, Reason};
use std::collections::BTreeSet;
use std::io::Read;

/// An engine with its policy, ready for the first frame.
pub struct Prepared<'e> {
    /// The engine.
    pub engine: Box<dyn Engine + 'e>,
    /// Names of the rules that are loaded in it.
    pub rules: RuleNames,
    /// Whether it drops or only says that it would.
    pub enforce: bool,
    /// Whether frames with a wrong checksum are left out.
    pub verifies_checksums: bool,
}

/// What is left when the capture is through.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Connections, oldest first.
    pub connections: Vec<ConnectionRecord>,
    /// Frames that were read.
    pub frames: u64,
    /// Events that the engine lost: their connections are missing.
    pub lost_events: u64,
    /// What was wrong with the rest of the file.
    pub damage: Option<CaptureError>,
    /// Link types of frames that no engine was given.
    pub foreign_links: BTreeSet<LinkType>,
}

/// Replays a whole capture. `prepare` makes the engine when the time of the first frame is known; `on_packet` is
/// told of every frame as it is judged.
///
/// # Errors
/// When engine or output fail. Damage in the capture is no error here but part of the outcome.
pub fn replay<'e, R: Read>(
    mut capture: Capture<R>,
    prepare: impl FnOnce(u64) -> Result<Prepared<'e>, ReplayError>,
    mut on_packet: impl FnMut(PacketRecord) -> Result<(), ReplayError>,
) -> Result<Outcome, ReplayError> {
    let mut outcome = Outcome::default();
    let mut next = outcome.damage_of(capture.next_frame());
    let first_ns = next.as_ref().map_or(0, |frame| frame.time_ns);
    let mut session = Session {
        prepared: prepare(first_ns)?,
        clock: ReplayClock::starting_at(first_ns),
        connections: Connections::default(),
    };
    while let Some(frame) = next {
        outcome.frames += 1;
        on_packet(session.frame(&frame, &mut outcome)?)?;
        next = outcome.damage_of(capture.next_frame());
    }
    let tables = session.prepared.engine.tables()?;
    outcome.lost_events = tables.lost_events;
    outcome.connections = session.connections.finish(&tables, &session.clock, &session.prepared.rules);
    Ok(outcome)
}

impl Outcome {
    fn damage_of(&mut self, read: Result<Option<CapturedFrame>, CaptureError>) -> Option<CapturedFrame> {
        read.unwrap_or_else(|damage| {
            self.damage = Some(damage);
            None
        })
    }
}

struct Session<'e> {
    prepared: Prepared<'e>,
    clock: ReplayClock,
    connections: Connections,
}

impl Session<'_> {
    fn frame(&mut self, frame: &CapturedFrame, outcome: &mut Outcome) -> Result<PacketRecord, EngineError> {
        let mut facts = FrameFacts {
            number: frame.number,
            time_ns: frame.time_ns,
            wire_bytes: frame.wire_bytes,
            captured_bytes: frame.data.len() as u32,
            has_eth_type: false,
        };
        let wire = match Link::of(frame.link) {
            Some(link) => link.to_ethernet(&frame.data),
            None => {
                outcome.foreign_links.insert(frame.link);
                Err(Reason::UnsupportedL2)
            }
        };
        let trace = match wire {
            Ok(wire) => {
                facts.has_eth_type = wire.has_eth_type;
                if self.prepared.verifies_checksums && checksum::is_wrong(&wire.bytes) {
                    self.unjudged(Reason::InvalidPacket)
                } else {
                    self.judge(&wire.bytes, frame)?
                }
            }
            Err(reason) => self.unjudged(reason),
        };
        Ok(PacketRecord::new(facts, &trace, &self.prepared.rules))
    }

    fn judge(&mut self, bytes: &[u8], frame: &CapturedFrame) -> Result<Trace, EngineError> {
        let now_ns = self.clock.advance(frame.time_ns);
        let bytes = &bytes[..bytes.len().min(MAX_FRAME_BYTES)];
        let trace = self.prepared.engine.judge(bytes, now_ns)?;
        if trace.action == 0 {
            return Err(EngineError::NoTrace(frame.number));
        }
        self.connections.packet(&trace);
        for piece in self.prepared.engine.hellos()? {
            self.connections.hello(&piece);
        }
        for closed in self.prepared.engine.closed()? {
            self.connections.closed(&closed);
        }
        Ok(trace)
    }

    /// The trace of a frame that no driver would hand to a program.
    fn unjudged(&self, reason: Reason) -> Trace {
        let action = if self.prepared.enforce { Action::Dropped } else { Action::Audit };
        Trace { action: action as u8, reason: reason as u8, ..Trace::default() }
    }
}
