//! ClientHellos of QUIC: Initial packets, whose keys follow from the client's first destination connection ID (RFC 9001,
//! section 5.2; RFC 9369, section 3.3), so that anyone can read them.

use super::assembly::Stream;
use datapath::abi::HelloSegment;
use datapath::wire::quic::{V1, V2};
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::{DirectionalKeys, Keys, Version};
use std::collections::BTreeMap;

const LONG: u8 = 0x80;
const FIXED: u8 = 0x40;
/// RFC 9000, section 17.2.
const MAX_CONNECTION_ID: usize = 20;
/// A hello is shorter; a stream that goes on beyond is none.
const MAX_STREAM: u64 = 1 << 16;
/// RFC 9001, section 5.4.2: the sample is taken as if the packet number had four bytes.
const SAMPLE: std::ops::Range<usize> = 4..20;

/// The datagrams that a client sends before the server answers.
#[derive(Debug, Default)]
pub struct Flight {
    /// Pieces of datagrams that are not there whole, by their number: where each starts in its datagram, its bytes.
    waiting: BTreeMap<u8, (u32, Vec<u8>)>,
    crypto: Stream,
    /// The first destination connection ID that opened a packet: keys stay when the client takes another.
    first_id: Option<(u32, Vec<u8>)>,
}

impl Flight {
    /// Adds a piece of a datagram, and reads the datagram if it is whole.
    pub fn add(&mut self, piece: &HelloSegment) {
        self.waiting.insert(piece.number, (piece.offset, piece.payload().to_vec()));
        if let Some(datagram) = self.datagram_of(piece.number) {
            self.read(&datagram);
        }
    }

    /// What it holds in memory.
    pub fn bytes(&self) -> usize {
        self.crypto.bytes + self.waiting.values().map(|(_, bytes)| bytes.len()).sum::<usize>()
    }

    /// What the CRYPTO frames hold.
    pub fn stream(&self) -> &Stream {
        &self.crypto
    }

    /// Takes out the pieces of the datagram that piece `number` is of, if all are there. The last is shorter than a piece.
    fn datagram_of(&mut self, number: u8) -> Option<Vec<u8>> {
        let (offset, _) = self.waiting.get(&number)?;
        let first = number.checked_sub(u8::try_from(*offset as usize / HelloSegment::BYTES).ok()?)?;
        let (mut last, mut datagram) = (first, Vec::new());
        loop {
            let (offset, bytes) = self.waiting.get(&last)?;
            if *offset as usize != datagram.len() {
                return None;
            }
            datagram.extend_from_slice(bytes);
            if bytes.len() < HelloSegment::BYTES {
                break;
            }
            last = last.checked_add(1)?;
        }
        self.waiting.retain(|number, _| !(first..=last).contains(number));
        Some(datagram)
    }

    /// Reads the packets of a datagram (RFC 9000, section 12.2).
    fn read(&mut self, datagram: &[u8]) {
        let mut rest = datagram;
        while let Some((packet, behind)) = Packet::read(rest) {
            if packet.is_initial {
                self.open(&packet);
            }
            rest = behind;
        }
    }

    fn open(&mut self, packet: &Packet<'_>) {
        let first = self
            .first_id
            .clone()
            .filter(|(version, id)| *version == packet.version && id != packet.destination_id);
        let ids = [Some((packet.version, packet.destination_id.to_vec())), first];
        for (version, id) in ids.into_iter().flatten() {
            if let Some(frames) = packet.open(&id) {
                self.first_id.get_or_insert((version, id));
                self.frames(&frames);
                return;
            }
        }
    }

    /// Takes in the CRYPTO frames. Of others an Initial packet has PADDING, PING, ACK and CONNECTION_CLOSE (RFC 9000,
    /// section 12.4).
    fn frames(&mut self, frames: &[u8]) {
        let mut reader = Reader(frames);
        while let Some(kind) = reader.varint() {
            let passed = match kind {
                0 | 1 => Some(()),
                2 | 3 => reader.ack(kind == 3),
                6 => self.crypto_frame(&mut reader),
                _ => None,
            };
            if passed.is_none() {
                return;
            }
        }
    }

