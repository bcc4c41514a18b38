//! Frames by etherparse, captures by hand.

use etherparse::PacketBuilder;

pub const CLIENT: [u8; 4] = [10, 0, 0, 1];
pub const SERVER: [u8; 4] = [10, 0, 0, 2];
pub const CLIENT6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub const SERVER6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
pub const CLIENT_PORT: u16 = 40_000;

/// 2023-11-14, and a fraction that no float keeps.
pub const START_NS: u64 = 1_700_000_000_123_456_789;
const MAC_A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const MAC_B: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A capture in the making: a frame every millisecond.
#[derive(Clone, Default)]
pub struct Scene {
    pub frames: Vec<(u64, Vec<u8>)>,
    now_ns: u64,
}

impl Scene {
    pub fn frame(mut self, frame: Vec<u8>) -> Self {
        self.frames.push((START_NS + self.now_ns, frame));
        self.now_ns += 1_000_000;
        self
    }

    /// Time goes by.
    pub fn after(mut self, seconds: u64) -> Self {
        self.now_ns += seconds * 1_000_000_000;
        self
    }

    pub fn frames(self, frames: impl IntoIterator<Item = Vec<u8>>) -> Self {
        frames.into_iter().fold(self, Self::frame)
    }

    /// A pcap file with nanoseconds.
    pub fn pcap(&self) -> Vec<u8> {
        self.pcap_of_link(1)
    }

    pub fn pcap_of_link(&self, link: u32) -> Vec<u8> {
        let mut file = Vec::new();
        file.extend(0xa1b2_3c4d_u32.to_le_bytes());
        file.extend([2, 0, 4, 0]);
        file.extend([0; 8]);
        file.extend(262_144_u32.to_le_bytes());
        file.extend(link.to_le_bytes());
        for (time_ns, frame) in &self.frames {
            file.extend(((time_ns / 1_000_000_000) as u32).to_le_bytes());
            file.extend(((time_ns % 1_000_000_000) as u32).to_le_bytes());
            file.extend((frame.len() as u32).to_le_bytes());
            file.extend((frame.len() as u32).to_le_bytes());
            file.extend(frame);
        }
        file
    }
}

/// One TCP connection, written down in the letters of Zeek's history: upper case for the client.
///
/// `S` SYN, `H` SYN-ACK, `A` ACK, `D` ten bytes of data, `F` FIN, `R` RST.
pub struct Tcp {
    pub server_port: u16,
    pub seq: [u32; 2],
}

impl Tcp {
    pub fn to(server_port: u16) -> Self {
        Self { server_port, seq: [1000, 9000] }
    }

    pub fn play(&mut self, letters: &str) -> Vec<Vec<u8>> {
        letters.chars().map(|letter| self.letter(letter)).collect()
    }

    fn letter(&mut self, letter: char) -> Vec<u8> {
        let client = letter.is_uppercase();
        match letter.to_ascii_uppercase() {
            'D' => self.send(client, b"0123456789"),
            'S' => self.segment(client, "S", &[]),
            'H' => self.segment(client, "SA", &[]),
            'A' => self.segment(client, "A", &[]),
            'F' => self.segment(client, "FA", &[]),
            'R' => self.segment(client, "RA", &[]), // with ACK, as what refuses a SYN has to have it
            other => panic!("no packet is called {other}"),
        }
    }

    pub fn send(&mut self, client: bool, payload: &[u8]) -> Vec<u8> {
        self.segment(client, "PA", payload)
    }

