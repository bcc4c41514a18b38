//! One identity floods: with a limit it keeps nobody out.

use crate::gateway::{FLOOD, Gateway, LIVING, SERVER, connect, segment};
use datapath::abi::{
    Addr, Binding, BindingVersions, LimitOf, LimitVersions, Limits, Reason, RuleSettings, RuleVersions,
};
use etherparse::PacketBuilder;
use loader::RunResult;

const NOISY: [u8; 4] = [10, 1, 0, 66];
const QUIET: [u8; 4] = [10, 1, 0, 7];
const NOISY_ID: u32 = 5;
/// Unanswered connections that it may have at once.
const ATTEMPTS: u32 = 100;

/// Binds a prefix; `limits` says whether its identity has a limit.
pub fn bind(gateway: &Gateway, addr: [u8; 4], bits: u32, identity: u32, limits: u32) {
    let limits = (limits >> Limits::IDENTITY_SHIFT) as u8;
    let new = Binding { identity, class: u32::from(identity != 0), limits, ..Binding::NONE };
    let versions = BindingVersions { since: 0, _pad: 0, old: Binding::NONE, new };
    gateway.kernel.maps().bindings.insert(&Addr::v4(addr), 96 + bits, &versions).unwrap();
}

/// An identity may have so many attempts at once.
pub fn limit(gateway: &Gateway, identity: u32, max_attempts: u32) {
    limit_to(gateway, identity, RuleSettings { max_attempts, ..RuleSettings::NONE });
}

/// An identity may have so much at once.
fn limit_to(gateway: &Gateway, identity: u32, new: RuleSettings) {
    const RULE: u32 = 9;
    let maps = gateway.kernel.maps();
    let versions = RuleVersions { since: 0, _pad: 0, old: RuleSettings::NONE, new };
    maps.rules.insert(&RULE, 32, &versions).unwrap();
    let versions = LimitVersions { since: 0, _pad: 0, old: LimitOf::NONE, new: LimitOf::of(RULE) };
    maps.limits.insert(&identity, 32, &versions).unwrap();
}

/// Two identities, of which one may have so many attempts at once.
fn limit_the_noisy(gateway: &Gateway) {
    bind(gateway, NOISY, 32, NOISY_ID, Limits::IDENTITY_HELD);
    bind(gateway, QUIET, 32, 6, 0);
    limit(gateway, NOISY_ID, ATTEMPTS);
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

/// The rest of a handshake that [`syn`] began.
fn handshake(src: [u8; 4], n: u32) -> [Vec<u8>; 2] {
    let ports = (10_000 + (n % 50_000) as u16, 443 + (n / 50_000) as u16);
    let (mut answer, mut last) = (Vec::new(), Vec::new());
    let ethernet = || PacketBuilder::ethernet2([2; 6], [2; 6]);
    let builder = ethernet().ipv4(SERVER, src, 64).tcp(ports.1, ports.0, 9_000, 64_000).syn().ack(n + 1);
    builder.write(&mut answer, &[]).unwrap();
    let builder = ethernet().ipv4(src, SERVER, 64).tcp(ports.0, ports.1, n + 1, 64_000).ack(9_001);
    builder.write(&mut last, &[]).unwrap();
    [answer, last]
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn an_identity_with_a_limit_of_connections_floods_with_handshakes_and_keeps_nobody_out() {
    const CONNECTIONS: u32 = 100;
    let gateway = Gateway::new();
    bind(&gateway, NOISY, 32, NOISY_ID, Limits::IDENTITY_HELD);
    bind(&gateway, QUIET, 32, 6, 0);
    limit_to(&gateway, NOISY_ID, RuleSettings { max_connections: CONNECTIONS, ..RuleSettings::NONE });
    let opens = |src, n| {
        gateway.passes(&syn(src, n));
        handshake(src, n).iter().for_each(|frame| gateway.passes(frame));
    };
    connect(&gateway);
    let mut others = 0;
    for n in 0..FLOOD {
        if n < CONNECTIONS {
            opens(NOISY, n);
        } else {
            assert_eq!(gateway.send(&syn(NOISY, n)), RunResult::XDP_DROP, "packet {n} of the flood");
        }
        if n % 50 == 0 {
            opens(QUIET, others);
            others += 1;
        }
    }
    // Another that was answered may have its slot.
    gateway.passes(&segment(true, LIVING, "A", b"question"));
    assert!(gateway.connection(LIVING).is_some());
    let kept = gateway.kernel.maps().connections.entries().unwrap();
    let of =
        |host: [u8; 4]| kept.keys().filter(|key| [key.a, key.b].contains(&Addr::v4(host))).count() as u32;
    assert_eq!((of(QUIET), of(NOISY)), (others, CONNECTIONS));
    let held = gateway.kernel.maps().holdings.get(&NOISY_ID).unwrap().unwrap().at(1_000_000_000);
    assert_eq!((held.attempts, held.answered), (0, u64::from(CONNECTIONS)));
    assert_eq!(gateway.counted(Reason::TooManyConnections), u64::from(FLOOD - CONNECTIONS));
}
