//! The states through which connections go, ours against what `conntrack -E` reports.

use super::flows::{self, Course, Tcp};
use super::frame::{Spec, Transport};
use super::ours::Ours;
use super::policy::{PORTS, Side, address};
use super::round::forwarded;
use crate::net::{Port, Twin};
use crate::rng::{Rng, from_clock};
use anyhow::{Context, Result, bail};
use datapath::abi::{Connection, Endpoint};
use datapath::track::stream;
use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// How many connections, and which.
#[derive(Debug, clap::Args)]
pub struct StateArgs {
    /// Connections in all
    #[arg(long, default_value_t = 400)]
    connections: u64,
    /// The seed of a run that is to be repeated
    #[arg(long)]
    seed: Option<u64>,
}

/// Everything passes, and connections are tracked.
const RULES: &str = "flush ruleset
table inet twin {
 chain forward {
  type filter hook forward priority 0; policy accept;
  ct state established accept
 }
}
";
/// Connections between two looks at what conntrack has said.
const AT_A_TIME: u64 = 100;

/// Protocol, originator and responder, as conntrack prints them; of echoes the identifier stands in the place of the first port.
type Ends = (Protocol, IpAddr, u16, IpAddr, u16);

/// What conntrack has states of that ours are held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Protocol {
    Tcp,
    Udp,
    Icmp,
}

impl Protocol {
    /// In the protocol's words, or those of ours that stand for several of them.
    fn state_of(self, conn: &Connection) -> &'static str {
        match self {
            Self::Tcp => tcp_state_of(conn),
            Self::Udp | Self::Icmp if conn.resp() == Endpoint::Inactive => UNREPLIED,
            Self::Udp | Self::Icmp => REPLIED,
        }
    }
}

const UNREPLIED: &str = "UNREPLIED";
const REPLIED: &str = "REPLIED";

/// A connection that is to be made.
struct Conversation {
    /// For people.
    what: String,
    ends: Ends,
    packets: Vec<Spec>,
}

/// Makes conversations of which no two are of one flow.
struct Conversations {
    rng: Rng,
    port: u16,
    /// Who has sent echo requests to whom, either way: identifiers are not part of our flows.
    pinged: HashSet<[IpAddr; 2]>,
}

impl Conversations {
    /// Two thirds TCP, the rest datagrams and echoes.
    fn next(&mut self) -> Conversation {
        self.port = if self.port > 60_000 { 10_000 } else { self.port + 1 };
        let rng = &mut self.rng;
        let v6 = rng.percent(40);
        let sides = if rng.percent(50) { (Side::Left, Side::Right) } else { (Side::Right, Side::Left) };
        let (a, b) = (address(rng, sides.0, v6), address(rng, sides.1, v6));
        let ports = (self.port, rng.pick(&PORTS));
        let kind = rng.below(10);
        if kind == 9 && self.pinged.insert([a.min(b), a.max(b)]) {
            let ends = flows::Ends { a, b, ports: (0, 0) };
            let packets = flows::echoes(rng, &ends, self.port);
            return Conversation {
                what: "echoes".into(),
                ends: (Protocol::Icmp, a, self.port, b, 0),
                packets,
            };
        }
        if kind >= 7 {
            let packets = flows::datagrams(rng, &flows::Ends { a, b, ports });
            let ends = (Protocol::Udp, a, ports.0, b, ports.1);
            return Conversation { what: "datagrams".into(), ends, packets };
        }
        let course = rng.pick(&Course::TRACKED);
        let packets = Tcp::between([a, b], ports, rng).go(course, rng);
        Conversation { what: format!("{course:?}"), ends: (Protocol::Tcp, a, ports.0, b, ports.1), packets }
    }
}

