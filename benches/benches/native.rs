//! The packet path on host tables: what replay and simulation pay for a frame.

use criterion::{BatchSize, Criterion};
use datapath::abi::packet::Trace;
use datapath::abi::{Action, Config, Direction};
use datapath::frame::SliceFrame;
use datapath::host::{self, Host};
use datapath::judge::judge;
use datapath::tables::Plane;
use std::hint::black_box;
use tidegate_benches::frames::{Segment, Stream};
use tidegate_benches::scene;

const SLOTS: u32 = 65_536;

fn plane() -> Plane<Host> {
    let mut config = Config::new(SLOTS, 0x5eed);
    scene::configure(&mut config);
    config.flags |= Config::FIXED_CLOCK;
    config.fixed_now_ns = 1_000_000_000;
    let mut plane = host::plane(config);
    for (addr, bits, versions) in scene::bindings() {
        plane.rules.bindings.insert(addr.octets(), bits, versions);
    }
    for (addr, bits, versions) in scene::blocks() {
        plane.rules.blocklist.insert(addr.octets(), bits, versions);
    }
    for (key, bits, versions) in scene::decisions() {
        plane.rules.policy.insert(key.bytes, bits, versions);
    }
    plane
}

fn run(plane: &mut Plane<Host>, frame: &[u8], trace: &mut Trace) -> Action {
    judge(&SliceFrame { bytes: frame, ifindex: 1 }, Direction::Ingress, plane, || Some(trace))
}

fn frame(stream: &Stream, segment: Segment) -> Vec<u8> {
    stream.frame(segment).expect("the benches' frames can be written")
}

/// Opens the connection and returns a frame that is settled.
fn established(plane: &mut Plane<Host>, stream: &Stream) -> Vec<u8> {
    let mut trace = Trace::default();
    for frame in stream.opening().expect("the benches' frames can be written") {
        assert_eq!(run(plane, &frame, &mut trace), Action::Forwarded);
    }
    let data = frame(stream, Segment::Data);
    plane.rules.config.flags |= Config::TRACE;
    run(plane, &data, &mut trace);
    plane.rules.config.flags &= !Config::TRACE;
    assert_eq!(trace.settled, 1, "the hot path is what is measured");
    data
}

fn native(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("judge");
    let mut trace = Trace::default();
    for (name, stream) in [
        ("established IPv4", scene::ipv4()),
        ("established IPv6", scene::ipv6()),
        ("established VLAN", scene::tagged()),
    ] {
        let mut plane = plane();
        let data = established(&mut plane, &stream);
        group.bench_function(name, |bencher| bencher.iter(|| run(&mut plane, black_box(&data), &mut trace)));
    }

    let mut blocked = plane();
    let data = frame(&scene::blocked(), Segment::Data);
    assert_eq!(run(&mut blocked, &data, &mut trace), Action::Dropped);
    group.bench_function("blocklisted source", |bencher| {
        bencher.iter(|| run(&mut blocked, black_box(&data), &mut trace))
    });

    let syns: Vec<_> = (0..1_000).map(|n| frame(&scene::nth(n), Segment::Syn)).collect();
    group.bench_function("1000 new flows", |bencher| {
        let open = |mut plane: Plane<Host>| {
            for syn in &syns {
                black_box(run(&mut plane, syn, &mut trace));
            }
            plane
        };
        bencher.iter_batched(plane, open, BatchSize::LargeInput);
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    native(&mut criterion);
    criterion.final_summary();
}
