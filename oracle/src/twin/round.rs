//! Round after round: a policy, packets, three verdicts each.

use super::flows;
use super::frame::{Spec, Transport, id_of};
use super::ours::{Ours, Verdicts};
use super::packets::Strangers;
#[cfg(test)]
use super::policy::Action;
use super::policy::Policy;
use super::rules::ruleset;
use crate::net::{Port, Twin};
use crate::rng::{Rng, from_clock};
use anyhow::{Result, bail};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long and from where.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Packets in all
    #[arg(long, default_value_t = 20_000)]
    packets: u64,
    /// Packets under one policy
    #[arg(long, default_value_t = 1_000)]
    per_policy: u64,
    /// The seed of a run that is to be repeated
    #[arg(long)]
    seed: Option<u64>,
    /// The first round: with --packets as many as --per-policy, that one alone. What it repeats of earlier rounds is
    /// then not there: a difference that does not come back is one of state that outlived its connection
    #[arg(long, default_value_t = 0)]
    round: u64,
    /// Print policy and nftables rules of every round
    #[arg(long)]
    verbose: bool,
}

/// More differences than this are not printed.
const PRINTED: u64 = 10;
/// Packets that are on their way at a time.
const BURST: usize = 250;
/// Packets of earlier rounds that are kept to be sent again.
const PAST: usize = 4_000;
const SENTINEL: u16 = u16::MAX;

/// Runs all rounds; an error if there was a difference.
pub fn run(args: &Args) -> Result<()> {
    let seed = args.seed.unwrap_or_else(from_clock);
    println!("nftables twin: seed {seed}, {} packets, {} a policy", args.packets, args.per_policy);
    let start = Instant::now();
    let mut ours = Ours::new()?;
    let twin = Twin::new()?;
    let mut ports = twin.ports()?;
    let mut tally = Tally::default();
    let mut past = Vec::new();
    let mut round = args.round;
    while tally.packets < args.packets {
        let mut rng = Rng::new(seed, round);
        // Every other round is of connections, whose packets follow on one another.
        let stateful = round % 2 == 1;
        let policy = Policy::random(&mut rng);
        let (yaml, rules) = (policy.to_yaml(), ruleset(&policy, stateful));
        if args.verbose {
            println!("# round {round}\n{yaml}\n{rules}");
        }
        ours.commit(&yaml)?;
        twin.load_rules(&rules)?;
        if stateful {
            twin.flush_connections()?;
        }
        let count = args.per_policy.min(args.packets - tally.packets) as usize;
        let packets = if stateful {
            flows::random(&mut rng, count)
        } else {
            Strangers::default().take(&mut rng, count, &past)
        };
        // Without connections in the twin's rules no error is related to one.
        let alone = |spec: &&Spec| !matches!(spec.transport, Transport::Unreachable(_));
        past.extend(packets.iter().step_by(10).filter(alone).cloned());
        past.drain(..past.len().saturating_sub(PAST));
        for burst in packets.chunks(BURST) {
            let passed = forwarded(&mut ports, burst)?;
            for (spec, nft_passes) in burst.iter().zip(passed) {
                let verdicts = ours.judge(&spec.frame(0))?;
                if args.verbose {
                    println!("{spec}: nft passes: {nft_passes}, native {}", verdicts.host.reason().name());
                }
                tally.add(spec, &verdicts, nft_passes, || {
                    format!(
                        "--seed {seed} --round {round} --packets {count} --per-policy {}",
                        args.per_policy
                    )
                });
            }
            ours.tick()?;
        }
        round += 1;
    }
    let (seconds, rounds) = (start.elapsed().as_secs_f32(), round - args.round);
    println!("{tally} under {rounds} policies in {seconds:.1} s");
    if tally.differ > 0 {
        bail!("{} packets were judged differently (seed {seed})", tally.differ);
    }
    Ok(())
}

#[derive(Default)]
struct Tally {
    packets: u64,
    passed: u64,
    differ: u64,
}