    fn crypto_frame(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        let (offset, length) = (reader.varint()?, reader.varint()?);
        let data = reader.take(usize::try_from(length).ok()?)?;
        if offset.saturating_add(length) <= MAX_STREAM {
            self.crypto.add(u32::try_from(offset).ok()?, data);
        }
        Some(())
    }
}

/// A packet with a long header of a version that is known.
struct Packet<'a> {
    version: u32,
    is_initial: bool,
    destination_id: &'a [u8],
    /// Up to the packet number.
    header: &'a [u8],
    /// From there.
    protected: &'a [u8],
}

impl<'a> Packet<'a> {
    /// The packet at the start, and what is behind it.
    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut reader = Reader(bytes);
        let &[first] = reader.take(1)?.as_array()?;
        if first & (LONG | FIXED) != LONG | FIXED {
            return None;
        }
        let version = u32::from_be_bytes(*reader.take(4)?.as_array()?);
        // Version 2 has the types one further on (RFC 9369, section 3.2).
        let kind = match version {
            V1 => first >> 4 & 3,
            V2 => (first >> 4).wrapping_sub(1) & 3,
            _ => return None,
        };
        let destination_id = reader.connection_id()?;
        reader.connection_id()?;
        let is_initial = kind == 0;
        if is_initial {
            let token = reader.varint()?;
            reader.take(usize::try_from(token).ok()?)?;
        }
        if kind == 3 {
            return None; // a Retry, which goes to the end
        }
        let length = usize::try_from(reader.varint()?).ok()?;
        let header = bytes.get(..bytes.len() - reader.0.len())?;
        let protected = reader.take(length)?;
        Some((Self { version, is_initial, destination_id, header, protected }, reader.0))
    }

    /// The frames in it, if these are its keys.
    fn open(&self, connection_id: &[u8]) -> Option<Vec<u8>> {
        let keys = client_keys(self.version, connection_id)?;
        let sample = self.protected.get(SAMPLE)?;
        let mut header = self.header.to_vec();
        let mut number = *self.protected.first_chunk::<4>()?;
        keys.header.decrypt_in_place(sample, header.first_mut()?, &mut number).ok()?;
        let number_bytes = usize::from(header.first()? & 3) + 1;
        let number = number.get(..number_bytes)?;
        header.extend_from_slice(number);
        // The first packets of a connection: nothing of the number was left out (RFC 9000, section 17.1).
        let full = number.iter().fold(0u64, |full, byte| full << 8 | u64::from(*byte));
        let mut payload = self.protected.get(number_bytes..)?.to_vec();
        let opened = keys.packet.decrypt_in_place(full, &header, &mut payload).ok()?;
        Some(opened.to_vec())
    }
}

