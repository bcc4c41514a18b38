//! Every capture that is made here, so that each is run on both engines.

use super::build::{
    Scene, Tcp, client_hello, fragments, handshake, message, ping, ping6, record, tagged, udp, udp6,
    with_extensions,
};

/// A connection in each of Zeek's states: the packets, the state, the history.
pub const STATES: [(&str, &str, &str); 18] = [
    ("S", "S0", "S"),
    ("ShA", "S1", "ShA"),
    ("ShADaFaf", "SF", "ShADaFf"),
    ("ShADadFfA", "SF", "ShADadFf"),
    ("Sr", "REJ", "Sr"),
    ("ShADFa", "S2", "ShADFa"),
    ("ShADf", "S3", "ShADf"),
    ("ShADR", "RSTO", "ShADR"),
    ("ShADr", "RSTR", "ShADr"),
    ("SR", "RSTOS0", "SR"),
    ("hr", "RSTRH", "^hr"),
    ("SF", "SH", "SF"),
    ("hf", "SHR", "^hf"),
    ("D", "OTH", "D"),
    ("Dd", "OTH", "Dd"),
    ("R", "OTH", "R"),
    ("DR", "OTH", "DR"),
    ("SDR", "RSTOS0", "SDR"),
];

pub fn tcp(letters: &str) -> Scene {
    Scene::default().frames(Tcp::to(8080).play(letters))
}

/// A TLS connection: its TCP handshake, then flights, upper case for the client.
pub fn tls(flights: &[(bool, Vec<Vec<u8>>)], close: &str) -> Scene {
    let mut tcp = Tcp::to(443);
    let mut scene = Scene::default().frames(tcp.play("ShA"));
    for (client, records) in flights {
        scene = scene.frame(tcp.send(*client, &records.concat()));
    }
    scene.frames(tcp.play(close))
}

pub const CLIENT_HELLO: u8 = 1;
pub const SERVER_HELLO: u8 = 2;

fn change_cipher_spec() -> Vec<u8> {
    record(20, &[1])
}

fn data(bytes: usize) -> Vec<u8> {
    record(23, &vec![0xda; bytes])
}

/// The name, the capture, how far TLS came, whether that is inferred, the alert.
pub fn tls_scenes() -> Vec<(&'static str, Scene, &'static str, bool, Option<u8>)> {
    let client_hello = || (true, vec![handshake(CLIENT_HELLO, 200)]);
    let server_12 = || (false, vec![handshake(SERVER_HELLO, 70), handshake(11, 250), handshake(14, 0)]);
    let finished = || record(22, &[0x77; 40]);
    let server_13 = || (false, vec![handshake(SERVER_HELLO, 90), change_cipher_spec(), data(30), data(600)]);
    let client_13 = || (true, vec![change_cipher_spec(), data(53), data(100)]);
    vec![
        (
            "tls 1.2 established",
            tls(
                &[
                    client_hello(),
                    server_12(),
                    (true, vec![handshake(16, 66), change_cipher_spec(), finished()]),
                    (false, vec![change_cipher_spec(), finished()]),
                    (true, vec![data(100)]),
                ],
                "FfA",
            ),
            "established",
            false,
            None,
        ),
        (
            "tls 1.2 refused by alert",
            tls(&[client_hello(), (false, vec![record(21, &[2, 40])])], "fFA"),
            "alert",
            false,
            Some(40),
        ),
        (
            "tls 1.3 established",
            tls(&[client_hello(), server_13(), client_13(), (false, vec![data(200)])], "FfA"),
            "established",
            true,
            None,
        ),
        (
            "tls 1.3 client certificate refused",
            tls(&[client_hello(), server_13(), client_13(), (false, vec![data(19)])], "fFA"),
            "alert",
            true,
            None,
        ),
        ("tls client hello without answer", tls(&[client_hello()], ""), "client_hello", false, None),
        ("tls cut after the client hello", tls(&[client_hello()], "r"), "aborted", false, None),
    ]
}

/// A hop-by-hop header and destination options, eight bytes each, of padding.
pub fn extension_headers() -> Scene {
    let padding: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];
    let atomic: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 9];
    Scene::default()
        .frame(with_extensions(&udp6(true, b"query"), &[(0, padding), (60, padding)]))
        .frame(with_extensions(&udp6(false, b"answer"), &[(44, atomic)]))
}

pub fn vlans() -> Scene {
    let frame = udp(true, b"query");
    Scene::default()
        .frame(tagged(&frame, &[(0x8100, 5)]))
        .frame(tagged(&frame, &[(0x88a8, 100), (0x8100, 200)]))
        .frame(tagged(&frame, &[(0x8100, 1), (0x8100, 2), (0x8100, 3)]))
        .frame(tagged(&frame, &[(0x8100, 1), (0x8100, 2), (0x8100, 3), (0x8100, 4)]))
}

pub fn fragmented() -> Scene {
    let parts = fragments(&udp(true, &[0x61; 100]), 48, 77);
    let orphan = fragments(&udp(true, &[0x61; 100]), 48, 78).remove(1);
    Scene::default().frames(parts).frame(orphan)
}