impl Tally {
    fn add(&mut self, spec: &Spec, verdicts: &Verdicts, nft_passes: bool, again: impl Fn() -> String) {
        self.packets += 1;
        self.passed += u64::from(nft_passes);
        if verdicts.kernel_passes == nft_passes && verdicts.host_passes() == nft_passes {
            return;
        }
        self.differ += 1;
        if self.differ > PRINTED {
            return;
        }
        let word = |passes: bool| if passes { "passes" } else { "drops" };
        println!(
            "DIFFERENCE {spec}\n  nft {}, kernel {} {}, native {} ({}, rule {})\n  again: tidegate-oracle nft {} --verbose",
            word(nft_passes),
            word(verdicts.kernel_passes),
            verdicts.kernel_reason.unwrap_or_default(),
            word(verdicts.host_passes()),
            verdicts.host.reason().name(),
            verdicts.rule.as_deref().unwrap_or("none"),
            again(),
        );
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} packets, {} passed, {} dropped, {} differences",
            self.packets,
            self.passed,
            self.packets - self.passed,
            self.differ
        )
    }
}

/// Sends packets through the gateway; which of them came out.
pub fn forwarded(ports: &mut [Port; 2], packets: &[Spec]) -> Result<Vec<bool>> {
    for (n, spec) in packets.iter().enumerate() {
        ports[side_of(spec.src)].send(&spec.frame(n as u16))?;
    }
    // Frames of one link stay in their order: what has not come before the sentinel does not come.
    for (n, port) in ports.iter().enumerate() {
        port.send(&sentinel(n).frame(SENTINEL))?;
    }
    let mut passed = vec![false; packets.len()];
    for port in ports.iter_mut() {
        receive(port, &mut passed)?;
    }
    Ok(passed)
}

fn receive(port: &mut Port, passed: &mut [bool]) -> Result<()> {
    let limit = Instant::now() + Duration::from_secs(10);
    loop {
        let Some(frame) = port.receive()? else {
            if Instant::now() > limit {
                bail!("the gateway's namespace does not forward: its sentinel never came");
            }
            std::thread::yield_now();
            continue;
        };
        match id_of(frame) {
            Some(SENTINEL) => return Ok(()),
            Some(id) => {
                if let Some(one) = passed.get_mut(usize::from(id)) {
                    *one = true;
                }
            }
            None => {}
        }
    }
}

fn side_of(src: IpAddr) -> usize {
    match src {
        IpAddr::V4(addr) => usize::from(addr.octets()[1] == 65),
        IpAddr::V6(addr) => usize::from(addr.segments()[0] == 0xfd65),
    }
}

fn sentinel(from: usize) -> Spec {
    let host = |net: usize| IpAddr::from([10, 64 + net as u8, 255, 254]);
    Spec { src: host(from), dst: host(1 - from), transport: Transport::Udp { ports: (9, 9) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs root: loads the programs and makes network namespaces"]
    fn a_rule_that_is_another_in_the_twin_is_a_difference_with_nft() {
        let mut rng = Rng::new(3, 0);
        let mut policy = Policy::random(&mut rng);
        let mut ours = Ours::new().expect("the programs load");
        let twin = Twin::new().expect("namespaces");
        let mut ports = twin.ports().expect("links");
        let mut strangers = Strangers::default();
        let packets: Vec<Spec> = (0..200).map(|_| strangers.next(&mut rng)).collect();
        ours.commit(&policy.to_yaml()).expect("a commit");
        let mut differences = || {
            twin.load_rules(&ruleset(&policy, false)).expect("rules");
            let passed = forwarded(&mut ports, &packets).expect("packets");
            let mut tally = Tally::default();
            for (spec, nft_passes) in packets.iter().zip(passed) {
                let verdicts = ours.judge(&spec.frame(0)).expect("a verdict");
                tally.add(spec, &verdicts, nft_passes, String::new);
            }
            for rule in policy.documents.iter_mut().flat_map(|document| &mut document.rules) {
                rule.action = if rule.action == Action::Allow { Action::Deny } else { Action::Allow };
            }
            tally.differ
        };
        assert_eq!(differences(), 0);
        assert!(differences() > 0);
    }
}
