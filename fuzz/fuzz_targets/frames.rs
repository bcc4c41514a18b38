//! Frames, in sequences, through the whole native path: no panic, whatever they hold, and the fast lane says what the
//! parser says.
#![no_main]

use datapath::abi::packet::Trace;
use datapath::abi::{Config, Direction, Packet};
use datapath::frame::SliceFrame;
use datapath::judge::judge;
use datapath::weight::Weight;
use datapath::wire::{self, eth};
use datapath::{host, lane};
use libfuzzer_sys::fuzz_target;

#[path = "../inputs.rs"]
mod inputs;

fuzz_target!(|data: &[u8]| {
    let mut config = Config::new(16, 7);
    config.flags = Config::ENFORCE | Config::DEFAULT_ALLOW | Config::FIXED_CLOCK;
    let mut plane = host::plane(config);
    let mut trace = Trace::default();
    for bytes in &inputs::frames(data) {
        let frame = SliceFrame { bytes, ifindex: 1 };
        held_to_the_parser(&frame);
        plane.rules.config.fixed_now_ns += 1_000_000;
        judge(&frame, Direction::Ingress, &mut plane, || Some(&mut trace));
    }
});

fn held_to_the_parser(frame: &SliceFrame<'_>) {
    let read = match lane::link(frame) {
        Some((eth::IPV4, at)) => lane::ipv4(frame, at),
        Some((eth::IPV6, at)) => lane::ipv6(frame, at),
        _ => None,
    };
    let Some(lane) = read else {
        return;
    };
    let mut packet = Packet::default();
    assert_eq!(wire::parse(frame, &mut packet), Ok(()));
    assert_eq!((lane.key, lane.side, lane.weight), (packet.key, packet.side(), Weight::of(&packet)));
}
