//! Frames, in sequences, through the whole native path under policies of several kinds: no panic, whatever they hold; the fast lane and
//! the reading in one go say what the parser says; and what is rejected is answered.
#![no_main]

use datapath::abi::packet::Trace;
use datapath::abi::{
    Action, Addr, Binding, BindingVersions, Config, Decision, DecisionVersions, Direction, Limits, Packet,
    PolicyKey, Rate, RuleSettings, RuleVersions, ScopedKey, Unit,
};
use datapath::frame::{BufferFrame, SliceFrame};
use datapath::host::HostRules;
use datapath::judge::judge;
use datapath::weight::Weight;
use datapath::wire::{self, eth};
use datapath::{host, lane, reject};
use libfuzzer_sys::fuzz_target;

#[path = "../inputs.rs"]
mod inputs;

const SECOND: u64 = 1_000_000_000;
/// The rule's number.
const RULE: u32 = 42;

fuzz_target!(|data: &[u8]| {
    let (bits, frames) = inputs::frames(data);
    let mut plane = host::plane(config(bits));
    write_policy(&mut plane.rules, bits);
    let mut trace = Trace::default();
    for bytes in &frames {
        let frame = SliceFrame { bytes, ifindex: 1 };
        held_to_the_parser(&frame);
        plane.rules.config.fixed_now_ns += 1_000_000;
        let action = judge(&frame, Direction::Ingress, &mut plane, || Some(&mut trace));
        if action == Action::Dropped {
            let mut buffer = BufferFrame { bytes: bytes.clone(), ifindex: 1 };
            reject::answer(&mut buffer, &mut plane, &trace);
        }
    }
});

fn config(bits: u8) -> Config {
    let mut config = Config::new(16, 7);
    let when = |bit: u8, flags: u32| if bits & bit != 0 { flags } else { 0 };
    config.flags = Config::FIXED_CLOCK
        | when(inputs::INSPECTS, Config::INSPECT)
        | when(inputs::SCOPED, Config::SCOPED)
        | when(inputs::REJECTS, Config::REJECT)
        | when(inputs::FROM_THE_BEGINNING, Config::MIDSTREAM_DENY);
    if bits & inputs::MONITORS == 0 {
        config.flags |= Config::ENFORCE;
    }
    if bits & inputs::DENIES == 0 {
        config.flags |= Config::DEFAULT_ALLOW;
    }
    config
}

/// Clients (class 1) may reach servers (class 2) by any protocol but UDP, with limits where `bits` says so.
fn write_policy(rules: &mut HostRules, bits: u8) {
    let new = |identity, class, on_expiry| Binding { identity, class, on_expiry, ..Binding::NONE };
    let versions = |new| BindingVersions { since: 0, _pad: 0, old: Binding::NONE, new };
    let asks = if bits & inputs::SCOPED != 0 { Binding::ASKS_VLAN } else { 0 };
    rules.bindings.insert(Addr::v4([10, 1, 0, 0]).octets(), 96 + 16, versions(new(11, 1, asks)));
    rules.bindings.insert(Addr::v4([10, 2, 0, 0]).octets(), 96 + 16, versions(new(12, 2, 0)));
    rules.bindings.insert(
        Addr::v6([0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).octets(),
        64,
        versions(new(11, 1, 0)),
    );
    rules.bindings.insert(
        Addr::v6([0xfd, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).octets(),
        64,
        versions(new(12, 2, 0)),
    );
    for segment in [datapath::scope::segment(0, 5), ScopedKey::SOMEWHERE] {
        let key = ScopedKey::new(segment, &Addr::v4([10, 1, 0, 2]), 0);
        rules.scoped.insert(bytemuck::cast(key), ScopedKey::SEGMENT_BITS + 128, versions(new(13, 1, 0)));
    }
    let limits = match bits & inputs::LIMITS {
        0 => 0,
        _ => Limits::TLS_REQUIRED | Limits::RATE | Limits::LIFETIME,
    };
    let rejects = if bits & inputs::REJECTS != 0 { Limits::REJECT } else { 0 };
    for (proto, action, limits) in
        [(6, Decision::ALLOW, limits), (1, Decision::ALLOW, limits & !1), (17, Decision::DENY, rejects)]
    {
        let new = Decision { rule: RULE, action, limits: limits as u8, ..Decision::NONE };
        let versions = DecisionVersions { since: 0, _pad: 0, old: Decision::NONE, new };
        rules.policy.insert(PolicyKey::new(1, 2, proto, 0).bytes, PolicyKey::PROTOCOL_BITS, versions);
    }
    let mut settings = RuleSettings { lifetime_ns: SECOND, ..RuleSettings::NONE };
    settings.rates[Unit::Packets as usize] = Rate::new(2, SECOND, 3);
    rules.rules.insert(RULE, RuleVersions { since: 0, _pad: 0, old: RuleSettings::NONE, new: settings });
}

fn held_to_the_parser(frame: &SliceFrame<'_>) {
    let mut parsed = Packet::default();
    let answer = wire::parse(frame, &mut parsed);
    let mut plain = Packet::default();
    if wire::plain::read(frame, &mut plain) {
        assert_eq!((wire::tcp::announced(frame, &mut plain), plain), (answer, parsed));
    }
    let read = match lane::link(frame) {
        Some((eth::IPV4, at)) => lane::ipv4(frame, at),
        Some((eth::IPV6, at)) => lane::ipv6(frame, at),
        _ => None,
    };
    let Some(lane) = read else {
        return;
    };
    assert_eq!(answer, Ok(()));
    assert_eq!((lane.key, lane.side, lane.weight), (parsed.key, parsed.side(), Weight::of(&parsed)));
}
