//! Floods against the loaded program: who is connected stays connected and on the fast lane, who comes new gets in, and
//! every packet is counted. Tables are small, so that each flood is many times larger than the table it is aimed at.

use datapath::abi::config::PortCounters;
use datapath::abi::{
    Addr, Binding, BindingVersions, Config, Connection, Direction, LimitOf, LimitVersions, Limits, Lost,
    Reason, RuleSettings, RuleVersions,
};
use etherparse::{IpFragOffset, IpNumber, Ipv4Header, PacketBuilder, TcpHeader};
use loader::{CpuPin, Kernel, LoadOptions, RunResult, Sizes};
use std::cell::Cell;

const CLIENT: [u8; 4] = [10, 1, 0, 2];
const SERVER: [u8; 4] = [10, 2, 0, 2];
/// Packets of a flood; the tables that they are aimed at have 1,024 to 4,096 entries.
const FLOOD: u32 = 20_000;
/// How many of them come between two packets of somebody else.
const BETWEEN: u32 = 40;
/// Events of one kind, reason and identity that a second may have.
const EVENTS: u32 = 100;

/// A gateway without a policy, and what was sent to it.
struct Gateway {
    kernel: Kernel,
    pin: CpuPin,
    sent: Cell<u64>,
    flooded: Cell<u32>,
}

impl Gateway {
    fn new() -> Self {
        // By this seed no newcomer has the slot of the living connection: who is answered may take it.
        let options = LoadOptions { sizes: Sizes::small(), hash_seed: Some(1), ..LoadOptions::default() };
        let kernel = Kernel::load(&options).unwrap();
        kernel
            .maps()
            .config
            .update(|config| {
                // The clock stands, or a machine that is busy with other things would let the living fall silent.
                config.flags = Config::ENFORCE | Config::DEFAULT_ALLOW | Config::FIXED_CLOCK;
                config.fixed_now_ns = 1_000_000_000;
                config.event_limit = EVENTS;
            })
            .unwrap();
        Self { kernel, pin: CpuPin::here().unwrap(), sent: Cell::new(0), flooded: Cell::new(0) }
    }

    fn send(&self, frame: &[u8]) -> u32 {
        self.sent.set(self.sent.get() + 1);
        self.kernel.run_xdp(frame, 1).unwrap().action
    }

    fn passes(&self, frame: &[u8]) {
        assert_eq!(self.send(frame), RunResult::XDP_PASS);
    }

    /// Sends it and says whether its flow's record in the first level settled it.
    fn is_settled(&self, frame: &[u8]) -> bool {
        let config = &self.kernel.maps().config;
        config.update(|config| config.flags |= Config::TRACE).unwrap();
        self.passes(frame);
        config.update(|config| config.flags &= !Config::TRACE).unwrap();
        self.kernel.maps().trace_of(self.pin.cpu()).unwrap().expect("a trace").settled == 1
    }

    /// The next packets of a flood.
    fn flood(&self, frame: impl Fn(u32) -> Vec<u8>, action: u32) {
        for _ in 0..BETWEEN {
            let n = self.flooded.replace(self.flooded.get() + 1);
            assert_eq!(self.send(&frame(n)), action, "packet {n} of the flood");
        }
    }

    fn connection(&self, client_port: u16) -> Option<Connection> {
        let entries = self.kernel.maps().connections.entries().unwrap();
        let of = |key: &datapath::abi::FlowKey| key.a_port == client_port || key.b_port == client_port;
        entries.into_iter().find(|(key, _)| of(key)).map(|(_, conn)| conn)
    }

    /// Packets by reason; all together are all that were sent.
    fn counted(&self, reason: Reason) -> u64 {
        let ports = self.kernel.maps().port_counters().unwrap();
        let counts = || ports.iter().map(|port| &port.counts[Direction::Ingress as usize]);
        let all: u64 = counts().flatten().map(|count| count.packets).sum();
        assert_eq!(all, self.sent.get(), "packets counted");
        counts().map(|counts| counts[PortCounters::index(reason as u8, false)].packets).sum()
    }

    /// Every event that was due was sent, or counted with the reason why not; of a storm no more than its budget went up.
    fn events_are_bounded(&self, due: u64) {
        let mut told = 0;
        self.kernel.maps().events().unwrap().drain(|_| told += 1);
        let (no_room, limited) = (self.lost(Lost::NoRoom), self.lost(Lost::Limited));
        assert_eq!((told + no_room + limited, no_room), (due, 0), "{told} told, {limited} limited");
        // New flows, refused packets, handshakes; all in the same second.
        assert!(told <= 3 * u64::from(EVENTS), "{told} events");
        assert!(limited > 0);
    }

    fn lost(&self, why: Lost) -> u64 {
        self.kernel.maps().lost_events(why).unwrap()
    }
}

