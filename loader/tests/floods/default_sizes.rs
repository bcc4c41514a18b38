//! Storms at the sizes that a gateway has by default, each of several times the table it is aimed at, between any two packets
//! of a newcomer's handshake: as if all of it came within one round trip.

use crate::gateway::{
    CLIENT, Gateway, LIVING, SERVER, connect, fragments, segment, spoofed, spoofed_datagram, spoofed_syn,
};
use crate::identities::{bind, limit};
use datapath::abi::{Config, Limits, Reason};
use loader::{RunResult, Sizes};

/// So many times the table.
const TIMES: u32 = 4;
const NEWCOMER: u16 = 50_000;

fn gateway() -> Gateway {
    Gateway::of(Sizes::default())
}

/// Sends a storm of frames that differ in four bytes: `at` is where.
fn storm(gateway: &Gateway, template: &[u8], at: usize, packets: u32, bytes: fn(u32) -> [u8; 4]) {
    let mut frame = template.to_vec();
    for _ in 0..packets {
        let n = gateway.flooded.replace(gateway.flooded.get() + 1);
        frame[at..at + 4].copy_from_slice(&bytes(n));
        gateway.passes(&frame);
    }
}

const SOURCE: usize = 26;
const PORTS: usize = 34;

/// A source port and a destination port of its own for each packet.
fn ports(n: u32) -> [u8; 4] {
    ((n % 60_000 + 1_024) << 16 | (n / 60_000 + 1)).to_be_bytes()
}

fn attempts() -> u32 {
    TIMES * Sizes::default().half_open
}

/// A newcomer shakes hands with a storm between any two packets, while the living connection talks.
fn comes_in(gateway: &Gateway, storm: impl Fn(&Gateway)) {
    connect(gateway);
    for (from_client, flags, payload) in [
        (true, "S", &b""[..]),
        (false, "SA", b""),
        (true, "A", b""),
        (true, "A", b"question"),
        (false, "A", b"answer"),
    ] {
        gateway.passes(&segment(from_client, NEWCOMER, flags, payload));
        if payload.is_empty() {
            storm(gateway);
        }
        assert!(gateway.is_settled(&segment(true, LIVING, "A", b"question")), "off the fast lane");
    }
    assert!(gateway.connection(LIVING).is_some() && gateway.connection(NEWCOMER).is_some());
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn a_storm_of_syns_from_spoofed_sources_keeps_nobody_out_at_default_sizes() {
    let gateway = gateway();
    comes_in(&gateway, |gateway| storm(gateway, &spoofed_syn(0), SOURCE, attempts(), spoofed));
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn a_storm_of_syns_from_one_source_keeps_nobody_out_at_default_sizes() {
    let gateway = gateway();
    comes_in(&gateway, |gateway| storm(gateway, &spoofed_syn(0), PORTS, attempts(), ports));
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn a_storm_of_datagrams_keeps_nobody_out_at_default_sizes_and_its_events_are_bounded() {
    let gateway = gateway();
    comes_in(&gateway, |gateway| storm(gateway, &spoofed_datagram(0), SOURCE, attempts(), spoofed));
    // The living opens and shakes hands. Of the newcomer each of four packets opens: the storm has pushed the one before out.
    gateway.events_are_bounded(u64::from(gateway.flooded.get()) + 2 + 4);
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn a_storm_of_fragments_costs_no_datagram_whose_fragments_follow_each_other_at_default_sizes() {
    let gateway = gateway();
    connect(&gateway);
    let [first, _] = fragments(CLIENT, 1);
    // An eighth of the table between two fragments, several times the table in all.
    let between = Sizes::default().fragments / 8;
    for n in 0..TIMES * 8 {
        let [mine, rest] = fragments(CLIENT, n as u16 + 2);
        gateway.passes(&mine);
        storm(&gateway, &first, SOURCE, between, spoofed);
        gateway.passes(&rest);
    }
    assert!(gateway.is_settled(&segment(true, LIVING, "A", b"question")), "off the fast lane");
    assert_eq!(gateway.counted(Reason::FragmentOrphan), 0);
}

/// Where no connection is taken up in mid-stream, a SYN-ACK whose attempt was pushed out is one. A flood of strangers pushes out its
/// own; and where all places are taken the policy alone denies.
#[test]
#[ignore = "needs root: loads BPF programs"]
fn where_midstream_is_denied_a_flood_of_strangers_keeps_nobody_out() {
    for known in [true, false] {
        let gateway = gateway();
        let config = &gateway.kernel.maps().config;
        config.update(|config| config.flags |= Config::MIDSTREAM_DENY).unwrap();
        if known {
            bind(&gateway, CLIENT, 32, 5, 0);
            bind(&gateway, SERVER, 32, 6, 0);
        }
        assert_eq!(gateway.send(&segment(false, NEWCOMER, "SA", b"")), RunResult::XDP_DROP, "nobody asked");
        assert_eq!(gateway.counted(Reason::Midstream), 1);
        gateway.passes(&segment(true, NEWCOMER, "S", b""));
        for (from_client, flags) in [(false, "SA"), (true, "A"), (false, "A")] {
            storm(&gateway, &spoofed_syn(0), SOURCE, attempts(), spoofed);
            gateway.passes(&segment(from_client, NEWCOMER, flags, b""));
        }
        // Who is known was pushed out by nobody.
        let taken_up = gateway.audited(Reason::Midstream);
        assert_eq!(taken_up, if known { 0 } else { 3 }, "packets taken up in mid-stream");
    }
}

/// A limit leaves places even to those who are strangers too, if they came before.
#[test]
#[ignore = "needs root: loads BPF programs"]
fn a_limit_of_strangers_leaves_places() {
    let gateway = gateway();
    bind(&gateway, [0; 4], 0, 0, Limits::IDENTITY_HELD);
    limit(&gateway, 0, Sizes::default().half_open / 8);
    gateway.passes(&segment(true, NEWCOMER, "S", b""));
    let mut frame = spoofed_syn(0);
    for n in 0..attempts() {
        frame[SOURCE..SOURCE + 4].copy_from_slice(&spoofed(n));
        gateway.send(&frame);
    }
    let config = gateway.kernel.maps().config.get().unwrap();
    let kept = gateway.kernel.maps().half_open.entries(&config);
    assert!(kept.keys().any(|key| key.a_port == NEWCOMER || key.b_port == NEWCOMER));
    assert_eq!(kept.len() as u32, Sizes::default().half_open / 8);
}
