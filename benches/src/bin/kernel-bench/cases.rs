//! What is measured, and the proof that both sides do what the case says.

use anyhow::{Context, Result, ensure};
use datapath::abi::Config;
use loader::{Kernel, PeerXdp, PinnedXdp, RunResult};
use tidegate_benches::frames::{Segment, Stream};
use tidegate_benches::programs::{Target, Walk, walker};
use tidegate_benches::report::Bound;
use tidegate_benches::scene;

/// Packets of a round where each has a flow of its own: a few thousand, so that tables are not full after a round.
const NEW_FLOWS: u32 = 4_096;
/// Packets of a round where each has a flow of its own and none is let in: what a flood brings in a fraction of a second, so
/// that the thousand that a second's events tell of are as few among them as in a flood.
const FLOOD: u32 = 1 << 19;

/// Who takes part.
#[derive(Clone, Copy)]
pub struct Peers<'a> {
    /// Ours.
    pub kernel: &'a Kernel,
    /// Ours, with the large blocklist.
    pub large: &'a Kernel,
    /// xdp-filter.
    pub filter: &'a PinnedXdp,
}

/// Runs something on a frame so many times.
pub type Run<'a> = Box<dyn Fn(&[u8], u32) -> Result<RunResult> + 'a>;

/// One row of the table.
pub struct Case<'a> {
    /// Its name.
    pub name: &'static str,
    /// What the ratio should be.
    pub wanted: Bound,
    /// What it must be, once it has been reached.
    pub enforced: Option<Bound>,
    /// What is run.
    pub frames: Frames,
    /// Who is measured.
    pub subject: (&'static str, Run<'a>),
    /// Beside whom.
    pub reference: (&'static str, Run<'a>),
}

/// What is run in a round.
pub enum Frames {
    /// One frame many times.
    Same(Vec<u8>),
    /// One frame so often; a walker makes a flow of each run. Every round begins where the one before ended.
    Walked(fn(u32) -> Stream, Segment, u32),
    /// Frames of flows that were never seen, each run once, a system call each.
    New,
}

impl Frames {
    /// The frames of a round.
    pub fn of(&self, case: usize, round: u32) -> Result<Vec<Vec<u8>>> {
        // No two cases see the same flow.
        let first = |flows| ((case as u32) << 18) + round * flows;
        match self {
            Self::Same(frame) => Ok(vec![frame.clone()]),
            Self::Walked(nth, segment, flows) => Ok(vec![nth(first(*flows)).frame(*segment)?]),
            Self::New => {
                let flows = first(NEW_FLOWS)..first(NEW_FLOWS) + NEW_FLOWS;
                flows.map(|n| scene::nth(n).frame(Segment::Syn)).collect()
            }
        }
    }

    /// How often each runs, where that is not chosen by the caller.
    pub fn repeat(&self) -> Option<u32> {
        match self {
            Self::Same(_) => None,
            Self::Walked(.., flows) => Some(*flows),
            Self::New => Some(1),
        }
    }
}

/// The cases, tried once on both sides.
pub fn all<'a>(peers: &Peers<'a>, cpu: usize) -> Result<Vec<Case<'a>>> {
    let mut cases = established(peers, cpu)?;
    cases.extend(blocked(peers)?);
    cases.extend(new(peers)?);
    Ok(cases)
}

fn xdp<'a>(kernel: &'a Kernel) -> Run<'a> {
    Box::new(|frame, repeat| Ok(kernel.run_xdp(frame, repeat)?))
}

fn tc<'a>(kernel: &'a Kernel) -> Run<'a> {
    Box::new(|frame, repeat| Ok(kernel.run_tc(frame, 0, repeat)?))
}

fn tc_in<'a>(kernel: &'a Kernel) -> Run<'a> {
    Box::new(|frame, repeat| Ok(kernel.run_tc_in(frame, repeat)?))
}

fn pinned<'a>(filter: &'a PinnedXdp) -> Run<'a> {
    Box::new(|frame, repeat| Ok(filter.run(frame, repeat)?))
}

fn walked(walker: PeerXdp) -> Run<'static> {
    Box::new(move |frame, repeat| Ok(walker.run(frame, repeat)?))
}

fn established<'a>(peers: &Peers<'a>, cpu: usize) -> Result<Vec<Case<'a>>> {
    let mut cases = Vec::new();
    let (by_xdp, by_tc) = (RunResult::XDP_PASS, RunResult::TC_NEXT);
    let (best, good) = (Bound::AtMost(0.45), Bound::AtMost(0.6));
    let (enough, enough_at_tc) = (Bound::AtMost(0.75), Bound::AtMost(0.9));
    let kernel = peers.kernel;
    for (name, stream, subject, passed, wanted, enforced) in [
        ("established, IPv4", scene::ipv4(), xdp(kernel), by_xdp, best, enough),
        ("established, IPv6", scene::ipv6(), xdp(kernel), by_xdp, best, enough),
        ("established, IPv4, VLAN tag", scene::tagged(), xdp(kernel), by_xdp, best, enough),
        ("established, IPv4, TC ingress", scene::ipv4(), tc_in(kernel), by_tc, good, enough_at_tc),
        ("established, IPv6, TC ingress", scene::ipv6(), tc_in(kernel), by_tc, good, enough_at_tc),
        ("established, IPv4, TC egress", scene::sent_by_host(), tc(kernel), by_tc, good, enough_at_tc),
    ] {
        let data = settled(kernel, &subject, passed, cpu, &stream).context(name)?;
        let reference = pinned(peers.filter);
        expect(&reference, &data, RunResult::XDP_PASS).with_context(|| format!("xdp-filter, {name}"))?;
        cases.push(Case {
            name,
            wanted,
            enforced: Some(enforced),
            frames: Frames::Same(data),
            subject: ("tidegate", subject),
            reference: ("xdp-filter", reference),
        });
    }
    Ok(cases)
}