fn segment(from_client: bool, client_port: u16, flags: &str, payload: &[u8]) -> Vec<u8> {
    let (src, dst) = if from_client { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
    let ports = if from_client { (client_port, 443) } else { (443, client_port) };
    let (mine, theirs) = if from_client { (1_000, 9_000) } else { (9_000, 1_000) };
    let syn = flags.contains('S');
    let mut tcp = TcpHeader::new(ports.0, ports.1, if syn { mine } else { mine + 1 }, 64_000);
    tcp.syn = syn;
    tcp.ack = flags.contains('A');
    tcp.acknowledgment_number = if tcp.ack { theirs + 1 } else { 0 };
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [2; 6]).ipv4(src, dst, 64).tcp_header(tcp);
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// A source of its own for each packet.
fn spoofed(n: u32) -> [u8; 4] {
    let [_, a, b, c] = n.to_be_bytes();
    [172, 16 + a, b, c]
}

fn spoofed_syn(n: u32) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder =
        PacketBuilder::ethernet2([2; 6], [2; 6]).ipv4(spoofed(n), SERVER, 64).tcp(1_024, 443, n, 64_000);
    builder.syn().write(&mut frame, &[]).unwrap();
    frame
}

fn spoofed_datagram(n: u32) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [2; 6]).ipv4(spoofed(n), SERVER, 64).udp(1_024, 53);
    builder.write(&mut frame, &[0; 16]).unwrap();
    frame
}

/// A datagram of 64 bytes in two fragments.
fn fragments(src: [u8; 4], id: u16) -> [Vec<u8>; 2] {
    let mut whole = Vec::new();
    PacketBuilder::ipv4(src, SERVER, 64).udp(5_000, 53).write(&mut whole, &[7; 56]).unwrap();
    let part = |from: usize, to: usize| {
        let mut ip = Ipv4Header::new((to - from) as u16, 64, IpNumber::UDP, src, SERVER).unwrap();
        ip.identification = id;
        ip.more_fragments = to < 64;
        ip.fragment_offset = IpFragOffset::try_new(from as u16 / 8).unwrap();
        ip.header_checksum = ip.calc_header_checksum();
        let mut frame = vec![2; 12];
        frame.extend([8, 0]);
        ip.write(&mut frame).unwrap();
        frame.extend(&whole[20 + from..20 + to]);
        frame
    };
    [part(0, 32), part(32, 64)]
}

const LIVING: u16 = 40_000;

/// Opens the connection that has to live, until its data is settled both ways.
fn connect(gateway: &Gateway) {
    for (from_client, flags, payload) in [
        (true, "S", &b""[..]),
        (false, "SA", b""),
        (true, "A", b""),
        (true, "A", b"question"),
        (false, "A", b"an answer"),
        (true, "A", b"question"),
    ] {
        gateway.passes(&segment(from_client, LIVING, flags, payload));
    }
    assert!(gateway.is_settled(&segment(true, LIVING, "A", b"question")));
}

