//! What need not be looked for: who is blocked, and connections that are not there.

use crate::gateway::{CLIENT, EVENTS, FLOOD, Gateway, LIVING, SERVER, connect, segment};
use datapath::abi::{
    Action, Addr, Binding, BindingVersions, Block, BlockVersions, Config, NEVER, Reason, ScopedKey, Tally,
};
use etherparse::{PacketBuilder, TcpHeader};
use loader::RunResult;

/// From a source that is blocked, each with ports of its own: SYNs and data in turn.
fn blocked(n: u32) -> Vec<u8> {
    let mut tcp = TcpHeader::new(1_024 + n as u16, (n >> 3) as u16, n, 64_000);
    (tcp.syn, tcp.ack) = (n.is_multiple_of(2), !n.is_multiple_of(2));
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [2; 6]).ipv4([192, 0, 2, 66], SERVER, 64).tcp_header(tcp);
    builder.write(&mut frame, &[]).unwrap();
    frame
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn a_flood_from_a_blocked_source_is_counted_and_leaves_nothing_behind() {
    let gateway = Gateway::new();
    let maps = gateway.kernel.maps();
    let block = Block { rule: 7, guards: 0, not_after_ns: NEVER };
    let versions = BlockVersions { since: 0, _pad: 0, old: Block::NONE, new: block };
    maps.blocklist.insert(&Addr::v4([192, 0, 2, 66]), 128, &versions).unwrap();
    connect(&gateway);
    while gateway.flooded.get() < FLOOD {
        gateway.flood(blocked, RunResult::XDP_DROP);
        assert!(gateway.is_settled(&segment(true, LIVING, "A", b"question")), "off the fast lane");
    }
    let flooded = u64::from(gateway.flooded.get());
    assert_eq!(gateway.counted(Reason::Blocklisted), flooded);
    assert_eq!(maps.tally(Tally::Opened).unwrap(), 1, "the living connection alone");
    gateway.events_are_bounded(2 + flooded);
    // The block ends: so does what was remembered of it, and the next packet is judged anew.
    let ended = Block { not_after_ns: 1_000_000_000, ..block };
    let versions = BlockVersions { since: 0, _pad: 0, old: Block::NONE, new: ended };
    maps.blocklist.insert(&Addr::v4([192, 0, 2, 66]), 128, &versions).unwrap();
    maps.forget_lookups().unwrap();
    gateway.passes(&blocked(FLOOD * 2));
}

/// Another has the client's address on VLAN 10: the keys of that one's flows have a zone.
fn place_the_client(gateway: &Gateway) {
    let maps = gateway.kernel.maps();
    let bind = |new| BindingVersions { since: 0, _pad: 0, old: Binding::NONE, new };
    let everywhere = Binding { identity: 11, class: 4, on_expiry: Binding::ASKS_VLAN, ..Binding::NONE };
    maps.bindings.insert(&Addr::v4(CLIENT), 128, &bind(everywhere)).unwrap();
    let tenant = Binding { identity: 12, class: 4, ..Binding::NONE };
    for segment in [datapath::scope::segment(0, 10), ScopedKey::SOMEWHERE] {
        let key = ScopedKey::new(segment, &Addr::v4(CLIENT), 0);
        maps.scoped.insert(&key, ScopedKey::SEGMENT_BITS + 128, &bind(tenant)).unwrap();
    }
    maps.config.update(|config| config.flags |= Config::SCOPED).unwrap();
}

/// The frame, on VLAN 10.
fn on_ten(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, 10], &frame[12..]].concat()
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn a_flow_whose_end_has_a_place_is_cut_in_its_record_however_many_events_there_were() {
    let gateway = Gateway::new();
    let maps = gateway.kernel.maps();
    place_the_client(&gateway);
    let data = on_ten(&segment(true, LIVING, "A", b"question"));
    for (from_client, flags) in [(true, "S"), (false, "SA"), (true, "A")] {
        let frame = segment(from_client, LIVING, flags, b"");
        gateway.passes(&if from_client { on_ten(&frame) } else { frame });
    }
    gateway.passes(&data);
    let block = Block { rule: 7, guards: 0, not_after_ns: NEVER };
    let versions = BlockVersions { since: 0, _pad: 0, old: Block::NONE, new: block };
    maps.blocklist.insert(&Addr::v4(CLIENT), 128, &versions).unwrap();
    maps.config.update(|config| config.epoch += 1).unwrap();
    for port in 0..EVENTS as u16 * 2 {
        // From who has the address elsewhere: of that one no event tells any more.
        assert_eq!(gateway.send(&segment(true, 50_000 + port, "S", b"")), RunResult::XDP_DROP);
    }
    assert_eq!(gateway.send(&data), RunResult::XDP_DROP);
    let flows = maps.flow_records().unwrap();
    let of = |port| flows.iter().find(|flow| flow.key.a_port == port || flow.key.b_port == port);
    let record = of(LIVING).expect("the flow").record;
    assert_eq!((record.action, record.reason), (Action::Dropped as u8, Reason::Blocklisted as u8));
    assert_eq!(record.packets.iter().sum::<u64>(), 5, "the one that was cut is the flow's");
    assert_eq!(gateway.counted(Reason::Blocklisted), u64::from(EVENTS) * 2 + 1);
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn a_syn_finds_the_answered_connection_of_its_key_by_filters_old_and_new() {
    let gateway = Gateway::new();
    let maps = gateway.kernel.maps();
    let bits = || maps.half_open.answered_bits(&maps.config.get().unwrap());
    let again = |seq: u32| {
        let mut frame = segment(true, LIVING, "S", b"");
        frame[38..42].copy_from_slice(&seq.to_be_bytes());
        frame
    };
    connect(&gateway);
    assert_eq!(bits(), 1);
    for flips in 0..4 {
        for _ in 0..flips {
            maps.filter_answered_anew().unwrap();
            assert_eq!(bits(), 1, "the connection is noted again");
        }
        // It closes, and its key is used again: the old one is reported.
        gateway.passes(&segment(true, LIVING, "RA", b""));
        gateway.passes(&again(77_000 + flips));
        assert_eq!(maps.tally(Tally::Replaced).unwrap(), u64::from(flips) + 1, "after {flips} flips");
        assert!(gateway.connection(LIVING).is_none(), "the new one is an attempt");
        maps.half_open.clear();
        connect(&gateway);
    }
    // One that is no more is forgotten by the next filters.
    for key in maps.connections.keys().unwrap() {
        maps.connections.remove(&key).unwrap();
    }
    maps.filter_answered_anew().unwrap();
    assert_eq!(bits(), 0);
}
