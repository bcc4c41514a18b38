//! Rounds: every case runs both of its sides one after the other, so that what disturbs the machine disturbs both.

use crate::cases::{Case, Peers, Run};
use anyhow::Result;
use loader::RunResult;
use tidegate_benches::programs::bare;
use tidegate_benches::report::{Fact, Row, Series, Spread};

/// Runs all rounds. Beside the rows, what a test-run takes for a program that does nothing.
pub fn run(peers: &Peers<'_>, cases: &[Case<'_>], rounds: u32, repeat: u32) -> Result<(Vec<Row>, Fact)> {
    let series = |name: &str| Series { name: name.into(), values: Vec::new() };
    let mut all: Vec<_> =
        cases.iter().map(|case| (case, series(case.subject.0), series(case.reference.0))).collect();
    let mut events = [peers.kernel.maps().events()?, peers.large.maps().events()?];
    let empty = bare(RunResult::XDP_PASS, true)?;
    let mut empty_ns = Vec::new();
    for round in 0..rounds {
        empty_ns.push(empty.run(&[0; 64], repeat)?.duration_ns as f64);
        for (index, (case, subject, reference)) in all.iter_mut().enumerate() {
            let frames = case.frames.of(index, round)?;
            let repeat = case.frames.repeat().unwrap_or(repeat);
            // Who begins changes, so that neither always finds the other's cache lines.
            if round % 2 == 0 {
                subject.values.push(mean_ns(&case.subject.1, &frames, repeat)?);
                reference.values.push(mean_ns(&case.reference.1, &frames, repeat)?);
            } else {
                reference.values.push(mean_ns(&case.reference.1, &frames, repeat)?);
                subject.values.push(mean_ns(&case.subject.1, &frames, repeat)?);
            }
            // An event that finds no room costs less than one that does: keep the ring buffers empty.
            for ring in &mut events {
                ring.drain(|_| {});
            }
        }
    }
    let row = |(case, subject, reference): (&Case<'_>, Series, Series)| {
        Row::new(case.name, "ns", &subject, &reference, (Some(case.wanted), case.enforced))
    };
    let rows = all.into_iter().map(row).collect();
    let value = Spread::of(&empty_ns).median;
    Ok((rows, Fact::of("the runner's own share: a program that does nothing", value, "ns")))
}

fn mean_ns(run: &Run<'_>, frames: &[Vec<u8>], repeat: u32) -> Result<f64> {
    let mut sum = 0.0;
    for frame in frames {
        sum += run(frame, repeat)?.duration_ns as f64;
    }
    Ok(sum / frames.len() as f64)
}