fn blocked<'a>(peers: &Peers<'a>) -> Result<Vec<Case<'a>>> {
    let by_ports = |target: Target<'_>| Ok::<_, anyhow::Error>(walked(walker(Walk::ports(), &target)?));
    let data = scene::blocked().frame(Segment::Data)?;
    let frames = || Frames::Same(data.clone());
    let few = || ("tidegate", xdp(peers.kernel));
    let many = || ("tidegate, 1 M prefixes", xdp(peers.large));
    let few_walked = || Ok::<_, anyhow::Error>(("tidegate", by_ports(Target::Kernel(peers.kernel))?));
    let filter_walked = by_ports(Target::Pinned(peers.filter))?;
    let many_walked = by_ports(Target::Kernel(peers.large))?;
    let cases = vec![
        Case {
            name: "blocked source, one flow",
            wanted: Bound::AtMost(0.6),
            enforced: Some(Bound::AtMost(0.75)),
            frames: frames(),
            subject: few(),
            reference: ("xdp-filter", pinned(peers.filter)),
        },
        Case {
            name: "blocked source, a new flow each",
            wanted: Bound::AtMost(0.6),
            enforced: Some(Bound::AtMost(1.0)),
            frames: Frames::Walked(scene::nth_blocked, Segment::Data, FLOOD),
            subject: few_walked()?,
            reference: ("xdp-filter", filter_walked),
        },
        Case {
            name: "1 M blocked prefixes, one flow",
            wanted: Bound::AtMost(1.5),
            enforced: Some(Bound::AtMost(2.0)),
            frames: frames(),
            subject: many(),
            reference: few(),
        },
        Case {
            name: "1 M blocked prefixes, a new flow each",
            wanted: Bound::AtMost(1.5),
            enforced: Some(Bound::AtMost(2.0)),
            frames: Frames::Walked(scene::nth_blocked, Segment::Data, FLOOD),
            subject: ("tidegate, 1 M prefixes", many_walked),
            reference: few_walked()?,
        },
    ];
    for case in &cases {
        for (who, run) in [&case.subject, &case.reference] {
            expect(run, &data, RunResult::XDP_DROP).with_context(|| format!("{who}, {}", case.name))?;
        }
    }
    Ok(cases)
}

fn new<'a>(peers: &Peers<'a>) -> Result<Vec<Case<'a>>> {
    let by_sources =
        |target| Ok::<_, anyhow::Error>(walked(walker(Walk::sources(scene::CROWD_SIZE), &target)?));
    let (wanted, enforced) = (Bound::AtMost(2.5), Some(Bound::AtMost(4.0)));
    let syn = scene::crowd(0).frame(Segment::Syn)?;
    let cases = vec![
        Case {
            name: "new flow, SYNs in a row",
            wanted,
            enforced,
            frames: Frames::Walked(scene::crowd, Segment::Syn, NEW_FLOWS),
            subject: ("tidegate", by_sources(Target::Kernel(peers.kernel))?),
            reference: ("xdp-filter", by_sources(Target::Pinned(peers.filter))?),
        },
        Case {
            name: "new flow, a SYN at a time",
            wanted,
            enforced,
            frames: Frames::New,
            subject: ("tidegate", xdp(peers.kernel)),
            reference: ("xdp-filter", pinned(peers.filter)),
        },
    ];
    for case in &cases {
        for (who, run) in [&case.subject, &case.reference] {
            expect(run, &syn, RunResult::XDP_PASS).with_context(|| format!("{who}, {}", case.name))?;
        }
    }
    Ok(cases)
}

/// Opens the connection; a frame of it that the flow record alone settles.
fn settled(kernel: &Kernel, run: &Run<'_>, passed: u32, cpu: usize, stream: &Stream) -> Result<Vec<u8>> {
    for frame in stream.opening()? {
        expect(run, &frame, passed)?;
    }
    let data = stream.frame(Segment::Data)?;
    expect(run, &data, passed)?;
    // The fast lane leaves no trace: have this one traced.
    let config = &kernel.maps().config;
    config.update(|c| c.flags |= Config::TRACE)?;
    expect(run, &data, passed)?;
    config.update(|c| c.flags &= !Config::TRACE)?;
    let trace = kernel.maps().trace_of(cpu)?.context("no trace of the packet")?;
    ensure!(
        trace.settled == 1,
        "the flow is not settled ({}), the hot path is not measured",
        trace.reason().name()
    );
    Ok(data)
}

fn expect(run: &Run<'_>, frame: &[u8], action: u32) -> Result<()> {
    let got = run(frame, 1)?.action;
    ensure!(got == action, "returned action {got}, expected {action}");
    Ok(())
}
