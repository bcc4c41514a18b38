//! ClientHellos on their way up, by the loaded programs.

use datapath::abi::{Config, Direction, HandshakeKind, HelloSegment, Lost};
use etherparse::PacketBuilder;
use loader::{Kernel, LoadOptions, Sizes};

const CLIENT: ([u8; 4], u16) = ([10, 1, 0, 2], 40_000);
const SERVER: ([u8; 4], u16) = ([10, 2, 0, 3], 443);

fn segment(from_client: bool, flags: &str, seq: u32, payload: &[u8]) -> Vec<u8> {
    let (src, dst) = if from_client { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
    let mut builder =
        PacketBuilder::ethernet2([2; 6], [2; 6]).ipv4(src.0, dst.0, 64).tcp(src.1, dst.1, seq, 64_000);
    if flags.contains('S') {
        builder = builder.syn();
    }
    if flags.contains('A') {
        builder = builder.ack(1);
    }
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// A handshake record of so many bytes that begins as a ClientHello does, each byte another.
fn hello(bytes: usize) -> Vec<u8> {
    let length = (bytes as u16).to_be_bytes();
    let mut record = vec![22, 3, 1, length[0], length[1], 1, 0];
    record.extend((7..bytes + 5).map(|i| (i * 7 % 251) as u8));
    record
}

/// Runs the frames; returns the pieces of TLS that came up: offset and bytes.
fn pieces(kernel: &Kernel, direction: Direction, frames: &[Vec<u8>]) -> Vec<(u32, Vec<u8>)> {
    let pieces = pieces_of(kernel, direction, frames, HandshakeKind::Tls);
    pieces.into_iter().map(|(_, offset, bytes)| (offset, bytes)).collect()
}

/// The same of a kind of handshake: number, offset and bytes.
fn pieces_of(
    kernel: &Kernel,
    direction: Direction,
    frames: &[Vec<u8>],
    kind: HandshakeKind,
) -> Vec<(u8, u32, Vec<u8>)> {
    for frame in frames {
        match direction {
            Direction::Ingress => kernel.run_xdp(frame, 1).unwrap(),
            Direction::Egress => kernel.run_tc(frame, 0, 1).unwrap(),
        };
    }
    let mut found = Vec::new();
    kernel.maps().hellos().unwrap().drain(|bytes| {
        let piece: HelloSegment = bytemuck::pod_read_unaligned(bytes);
        assert_eq!(piece.kind, kind as u8);
        assert_eq!(piece.key.end(datapath::abi::Side::A).0.to_ip().to_string(), "10.1.0.2");
        assert_eq!((piece.originator, piece.hello_ns != 0), (0, true));
        found.push((piece.number, piece.offset, piece.payload().to_vec()));
    });
    found
}

fn loaded(sizes: Sizes) -> Kernel {
    let kernel = Kernel::load(&LoadOptions { sizes, ..LoadOptions::default() }).unwrap();
    kernel.maps().config.update(|config| config.flags |= Config::ENFORCE).unwrap();
    kernel
}

fn opening() -> Vec<Vec<u8>> {
    vec![segment(true, "S", 1000, b""), segment(false, "SA", 9000, b""), segment(true, "A", 1001, b"")]
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn both_programs_hand_up_every_byte_of_a_hello() {
    for direction in [Direction::Ingress, Direction::Egress] {
        let kernel = loaded(Sizes::small());
        let whole = hello(3_300);
        let (first, second) = whole.split_at(3_000); // more than one piece holds
        let mut frames = opening();
        frames.push(segment(true, "A", 1001, first));
        frames.push(segment(true, "A", 4001, second));
        frames.push(segment(true, "A", 4001, second)); // sent again
        frames.push(segment(false, "A", 9001, &[22, 3, 3, 0, 2, 2, 0]));
        frames.push(segment(true, "A", 4306, b"after the answer nothing goes up"));
        let piece = HelloSegment::BYTES;
        let expected = vec![
            (0, first[..piece].to_vec()),
            (piece as u32, first[piece..2 * piece].to_vec()),
            (2 * piece as u32, first[2 * piece..].to_vec()),
            (3_000, second.to_vec()),
            (3_000, second.to_vec()),
        ];
        assert_eq!(pieces(&kernel, direction, &frames), expected, "{direction:?}");
        assert_eq!(kernel.maps().lost_events(Lost::Hello).unwrap(), 0);
    }
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn a_connection_hands_up_so_many_pieces_and_no_more() {
    let kernel = loaded(Sizes::small());
    let mut frames = opening();
    frames.push(segment(true, "A", 1001, &hello(100)));
    frames.extend((0..40).map(|i| segment(true, "A", 1106 + i * 10, b"\x17\x03\x03\x00\x05early")));
    let found = pieces(&kernel, Direction::Ingress, &frames);
    assert_eq!(found.len(), usize::from(HelloSegment::MAX));
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn a_full_ring_buffer_loses_hellos_counted_and_no_event() {
    let kernel = loaded(Sizes { hello_bytes: 4096, ..Sizes::small() });
    let mut frames = opening();
    let whole = hello(8_000);
    frames.extend(
        whole.chunks(1_400).enumerate().map(|(i, part)| segment(true, "A", 1001 + i as u32 * 1_400, part)),
    );
    assert_eq!(pieces(&kernel, Direction::Ingress, &frames).len(), 2);
    assert_eq!(kernel.maps().lost_events(Lost::Hello).unwrap(), 4);
    assert_eq!(kernel.maps().lost_events(Lost::NoRoom).unwrap(), 0);
}

fn datagram(from_client: bool, payload: &[u8]) -> Vec<u8> {
    let (src, dst) = if from_client { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [2; 6]).ipv4(src.0, dst.0, 64).udp(src.1, dst.1);
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// A datagram of one Initial packet of a version of QUIC, each byte under protection another.
fn initial(version: u32, bytes: usize) -> Vec<u8> {
    let mut packet = [&[0xc0][..], &version.to_be_bytes(), &[8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0]].concat();
    packet.extend(((bytes - 18) as u16 | 0x4000).to_be_bytes());
    packet.extend((packet.len()..bytes).map(|i| (i * 7 % 251) as u8));
    packet
}

/// A Handshake packet of version 1.
fn handshake(bytes: usize) -> Vec<u8> {
    let header = [0xe0, 0, 0, 0, 1, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
    [&header[..], &((bytes - 17) as u16 | 0x4000).to_be_bytes(), &vec![0x5c; bytes - 17]].concat()
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn both_programs_hand_up_the_datagrams_of_a_quic_client_until_the_server_answers() {
    for direction in [Direction::Ingress, Direction::Egress] {
        let kernel = loaded(Sizes::small());
        let (first, third) = (initial(1, 1_200), initial(1, 1_300));
        let second = initial(1, 3_000); // more than two pieces hold
        let frames = [
            datagram(true, &first),
            datagram(true, &second),
            datagram(false, &initial(1, 50)), // an acknowledgement
            datagram(true, &third),
            datagram(false, &[initial(1, 150), handshake(900)].concat()),
            datagram(true, &initial(1, 1_200)), // after the answer nothing goes up
        ];
        let piece = HelloSegment::BYTES;
        let expected = [
            (0, 0, first.clone()),
            (1, 0, second[..piece].to_vec()),
            (2, piece as u32, second[piece..2 * piece].to_vec()),
            (3, 2 * piece as u32, second[2 * piece..].to_vec()),
            (4, 0, third.clone()),
        ];
        assert_eq!(pieces_of(&kernel, direction, &frames, HandshakeKind::Quic), expected, "{direction:?}");
    }
}

/// A packet of early data of version 1.
fn early(bytes: usize) -> Vec<u8> {
    let header = [0xd0, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0];
    [&header[..], &((bytes - 17) as u16 | 0x4000).to_be_bytes(), &vec![0x5c; bytes - 17]].concat()
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn early_data_that_overtakes_the_hello_of_quic_takes_no_place_of_its_pieces() {
    for direction in [Direction::Ingress, Direction::Egress] {
        let kernel = loaded(Sizes::small());
        let mut frames = vec![datagram(true, &early(1_200)); usize::from(HelloSegment::MAX) + 1];
        let whole = initial(1, 1_200);
        frames.extend([datagram(true, &whole), datagram(true, &early(1_200))]);
        let found = pieces_of(&kernel, direction, &frames, HandshakeKind::Quic);
        assert_eq!(found, [(0, 0, whole)], "{direction:?}");
    }
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn of_a_quic_version_that_nobody_knows_only_the_beginning_is_told() {
    let kernel = loaded(Sizes::small());
    let frames = [datagram(true, &initial(0x1a2a_3a4a, 1_200)), datagram(true, &initial(0x1a2a_3a4a, 1_200))];
    let found = pieces_of(&kernel, Direction::Ingress, &frames, HandshakeKind::Quic);
    assert_eq!(found, [(0, 0, Vec::new())]);
}

#[test]
#[ignore = "needs root: loads BPF programs"]
fn both_programs_hand_up_every_query_of_a_socket_and_so_many_a_second() {
    let query = |from_client: bool, payload: &[u8]| {
        let (client, server) = ((CLIENT.0, CLIENT.1), (SERVER.0, 53));
        let (src, dst) = if from_client { (client, server) } else { (server, client) };
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [2; 6]).ipv4(src.0, dst.0, 64).udp(src.1, dst.1);
        builder.write(&mut frame, payload).unwrap();
        frame
    };
    for direction in [Direction::Ingress, Direction::Egress] {
        // The second never ends.
        let sizes = Sizes { hello_bytes: 1 << 20, ..Sizes::small() };
        let options = LoadOptions { sizes, fixed_now_ns: Some(3_600_000_000_000), ..LoadOptions::default() };
        let kernel = Kernel::load(&options).unwrap();
        kernel.maps().config.update(|config| config.flags |= Config::ENFORCE).unwrap();
        let told = || -> Vec<Vec<u8>> {
            let mut found = Vec::new();
            kernel.maps().hellos().unwrap().drain(|bytes| {
                let piece: HelloSegment = bytemuck::pod_read_unaligned(bytes);
                assert_eq!(
                    (piece.kind, piece.originator, piece.number, piece.offset),
                    (HelloSegment::QUERY, 0, 0, 0)
                );
                found.push(piece.payload().to_vec());
            });
            found
        };
        let run = |frame: &[u8]| match direction {
            Direction::Ingress => drop(kernel.run_xdp(frame, 1).unwrap()),
            Direction::Egress => drop(kernel.run_tc(frame, 0, 1).unwrap()),
        };
        run(&query(true, b"first question"));
        run(&query(false, b"an answer"));
        run(&query(true, b"second question"));
        run(&query(true, b""));
        run(&query(true, &[7; 3000]));
        let expected =
            [b"first question".to_vec(), b"second question".to_vec(), vec![7; HelloSegment::BYTES]];
        assert_eq!(told(), expected, "{direction:?}");
        (0..300).for_each(|_| run(&query(true, b"again")));
        assert_eq!(told().len(), HelloSegment::QUERIES as usize - 3, "{direction:?}");
        assert_eq!(kernel.maps().lost_events(Lost::Queries).unwrap(), 47);
        assert_eq!(kernel.maps().lost_events(Lost::Limited).unwrap(), 0);
        assert_eq!(kernel.maps().lost_events(Lost::Hello).unwrap(), 0);
    }
}
