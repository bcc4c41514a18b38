//! Datagrams that came in fragments, put together before they are judged, as hosts do and gateways with connection
//! tracking (RFC 791, section 3.2; RFC 8200, section 4.5).

use super::checksum;
use datapath::abi::{Addr, Packet};
use datapath::frame::SliceFrame;
use datapath::wire;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Bytes of datagrams that are not whole. When they are more, the oldest are given up.
const MAX_PENDING_BYTES: usize = 64 << 20;

/// Which datagram a fragment is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Id {
    src: Addr,
    dst: Addr,
    vlans: [u16; 3],
    version: u8,
    proto: u8,
    id: u32,
}

#[derive(Default)]
struct Datagram {
    /// The frame up to its IP headers, of the first fragment.
    head: Option<Head>,
    pieces: BTreeMap<usize, Vec<u8>>,
    end: Option<usize>,
    frames: u64,
    bytes: usize,
}

struct Head {
    /// The link header and the IP headers that every fragment has.
    bytes: Vec<u8>,
    network: Network,
}

enum Network {
    V4 { at: usize },
    V6 { at: usize, next_header_at: usize, next_header: u8 },
}

/// What became of a frame.
pub enum Taken {
    /// It is no fragment, or none that a datagram can be made of: judge it as it is.
    AsItIs,
    /// The datagram is not whole yet.
    Waits,
    /// It was the last one missing: the datagram.
    Whole(Vec<u8>),
}

/// Datagrams that are not whole yet.
#[derive(Default)]
pub struct Reassembly {
    pending: HashMap<Id, Datagram>,
    /// In the order in which they began; some may be whole since.
    began: VecDeque<Id>,
    bytes: usize,
    given_up: u64,
}

impl Reassembly {
    /// Takes an Ethernet frame.
    pub fn take(&mut self, frame: &[u8]) -> Taken {
        let Some((id, fragment)) = Fragment::read(frame) else { return Taken::AsItIs };
        let datagram = self.pending.entry(id).or_insert_with(|| {
            self.began.push_back(id);
            Datagram::default()
        });
        let before = datagram.bytes;
        datagram.add(fragment);
        self.bytes += datagram.bytes - before;
        if let Some(whole) = datagram.whole() {
            self.forget(&id);
            return Taken::Whole(whole);
        }
        while self.bytes > MAX_PENDING_BYTES
            && let Some(oldest) = self.began.pop_front()
        {
            self.given_up += self.forget(&oldest);
        }
        Taken::Waits
    }

    /// Frames whose datagrams never came whole.
    pub fn left_over(&self) -> u64 {
        self.given_up + self.pending.values().map(|datagram| datagram.frames).sum::<u64>()
    }

    fn forget(&mut self, id: &Id) -> u64 {
        let Some(datagram) = self.pending.remove(id) else { return 0 };
        self.bytes -= datagram.bytes;
        if self.began.len() > 2 * self.pending.len() + 1024 {
            self.began.retain(|id| self.pending.contains_key(id));
        }
        datagram.frames
    }
}

struct Fragment<'a> {
    offset: usize,
    is_last: bool,
    data: &'a [u8],
    head: Head,
}

impl<'a> Fragment<'a> {
    fn read(frame: &'a [u8]) -> Option<(Id, Self)> {
        let mut packet = Packet::default();
        wire::parse(&SliceFrame { bytes: frame, ifindex: 0 }, &mut packet).ok()?;
        if !packet.has(Packet::HAS_IP | Packet::IS_FRAGMENT) {
            return None;
        }
        let at = usize::from(packet.l3_offset);
        let (data_at, head) = match packet.ip_version {
            4 => v4(frame, at)?,
            _ => v6(frame, at)?,
        };
        let data = frame.get(data_at..at + packet.ip_bytes as usize)?;
        let id = Id {
            src: packet.src().0,
            dst: packet.dst().0,
            vlans: packet.vlans,
            version: packet.ip_version,
            // Of IPv6 the first fragment alone names the protocol, and the number is enough (RFC 8200, section 4.5).
            proto: if packet.ip_version == 4 { packet.key.proto } else { 0 },
            id: packet.fragment_id,
        };
        let offset = usize::from(packet.fragment_offset);
        Some((id, Self { offset, is_last: !packet.has(Packet::MORE_FRAGMENTS), data, head }))
    }
}

