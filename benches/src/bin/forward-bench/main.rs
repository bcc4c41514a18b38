//! Forwarding through a gateway: TCP by iperf3 with and without the programs, and small packets, forwarded by Linux and by
//! XDP, beside nftables with conntrack. Every way to be measured has a client, a gateway and a server of its own, so that rounds change
//! between them without touching one.

mod route;
mod tcp;

use anyhow::{Context, Result};
use clap::Parser;
use datapath::abi::Config;
use loader::{CpuPin, Ingress, Kernel, LoadOptions, RunResult, XdpModeChoice};
use route::Route;
use std::process::ExitCode;
use tcp::Server;
use tidegate_benches::output::{self, Output};
use tidegate_benches::programs::{bare, sender_to_router};
use tidegate_benches::report::{Bound, Report, Row, Series};
use tidegate_benches::{inside, scene};

/// Measures forwarding through a gateway.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    output: Output,
    /// Rounds; in each, every gateway has its turn.
    #[arg(long, default_value_t = 11)]
    rounds: u32,
    /// Small packets to one gateway in a round.
    #[arg(long, default_value_t = 1 << 16)]
    packets: u32,
}

fn main() -> ExitCode {
    output::exit("forward-bench", run(&Arguments::parse()))
}

/// Whether every ratio is within what is enforced, or nobody asked.
fn run(arguments: &Arguments) -> Result<bool> {
    inside::enter()?;
    let mut report = Report::new(
        "Forwarding through a gateway of veth pairs",
        "cargo xtask bench --forward",
        arguments.rounds,
    );
    let native = Ingress::Xdp(XdpModeChoice::Native);
    let mut kernel = load("forward")?;
    let without = Route::new("without")?;
    let tidegate = Route::new("tidegate")?;
    tidegate.judged_by(&mut kernel, native)?;
    let at_tc = Route::new("tidegate --ingress tc")?;
    let mut at_tc_kernel = load("tc")?;
    at_tc.judged_by(&mut at_tc_kernel, Ingress::Tc)?;
    let nft = Route::new("nft with conntrack")?;
    nft.judged_by_nft()?;
    // What any program in the driver costs there: veth copies each of TCP's big segments into pages of its own first.
    let passing = Route::new("bare XDP_PASS")?;
    let mut passes = [bare(RunResult::XDP_PASS, true)?, bare(RunResult::XDP_PASS, true)?];
    passing.passed_by(&mut passes)?;
    // XDP would send checksums that veth has not made yet: TCP by it would have to be measured on other ends.
    let by_xdp = Route::new("tidegate --forward xdp")?;
    let mut forwarding = load("xdp")?;
    by_xdp.judged_by(&mut forwarding, native)?;
    forwarding.maps().config.update(|config| config.flags |= Config::FORWARD)?;
    tcp(&mut report, &[&without, &tidegate, &nft, &passing, &at_tc], arguments.rounds)?;
    small(&mut report, &[&without, &tidegate, &nft, &passing, &at_tc, &by_xdp], arguments)?;
    arguments.output.finish(&report)
}

/// An instance of its own, with the policy of the benches.
fn load(name: &str) -> Result<Kernel> {
    let pin_dir = Some(format!("{}/{name}", inside::BPFFS).into());
    let kernel =
        Kernel::load(&LoadOptions { pin_dir, ..Default::default() }).context("loading the programs")?;
    scene::load(&kernel)?;
    Ok(kernel)
}

fn tcp(report: &mut Report, routes: &[&Route], rounds: u32) -> Result<()> {
    let _servers = routes.iter().map(|route| Server::start(route)).collect::<Result<Vec<_>>>()?;
    let at_least = |value| Some(Bound::AtLeast(value));
    // A network card hands on what fits into a frame; veth hands on what the sender has made, up to 64 kB at once.
    for (kind, enforced) in [("TCP", 0.1), ("TCP in frames of the MTU", 0.4)] {
        if kind != "TCP" {
            routes.iter().try_for_each(|route| route.segmented_by_sender())?;
        }
        eprintln!("    iperf3 {kind}, a second for each of {} gateways, {rounds} rounds", routes.len());
        let rates = in_turn(routes, rounds, tcp::gigabits)?;
        let mut row = |names: &str, who: usize, beside: usize, bounds| {
            let case = format!("{kind}, {names}");
            report.rows.push(Row::new(case, "Gbit/s", &rates[who], &rates[beside], bounds));
        };
        row("tidegate --ingress tc / without", 4, 0, (at_least(0.97), at_least(0.8)));
        row("tidegate / without", 1, 0, (at_least(0.97), at_least(enforced)));
        row("tidegate / bare XDP_PASS", 1, 3, (at_least(0.97), at_least(0.7)));
        row("bare XDP_PASS / without", 3, 0, (None, None));
        row("nft with conntrack / without", 2, 0, (None, None));
    }
    Ok(())
}

fn small(report: &mut Report, routes: &[&Route], arguments: &Arguments) -> Result<()> {
    eprintln!("    small packets, {} rounds", arguments.rounds * 5);
    // The far end drops what it has counted; so does the near end with what comes back.
    let mut drops = Vec::new();
    for route in routes {
        drops.push([bare(RunResult::XDP_DROP, true)?, bare(RunResult::XDP_DROP, true)?]);
        route.dropped_at_ends(drops.last_mut().context("two programs")?)?;
    }
    let frames = scene::datagrams().conversation()?;
    let senders = [sender_to_router(&frames[0])?, sender_to_router(&frames[1])?];
    for route in routes {
        route.open(&senders, &frames).with_context(|| route.name)?;
    }
    let [sender, _] = &senders;
    let pin = CpuPin::here()?;
    let rates =
        in_turn(routes, arguments.rounds * 5, |route| route.send(sender, &frames[0], arguments.packets))?;
    drop(pin);
    let row = |case: &str, who: usize, beside: usize, bounds| {
        Row::new(case, "packets/s", &rates[who], &rates[beside], bounds)
    };
    let at_least = |value| Some(Bound::AtLeast(value));
    report.rows.push(row(
        "small packets, tidegate --forward xdp / nft with conntrack",
        5,
        2,
        (at_least(2.0), at_least(1.0)),
    ));
    report.rows.push(row("small packets, tidegate --forward xdp / without", 5, 0, (None, None)));
    report.rows.push(row(
        "small packets, tidegate / nft with conntrack",
        1,
        2,
        (at_least(1.0), at_least(0.7)),
    ));
    report.rows.push(row("small packets, tidegate / without", 1, 0, (None, None)));
    report.rows.push(row(
        "small packets, tidegate --ingress tc / nft with conntrack",
        4,
        2,
        (at_least(1.0), at_least(0.7)),
    ));
    report.rows.push(row("small packets, tidegate --ingress tc / without", 4, 0, (None, None)));
    report.rows.push(row("small packets, nft with conntrack / without", 2, 0, (None, None)));
    report.rows.push(row("small packets, bare XDP_PASS / without", 3, 0, (None, None)));
    Ok(())
}

/// Every round another one begins.
fn in_turn(routes: &[&Route], rounds: u32, measure: impl Fn(&Route) -> Result<f64>) -> Result<Vec<Series>> {
    let series = |route: &&Route| Series { name: route.name.into(), values: Vec::new() };
    let mut series: Vec<_> = routes.iter().map(series).collect();
    for round in 0..rounds as usize {
        for turn in 0..routes.len() {
            let who = (round + turn) % routes.len();
            series[who].values.push(measure(routes[who]).with_context(|| routes[who].name)?);
        }
    }
    Ok(series)
}
