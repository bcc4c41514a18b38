//! Floods from who has no identity, where nobody without one may talk: turned away on the fast lane, and what may pass is not.

use crate::gateway::{CLIENT, EVENTS, FLOOD, Gateway, LIVING, SERVER, connect, segment};
use crate::identities::bind;
use datapath::abi::{Config, Decision, DecisionVersions, PolicyKey, Reason, Tally};
use etherparse::PacketBuilder;
use loader::RunResult;

const STRANGER: [u8; 4] = [192, 0, 2, 67];
/// The class that [`bind`] gives.
const CLASS: u32 = 1;
const NOBODY: u32 = 0;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Those who have an identity may talk to each other, and nobody else to anybody.
fn gateway() -> Gateway {
    let gateway = Gateway::new();
    bind(&gateway, CLIENT, 32, 5, 0);
    bind(&gateway, SERVER, 32, 6, 0);
    allow(&gateway, PolicyKey::new(CLASS, CLASS, TCP, 443));
    gateway
        .kernel
        .maps()
        .config
        .update(|config| {
            config.flags &= !Config::DEFAULT_ALLOW;
            config.flags |= Config::NOBODY_NAMED;
        })
        .unwrap();
    gateway
}

fn allow(gateway: &Gateway, key: PolicyKey) {
    let new = Decision { rule: 3, action: Decision::ALLOW, ..Decision::NONE };
    let versions = DecisionVersions { since: 0, _pad: 0, old: Decision::NONE, new };
    gateway.kernel.maps().policy.insert(&key, PolicyKey::FULL_BITS, &versions).unwrap();
}

fn set(gateway: &Gateway, change: impl Fn(&mut Config)) {
    gateway.kernel.maps().config.update(change).unwrap();
    gateway.kernel.maps().forget_lookups().unwrap();
}

/// SYNs and datagrams in turn, each with ports of its own.
fn knock(n: u32) -> Vec<u8> {
    let ports = (1_024 + (n % 50_000) as u16, 1_000 + (n / 50_000) as u16);
    if n.is_multiple_of(2) { syn(ports) } else { datagram(STRANGER, SERVER, ports) }
}

fn syn((from, to): (u16, u16)) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [2; 6]).ipv4(STRANGER, SERVER, 64);
    builder.tcp(from, to, 7, 64_000).syn().write(&mut frame, &[]).unwrap();
    frame
}

fn datagram(src: [u8; 4], dst: [u8; 4], (from, to): (u16, u16)) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [2; 6]).ipv4(src, dst, 64).udp(from, to);
    // Padded, as it is on the wire: the fast lane reads twenty bytes behind the IP header.
    builder.write(&mut frame, b"knock, and pads").unwrap();
    frame
}

/// So many that no event tells of any more.
fn knock_often(gateway: &Gateway) {
    while gateway.flooded.get() < FLOOD {
        gateway.flood(knock, RunResult::XDP_DROP);
    }
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn a_flood_of_a_stranger_is_counted_and_leaves_nothing_behind() {
    // With the rules asked, and without.
    for named in [Config::NOBODY_NAMED, 0] {
        let gateway = gateway();
        set(&gateway, |config| config.flags = config.flags & !Config::NOBODY_NAMED | named);
        connect(&gateway);
        while gateway.flooded.get() < FLOOD {
            gateway.flood(knock, RunResult::XDP_DROP);
            assert!(gateway.is_settled(&segment(true, LIVING, "A", b"question")), "off the fast lane");
        }
        let maps = gateway.kernel.maps();
        let flooded = gateway.flooded.get();
        assert_eq!(gateway.counted(Reason::InvalidIdentity), u64::from(flooded));
        assert_eq!(maps.tally(Tally::Opened).unwrap(), 1, "the living connection alone");
        assert!(maps.half_open.is_empty());
        let left = maps.flow_records().unwrap().len() as u32;
        assert!(left <= 1 + EVENTS, "{left} records: those of the living, and what was told of");
        gateway.events_are_bounded(2 + u64::from(flooded));
    }
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn a_rule_of_nobody_lets_a_stranger_in_however_often_it_has_knocked() {
    let gateway = gateway();
    knock_often(&gateway);
    allow(&gateway, PolicyKey::new(NOBODY, CLASS, TCP, 80));
    set(&gateway, |config| config.flags &= !Config::NOBODY_NAMED);
    assert_eq!(gateway.send(&syn((50_000, 81))), RunResult::XDP_DROP);
    gateway.passes(&syn((50_000, 80)));
    assert_eq!(gateway.counted(Reason::Forwarded), 1);
    assert_eq!(gateway.counted(Reason::InvalidIdentity), u64::from(FLOOD) + 1);
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn the_answer_of_a_stranger_passes_however_often_it_has_knocked() {
    let gateway = gateway();
    allow(&gateway, PolicyKey::new(CLASS, NOBODY, UDP, 53));
    knock_often(&gateway);
    gateway.passes(&datagram(SERVER, STRANGER, (40_053, 53)));
    gateway.passes(&datagram(STRANGER, SERVER, (53, 40_053)));
    // Of another socket it is no answer.
    assert_eq!(gateway.send(&datagram(STRANGER, SERVER, (53, 40_054))), RunResult::XDP_DROP);
    assert_eq!(gateway.counted(Reason::InvalidIdentity), u64::from(FLOOD) + 1);
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn who_has_to_be_told_no_is_told_however_often_it_has_knocked() {
    let gateway = gateway();
    knock_often(&gateway);
    set(&gateway, |config| config.flags |= Config::REJECT);
    assert_eq!(gateway.send(&syn((50_000, 443))), RunResult::XDP_TX);
    // In monitor mode it passes, and whatever was told before is judged again.
    set(&gateway, |config| config.flags &= !(Config::REJECT | Config::ENFORCE));
    gateway.passes(&syn((50_001, 443)));
    set(&gateway, |config| config.flags |= Config::ENFORCE);
    // An identity of its own, and it may.
    bind(&gateway, STRANGER, 32, 7, 0);
    set(&gateway, |config| config.epoch += 1);
    gateway.passes(&syn((50_002, 443)));
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn a_shadow_that_names_nobody_is_asked_of_strangers() {
    let gateway = gateway();
    let maps = gateway.kernel.maps();
    let new = Decision { rule: 9, action: Decision::ALLOW, ..Decision::NONE };
    let epoch = maps.config.get().unwrap().epoch;
    let versions = DecisionVersions { since: epoch + 1, _pad: 0, old: Decision::NONE, new };
    let key = PolicyKey::new(NOBODY, CLASS, TCP, 80);
    maps.policy.insert(&key, PolicyKey::FULL_BITS, &versions).unwrap();
    set(&gateway, |config| {
        config.flags |= Config::SHADOW;
        config.shadow_flags = Config::ENFORCE;
        config.shadow_threshold = u32::MAX;
    });
    assert_eq!(gateway.send(&syn((50_000, 80))), RunResult::XDP_DROP);
    let counted = maps.shadow.entries().unwrap();
    assert_eq!(counted.len(), 1, "{counted:?}");
    let differs = counted.keys().next().expect("the one that differs");
    assert_eq!((differs.old_rule, differs.new_rule), (0, 9));
}