/// The keys of the client's Initial packets.
fn client_keys(version: u32, connection_id: &[u8]) -> Option<DirectionalKeys> {
    let version = match version {
        V1 => Version::V1,
        V2 => Version::V2,
        _ => return None,
    };
    let suite = TLS13_AES_128_GCM_SHA256.tls13()?;
    Some(Keys::initial(version, suite, suite.quic?, connection_id, rustls::Side::Client).local)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    /// RFC 9000, section 16.
    fn varint(&mut self) -> Option<u64> {
        let length = 1 << (self.0.first()? >> 6);
        let bytes = self.take(length)?;
        let number = bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        Some(number & (u64::MAX >> (66 - 8 * length)))
    }

    fn connection_id(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(*self.take(1)?.first()?);
        if length > MAX_CONNECTION_ID { None } else { self.take(length) }
    }

    /// Passes over an ACK frame (RFC 9000, section 19.3).
    fn ack(&mut self, has_ecn: bool) -> Option<()> {
        self.varint()?;
        self.varint()?;
        let ranges = self.varint()?;
        self.varint()?;
        for _ in 0..ranges {
            self.varint()?;
            self.varint()?;
        }
        for _ in 0..if has_ecn { 3 } else { 0 } {
            self.varint()?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hello::{ClientHello, Hellos};
    use bytemuck::Zeroable;
    use datapath::abi::{FlowKey, HandshakeKind};

    /// RFC 9001, appendix A.1.
    const ID: [u8; 8] = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];
    /// RFC 9001, appendix A.2: the CRYPTO frame.
    const FRAME: &str = "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e868\
        04fe3a47f06a2b69484c00000413011302010000c000000010000e00000b6578\
        616d706c652e636f6dff01000100000a00080006001d00170018001000070005\
        04616c706e000500050100000000003300260024001d00209370b2c9caa47fba\
        baf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b000302030400\
        0d0010000e0403050306030203080408050806002d00020101001c0002400100\
        3900320408ffffffffffffffff05048000ffff07048000ffff08011001048000\
        75300901100f088394c8f03e51570806048000ffff";

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    /// An Initial packet of a client: frames, padded to so many bytes under the number.
    fn initial(version: u32, id: &[u8], token: &[u8], number: u32, frames: &[u8], length: usize) -> Vec<u8> {
        let keys = client_keys(version, id).unwrap();
        let mut payload = frames.to_vec();
        payload.resize(payload.len().max(length), 0);
        let first = if version == V1 { 0xc3 } else { 0xd3 };
        let mut packet =
            [&[first][..], &version.to_be_bytes(), &[8], &ID, &[0, token.len() as u8], token].concat();
        packet.extend(((payload.len() + 20) as u16 | 0x4000).to_be_bytes());
        let number_at = packet.len();
        packet.extend(number.to_be_bytes());
        let tag = keys.packet.encrypt_in_place(number.into(), &packet, &mut payload).unwrap();
        let header_end = packet.len();
        packet.extend(&payload);
        packet.extend(tag.as_ref());
        let sample: [u8; 16] = packet[header_end..header_end + 16].try_into().unwrap();
        let (header, _) = packet.split_at_mut(header_end);
        let (head, number) = header.split_at_mut(number_at);
        keys.header.encrypt_in_place(&sample, &mut head[0], number).unwrap();
        packet
    }

    fn crypto(offset: usize, data: &[u8]) -> Vec<u8> {
        let number = |n: usize| (n as u16 | 0x4000).to_be_bytes();
        [&[6], &number(offset)[..], &number(data.len()), data].concat()
    }

    /// What is read of these datagrams; they come in pieces as the programs hand them up.
    fn read(datagrams: &[Vec<u8>]) -> (usize, ClientHello) {
        let (mut hellos, mut found, mut number) = (Hellos::default(), Vec::new(), 0);
        for datagram in datagrams {
            for (n, part) in datagram.chunks(HelloSegment::BYTES).enumerate() {
                let mut piece = HelloSegment::zeroed();
                piece.key = FlowKey { a_port: 1, family: 4, proto: 17, ..FlowKey::default() };
                (piece.hello_ns, piece.kind) = (5, HandshakeKind::Quic as u8);
                (piece.number, piece.offset) = (number, (n * HelloSegment::BYTES) as u32);
                piece.length = part.len() as u32;
                piece.bytes[..part.len()].copy_from_slice(part);
                found.extend(hellos.take(&piece));
                number += 1;
            }
        }
        let whole = found.len();
        found.extend(hellos.give_up(u64::MAX));
        assert_eq!(found.len(), 1);
        (whole, (*found[0].hello).clone())
    }

    fn example(hello: &ClientHello) {
        assert_eq!(hello.tls_sni.as_deref(), Some("example.com"));
        assert_eq!(hello.tls_alpn, Some(vec!["alpn".to_owned()]));
        assert_eq!(hello.tls_versions, Some(vec!["1.3".to_owned()]));
        let ja4 = hello.tls_ja4.clone().unwrap_or_default();
        assert!(ja4.starts_with("q13d0211an_"), "{ja4}");
        assert_eq!((hello.tls_ech.as_deref(), hello.tls_hello_partial), (None, Some(false)));
    }

    #[test]
    fn the_packets_of_both_rfcs_are_made_and_read() {
        // RFC 9001, appendix A.2, and RFC 9369, appendix A.2: how they begin, and how the first ends.
        let expected = [
            (
                V1,
                "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11\
                  d242b123dc9bd8bab936b47d92ec356c0bab7df5976d27cd449f63300099f399",
            ),
            (
                V2,
                "d76b3343cf088394c8f03e5157080000449ea0c95e82ffe67b6abcdb4298b485\
                  dd04de806071bf03dceebfa162e75d6c96058bdbfb127cdfcbf903388e99ad04",
            ),
        ];
        for (version, start) in expected {
            let packet = initial(version, &ID, &[], 2, &hex(FRAME), 1162);
            assert_eq!((packet.len(), &packet[..64]), (1200, &hex(start)[..]));
            if version == V1 {
                assert_eq!(packet[1184..], hex("e221af44860018ab0856972e194cd934"));
            }
            let (whole, hello) = read(&[packet]);
            assert_eq!(whole, 1);
            example(&hello);
        }
    }

    #[test]
    fn frames_may_be_cut_anywhere_and_come_in_any_order_in_several_packets() {
        let hello = &hex(FRAME)[4..];
        let part = |from: usize, to: usize| crypto(from, &hello[from..to]);
        let ack = [2, 0, 0, 1, 0, 0, 0];
        let frames = [&part(200, hello.len())[..], &[0, 0, 1], &part(0, 7), &ack].concat();
        let first = initial(V1, &ID, b"token", 0, &frames, 1162);
        let second = initial(V1, &ID, b"token", 1, &[part(90, 210), part(7, 90)].concat(), 0);
        let (whole, found) = read(&[first.clone(), second.clone()]);
        assert_eq!(whole, 1);
        example(&found);
        let (_, found) = read(&[second.clone(), first.clone()]);
        example(&found);
        // Both in one datagram that takes two pieces, behind an early packet of another kind.
        let early = [&[0xd0, 0, 0, 0, 1, 8][..], &ID, &[0, 0x40, 40], &[7; 40]].concat();
        let (_, found) = read(&[[early, first.clone(), second].concat()]);
        example(&found);
        let (whole, found) = read(&[first]);
        assert_eq!((whole, found.tls_hello_partial, found.tls_ja4), (0, Some(true), None));
    }

    #[test]
    fn keys_stay_when_the_client_takes_another_connection_id() {
        let hello = &hex(FRAME)[4..];
        let first = initial(V1, &ID, &[], 0, &crypto(0, &hello[..100]), 1162);
        // Sealed with the keys of the first ID, which the header does not name any more.
        let mut flight = Flight::default();
        flight.read(&first);
        flight.first_id = Some((V1, b"another".to_vec()));
        flight.read(&initial(V1, b"another", &[], 1, &crypto(100, &hello[100..]), 1162));
        assert_eq!(flight.crypto.bytes, hello.len());
    }

    #[test]
    fn what_was_changed_or_cut_off_is_not_read() {
        let packet = initial(V1, &ID, &[], 2, &hex(FRAME), 1162);
        for at in [0, 1, 5, 6, 17, 18, 22, 100, 1199] {
            let mut other = packet.clone();
            other[at] ^= 0x41;
            let (whole, hello) = read(&[other]);
            assert_eq!((whole, hello.tls_sni), (0, None), "{at}");
        }
        for end in 1..packet.len() {
            Flight::default().read(&packet[..end]);
        }
        let (whole, hello) = read(&[packet[..1199].to_vec()]);
        assert_eq!((whole, hello.tls_hello_partial), (0, Some(true)));
    }
}