/// Runs all connections; an error if one went through other states.
pub fn run(args: &StateArgs) -> Result<()> {
    let seed = args.seed.unwrap_or_else(from_clock);
    println!("conntrack: seed {seed}, {} connections", args.connections);
    let mut ours = Ours::new()?;
    ours.commit("")?;
    let twin = Twin::new()?;
    twin.load_rules(RULES)?;
    let mut events = Events::start(&twin)?;
    let mut ports = twin.ports()?;
    let mut rng = Rng::new(seed, 1);
    let mut all = Conversations { rng: Rng::new(seed, 0), port: 10_000, pinged: HashSet::new() };
    let (mut differ, mut asked, mut seen) = (0, 0, BTreeMap::<String, u64>::new());
    for first in (0..args.connections).step_by(AT_A_TIME as usize) {
        let mut expected: BTreeMap<Ends, (String, [Vec<&'static str>; 2])> = BTreeMap::new();
        for _ in first..args.connections.min(first + AT_A_TIME) {
            let Conversation { what, ends, packets } = all.next();
            expected.insert(ends, (what, follow(&mut ours, &mut ports, ends.0, &packets)?));
        }
        let told = events.until_quiet(&mut ports, &mut rng)?;
        for (ends, (what, states)) in expected {
            let theirs = told.get(&ends).cloned().unwrap_or_default();
            *seen.entry(format!("{:?} {}", ends.0, theirs.join(" "))).or_default() += 1;
            // A reset behind retransmissions of both sides asks, and closes by the silence after it: docs/oracles.md.
            let is_asked = |ours: &[&str]| {
                ours.split_last().is_some_and(|(last, ours)| {
                    *last == ASKED && theirs.split_last() == Some((&"CLOSE", ours))
                })
            };
            let plain = |ours: &[&'static str]| -> Vec<_> {
                ours.iter().copied().filter(|state| *state != ASKED).collect()
            };
            asked += u64::from(states.iter().all(|ours| is_asked(ours)));
            if states.iter().any(|ours| !is_asked(ours) && plain(ours) != theirs) {
                differ += 1;
                println!(
                    "DIFFERENCE {what} {ends:?}\n  conntrack {theirs:?}\n  kernel {:?}\n  native {:?}",
                    states[0], states[1]
                );
            }
        }
    }
    for (states, count) in &seen {
        println!("{count:>8}  {states}");
    }
    println!(
        "{} connections, {asked} closed by silence after a reset that asked, {differ} differences",
        args.connections
    );
    if differ > 0 {
        bail!("{differ} connections went through other states (seed {seed})");
    }
    Ok(())
}

/// Sends every packet; our states after each, by both engines, without repetitions.
fn follow(
    ours: &mut Ours,
    ports: &mut [Port; 2],
    protocol: Protocol,
    talk: &[Spec],
) -> Result<[Vec<&'static str>; 2]> {
    let mut key = None;
    let mut states = [Vec::new(), Vec::new()];
    let mut last = [None, None];
    for spec in talk {
        forwarded(ports, std::slice::from_ref(spec))?;
        let verdicts = ours.judge(&spec.frame(0))?;
        // The first packet is the opener's; errors about it have a flow of their own.
        let key = *key.get_or_insert(verdicts.host.packet.key);
        for (states, conn) in states.iter_mut().zip(ours.connection(&key)?) {
            let state = conn.map_or("none", |conn| protocol.state_of(&conn));
            if states.last() != Some(&state) {
                states.push(state);
            }
        }
        last = ours.connection(&key)?;
        ours.tick()?;
    }
    for (states, conn) in states.iter_mut().zip(last) {
        if conn.is_some_and(|conn| stream::is_asked(&conn)) {
            states.push(ASKED);
        }
    }
    Ok(states)
}

/// Stands behind the states where the last that was heard is a reset that changed nothing.
const ASKED: &str = "asked";

/// Our state in conntrack's words. What an ACK adds to a FIN we do not keep: docs/oracles.md.
fn tcp_state_of(conn: &Connection) -> &'static str {
    match (conn.orig(), conn.resp()) {
        (Endpoint::Reset, _) | (_, Endpoint::Reset) => "CLOSE",
        (Endpoint::Closed, Endpoint::Closed) => "BOTH_FINS",
        (Endpoint::Closed, _) | (_, Endpoint::Closed) => "ONE_FIN",
        (Endpoint::SynSent, Endpoint::Inactive) => "SYN_SENT",
        (Endpoint::Established, Endpoint::Established) if conn.established_ns == 0 => "SYN_RECV",
        (Endpoint::Established, Endpoint::Established) => "ESTABLISHED",
        _ => "other",
    }
}

fn in_our_words(state: &str) -> Option<&'static str> {
    Some(match state {
        "SYN_SENT" => "SYN_SENT",
        "SYN_SENT2" | "SYN_RECV" => "SYN_RECV",
        "ESTABLISHED" => "ESTABLISHED",
        "FIN_WAIT" | "CLOSE_WAIT" => "ONE_FIN",
        "LAST_ACK" | "TIME_WAIT" => "BOTH_FINS",
        "CLOSE" => "CLOSE",
        _ => return None,
    })
}

/// `conntrack -E`, running.
struct Events {
    child: Child,
    lines: Receiver<String>,
    complaints: Receiver<String>,
}

impl Events {
    fn start(twin: &Twin) -> Result<Self> {
        let args = ["-E", "-b", "8388608"];
        let mut child = twin.listen("conntrack", &args)?;
        let lines = lines_of(child.stdout.take().context("conntrack has no output")?);
        let complaints = lines_of(child.stderr.take().context("conntrack has no errors")?);
        Ok(Self { child, lines, complaints })
    }