/// Floods, and has the living connection and newcomers send in between.
fn flood_between(gateway: &Gateway, frame: impl Fn(u32) -> Vec<u8>) -> u16 {
    let mut newcomers = 0;
    while gateway.flooded.get() < FLOOD {
        let port = 50_000 + newcomers;
        for (from_client, flags) in [(true, "S"), (false, "SA"), (true, "A")] {
            gateway.passes(&segment(from_client, port, flags, b""));
            gateway.flood(&frame, RunResult::XDP_PASS);
            assert!(gateway.is_settled(&segment(true, LIVING, "A", b"question")), "off the fast lane");
        }
        let conn = gateway.connection(port).expect("the newcomer is tracked");
        assert_eq!(datapath::track::conn_state(&conn, 6), "S1");
        newcomers += 1;
    }
    assert!(gateway.connection(LIVING).is_some());
    newcomers
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn a_flood_of_syns_from_spoofed_sources_evicts_nobody_and_keeps_nobody_out() {
    let gateway = Gateway::new();
    connect(&gateway);
    let newcomers = u64::from(flood_between(&gateway, spoofed_syn));
    let flooded = u64::from(gateway.flooded.get());
    // The first packet of a connection is allowed, all others are part of it.
    assert_eq!(gateway.counted(Reason::Forwarded), 1 + newcomers + flooded);
    gateway.events_are_bounded((1 + newcomers) * 2 + flooded);
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn a_flood_of_datagrams_from_spoofed_sources_evicts_nobody_and_keeps_nobody_out() {
    let gateway = Gateway::new();
    connect(&gateway);
    let newcomers = u64::from(flood_between(&gateway, spoofed_datagram));
    let flooded = u64::from(gateway.flooded.get());
    assert_eq!(gateway.counted(Reason::Forwarded), 1 + newcomers + flooded);
    gateway.events_are_bounded((1 + newcomers) * 2 + flooded);
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn a_flood_of_fragments_costs_neither_flows_nor_datagrams() {
    let gateway = Gateway::new();
    connect(&gateway);
    let mut whole = 0;
    while gateway.flooded.get() < FLOOD {
        let [first, second] = fragments(CLIENT, whole);
        gateway.passes(&first);
        // First fragments whose rest never comes fill the table of fragments; later ones without a first are dropped.
        gateway.flood(|n| fragments(spoofed(n), 1)[0].clone(), RunResult::XDP_PASS);
        gateway.flood(|n| fragments(spoofed(n), 1)[1].clone(), RunResult::XDP_DROP);
        gateway.passes(&second);
        assert!(gateway.is_settled(&segment(true, LIVING, "A", b"question")), "off the fast lane");
        whole += 1;
    }
    assert_eq!(gateway.counted(Reason::FragmentOrphan), u64::from(gateway.flooded.get()) / 2);
    assert!(gateway.connection(LIVING).is_some());
}

const NOISY: [u8; 4] = [10, 1, 0, 66];
const QUIET: [u8; 4] = [10, 1, 0, 7];
const NOISY_ID: u32 = 5;
/// Unanswered connections that it may have at once.
const ATTEMPTS: u32 = 100;

/// Two identities, of which one may have so many attempts at once.
fn limit_the_noisy(gateway: &Gateway) {
    const RULE: u32 = 9;
    let maps = gateway.kernel.maps();
    let limits = (Limits::IDENTITY_HELD >> Limits::IDENTITY_SHIFT) as u8;
    for (host, identity, limits) in [(NOISY, NOISY_ID, limits), (QUIET, 6, 0)] {
        let new = Binding { identity, class: 1, limits, ..Binding::NONE };
        let versions = BindingVersions { since: 0, _pad: 0, old: Binding::NONE, new };
        maps.bindings.insert(&Addr::v4(host), 128, &versions).unwrap();
    }
    let new = RuleSettings { max_attempts: ATTEMPTS, ..RuleSettings::NONE };
    let versions = RuleVersions { since: 0, _pad: 0, old: RuleSettings::NONE, new };
    maps.rules.insert(&RULE, 32, &versions).unwrap();
    let versions = LimitVersions { since: 0, _pad: 0, old: LimitOf::NONE, new: LimitOf { rule: RULE } };
    maps.limits.insert(&NOISY_ID, 32, &versions).unwrap();
}

/// A SYN to one of many ports.
fn syn(src: [u8; 4], n: u32) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [2; 6]).ipv4(src, SERVER, 64);
    let ports = (10_000 + (n % 50_000) as u16, 443 + (n / 50_000) as u16);
    builder.tcp(ports.0, ports.1, n, 64_000).syn().write(&mut frame, &[]).unwrap();
    frame
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn an_identity_with_a_limit_floods_and_the_attempts_of_another_are_all_kept() {
    let gateway = Gateway::new();
    limit_the_noisy(&gateway);
    let mut others = 0;
    while gateway.flooded.get() < FLOOD {
        gateway.passes(&syn(QUIET, others));
        others += 1;
        let n = gateway.flooded.get();
        let passes = n < ATTEMPTS;
        let action = if passes { RunResult::XDP_PASS } else { RunResult::XDP_DROP };
        for i in 0..50 {
            assert_eq!(gateway.send(&syn(NOISY, n + i)), action, "packet {} of the flood", n + i);
        }
        gateway.flooded.set(n + 50);
    }
    assert_eq!(others, 400);
    let maps = gateway.kernel.maps();
    let kept = maps.half_open.entries(&maps.config.get().unwrap());
    let of = |host: [u8; 4]| kept.iter().filter(|(key, _)| [key.a, key.b].contains(&Addr::v4(host))).count();
    assert_eq!((of(QUIET), of(NOISY)), (400, ATTEMPTS as usize));
    let held = maps.holdings.get(&NOISY_ID).unwrap().unwrap().at(1_000_000_000);
    assert_eq!((held.attempts, held.answered), (u64::from(ATTEMPTS), 0));
    assert_eq!(gateway.counted(Reason::TooManyAttempts), u64::from(FLOOD - ATTEMPTS));

    // Their time is over, with nobody there who sweeps, and as many may be tried again.
    gateway.kernel.set_now(8_000_000_000).unwrap();
    for n in 0..ATTEMPTS {
        gateway.passes(&syn(NOISY, FLOOD + n));
    }
    assert_eq!(gateway.send(&syn(NOISY, FLOOD + ATTEMPTS)), RunResult::XDP_DROP);
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn a_flood_of_an_identity_without_a_limit_pushes_attempts_of_others_out() {
    let gateway = Gateway::new();
    for n in 0..400 {
        gateway.passes(&syn(QUIET, n));
    }
    for n in 0..FLOOD {
        gateway.passes(&syn(NOISY, n));
    }
    let maps = gateway.kernel.maps();
    let kept = maps.half_open.entries(&maps.config.get().unwrap());
    let left = kept.iter().filter(|(key, _)| [key.a, key.b].contains(&Addr::v4(QUIET))).count();
    assert!(left < 40, "{left} of 400 are left: the test of the limit shows nothing");
}