/// Shapes that no stack sends, one a frame.
pub fn malformed() -> Scene {
    let good = udp(true, b"query");
    let changed = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        frame
    };
    let mut unknown = good.clone();
    unknown[12..14].copy_from_slice(&[0x99, 0x99]);
    let mut tcp = Tcp::to(80);
    let mut no_flags = tcp.segment(true, "S", &[]);
    no_flags[47] = 0;
    let mut short_offset = tcp.segment(true, "S", &[]);
    short_offset[46] = 0x40;
    Scene::default()
        .frame(good[..13].to_vec())
        .frame(good[..20].to_vec())
        .frame(changed(14, 0x44))
        .frame(changed(14, 0x65))
        .frame(changed(16, 0x7f))
        .frame(changed(39, 200))
        .frame(udp6(true, b"x")[..50].to_vec())
        .frame(unknown)
        .frame(no_flags)
        .frame(short_offset)
        .frame(Vec::new())
}

pub fn link_control() -> Scene {
    let mut arp = vec![0xff; 6];
    arp.extend([2, 0, 0, 0, 0, 1, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.resize(60, 0);
    Scene::default().frame(arp)
}

/// One key, three connections: idle, then again, then a new SYN after the close.
pub fn incarnations() -> Scene {
    let mut again = Tcp { server_port: 8080, seq: [500_000, 700_000] };
    Scene::default()
        .frames(Tcp::to(8080).play("ShADaFfA"))
        .after(60)
        .frames(again.play("ShAD"))
        .frame(udp(true, b"one"))
        .after(61)
        .frame(udp(true, b"two"))
}

/// Longer than one page: several buffers in the kernel's test-run.
pub fn giant() -> Scene {
    let mut tcp = Tcp::to(8080);
    let start = Scene::default().frames(tcp.play("ShA"));
    start.frame(tcp.send(true, &[0x67; 60_000])).frame(tcp.send(false, &[0x68; 5_000]))
}

/// A hello whose bytes come in these segments, and then an answer.
pub fn hello(segments: &[&[u8]]) -> Scene {
    let mut tcp = Tcp::to(443);
    let mut scene = Scene::default().frames(tcp.play("ShA"));
    for segment in segments {
        scene = scene.frame(tcp.send(true, segment));
    }
    scene.frame(tcp.send(false, &handshake(SERVER_HELLO, 90)))
}

/// A hello with a key share of 1,200 bytes, as post-quantum ones have.
pub fn long_hello() -> Vec<u8> {
    let share = [&[0x04, 0xb4, 0x11, 0xec, 0x04, 0xb0][..], &[0x5a; 1200]].concat();
    record(22, &message(CLIENT_HELLO, &client_hello("pay.example", &[(51, share), (0xfe0d, vec![0; 200])])))
}

/// Hellos in one segment, in several, in several records, cut off, in the form of SSL 2.0.
pub fn hello_scenes() -> Vec<(&'static str, Scene)> {
    let short = message(CLIENT_HELLO, &client_hello("pay.example", &[]));
    let whole = record(22, &short);
    let (first, second) = short.split_at(40);
    let records = [record(22, first), record(22, second)].concat();
    let long = long_hello();
    let sslv2 = [&[0x80, 9 + 3 + 16, 1, 3, 1, 0, 3, 0, 0, 0, 16, 0, 0, 0x2f][..], &[7; 16]].concat();
    vec![
        ("hello in one segment", hello(&[&whole])),
        ("hello in three segments", hello(&[&long[..700], &long[700..1400], &long[1400..]])),
        ("hello with a segment sent twice", hello(&[&whole[..60], &whole[60..]])),
        ("hello in two records", hello(&[&records])),
        ("hello that is cut off", hello(&[&long[..700]])),
        ("hello in the form of SSL 2.0", hello(&[&sslv2])),
    ]
}

/// Every capture, by name.
pub fn all() -> Vec<(String, Vec<u8>)> {
    let states = STATES.iter().map(|(letters, state, _)| (format!("{state} {letters}"), tcp(letters)));
    let tls = tls_scenes().into_iter().map(|(name, scene, ..)| (name.to_string(), scene));
    let hellos = hello_scenes().into_iter().map(|(name, scene)| (name.to_string(), scene));
    let datagrams = Scene::default().frame(udp(true, b"query")).frame(udp(false, b"answer"));
    let pings = Scene::default().frames([ping(true), ping(false), ping6(true), ping6(false), ping6(true)]);
    let others = [
        ("datagrams", datagrams),
        ("pings", pings),
        ("extension headers", extension_headers()),
        ("vlans", vlans()),
        ("fragments", fragmented()),
        ("malformed", malformed()),
        ("link control", link_control()),
        ("incarnations", incarnations()),
        ("giant frames", giant()),
        ("nothing", Scene::default()),
    ];
    let others = others.into_iter().map(|(name, scene)| (name.to_string(), scene));
    states.chain(tls).chain(hellos).chain(others).map(|(name, scene)| (name, scene.pcap())).collect()
}
