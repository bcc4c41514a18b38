//! TLS and QUIC tracking: one connection whose payloads are whatever they are. No panic, an outcome that is final stays, no
//! more pieces of a hello than are allowed, and what was handed up can be read.
#![no_main]

use datapath::abi::packet::Trace;
use datapath::abi::{Config, Connection, Direction, HelloSegment, TlsState};
use datapath::frame::SliceFrame;
use datapath::host;
use datapath::judge::judge;
use libfuzzer_sys::fuzz_target;

#[path = "../inputs.rs"]
#[allow(dead_code, unused_imports)]
mod inputs;

// The module alone: see `capture.rs`.
#[path = "../../controller/src/hello/mod.rs"]
#[allow(dead_code, unused_imports)]
mod hello;

fuzz_target!(|data: &[u8]| {
    let mut config = Config::new(16, 7);
    config.flags = Config::ENFORCE | Config::DEFAULT_ALLOW | Config::FIXED_CLOCK;
    let mut plane = host::plane(config);
    let mut trace = Trace::default();
    let mut hellos = hello::Hellos::with_room(4);
    let (mut pieces, mut told) = (0, 0);
    let mut outcome = None;
    for bytes in &inputs::conversation(data) {
        plane.rules.config.fixed_now_ns += 1_000_000;
        judge(&SliceFrame { bytes, ifindex: 1 }, Direction::Ingress, &mut plane, || Some(&mut trace));
        let answered = plane.connections.entries.values().copied();
        let half_open = plane.half_open.entries.values().map(|attempt| attempt.connection);
        for conn in answered.chain(half_open) {
            stays(&mut outcome, &conn);
        }
        for piece in plane.sink.hellos.drain(..) {
            pieces += usize::from(piece.length != 0);
            told += hellos.take(&piece).len();
        }
    }
    assert!(pieces <= usize::from(HelloSegment::MAX));
    told += hellos.give_up(u64::MAX).len();
    assert_eq!(told, usize::from(pieces != 0));
});

fn stays(outcome: &mut Option<TlsState>, conn: &Connection) {
    if let Some(known) = *outcome {
        assert_eq!(conn.tls_state(), known);
    } else if conn.tls_state().is_final() {
        *outcome = Some(conn.tls_state());
    }
}
