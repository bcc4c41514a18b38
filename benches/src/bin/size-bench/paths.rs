//! The ways through the program whose cost is measured.

use crate::grow::Grow;
use anyhow::{Context, Result, ensure};
use datapath::abi::Config;
use loader::{Kernel, RunResult};
use tidegate_benches::frames::Segment;
use tidegate_benches::programs::{Target, Walk, walker};
use tidegate_benches::scene;

/// The one that is to stay as it is.
pub const ESTABLISHED: &str = "established flow";
/// Runs of one frame in a round.
const REPEAT: u32 = 50_000;
/// New flows in a round.
const NEW: u32 = 4_096;

/// One way.
pub struct Path<'a> {
    /// Its name.
    pub name: &'static str,
    /// Runs a round of it: nanoseconds a packet.
    pub run: Box<dyn Fn(u32) -> Result<f64> + 'a>,
}

impl<'a> Path<'a> {
    /// All that are measured.
    pub fn all(kernel: &'a Kernel, grow: Grow, size: u32, cpu: usize) -> Result<Vec<Self>> {
        let mut paths = vec![established(kernel, cpu)?];
        if grow == Grow::Flows {
            paths.push(in_turn(kernel, size)?);
        }
        paths.push(new(kernel)?);
        paths.push(blocked(kernel)?);
        Ok(paths)
    }
}

fn established(kernel: &Kernel, cpu: usize) -> Result<Path<'_>> {
    let stream = scene::ipv4();
    for frame in stream.opening()? {
        kernel.run_xdp(&frame, 1)?;
    }
    let data = stream.frame(Segment::Data)?;
    let config = &kernel.maps().config;
    config.update(|c| c.flags |= Config::TRACE)?;
    kernel.run_xdp(&data, 2)?;
    config.update(|c| c.flags &= !Config::TRACE)?;
    let trace = kernel.maps().trace_of(cpu)?.context("no trace of the packet")?;
    ensure!(trace.settled == 1, "the flow is not settled ({})", trace.reason().name());
    let run = move |_| Ok(kernel.run_xdp(&data, REPEAT)?.duration_ns as f64);
    Ok(Path { name: ESTABLISHED, run: Box::new(run) })
}

/// A packet of every flow, again and again: what the CPU's caches hold counts.
fn in_turn(kernel: &Kernel, size: u32) -> Result<Path<'_>> {
    let walker = walker(Walk::sources(size), &Target::Kernel(kernel))?;
    let run = move |round: u32| {
        let first = scene::crowd(round.wrapping_mul(REPEAT) % size);
        let result = walker.run(&first.datagram()?, REPEAT)?;
        ensure!(result.action == RunResult::XDP_PASS, "returned {}", result.action);
        Ok(result.duration_ns as f64)
    };
    Ok(Path { name: "established flows in turn", run: Box::new(run) })
}

fn new(kernel: &Kernel) -> Result<Path<'_>> {
    let walker = walker(Walk::sources(scene::CROWD_SIZE), &Target::Kernel(kernel))?;
    let run = move |round: u32| {
        let result = walker.run(&scene::crowd(round * NEW).frame(Segment::Syn)?, NEW)?;
        ensure!(result.action == RunResult::XDP_PASS, "returned {}", result.action);
        Ok(result.duration_ns as f64)
    };
    Ok(Path { name: "new flow", run: Box::new(run) })
}

fn blocked(kernel: &Kernel) -> Result<Path<'_>> {
    let walker = walker(Walk::ports(), &Target::Kernel(kernel))?;
    let run = move |round: u32| {
        let result = walker.run(&scene::nth_blocked(round * NEW).frame(Segment::Syn)?, NEW)?;
        ensure!(result.action == RunResult::XDP_DROP, "returned {}", result.action);
        Ok(result.duration_ns as f64)
    };
    Ok(Path { name: "blocked source, new flow", run: Box::new(run) })
}
