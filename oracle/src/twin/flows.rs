//! Packets of connections: each is what its end would send next, now and then sent twice; many at a time, mixed.

use super::frame::{Spec, Transport, flag};
use super::policy::{PORTS, Side, address};
use crate::rng::Rng;
use std::collections::HashSet;
use std::net::IpAddr;

/// So many packets of random connections, in the order in which they are sent.
pub fn random(rng: &mut Rng, count: usize) -> Vec<Spec> {
    let mut packets = Vec::with_capacity(count);
    let mut taken = HashSet::new();
    let mut open: Vec<std::vec::IntoIter<Spec>> = Vec::new();
    while packets.len() < count {
        if open.len() < 32 {
            let (ends, kind) = Ends::random(rng);
            if taken.insert((ends.a, ends.b, ends.ports)) && taken.insert((ends.b, ends.a, ends.ports)) {
                open.push(conversation(rng, &ends, kind).into_iter());
            }
            continue;
        }
        let n = rng.below(open.len() as u64) as usize;
        match open[n].next() {
            Some(spec) => packets.push(spec),
            None => drop(open.swap_remove(n)),
        }
    }
    packets
}

/// Between whom.
pub struct Ends {
    /// Who opens it.
    pub a: IpAddr,
    /// Who answers.
    pub b: IpAddr,
    /// Ports of both; none of echoes.
    pub ports: (u16, u16),
}

impl Ends {
    /// Which, and a tenth each of what is between them.
    fn random(rng: &mut Rng) -> (Self, u64) {
        let v6 = rng.percent(40);
        let sides = if rng.percent(50) { (Side::Left, Side::Right) } else { (Side::Right, Side::Left) };
        let kind = rng.below(10);
        let high = 1024 + rng.below(64_000) as u16;
        let ends = Self {
            a: address(rng, sides.0, v6),
            b: address(rng, sides.1, v6),
            // One ping at a time between two hosts: identifiers are not part of our flows.
            ports: if kind == 9 { (0, 0) } else { (high, rng.pick(&PORTS)) },
        };
        (ends, kind)
    }
}

fn conversation(rng: &mut Rng, ends: &Ends, kind: u64) -> Vec<Spec> {
    match kind {
        0..6 => Tcp::new(rng, ends).talk(rng),
        6..9 => datagrams(rng, ends),
        _ => {
            let id = rng.next() as u16;
            echoes(rng, ends, id)
        }
    }
}

/// Datagrams of both, or one and the error that it brings.
pub fn datagrams(rng: &mut Rng, ends: &Ends) -> Vec<Spec> {
    let (ab, ba) = (ends.ports, (ends.ports.1, ends.ports.0));
    let udp = |src, dst, ports| Spec { src, dst, transport: Transport::Udp { ports } };
    let first = udp(ends.a, ends.b, ab);
    let mut packets = vec![first.clone()];
    if rng.percent(20) {
        packets.push(unreachable(&first));
        return packets;
    }
    for _ in 0..rng.below(6) {
        packets.push(if rng.percent(50) { first.clone() } else { udp(ends.b, ends.a, ba) });
    }
    packets
}

/// Echo requests, of which most are answered.
pub fn echoes(rng: &mut Rng, ends: &Ends, id: u16) -> Vec<Spec> {
    let echo = |src, dst, reply| Spec { src, dst, transport: Transport::Echo { reply, id } };
    let mut packets = Vec::new();
    for _ in 0..1 + rng.below(3) {
        packets.push(echo(ends.a, ends.b, false));
        if rng.percent(70) {
            packets.push(echo(ends.b, ends.a, true));
        }
    }
    packets
}

/// "Port unreachable", from the receiver.
fn unreachable(about: &Spec) -> Spec {
    Spec { src: about.dst, dst: about.src, transport: Transport::Unreachable(about.packet(0)) }
}

/// A TCP connection whose both ends do as RFC 9293 says.
pub struct Tcp {
    ends: [IpAddr; 2],
    ports: [u16; 2],
    seq: [u32; 2],
    packets: Vec<Spec>,
}

/// How a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Nobody answers.
    Unanswered,
    /// The answer is a reset.
    Refused,
    /// Opened, used and left open.
    Open,
    /// Closed by the opener.
    Closed,
    /// Closed by the answerer.
    ClosedByServer,
    /// Reset by the opener.
    Aborted,
    /// Reset by the answerer.
    AbortedByServer,
    /// "Port unreachable" about the SYN.
    Unreachable,
    /// Open, and resets in the names of both ends that neither has sent.
    Blind,
    /// The same, then reset by the opener.
    BlindAborted,
    /// Both ends open it at the same time (RFC 9293, figure 7).
    Simultaneous,
}

impl Course {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Unanswered,
        Self::Refused,
        Self::Open,
        Self::Closed,
        Self::ClosedByServer,
        Self::Aborted,
        Self::AbortedByServer,
        Self::Unreachable,
    ];

    /// Those and what is about the connection's state alone: nft has no word for a reset that is out of the window of a
    /// connection, as against one of no connection.
    pub const TRACKED: [Self; 11] = [
        Self::Unanswered,
        Self::Refused,
        Self::Open,
        Self::Closed,
        Self::ClosedByServer,
        Self::Aborted,
        Self::AbortedByServer,
        Self::Unreachable,
        Self::Blind,
        Self::BlindAborted,
        Self::Simultaneous,
    ];
}

