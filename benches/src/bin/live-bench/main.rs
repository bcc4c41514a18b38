//! Live frames: a generator on one end of a veth pair, somebody who drops on the other. Every one of them has a pair of
//! its own, so that rounds change between them without touching an interface.

mod pairs;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use datapath::abi::config::PortCounters;
use datapath::abi::{Direction, Reason};
use loader::{CpuPin, Kernel, LoadOptions, PeerXdp, RunResult, TcModeChoice, XdpModeChoice};
use pairs::Pair;
use std::process::ExitCode;
use tidegate_benches::frames::{Segment, Stream};
use tidegate_benches::output::{self, Output};
use tidegate_benches::programs::{bare, sender};
use tidegate_benches::report::{Bound, Report, Row, Series};
use tidegate_benches::{inside, scene};

/// Frames that the kernel sends at once.
pub const BATCH: u32 = 64;
/// Of a TCP segment in IPv4 without options.
const PORTS_AT: u16 = 34;

/// Measures drops of live frames beside a bare XDP_DROP and nftables.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    output: Output,
    /// Rounds; in each, everybody drops every kind of frames.
    #[arg(long, default_value_t = 41)]
    rounds: u32,
    /// Frames of one kind to one of them in a round.
    #[arg(long, default_value_t = 1 << 19)]
    packets: u32,
}

fn main() -> ExitCode {
    output::exit("live-bench", run(&Arguments::parse()))
}

/// Frames of one kind.
struct Kind {
    name: &'static str,
    frame: Vec<u8>,
    sender: PeerXdp,
    reason: Reason,
}

fn kinds() -> Result<Vec<Kind>> {
    let kind = |name, stream: Stream, random_at: Option<u16>, reason| -> Result<Kind> {
        // Who opens many connections sends SYNs.
        let segment = if random_at.is_some() { Segment::Syn } else { Segment::Data };
        Ok(Kind { name, frame: stream.frame(segment)?, sender: sender(random_at)?, reason })
    };
    Ok(vec![
        kind("blocked source, one flow", scene::blocked(), None, Reason::Blocklisted)?,
        kind("blocked source, SYNs, random ports", scene::blocked(), Some(PORTS_AT), Reason::Blocklisted)?,
        kind("no identity, one flow", scene::stranger(), None, Reason::InvalidIdentity)?,
        kind("no identity, SYNs, random ports", scene::stranger(), Some(PORTS_AT), Reason::InvalidIdentity)?,
    ])
}

/// Whether every ratio is within what is enforced, or nobody asked.
fn run(arguments: &Arguments) -> Result<bool> {
    inside::enter()?;
    let mut report = Report::new(
        "Live frames over veth: packets a second that one CPU generates and drops",
        "cargo xtask bench --live",
        arguments.rounds,
    );
    let options =
        LoadOptions { pin_dir: Some(format!("{}/live", inside::BPFFS).into()), ..Default::default() };
    let mut kernel = Kernel::load(&options).context("loading the programs")?;
    scene::load(&kernel)?;
    let pairs = [Pair::new("bare XDP_DROP", 0)?, Pair::new("tidegate", 1)?, Pair::new("nft", 2)?];
    let [bare_pair, ours, nft] = &pairs;
    let mut drop = bare(RunResult::XDP_DROP, false)?;
    drop.attach(&bare_pair.receiver, bare_pair.receiver_index)?;
    kernel.attach(&ours.receiver, XdpModeChoice::Native, TcModeChoice::Auto)?;
    nft.nft_drops(&[scene::BLOCKED, scene::STRANGER])?;
    let pin = CpuPin::here()?;
    let kinds = kinds()?;
    for kind in &kinds {
        for pair in &pairs {
            pair.send(&kind.sender, &kind.frame, 4 * BATCH).with_context(|| pair.name)?;
        }
        let dropped = counted(&kernel, kind.reason, ours.receiver_index)?;
        ensure!(dropped >= u64::from(4 * BATCH), "{}: tidegate has dropped {dropped} for it", kind.name);
    }
    ensure!(nft.nft_passed()? == 0, "nft lets frames pass that it was to drop");
    let mut events = kernel.maps().events()?;
    // For each kind, for each pair: a rate a round.
    let mut rates = vec![vec![Vec::new(); pairs.len()]; kinds.len()];
    for round in 0..arguments.rounds as usize {
        for (kind, rates) in kinds.iter().zip(&mut rates) {
            for turn in 0..pairs.len() {
                let who = (round + turn) % pairs.len();
                rates[who].push(pairs[who].send(&kind.sender, &kind.frame, arguments.packets)?);
                events.drain(|_| {});
            }
        }
    }
    std::mem::drop(pin);
    for (kind, rates) in kinds.iter().zip(rates) {
        let series: Vec<Series> =
            pairs.iter().zip(rates).map(|(pair, values)| Series { name: pair.name.into(), values }).collect();
        let [bare, ours, nft] = &series[..] else { continue };
        for (reference, wanted, enforced) in [(bare, 0.75, 0.4), (nft, 2.5, 1.5)] {
            let bounds = (Some(Bound::AtLeast(wanted)), Some(Bound::AtLeast(enforced)));
            let case = format!("{} / {}", kind.name, reference.name);
            report.rows.push(Row::new(case, "packets/s", ours, reference, bounds));
        }
    }
    arguments.output.finish(&report)
}

/// Packets that an interface's counters have for a reason.
fn counted(kernel: &Kernel, reason: Reason, ifindex: u32) -> Result<u64> {
    let ports = kernel.maps().port_counters()?;
    let port = ports.iter().find(|port| port.ifindex == ifindex).context("no counters of the interface")?;
    Ok(port.counts[Direction::Ingress as usize][PortCounters::index(reason as u8, false)].packets)
}
