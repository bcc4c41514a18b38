//! The packet path compiled natively, on tables that are plain hash maps.

use super::engine::{Engine, EngineError, FIRST_BUFFER_BYTES, IFINDEX, Tables};
use super::setup::Setup;
use datapath::abi::packet::Trace;
use datapath::abi::{ClosedEvent, Direction, FlowKey, FlowRecord, HelloSegment};
use datapath::frame::Frame;
use datapath::host::Host;
use datapath::judge::judge;
use datapath::tables::Plane;

/// The native engine.
pub struct HostEngine {
    plane: Plane<Host>,
}

impl HostEngine {
    /// Tables with the policy in them.
    pub fn new(setup: &Setup) -> Self {
        let mut plane = datapath::host::plane(setup.config());
        setup.write_to_host(&mut plane.rules);
        Self { plane }
    }
}

impl Engine for HostEngine {
    fn judge(&mut self, frame: &[u8], now_ns: u64) -> Result<Trace, EngineError> {
        self.plane.rules.config.fixed_now_ns = now_ns;
        let mut trace = Trace::default();
        judge(&Buffers(frame), Direction::Ingress, &mut self.plane, || Some(&mut trace));
        self.plane.sink.events.clear();
        Ok(trace)
    }

    fn closed(&mut self) -> Result<Vec<ClosedEvent>, EngineError> {
        Ok(self.plane.sink.closed.drain(..).collect())
    }

    fn hellos(&mut self) -> Result<Vec<HelloSegment>, EngineError> {
        Ok(self.plane.sink.hellos.drain(..).collect())
    }

    fn tables(&mut self) -> Result<Tables, EngineError> {
        let slots = self.plane.slots.slots.iter().map(|slot| (slot.key, slot.record));
        let spilled = self.plane.spill.entries.iter().map(|(key, record)| (*key, *record));
        let counted = |(key, record): &(FlowKey, FlowRecord)| key.family != 0 && record.packets != [0, 0];
        let answered = self.plane.connections.entries.iter().map(|(key, conn)| (*key, *conn));
        let attempts = self.plane.half_open.entries.iter();
        let begun = attempts.clone().map(|(key, attempt)| (*key, attempt.record));
        let half_open = attempts.map(|(key, attempt)| (*key, attempt.connection));
        Ok(Tables {
            flows: slots.chain(spilled).chain(begun).filter(counted).collect(),
            connections: answered.chain(half_open).collect(),
            lost_events: 0,
        })
    }
}

/// A frame of which, as in the kernel, headers are read in the first buffer only.
struct Buffers<'a>(&'a [u8]);

impl Frame for Buffers<'_> {
    fn header<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        let first = &self.0[..self.0.len().min(FIRST_BUFFER_BYTES)];
        first.get(offset..)?.first_chunk()
    }

    fn copy<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.get(offset..)?.first_chunk().copied()
    }

    fn copy_to<const N: usize>(&self, offset: usize, len: u32, into: &mut [u8; N]) -> bool {
        datapath::frame::copy_to(self.0, offset, len, into)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn holds(&self, end: usize) -> bool {
        self.0.len() >= end
    }

    fn ifindex(&self) -> u32 {
        IFINDEX
    }
}