    /// What was told up to now: a connection is made whose event ends the wait.
    fn until_quiet(
        &mut self,
        ports: &mut [Port; 2],
        rng: &mut Rng,
    ) -> Result<BTreeMap<Ends, Vec<&'static str>>> {
        let src: IpAddr = [10, 64, 200, 1].into();
        let dst: IpAddr = [10, 65, 200, 1].into();
        let mut told = BTreeMap::<Ends, Vec<&'static str>>::new();
        // conntrack listens a moment after it was started: the last connection is sent until it is heard of.
        for attempt in 0..100 {
            let port = 1024 + rng.below(60_000) as u16;
            let transport = Transport::Udp { ports: (port, 7) };
            forwarded(ports, &[Spec { src, dst, transport }])?;
            while let Ok(line) = self.lines.recv_timeout(Duration::from_millis(100)) {
                if line.contains(&format!("sport={port} dport=7 ")) && line.contains("10.64.200.1") {
                    return self.nothing_lost().map(|()| told);
                }
                note(&mut told, &line);
            }
            if attempt == 99 {
                break;
            }
        }
        bail!("conntrack -E says nothing")
    }

    /// On a busy machine the kernel tells faster than conntrack listens, and what was lost would look like a difference.
    fn nothing_lost(&self) -> Result<()> {
        match self.complaints.try_iter().find(|line| line.contains("ENOBUFS")) {
            Some(_) => {
                bail!("conntrack -E has lost events (ENOBUFS): run it again on a machine that is less busy")
            }
            None => Ok(()),
        }
    }
}

/// The lines of a stream, as they come.
fn lines_of(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

impl Drop for Events {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn note(told: &mut BTreeMap<Ends, Vec<&'static str>>, line: &str) {
    let Some(ends) = ends_of(line) else { return };
    let states = told.entry(ends).or_default();
    let state = if ends.0 != Protocol::Tcp {
        let is_there = !line.contains("[DESTROY]");
        is_there.then_some(if line.contains("[UNREPLIED]") { UNREPLIED } else { REPLIED })
    } else if line.contains("[DESTROY]") {
        // A refused SYN is forgotten at once, which is all that is told of it.
        (states.as_slice() == ["SYN_SENT"]).then_some("CLOSE")
    } else {
        line.split_whitespace().find_map(in_our_words)
    };
    if let Some(state) = state
        && states.last() != Some(&state)
    {
        states.push(state);
    }
}

/// The first of the two tuples in an event.
fn ends_of(line: &str) -> Option<Ends> {
    let protocol = line.split_whitespace().find_map(|word| match word {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        "icmp" | "icmpv6" => Some(Protocol::Icmp),
        _ => None,
    })?;
    let value =
        |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let (from, to) = match protocol {
        Protocol::Icmp => (value("id")?.parse().ok()?, 0),
        Protocol::Tcp | Protocol::Udp => (value("sport")?.parse().ok()?, value("dport")?.parse().ok()?),
    };
    Some((protocol, value("src")?.parse().ok()?, from, value("dst")?.parse().ok()?, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_become_states_without_repetitions() {
        let tuple = "src=10.64.0.1 dst=10.65.0.2 sport=40000 dport=443 src=10.65.0.2 dst=10.64.0.1 sport=443 dport=40000";
        let mut told = BTreeMap::new();
        for state in
            ["[NEW] tcp      6 120 SYN_SENT", "[UPDATE] tcp 6 60 SYN_RECV", "[UPDATE] tcp 6 9 FIN_WAIT"]
        {
            note(&mut told, &format!(" {state} {tuple}"));
        }
        note(&mut told, &format!(" [UPDATE] tcp      6 60 CLOSE_WAIT {tuple} [ASSURED]"));
        note(&mut told, &format!("[DESTROY] tcp      6 {tuple}"));
        let states: Vec<_> = told.into_values().collect();
        assert_eq!(states, [["SYN_SENT", "SYN_RECV", "ONE_FIN"]]);

        let mut told = BTreeMap::new();
        let echo = "src=fd64::1 dst=fd65::2 type=128 code=0 id=77";
        for line in [
            format!(
                "    [NEW] icmpv6   58 30 {echo} [UNREPLIED] src=fd65::2 dst=fd64::1 type=129 code=0 id=77"
            ),
            format!(" [UPDATE] icmpv6   58 30 {echo} src=fd65::2 dst=fd64::1 type=129 code=0 id=77"),
            format!("[DESTROY] icmpv6   58 {echo} src=fd65::2 dst=fd64::1 type=129 code=0 id=77"),
        ] {
            note(&mut told, &line);
        }
        let ends = (Protocol::Icmp, "fd64::1".parse().unwrap(), 77, "fd65::2".parse().unwrap(), 0);
        assert_eq!(told, BTreeMap::from([(ends, vec![UNREPLIED, REPLIED])]));
    }
}
