//! ClientHellos in user space: pieces as they come up, and CRYPTO frames that were sealed as a client would. Nothing panics,
//! and each hello is told once.
#![no_main]

use datapath::abi::{FlowKey, HandshakeKind, HelloSegment};
use libfuzzer_sys::fuzz_target;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::{Keys, Version};

// The module alone: see `capture.rs`.
#[path = "../../controller/src/hello/mod.rs"]
#[allow(dead_code, unused_imports)]
mod hello;

const ID: [u8; 8] = [7; 8];

// The first byte says what carries the hello; then pieces, each behind its offset and its length, two bytes each.
fuzz_target!(|data: &[u8]| {
    let Some((&kind, mut rest)) = data.split_first() else { return };
    let mut hellos = hello::Hellos::with_room(4);
    let (mut told, mut number) = (0, 0u8);
    while let [a, b, c, d, tail @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*c, *d])).min(tail.len()).min(1_200);
        let (bytes, after) = tail.split_at(length);
        rest = after;
        let offset = u16::from_le_bytes([*a, *b]);
        let piece = match kind % 3 {
            0 => piece(HandshakeKind::Tls, offset.into(), number, bytes),
            1 => piece(HandshakeKind::Quic, offset.into(), number, bytes),
            _ => piece(HandshakeKind::Quic, 0, number, &sealed(number, bytes)),
        };
        told += hellos.take(&piece).len();
        number = number.wrapping_add(1);
    }
    told += hellos.give_up(u64::MAX).len();
    assert!(told <= 1);
});

fn piece(kind: HandshakeKind, offset: u32, number: u8, bytes: &[u8]) -> HelloSegment {
    let mut piece: HelloSegment = bytemuck::Zeroable::zeroed();
    piece.key = FlowKey { a_port: 1, family: 4, ..FlowKey::default() };
    (piece.hello_ns, piece.kind, piece.offset, piece.number) = (5, kind as u8, offset, number);
    piece.length = bytes.len() as u32;
    piece.bytes[..bytes.len()].copy_from_slice(bytes);
    piece
}

/// An Initial packet with these frames (RFC 9000, section 17.2.2; RFC 9001, section 5).
fn sealed(number: u8, frames: &[u8]) -> Vec<u8> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("a suite of TLS 1.3");
    let quic = suite.quic.expect("QUIC");
    let keys = Keys::initial(Version::V1, suite, quic, &ID, rustls::Side::Client).local;
    let mut payload = frames.to_vec();
    payload.resize(payload.len().max(20), 0);
    let mut packet = [&[0xc0, 0, 0, 0, 1, 8][..], &ID, &[0, 0]].concat();
    packet.extend(((payload.len() + 17) as u16 | 0x4000).to_be_bytes());
    let at = packet.len();
    packet.push(number);
    let tag = keys.packet.encrypt_in_place(number.into(), &packet, &mut payload).expect("room");
    packet.extend(&payload);
    packet.extend(tag.as_ref());
    let sample = packet[at + 4..at + 20].to_vec();
    let (head, rest) = packet.split_at_mut(at);
    keys.header.encrypt_in_place(&sample, &mut head[0], &mut rest[..1]).expect("a sample");
    packet
}
