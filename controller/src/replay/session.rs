//! A replay from the first frame to the last.

use super::ReplayError;
use super::capture::{Capture, CaptureError, CapturedFrame, LinkType};
use super::checksum;
use super::clock::ReplayClock;
use super::connection_record::ConnectionRecord;
use super::connections::{Connections, Judged};
use super::cut;
use super::engine::{Engine, EngineError, MAX_FRAME_BYTES};
use super::link::Link;
use super::packet_record::{FrameFacts, PacketRecord};
use super::reassembly::{Reassembly, Taken};
use super::rules::RuleNames;
use datapath::abi::packet::Trace;
use datapath::abi::{Action, HelloSegment, Reason};
use std::borrow::Cow;
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
    /// How frames are read.
    pub reading: Reading,
}

/// How frames are read, where there is more than one way.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Reading {
    /// Leave out frames with a wrong checksum, as the host that they went to did. Captures of a sender may have nothing else:
    /// its network card makes the checksums after them
    #[arg(long)]
    pub verify_checksums: bool,
    /// Put fragments together before they are judged, as Zeek, hosts and connection tracking do. A datagram then counts
    /// once, and one that is not whole in the capture counts not at all
    #[arg(long, conflicts_with = "packets")]
    pub reassemble: bool,
    /// Count IP bytes as the headers say, as Zeek does: none of a packet whose length was left to the network card
    /// (segmentation offload)
    #[arg(long)]
    pub header_lengths: bool,
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
    /// Frames that held fragments of datagrams which never came whole.
    pub fragments_left: u64,
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
        reassembly: Reassembly::default(),
    };
    while let Some(frame) = next {
        outcome.frames += 1;
        if let Some(record) = session.frame(&frame, &mut outcome)? {
            on_packet(record)?;
        }
        next = outcome.damage_of(capture.next_frame());
    }
    let tables = session.prepared.engine.tables()?;
    outcome.lost_events = tables.lost_events;
    outcome.fragments_left = session.reassembly.left_over();
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
    reassembly: Reassembly,
}

impl Session<'_> {
    /// The frame's record; none of a fragment whose datagram is not whole yet.
    fn frame(
        &mut self,
        frame: &CapturedFrame,
        outcome: &mut Outcome,
    ) -> Result<Option<PacketRecord>, EngineError> {
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
                match self.read(wire.bytes, frame) {
                    Given::Judge(bytes, captured) => self.judge(&bytes, captured, frame)?,
                    Given::Refused => self.unjudged(Reason::InvalidPacket),
                    Given::Waits => return Ok(None),
                }
            }
            Err(reason) => self.unjudged(reason),
        };
        Ok(Some(PacketRecord::new(facts, &trace, &self.prepared.rules)))
    }

    /// The frame as the engine is to see it.
    fn read<'f>(&mut self, bytes: Cow<'f, [u8]>, frame: &CapturedFrame) -> Given<'f> {
        let reading = self.prepared.reading;
        let missing = frame.wire_bytes.saturating_sub(frame.data.len() as u32);
        if reading.verify_checksums
            && missing == 0
            && let Some(wrong) = checksum::wrong(&bytes)
        {
            if wrong.is_of_ports {
                let now_ns = self.clock.advance(frame.time_ns);
                self.connections.wrong_checksum(&wrong.packet, now_ns);
            }
            return Given::Refused;
        }
        let captured = bytes.len();
        let bytes = cut::filled(bytes, missing);
        match reading.reassemble {
            true => match self.reassembly.take(&bytes) {
                Taken::AsItIs => Given::Judge(bytes, captured),
                Taken::Waits => Given::Waits,
                Taken::Whole(whole) => {
                    let captured = whole.len();
                    Given::Judge(Cow::Owned(whole), captured)
                }
            },
            false => Given::Judge(bytes, captured),
        }
    }

    /// Has the engine judge the bytes, of which the capture has the first `captured`.
    fn judge(&mut self, bytes: &[u8], captured: usize, frame: &CapturedFrame) -> Result<Trace, EngineError> {
        let now_ns = self.clock.advance(frame.time_ns);
        let bytes = &bytes[..bytes.len().min(MAX_FRAME_BYTES)];
        let trace = self.prepared.engine.judge(bytes, now_ns)?;
        if trace.action == 0 {
            return Err(EngineError::NoTrace(frame.number));
        }
        // A connection that gave way did so to the one that this packet opens.
        for closed in self.prepared.engine.closed()? {
            self.connections.closed(&closed);
        }
        let is_cut = captured < bytes.len();
        let unsaid_bytes = if self.prepared.reading.header_lengths { unsaid(bytes, &trace) } else { 0 };
        self.connections.packet(&Judged { trace: &trace, now_ns, is_cut, unsaid_bytes });
        let mut payload = captured.saturating_sub(usize::from(trace.packet.payload_offset));
        for mut piece in self.prepared.engine.hellos()? {
            // What the capture has not is no part of a hello.
            piece.length = piece.length.min(u32::try_from(payload).unwrap_or(u32::MAX));
            payload -= piece.length as usize;
            // A replay tells of connections, not of names that are asked for.
            if piece.kind != HelloSegment::QUERY {
                self.connections.hello(&piece);
            }
        }
        Ok(trace)
    }

    /// The trace of a frame that no driver would hand to a program.
    fn unjudged(&self, reason: Reason) -> Trace {
        let action = if self.prepared.enforce { Action::Dropped } else { Action::Audit };
        Trace { action: action as u8, reason: reason as u8, ..Trace::default() }
    }
}

/// What becomes of a frame that was read.
enum Given<'f> {
    /// The engine gets these bytes, of which the capture has so many.
    Judge(Cow<'f, [u8]>, usize),
    /// Nobody took it.
    Refused,
    /// Its datagram is not whole yet.
    Waits,
}

/// How many bytes the path counts of a packet that its IP header does not say.
fn unsaid(bytes: &[u8], trace: &Trace) -> u64 {
    let packet = &trace.packet;
    let (at, fixed) = match packet.ip_version {
        4 => (2, 0),
        6 => (4, 40),
        _ => return 0,
    };
    let at = usize::from(packet.l3_offset) + at;
    let Some(&[high, low]) = bytes.get(at..at + 2).and_then(|field| field.as_array()) else { return 0 };
    u64::from(packet.ip_bytes).saturating_sub(fixed + u64::from(u16::from_be_bytes([high, low])))
}
