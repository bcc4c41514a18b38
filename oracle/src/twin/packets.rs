//! Random packets that have nothing to do with one another: each is the first of its connection.

use super::frame::{Spec, Transport, flag};
use super::policy::{PORTS, Side, address};
use crate::rng::Rng;
use std::collections::HashSet;

/// Packets of which no two belong to one connection.
#[derive(Default)]
pub struct Strangers {
    seen: HashSet<Spec>,
}

impl Strangers {
    /// The next one.
    pub fn next(&mut self, rng: &mut Rng) -> Spec {
        loop {
            let spec = random(rng);
            if self.seen.insert(connection(&spec)) {
                return spec;
            }
        }
    }
}

impl Strangers {
    /// So many packets. Some are of connections of earlier rounds, which are over since and must not count any more.
    pub fn take(&mut self, rng: &mut Rng, count: usize, past: &[Spec]) -> Vec<Spec> {
        let mut again = || {
            let spec =
                rng.percent(15).then(|| past.get(rng.below(past.len().max(1) as u64) as usize)).flatten()?;
            self.seen.insert(connection(spec)).then(|| spec.clone())
        };
        let mut packets: Vec<Spec> = (0..count).filter_map(|_| again()).collect();
        packets.resize_with(count, || self.next(rng));
        packets
    }
}

/// The same for all packets of one connection, in both directions.
fn connection(spec: &Spec) -> Spec {
    let (forth, there) = (spec.src, spec.dst);
    let transport = |swap: bool| match &spec.transport {
        Transport::Tcp { ports: (a, b), .. } => {
            let ports = if swap { (*b, *a) } else { (*a, *b) };
            Transport::Tcp { ports, flags: 0, seq: (0, 0), len: 0 }
        }
        Transport::Udp { ports: (a, b) } => Transport::Udp { ports: if swap { (*b, *a) } else { (*a, *b) } },
        // Request and reply are one flow, whatever their identifiers.
        Transport::Echo { .. } => Transport::Echo { reply: false, id: 0 },
        Transport::Unreachable(_) => Transport::Unreachable(Vec::new()),
    };
    if forth <= there {
        Spec { src: forth, dst: there, transport: transport(false) }
    } else {
        Spec { src: there, dst: forth, transport: transport(true) }
    }
}

fn random(rng: &mut Rng) -> Spec {
    let v6 = rng.percent(40);
    let sides = if rng.percent(50) { (Side::Left, Side::Right) } else { (Side::Right, Side::Left) };
    Spec {
        src: address(rng, sides.0, v6),
        dst: address(rng, sides.1, v6),
        transport: match rng.below(100) {
            0..65 => Transport::Tcp {
                ports: ports(rng),
                flags: flags(rng),
                seq: (rng.next() as u32, rng.next() as u32),
                len: rng.below(3) as u16 * 7,
            },
            65..95 => Transport::Udp { ports: ports(rng) },
            _ => Transport::Echo { reply: rng.percent(30), id: rng.next() as u16 },
        },
    }
}

/// Mostly from a high port to one that rules name.
fn ports(rng: &mut Rng) -> (u16, u16) {
    let high = 1024 + rng.below(64_000) as u16;
    let named = rng.pick(&PORTS);
    match rng.below(20) {
        0 => (named, high),
        1 => (named, rng.pick(&PORTS)),
        2 => (1 + rng.below(1023) as u16, rng.next() as u16),
        _ => (high, named.saturating_add((rng.below(10) / 8) as u16)),
    }
}

/// SYNs, middles of streams, answers, and what no TCP sends.
fn flags(rng: &mut Rng) -> u8 {
    match rng.below(20) {
        0 => rng.next() as u8 & 0x3f,
        1 | 2 => flag::A,
        3 => flag::A | flag::P,
        4 => flag::S | flag::A,
        5 => flag::F | flag::A,
        6 => rng.pick(&[flag::R, flag::R | flag::A]),
        _ => flag::S,
    }
}