impl Tcp {
    fn new(rng: &mut Rng, ends: &Ends) -> Self {
        Self::between([ends.a, ends.b], ends.ports, rng)
    }

    /// Between two ends; the first opens it.
    pub fn between(ends: [IpAddr; 2], ports: (u16, u16), rng: &mut Rng) -> Self {
        let seq = [rng.next() as u32, rng.next() as u32];
        Self { ends, ports: [ports.0, ports.1], seq, packets: Vec::new() }
    }

    fn talk(self, rng: &mut Rng) -> Vec<Spec> {
        let course = rng.pick(&Course::ALL);
        self.go(course, rng)
    }

    /// All packets of a course.
    pub fn go(mut self, course: Course, rng: &mut Rng) -> Vec<Spec> {
        use flag::{A, F, R, S};
        self.send(0, S, 0);
        self.perhaps_again(rng, 15);
        match course {
            Course::Unanswered => {}
            Course::Refused => self.send(1, R | A, 0),
            Course::Unreachable => {
                let syn = self.packets[0].clone();
                self.packets.push(unreachable(&syn));
            }
            Course::Simultaneous => {
                self.send(1, S, 0);
                self.answer_syn(0);
                self.answer_syn(1);
                self.send(0, A, 0);
                self.data(rng);
            }
            _ => {
                self.send(1, S | A, 0);
                self.perhaps_again(rng, 10);
                self.send(0, A, 0);
                self.data(rng);
            }
        }
        if matches!(course, Course::Blind | Course::BlindAborted) {
            self.blind(rng);
            self.data(rng);
            self.blind(rng);
        }
        match course {
            Course::Closed => self.close(0, rng),
            Course::ClosedByServer => self.close(1, rng),
            Course::Aborted | Course::BlindAborted => self.send(0, R | A, 0),
            Course::AbortedByServer => self.send(1, R | A, 0),
            _ => {}
        }
        if matches!(course, Course::Closed | Course::ClosedByServer) && rng.percent(10) {
            self.send(0, F | A, 0); // one more FIN of an end that missed the last ACK
            self.seq[0] = self.seq[0].wrapping_sub(1);
        }
        self.packets
    }

    /// The SYN-ACK to a SYN that crossed one's own, which it repeats.
    fn answer_syn(&mut self, from: usize) {
        self.seq[from] = self.seq[from].wrapping_sub(1);
        self.send(from, flag::S | flag::A, 0);
    }

    /// Resets that are none: before the window, beyond it, and in it but not where it begins. And FINs that are none: beyond it.
    fn blind(&mut self, rng: &mut Rng) {
        for _ in 0..1 + rng.below(3) {
            let (from, seq) = (rng.below(2) as usize, self.seq);
            let beyond = match rng.below(4) {
                0 => 1 + rng.below(10_000) as u32,
                _ => 1_000_000 + rng.below(u64::from(u32::MAX) - 2_000_000) as u32,
            };
            self.seq[from] = seq[from].wrapping_add(beyond);
            self.seq[1 - from] = rng.next() as u32; // who is blind knows neither
            let (resets, fins) = ([flag::R, flag::R | flag::A], [flag::F | flag::A]);
            let ends = if beyond > 10_000 && rng.percent(40) { rng.pick(&fins) } else { rng.pick(&resets) };
            self.send(from, ends, 0);
            self.seq = seq;
        }
    }

    fn data(&mut self, rng: &mut Rng) {
        for _ in 0..rng.below(4) {
            let from = rng.below(2) as usize;
            self.send(from, flag::P | flag::A, 1 + rng.below(40) as u16);
            self.perhaps_again(rng, 10);
            self.send(1 - from, flag::A, 0);
        }
    }

    fn close(&mut self, from: usize, rng: &mut Rng) {
        self.send(from, flag::F | flag::A, 0);
        self.perhaps_again(rng, 10);
        if rng.percent(60) {
            self.send(1 - from, flag::A, 0);
        }
        self.send(1 - from, flag::F | flag::A, 0);
        self.send(from, flag::A, 0);
    }

    fn send(&mut self, from: usize, flags: u8, len: u16) {
        let ack = if flags & flag::A == 0 { 0 } else { self.seq[1 - from] };
        let ports = (self.ports[from], self.ports[1 - from]);
        let transport = Transport::Tcp { ports, flags, seq: (self.seq[from], ack), len };
        self.packets.push(Spec { src: self.ends[from], dst: self.ends[1 - from], transport });
        let counts = u32::from(flags & flag::S != 0) + u32::from(flags & flag::F != 0);
        self.seq[from] = self.seq[from].wrapping_add(u32::from(len) + counts);
    }

    /// A retransmission of the last segment.
    fn perhaps_again(&mut self, rng: &mut Rng, percent: u64) {
        if rng.percent(percent)
            && let Some(last) = self.packets.last().cloned()
        {
            self.packets.push(last);
        }
    }
}