    pub fn segment(&mut self, client: bool, flags: &str, payload: &[u8]) -> Vec<u8> {
        let (mine, theirs) = if client { (0, 1) } else { (1, 0) };
        let (src, dst) = if client { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
        let (src_mac, dst_mac) = if client { (MAC_A, MAC_B) } else { (MAC_B, MAC_A) };
        let ports = (CLIENT_PORT, self.server_port);
        let (sport, dport) = if client { ports } else { (ports.1, ports.0) };
        let mut builder = PacketBuilder::ethernet2(src_mac, dst_mac).ipv4(src, dst, 64).tcp(
            sport,
            dport,
            self.seq[mine],
            64_000,
        );
        for flag in flags.chars() {
            builder = match flag {
                'S' => builder.syn(),
                'A' => builder.ack(self.seq[theirs]),
                'F' => builder.fin(),
                'R' => builder.rst(),
                _ => builder.psh(),
            };
        }
        let mut frame = Vec::new();
        builder.write(&mut frame, payload).unwrap();
        let syn_or_fin = flags.contains(['S', 'F']);
        self.seq[mine] = self.seq[mine].wrapping_add(payload.len() as u32 + u32::from(syn_or_fin));
        frame
    }
}

pub fn udp(client: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let (src, dst) = if client { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
    let (sport, dport) = if client { (5000, 53) } else { (53, 5000) };
    let builder = PacketBuilder::ethernet2(MAC_A, MAC_B).ipv4(src, dst, 64).udp(sport, dport);
    builder.write(&mut frame, payload).unwrap();
    frame
}

pub fn udp6(client: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let (src, dst) = if client { (CLIENT6, SERVER6) } else { (SERVER6, CLIENT6) };
    let (sport, dport) = if client { (5000, 53) } else { (53, 5000) };
    let builder = PacketBuilder::ethernet2(MAC_A, MAC_B).ipv6(src, dst, 64).udp(sport, dport);
    builder.write(&mut frame, payload).unwrap();
    frame
}

pub fn ping(client: bool) -> Vec<u8> {
    let mut frame = Vec::new();
    let (src, dst) = if client { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
    let builder = PacketBuilder::ethernet2(MAC_A, MAC_B).ipv4(src, dst, 64);
    let builder = if client { builder.icmpv4_echo_request(7, 1) } else { builder.icmpv4_echo_reply(7, 1) };
    builder.write(&mut frame, b"pingpong").unwrap();
    frame
}

pub fn ping6(client: bool) -> Vec<u8> {
    let mut frame = Vec::new();
    let (src, dst) = if client { (CLIENT6, SERVER6) } else { (SERVER6, CLIENT6) };
    let builder = PacketBuilder::ethernet2(MAC_A, MAC_B).ipv6(src, dst, 64);
    let builder = if client { builder.icmpv6_echo_request(7, 1) } else { builder.icmpv6_echo_reply(7, 1) };
    builder.write(&mut frame, b"pingpong").unwrap();
    frame
}

/// The frame behind VLAN tags, (type, id) each.
pub fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let mut out = frame[..12].to_vec();
    for (kind, id) in tags {
        out.extend(kind.to_be_bytes());
        out.extend((id | 0x6000).to_be_bytes()); // priority 3
    }
    out.extend(&frame[12..]);
    out
}

/// The IPv4 packet in fragments of `size` bytes of payload, a multiple of 8.
pub fn fragments(frame: &[u8], size: usize, id: u16) -> Vec<Vec<u8>> {
    let (header, payload) = (&frame[14..34], &frame[34..]);
    let count = payload.len().div_ceil(size);
    let fragment = |(n, part): (usize, &[u8])| {
        let mut ip = header.to_vec();
        ip[2..4].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
        ip[4..6].copy_from_slice(&id.to_be_bytes());
        let more = if n + 1 < count { 0x2000 } else { 0 };
        ip[6..8].copy_from_slice(&(more | (n * size / 8) as u16).to_be_bytes());
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        [&frame[..14], &ip, part].concat()
    };
    payload.chunks(size).enumerate().map(fragment).collect()
}

fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks(2).enumerate().filter(|(n, _)| *n != 5);
    let sum: u32 = words.map(|(_, word)| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    !(((sum >> 16) + (sum & 0xffff)) as u16)
}

/// An IPv6 packet with these extension headers (type, whole header with its next-header byte free).
pub fn with_extensions(frame: &[u8], extensions: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = frame[..54].to_vec();
    let mut next = frame[20];
    let mut chain = Vec::new();
    for (kind, header) in extensions.iter().rev() {
        let mut header = header.to_vec();
        header[0] = next;
        next = *kind;
        chain.splice(0..0, header);
    }
    out[20] = next;
    let length = (chain.len() + frame.len() - 54) as u16;
    out[18..20].copy_from_slice(&length.to_be_bytes());
    out.extend(chain);
    out.extend(&frame[54..]);
    out
}

/// A TLS record.
pub fn record(content: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u16).to_be_bytes();
    [&[content, 3, 3, length[0], length[1]], body].concat()
}

/// A handshake record of one message of `kind`.
pub fn handshake(kind: u8, bytes: usize) -> Vec<u8> {
    let mut body = vec![kind, 0, 0, bytes as u8];
    body.resize(4 + bytes, 0x5a);
    record(22, &body)
}

/// The body of a ClientHello: versions 1.3 and 1.2, SNI, ALPN, and `more` extensions with their types.
pub fn client_hello(server_name: &str, more: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let counted = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let name = [&[0], &counted(server_name.as_bytes())[..]].concat();
    let mut extensions = vec![
        (0x0a0a, Vec::new()),
        (0, counted(&name)),
        (16, counted(b"\x02h2\x08http/1.1")),
        (43, vec![6, 0x1a, 0x1a, 3, 4, 3, 3]),
        (13, counted(&[4, 3, 8, 4])),
    ];
    extensions.extend_from_slice(more);
    let extensions: Vec<u8> = extensions
        .iter()
        .flat_map(|(kind, body)| [&kind.to_be_bytes()[..], &counted(body)].concat())
        .collect();
    let ciphers = counted(&[0x2a, 0x2a, 0x13, 1, 0x13, 2, 0xc0, 0x2b]);
    [&[3, 3][..], &[0x77; 32], &[0], &ciphers, &[1, 0], &counted(&extensions)].concat()
}

/// A handshake message.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    [&[kind, length[1], length[2], length[3]], body].concat()
}