fn v4(frame: &[u8], at: usize) -> Option<(usize, Head)> {
    let data_at = at + usize::from(frame.get(at)? & 0x0f) * 4;
    Some((data_at, Head { bytes: frame.get(..data_at)?.to_vec(), network: Network::V4 { at } }))
}

const FRAGMENT: u8 = 44;
/// Hop-by-hop options, routing, destination options: what may stand ahead of a fragment header.
const AHEAD: [u8; 3] = [0, 43, 60];

fn v6(frame: &[u8], at: usize) -> Option<(usize, Head)> {
    let (mut next_header_at, mut header_at) = (at + 6, at + 40);
    loop {
        match *frame.get(next_header_at)? {
            FRAGMENT => break,
            kind if AHEAD.contains(&kind) => {
                next_header_at = header_at;
                header_at += 8 + 8 * usize::from(*frame.get(header_at + 1)?);
            }
            _ => return None,
        }
    }
    let next_header = *frame.get(header_at)?;
    let network = Network::V6 { at, next_header_at, next_header };
    Some((header_at + 8, Head { bytes: frame.get(..header_at)?.to_vec(), network }))
}

impl Datagram {
    fn add(&mut self, fragment: Fragment<'_>) {
        self.frames += 1;
        self.bytes += fragment.data.len();
        if fragment.offset == 0 {
            self.head.get_or_insert(fragment.head);
        }
        if fragment.is_last {
            self.end.get_or_insert(fragment.offset + fragment.data.len());
        }
        self.pieces.entry(fragment.offset).or_insert_with(|| fragment.data.to_vec());
    }

    /// The frame with the whole datagram. Fragments that overlap make none (RFC 5722, section 4): somebody wants two
    /// readers to read two things.
    fn whole(&self) -> Option<Vec<u8>> {
        let (head, end) = (self.head.as_ref()?, self.end?);
        let mut frame = head.bytes.clone();
        let mut length = 0;
        for (offset, piece) in &self.pieces {
            if *offset != length {
                return None;
            }
            length += piece.len();
            frame.extend(piece);
        }
        if length != end {
            return None;
        }
        head.network.set_whole(&mut frame)?;
        Some(frame)
    }
}

