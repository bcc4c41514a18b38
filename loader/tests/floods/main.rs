//! Floods against the loaded program: who is connected stays connected and on the fast lane, who comes new gets in, and
//! every packet is counted.

mod answered;
mod default_sizes;
mod gateway;
mod identities;
mod lookups;
mod strangers;

use datapath::abi::Reason;
use gateway::{
    CLIENT, FLOOD, Gateway, LIVING, connect, flood_between, fragments, segment, spoofed, spoofed_datagram,
    spoofed_syn,
};
use loader::RunResult;

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
