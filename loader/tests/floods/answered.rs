//! Floods that get answers, and those of who is blocked: neither reaches the tables of the living.

use crate::gateway::{
    CLIENT, FLOOD, Gateway, LIVING, SERVER, connect, flood_between, fragments, segment, spoofed,
    spoofed_datagram,
};
use datapath::abi::{Addr, Block, BlockVersions, NEVER, Reason};
use etherparse::PacketBuilder;
use loader::RunResult;

/// What a server that anybody may ask answers to a spoofed datagram.
fn answer(n: u32) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [2; 6]).ipv4(SERVER, spoofed(n), 64).udp(5_300, 1_024);
    builder.write(&mut frame, &[0; 64]).unwrap();
    frame
}

/// A question and its answer in turn.
fn asked_and_answered(n: u32) -> Vec<u8> {
    if n.is_multiple_of(2) { spoofed_datagram(n / 2) } else { answer(n / 2) }
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn a_spoofed_flood_that_gets_answers_evicts_nobody_and_keeps_nobody_out() {
    let gateway = Gateway::new();
    connect(&gateway);
    let newcomers = u64::from(flood_between(&gateway, asked_and_answered));
    let asked = u64::from(gateway.flooded.get()) / 2;
    assert_eq!(gateway.counted(Reason::Forwarded), 1 + newcomers + asked);
    let answered = gateway.kernel.maps().connections.entries().unwrap();
    assert_eq!(answered.len() as u64, 1 + newcomers, "the living and the newcomers");
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn a_flood_of_fragments_of_the_blocked_costs_no_datagram() {
    let gateway = Gateway::new();
    let block = Block { rule: 7, guards: 0, not_after_ns: NEVER };
    let versions = BlockVersions { since: 0, _pad: 0, old: Block::NONE, new: block };
    gateway.kernel.maps().blocklist.insert(&Addr::v4([172, 16, 0, 0]), 96 + 12, &versions).unwrap();
    connect(&gateway);
    let [first, second] = fragments(CLIENT, 1);
    gateway.passes(&first);
    while gateway.flooded.get() < FLOOD {
        gateway.flood(|n| fragments(spoofed(n), 1)[0].clone(), RunResult::XDP_DROP);
    }
    gateway.passes(&second);
    assert_eq!(gateway.counted(Reason::Blocklisted), u64::from(gateway.flooded.get()));
    assert_eq!(gateway.kernel.maps().fragments.len().unwrap(), 1);
    assert!(gateway.is_settled(&segment(true, LIVING, "A", b"question")), "off the fast lane");
}