impl Network {
    /// Makes the headers those of a whole packet.
    fn set_whole(&self, frame: &mut [u8]) -> Option<()> {
        match *self {
            Self::V4 { at } => {
                let total = u16::try_from(frame.len() - at).ok()?;
                let header = frame.get_mut(at..)?;
                let header_bytes = usize::from(header.first()? & 0x0f) * 4;
                let header = header.get_mut(..header_bytes)?;
                header[2..4].copy_from_slice(&total.to_be_bytes());
                header[6..8].copy_from_slice(&[0, 0]);
                header[10..12].copy_from_slice(&[0, 0]);
                let sum = !(checksum::sum(0, header) as u16);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            Self::V6 { at, next_header_at, next_header } => {
                let payload = u16::try_from(frame.len() - at - 40).ok()?;
                frame.get_mut(at + 4..at + 6)?.copy_from_slice(&payload.to_be_bytes());
                *frame.get_mut(next_header_at)? = next_header;
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    /// A datagram of so many bytes of UDP, and its fragments of 48 bytes.
    fn v4() -> (Vec<u8>, Vec<Vec<u8>>) {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [2; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        builder.udp(5000, 53).write(&mut frame, &std::array::from_fn::<u8, 120, _>(|i| i as u8)).unwrap();
        frame[20] = 0; // may be fragmented
        frame[18..20].copy_from_slice(&[0, 9]);
        frame[24..26].copy_from_slice(&[0, 0]);
        let sum = !(checksum::sum(0, &frame[14..34]) as u16);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        let payload = frame[34..].to_vec();
        let parts = payload.chunks(48).enumerate().map(|(n, part)| {
            let mut fragment = [&frame[..34], part].concat();
            fragment[16..18].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
            let more = if n < 2 { 0x2000 } else { 0u16 };
            fragment[20..22].copy_from_slice(&(more | (n * 6) as u16).to_be_bytes());
            fragment
        });
        let parts = parts.collect();
        (frame, parts)
    }

    /// The same of IPv6, with destination options ahead of the fragment header.
    fn v6() -> (Vec<u8>, Vec<Vec<u8>>) {
        let mut plain = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [2; 6]).ipv6([1; 16], [2; 16], 64);
        builder.udp(5000, 53).write(&mut plain, &[7; 120]).unwrap();
        let options = [17, 0, 1, 4, 0, 0, 0, 0];
        let mut whole = [&plain[..54], &options, &plain[54..]].concat();
        whole[20] = 60;
        whole[18..20].copy_from_slice(&136u16.to_be_bytes());
        let parts = plain[54..].chunks(48).enumerate().map(|(n, part)| {
            let [high, low] = ((n * 48) as u16 | u16::from(n < 2)).to_be_bytes();
            let header = [17, 0, high, low, 0, 0, 0, 77];
            let mut options = options;
            options[0] = 44;
            let mut fragment = [&plain[..54], &options, &header, part].concat();
            fragment[20] = 60;
            fragment[18..20].copy_from_slice(&(16 + part.len() as u16).to_be_bytes());
            fragment
        });
        let parts = parts.collect();
        (whole, parts)
    }

    fn all(reassembly: &mut Reassembly, frames: &[Vec<u8>], order: &[usize]) -> Vec<Vec<u8>> {
        let whole = |n: &usize| match reassembly.take(&frames[*n]) {
            Taken::Whole(frame) => Some(frame),
            Taken::Waits => None,
            Taken::AsItIs => panic!("a fragment"),
        };
        order.iter().filter_map(whole).collect()
    }

    #[test]
    fn fragments_in_any_order_make_the_datagram() {
        for (whole, parts) in [v4(), v6()] {
            for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]] {
                let mut reassembly = Reassembly::default();
                assert_eq!(all(&mut reassembly, &parts, &order).concat(), whole, "{order:?}");
                assert_eq!((reassembly.left_over(), reassembly.bytes), (0, 0));
            }
        }
    }

    #[test]
    fn one_that_comes_twice_counts_once_and_one_that_is_missing_leaves_the_rest() {
        let (whole, parts) = v4();
        let mut reassembly = Reassembly::default();
        assert_eq!(all(&mut reassembly, &parts, &[0, 0, 2, 1]), [whole]);
        assert!(all(&mut reassembly, &parts, &[0, 2]).is_empty());
        assert_eq!(reassembly.left_over(), 2);
    }

    #[test]
    fn fragments_that_overlap_make_nothing() {
        let (_, mut parts) = v4();
        let mut other = [&parts[1][..], &[0x55; 8]].concat();
        other[16..18].copy_from_slice(&76u16.to_be_bytes());
        parts.push(other);
        let mut reassembly = Reassembly::default();
        assert!(all(&mut reassembly, &parts, &[0, 3, 2]).is_empty());
    }

    #[test]
    fn what_is_no_fragment_is_left_alone() {
        let mut reassembly = Reassembly::default();
        for frame in [v4().0, v6().0, Vec::new(), vec![0; 60]] {
            assert!(matches!(reassembly.take(&frame), Taken::AsItIs));
        }
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_are_given_up() {
        let (_, parts) = v4();
        let mut reassembly = Reassembly::default();
        let mut frame = [&parts[0][..34], &[0; 1400]].concat();
        frame[16..18].copy_from_slice(&1420u16.to_be_bytes());
        frame[38..40].copy_from_slice(&1400u16.to_be_bytes());
        let many = MAX_PENDING_BYTES / 1400 + 7;
        for n in 0..many as u32 {
            frame[18..20].copy_from_slice(&(n as u16).to_be_bytes());
            frame[26..28].copy_from_slice(&((n >> 16) as u16).to_be_bytes());
            assert!(matches!(reassembly.take(&frame), Taken::Waits));
            assert!(reassembly.bytes <= MAX_PENDING_BYTES);
        }
        assert_eq!(reassembly.left_over(), many as u64);
        assert_eq!(reassembly.pending.len(), MAX_PENDING_BYTES / 1400);
    }
}
