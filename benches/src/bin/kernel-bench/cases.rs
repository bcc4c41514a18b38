//! What is measured, and the proof that both programs do what the case says.

use crate::filter::Filter;
use anyhow::{Context, Result, ensure};
use datapath::abi::Config;
use datapath::abi::config::PortCounters;
use loader::{Kernel, RunResult};
use tidegate_benches::frames::{Segment, Stream};
use tidegate_benches::scene;

/// Of xdp-filter's time, what a packet of an established flow may cost.
const ESTABLISHED_BOUND: f64 = 0.6;
/// New flows in a round.
const NEW_FLOWS: u32 = 4_096;

/// A program that can be run on a frame.
pub trait Runs {
    /// Runs it `repeat` times.
    fn run(&self, frame: &[u8], repeat: u32) -> Result<RunResult>;
}

impl Runs for Kernel {
    fn run(&self, frame: &[u8], repeat: u32) -> Result<RunResult> {
        Ok(self.run_xdp(frame, repeat)?)
    }
}

/// One row of the table.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// The most that the ratio may be.
    pub bound: Option<f64>,
    /// What is run.
    pub frames: Frames,
}

/// What is run in a round.
pub enum Frames {
    /// One frame many times.
    Same(Vec<u8>),
    /// Frames of flows that were never seen, made anew for every round: each runs once.
    New,
}

/// The interface index of the loopback in every network namespace.
const LOOPBACK: u32 = 1;

/// Fills the maps.
pub fn prepare(kernel: &Kernel) -> Result<()> {
    let maps = kernel.maps();
    for (addr, bits, versions) in scene::bindings() {
        maps.bindings.insert(&addr, bits, &versions)?;
    }
    for (addr, bits, versions) in scene::blocks() {
        maps.blocklist.insert(&addr, bits, &versions)?;
    }
    for (key, bits, versions) in scene::decisions() {
        maps.policy.insert(&key, bits, &versions)?;
    }
    maps.config.update(scene::configure)?;
    // A test-run crosses the loopback: let it have its own counters, as an interface has on which it is attached.
    let ours = PortCounters { ifindex: LOOPBACK, ..bytemuck::Zeroable::zeroed() };
    maps.ports.set_all(PortCounters::slot(LOOPBACK), &ours)?;
    Ok(())
}

/// The cases, tried once on both programs.
pub fn all(kernel: &Kernel, filter: &Filter, cpu: usize) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (name, stream) in [
        ("established TCP, IPv4", scene::ipv4()),
        ("established TCP, IPv6", scene::ipv6()),
        ("established TCP, IPv4, VLAN tag", scene::tagged()),
    ] {
        let data = established(kernel, cpu, &stream).context(name)?;
        expect(filter, &data, RunResult::XDP_PASS).with_context(|| format!("xdp-filter, {name}"))?;
        cases.push(Case { name, bound: Some(ESTABLISHED_BOUND), frames: Frames::Same(data) });
    }
    let data = scene::blocked().frame(Segment::Data)?;
    expect(kernel, &data, RunResult::XDP_DROP).context("blocklisted source")?;
    expect(filter, &data, RunResult::XDP_DROP).context("xdp-filter, blocklisted source")?;
    cases.push(Case { name: "blocklisted source, IPv4", bound: None, frames: Frames::Same(data) });
    cases.push(Case { name: "new flow, IPv4 SYN", bound: None, frames: Frames::New });
    Ok(cases)
}

/// SYNs of one round, of tuples that no other round has.
pub fn new_flows(round: u32) -> Result<Vec<Vec<u8>>> {
    let first = round * NEW_FLOWS;
    (first..first + NEW_FLOWS).map(|n| scene::nth(n).frame(Segment::Syn)).collect()
}

/// Opens the connection; a frame of it that the flow record alone settles.
fn established(kernel: &Kernel, cpu: usize, stream: &Stream) -> Result<Vec<u8>> {
    for frame in stream.opening()? {
        expect(kernel, &frame, RunResult::XDP_PASS)?;
    }
    let data = stream.frame(Segment::Data)?;
    expect(kernel, &data, RunResult::XDP_PASS)?;
    // The fast lane leaves no trace: have this one traced.
    let config = &kernel.maps().config;
    config.update(|c| c.flags |= Config::TRACE)?;
    expect(kernel, &data, RunResult::XDP_PASS)?;
    config.update(|c| c.flags &= !Config::TRACE)?;
    let trace = kernel.maps().trace_of(cpu)?.context("no trace of the packet")?;
    ensure!(
        trace.settled == 1,
        "the flow is not settled ({}), the hot path is not measured",
        trace.reason().name()
    );
    Ok(data)
}

fn expect(program: &impl Runs, frame: &[u8], action: u32) -> Result<()> {
    let got = program.run(frame, 1)?.action;
    ensure!(got == action, "returned XDP action {got}, expected {action}");
    Ok(())
}
