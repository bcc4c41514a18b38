//! A gateway without a policy, and the frames of those who flood it and of those who do not.

use datapath::abi::config::PortCounters;
use datapath::abi::{Config, Connection, Direction, Lost, Reason};
use etherparse::{IpFragOffset, IpNumber, Ipv4Header, PacketBuilder, TcpHeader};
use loader::{CpuPin, Kernel, LoadOptions, RunResult, Sizes};
use std::cell::Cell;

pub const CLIENT: [u8; 4] = [10, 1, 0, 2];
pub const SERVER: [u8; 4] = [10, 2, 0, 2];
/// Packets of a flood; the tables that they are aimed at have 1,024 to 4,096 entries.
pub const FLOOD: u32 = 20_000;
/// How many of them come between two packets of somebody else.
const BETWEEN: u32 = 40;
/// Events of one kind, reason and identity that a second may have.
pub const EVENTS: u32 = 100;

/// A gateway without a policy, and what was sent to it.
pub struct Gateway {
    pub kernel: Kernel,
    pin: CpuPin,
    sent: Cell<u64>,
    pub flooded: Cell<u32>,
}

impl Gateway {
    /// With small tables, so that each flood is many times larger than the table it is aimed at.
    pub fn new() -> Self {
        Self::of(Sizes::small())
    }

    pub fn of(sizes: Sizes) -> Self {
        // By this seed no newcomer has the slot of the living connection: who is answered may take it.
        let options = LoadOptions { sizes, hash_seed: Some(1), ..LoadOptions::default() };
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

    pub fn send(&self, frame: &[u8]) -> u32 {
        self.sent.set(self.sent.get() + 1);
        self.kernel.run_xdp(frame, 1).unwrap().action
    }

    pub fn passes(&self, frame: &[u8]) {
        assert_eq!(self.send(frame), RunResult::XDP_PASS);
    }

    /// Sends it and says whether its flow's record in the first level settled it.
    pub fn is_settled(&self, frame: &[u8]) -> bool {
        let config = &self.kernel.maps().config;
        config.update(|config| config.flags |= Config::TRACE).unwrap();
        self.passes(frame);
        config.update(|config| config.flags &= !Config::TRACE).unwrap();
        self.kernel.maps().trace_of(self.pin.cpu()).unwrap().expect("a trace").settled == 1
    }

    /// The next packets of a flood.
    pub fn flood(&self, frame: impl Fn(u32) -> Vec<u8>, action: u32) {
        for _ in 0..BETWEEN {
            let n = self.flooded.replace(self.flooded.get() + 1);
            assert_eq!(self.send(&frame(n)), action, "packet {n} of the flood");
        }
    }

    pub fn connection(&self, client_port: u16) -> Option<Connection> {
        let entries = self.kernel.maps().connections.entries().unwrap();
        let of = |key: &datapath::abi::FlowKey| key.a_port == client_port || key.b_port == client_port;
        entries.into_iter().find(|(key, _)| of(key)).map(|(_, conn)| conn)
    }

    /// Packets by reason; all together are all that were sent.
    pub fn counted(&self, reason: Reason) -> u64 {
        self.count(reason, false)
    }

    /// Those that passed with verdict AUDIT.
    pub fn audited(&self, reason: Reason) -> u64 {
        self.count(reason, true)
    }

    fn count(&self, reason: Reason, audited: bool) -> u64 {
        let ports = self.kernel.maps().port_counters().unwrap();
        let counts = || ports.iter().map(|port| &port.counts[Direction::Ingress as usize]);
        let all: u64 = counts().flatten().map(|count| count.packets).sum();
        assert_eq!(all, self.sent.get(), "packets counted");
        counts().map(|counts| counts[PortCounters::index(reason as u8, audited)].packets).sum()
    }

    /// Every event that was due was sent, or counted with the reason why not; of a storm no more than its budget went up.
    pub fn events_are_bounded(&self, due: u64) {
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

pub fn segment(from_client: bool, client_port: u16, flags: &str, payload: &[u8]) -> Vec<u8> {
    let (src, dst) = if from_client { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
    let ports = if from_client { (client_port, 443) } else { (443, client_port) };
    let (mine, theirs) = if from_client { (1_000, 9_000) } else { (9_000, 1_000) };
    let syn = flags.contains('S');
    let mut tcp = TcpHeader::new(ports.0, ports.1, if syn { mine } else { mine + 1 }, 64_000);
    tcp.syn = syn;
    tcp.ack = flags.contains('A');
    tcp.rst = flags.contains('R');
    tcp.acknowledgment_number = if tcp.ack { theirs + 1 } else { 0 };
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [2; 6]).ipv4(src, dst, 64).tcp_header(tcp);
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// A source of its own for each packet.
pub fn spoofed(n: u32) -> [u8; 4] {
    let [_, a, b, c] = n.to_be_bytes();
    [172, 16 + a, b, c]
}

pub fn spoofed_syn(n: u32) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder =
        PacketBuilder::ethernet2([2; 6], [2; 6]).ipv4(spoofed(n), SERVER, 64).tcp(1_024, 443, n, 64_000);
    builder.syn().write(&mut frame, &[]).unwrap();
    frame
}

pub fn spoofed_datagram(n: u32) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [2; 6]).ipv4(spoofed(n), SERVER, 64).udp(1_024, 5_300);
    builder.write(&mut frame, &[0; 16]).unwrap();
    frame
}

/// A datagram of 64 bytes in two fragments.
pub fn fragments(src: [u8; 4], id: u16) -> [Vec<u8>; 2] {
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

pub const LIVING: u16 = 40_000;

/// Opens the connection that has to live, until its data is settled both ways.
pub fn connect(gateway: &Gateway) {
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
pub fn flood_between(gateway: &Gateway, frame: impl Fn(u32) -> Vec<u8>) -> u16 {
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
