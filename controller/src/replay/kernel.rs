//! The shipped program in the kernel, run on one frame after the other by the kernel's test-run.
//!
//! Its maps are its own: no instance that runs on this machine sees anything of a replay.

use super::engine::{Engine, EngineError, Tables};
use super::setup::Setup;
use bytemuck::Zeroable;
use datapath::abi::packet::Trace;
use datapath::abi::{ClosedEvent, Config, FlowSlot, HelloSegment, Lost};
use loader::maps::Events;
use loader::{CpuPin, Kernel, LoadOptions, Sizes};

/// The kernel engine.
pub struct KernelEngine {
    kernel: Kernel,
    config: Config,
    events: Events,
    hellos: Events,
    closed: Vec<ClosedEvent>,
    /// Per-CPU values of a frame are where it was judged, and the thread has to stay there.
    pin: CpuPin,
}

impl KernelEngine {
    /// Loads the program with maps of its own that have room for `flows`, and writes the policy into them.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn new(setup: &Setup, flows: u32) -> Result<Self, EngineError> {
        let pin = CpuPin::here().map_err(failed)?;
        let mut config = setup.config();
        let options = LoadOptions {
            sizes: sizes(setup, flows),
            fixed_now_ns: Some(config.fixed_now_ns),
            ..LoadOptions::default()
        };
        let kernel = Kernel::load(&options).map_err(failed)?;
        setup.write_to_kernel(kernel.maps()).map_err(failed)?;
        config.attempt_mask = kernel.maps().half_open.sets() - 1;
        kernel.maps().config.set(&config).map_err(failed)?;
        let events = kernel.maps().events().map_err(failed)?;
        let hellos = kernel.maps().hellos().map_err(failed)?;
        Ok(Self { kernel, config, events, hellos, closed: Vec::new(), pin })
    }
}

impl KernelEngine {
    /// Forgets all flows, connections and fragments, for the next capture: loading the program takes a second.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn forget(&mut self) -> Result<(), EngineError> {
        let maps = self.kernel.maps();
        let empty = FlowSlot::zeroed();
        for index in 0..maps.flows.slots.len() {
            maps.flows.slots.set_all(index, &empty).map_err(failed)?;
        }
        for key in maps.flows.spill.entries().map_err(failed)?.into_keys() {
            maps.flows.spill.remove(&key).map_err(failed)?;
        }
        for key in maps.connections.entries().map_err(failed)?.into_keys() {
            maps.connections.remove(&key).map_err(failed)?;
        }
        maps.half_open.clear();
        for key in maps.fragments.entries().map_err(failed)?.into_keys() {
            maps.fragments.remove(&key).map_err(failed)?;
        }
        self.closed.clear();
        self.hellos()?;
        Ok(())
    }
}

impl Engine for KernelEngine {
    fn judge(&mut self, frame: &[u8], now_ns: u64) -> Result<Trace, EngineError> {
        self.config.fixed_now_ns = now_ns;
        let maps = self.kernel.maps();
        maps.config.set(&self.config).map_err(failed)?;
        self.kernel.run_xdp(frame, 1).map_err(failed)?;
        let closed = &mut self.closed;
        self.events.drain(|event| {
            if event.len() == size_of::<ClosedEvent>() {
                closed.extend(bytemuck::try_pod_read_unaligned::<ClosedEvent>(event));
            }
        });
        Ok(maps.trace_of(self.pin.cpu()).map_err(failed)?.unwrap_or_default())
    }

    fn closed(&mut self) -> Result<Vec<ClosedEvent>, EngineError> {
        Ok(std::mem::take(&mut self.closed))
    }

    fn hellos(&mut self) -> Result<Vec<HelloSegment>, EngineError> {
        let mut pieces = Vec::new();
        self.hellos.drain(|piece| pieces.extend(bytemuck::try_pod_read_unaligned::<HelloSegment>(piece)));
        Ok(pieces)
    }

    fn tables(&mut self) -> Result<Tables, EngineError> {
        let maps = self.kernel.maps();
        let flows = maps.flow_records().map_err(failed)?;
        Ok(Tables {
            flows: flows.into_iter().map(|flow| (flow.key, flow.record)).collect(),
            connections: maps.tracked().map_err(failed)?.into_iter().collect(),
            lost_events: maps.lost_events(Lost::NoRoom).map_err(failed)?
                + maps.lost_events(Lost::Hello).map_err(failed)?,
        })
    }
}

fn sizes(setup: &Setup, flows: u32) -> Sizes {
    Sizes {
        flow_slots: super::setup::FLOW_SLOTS,
        flow_spill: flows,
        connections: flows,
        // No set of four overflows, or an attempt of the capture would have no record.
        half_open: flows.saturating_mul(8).min(1 << 20),
        fragments: flows,
        bindings: setup.policy_entries().max(1),
        blocklist: setup.policy_entries().max(1),
        policy: setup.policy_entries().max(1),
        event_bytes: 1 << 20,
        ..Sizes::small()
    }
}

fn failed(error: loader::Error) -> EngineError {
    EngineError::Kernel(Box::new(error))
}
