//! Rounds: both programs run every case one after the other, so that what disturbs the machine disturbs both.

use crate::cases::{Case, Frames, Runs, new_flows};
use crate::filter::Filter;
use anyhow::Result;
use loader::Kernel;

/// The times of one case, a nanosecond value a round.
pub struct Times<'a> {
    /// The case.
    pub case: &'a Case,
    /// Ours.
    pub tidegate_ns: Vec<f64>,
    /// xdp-filter's.
    pub filter_ns: Vec<f64>,
}

/// Runs all rounds.
pub fn run<'a>(
    kernel: &Kernel,
    filter: &Filter,
    cases: &'a [Case],
    rounds: u32,
    repeat: u32,
) -> Result<Vec<Times<'a>>> {
    let mut all: Vec<Times<'a>> =
        cases.iter().map(|case| Times { case, tidegate_ns: Vec::new(), filter_ns: Vec::new() }).collect();
    let mut events = kernel.maps().events()?;
    for round in 0..rounds {
        for times in &mut all {
            let frames = match &times.case.frames {
                Frames::Same(frame) => vec![frame.clone()],
                Frames::New => new_flows(round)?,
            };
            let repeat = if frames.len() == 1 { repeat } else { 1 };
            // Who begins changes, so that neither always finds the other's cache lines.
            if round % 2 == 0 {
                times.tidegate_ns.push(mean_ns(kernel, &frames, repeat)?);
                times.filter_ns.push(mean_ns(filter, &frames, repeat)?);
            } else {
                times.filter_ns.push(mean_ns(filter, &frames, repeat)?);
                times.tidegate_ns.push(mean_ns(kernel, &frames, repeat)?);
            }
            // An event that finds no room costs less than one that does: keep the ring buffer empty.
            events.drain(|_| {});
        }
    }
    Ok(all)
}

fn mean_ns(program: &impl Runs, frames: &[Vec<u8>], repeat: u32) -> Result<f64> {
    let mut sum = 0.0;
    for frame in frames {
        sum += program.run(frame, repeat)?.duration_ns as f64;
    }
    Ok(sum / frames.len() as f64)
}
