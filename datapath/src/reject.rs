//! Answers to packets that are rejected: a TCP reset, or ICMP "administratively prohibited", made of the packet itself.
//!
//! Answers come from the address that the packet was sent to, as the end that it did not reach would send them: the
//! gateway's own addresses are not known here.

use crate::abi::packet::Trace;
use crate::abi::{Action, Addr, Answered, BucketKey, Limits, Packet, Unit};
use crate::frame::Frame;
use crate::limits::Claim;
use crate::tables::{Buckets, Plane, Rules, Sink, Tables};
use crate::wire::proto;

/// A frame that can be changed and sent back.
pub trait Answer: Frame {
    /// Reads `N` bytes at `offset`, wherever they lie. Returns whether the frame has them.
    fn load<const N: usize>(&self, offset: usize, into: &mut [u8; N]) -> bool;
    /// Writes bytes at `offset`. Returns whether the frame has them.
    fn store<const N: usize>(&mut self, offset: usize, bytes: &[u8; N]) -> bool;
    /// Makes room for so many bytes in front.
    fn grow(&mut self, bytes: usize) -> bool;
    /// Cuts the frame to so many bytes.
    fn cut(&mut self, len: usize) -> bool;

    /// Whether the transport checksum of the packet is still to be made by whoever sends the frame on, the answer too.
    /// `at`: two bytes to find it out by.
    #[inline(always)]
    fn owes_checksum(&mut self, at: usize) -> bool {
        let _ = at;
        false
    }
}

/// Answers a second, of the whole gateway: a flood of what is rejected is not doubled.
const PER_SECOND: u64 = 1000;
const SECOND_NS: u64 = 1_000_000_000;
/// Ethernet header with as many VLAN tags as are read, and two bytes more, for the addresses and whole words.
const LINK_BYTES: usize = 12 + 16;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const TCP_BYTES: usize = 20;
const ICMP_BYTES: usize = 8;
/// Where TCP and UDP have their checksums.
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
/// RFC 1812, section 4.3.2.3: as much as fits into 576 bytes.
const MOST_V4: usize = 576 - IPV4_BYTES - ICMP_BYTES;
/// RFC 4443, section 3.1: as much as fits into the minimum MTU.
const MOST_V6: usize = 1280 - IPV6_BYTES - ICMP_BYTES;
/// A quotation is summed in pieces of so many bytes.
const PIECE: usize = 32;
/// The rest is summed by words: a quotation ends on one.
const WORD: usize = 4;

/// Whether the verdict asks for an answer.
#[inline(always)]
pub fn is_asked(trace: &Trace) -> bool {
    trace.action == Action::Dropped as u8 && u32::from(trace.limits) & Limits::REJECT != 0
}

/// Makes the frame its own answer if its verdict in `trace` asks for one and there is a right one. Returns whether it is
/// to be sent back; if not, it may have been changed, and is to be dropped.
#[inline(always)]
pub fn answer<F: Answer, T: Tables>(frame: &mut F, plane: &mut Plane<T>, trace: &Trace) -> bool {
    let packet = &trace.packet;
    if !is_asked(trace) || !may_answer(frame, packet) || !is_within_rate(plane) {
        return false;
    }
    let ifindex = frame.ifindex();
    if packet.has(Packet::HAS_TCP) {
        if !reset(frame, packet) {
            return false;
        }
        plane.sink.answered(ifindex, Answered::Reset);
    } else {
        if !prohibited(frame, packet) {
            return false;
        }
        plane.sink.answered(ifindex, Answered::Icmp);
    }
    true
}

#[inline(always)]
fn is_within_rate<T: Tables>(plane: &mut Plane<T>) -> bool {
    let Some(config) = plane.rules.config() else {
        return false;
    };
    let claim =
        Claim { now_ns: plane.rules.now_ns(config), cost_ns: SECOND_NS / PER_SECOND, burst_ns: SECOND_NS };
    plane.buckets.take(&BucketKey { rule: 0, identity: 0 }, Unit::Packets, &claim)
}

/// RFC 1122, section 3.2.2, and RFC 4443, section 2.4 (e): never about an ICMP error, a later fragment, or what was not
/// sent from one host to one host. RFC 9293, section 3.10.7.1: never a reset for a reset. What came in a tunnel has no
/// answer either: that would have to go into the tunnel back.
#[inline(always)]
fn may_answer<F: Answer>(frame: &F, packet: &Packet) -> bool {
    let mut first = Part([0; 1]);
    let is_group = !frame.load(0, &mut first.0) || first.0[0] & 1 != 0;
    let is_alone = packet.has(Packet::HAS_IP) && !packet.has(Packet::IS_CARRIED);
    if is_group || !is_alone || packet.fragment_offset != 0 {
        return false;
    }
    if !is_one_host(&packet.src().0, packet) || !is_one_host(&packet.dst().0, packet) {
        return false;
    }
    match packet.key.proto {
        // Of a fragment it is not known how long the segment is, which a reset may have to acknowledge.
        proto::TCP => {
            packet.has(Packet::HAS_TCP) && !packet.has(Packet::IS_FRAGMENT) && !packet.flag(Packet::RST)
        }
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        proto::ICMP => !matches!(packet.icmp_type, 3 | 4 | 5 | 11 | 12),
        // Errors have the high bit clear; 137 is a redirect.
        proto::ICMPV6 => packet.icmp_type >= 128 && packet.icmp_type != 137,
        _ => true,
    }
}

#[inline(always)]
fn is_one_host(addr: &Addr, packet: &Packet) -> bool {
    if packet.ip_version == 4 {
        return !matches!(v4(addr) >> 24, 0 | 127 | 224..=255);
    }
    let is_unspecified_or_loopback = addr.words[0] == 0 && u64::from_be(addr.words[1]) <= 1;
    u64::from_be(addr.words[0]) >> 56 != 0xff && !is_unspecified_or_loopback
}

/// RFC 9293, section 3.10.7.1: as from a connection that does not exist.
#[inline(always)]
fn reset<F: Answer>(frame: &mut F, packet: &Packet) -> bool {
    let (seq, ack, flags) = if packet.flag(Packet::ACK) {
        (packet.ack, 0, Packet::RST)
    } else {
        let control = u32::from(packet.flag(Packet::SYN)) + u32::from(packet.flag(Packet::FIN));
        let end = packet.seq.wrapping_add(packet.payload_bytes).wrapping_add(control);
        (0, end, Packet::RST | Packet::ACK)
    };
    let ports = u32::from(packet.dst().1) << 16 | u32::from(packet.src().1);
    let offset_and_flags = (TCP_BYTES as u32 / 4) << 28 | u32::from(flags) << 16;
    let mut tcp = [ports, seq, ack, offset_and_flags, 0];
    tcp[4] = checksum(pseudo_header(packet, proto::TCP, TCP_BYTES) + sum_of(&tcp)) << 16;

    let at = usize::from(packet.l3_offset);
    let mut link = Link::empty();
    let stored = link.read(frame) && link.send_back(frame);
    let Some(payload_at) = network(frame, packet, at, proto::TCP, TCP_BYTES, 0) else {
        return false;
    };
    if frame.owes_checksum(payload_at + TCP_CHECKSUM) {
        // It is made where it was to be made in the packet, of what is there then: the pseudo header's part.
        if payload_at != usize::from(packet.l4_offset) {
            return false;
        }
        tcp[4] = (!checksum(pseudo_header(packet, proto::TCP, TCP_BYTES)) & 0xffff) << 16;
    }
    stored && frame.store(payload_at, &bytes::<5, TCP_BYTES>(tcp).0) && frame.cut(payload_at + TCP_BYTES)
}

/// RFC 1812, section 5.2.7.1, code 13; RFC 4443, section 3.1, code 1.
#[inline(always)]
fn prohibited<F: Answer>(frame: &mut F, packet: &Packet) -> bool {
    let at = usize::from(packet.l3_offset);
    let is_v4 = packet.ip_version == 4;
    let (network_bytes, most) = if is_v4 { (IPV4_BYTES, MOST_V4) } else { (IPV6_BYTES, MOST_V6) };
    let ip_bytes = packet.ip_bytes as usize;
    let quoted = (if ip_bytes < most { ip_bytes } else { most }) & !(WORD - 1);
    let mut link = Link::empty();
    if !link.read(frame) || at > LINK_BYTES || !frame.grow(network_bytes + ICMP_BYTES) {
        return false;
    }
    // What follows the link header here is written over by the network header.
    if !link.send_back(frame) {
        return false;
    }
    let protocol = if is_v4 { proto::ICMP } else { proto::ICMPV6 };
    // RFC 1812, section 4.3.2.5: internetwork control.
    let Some(icmp_at) = network(frame, packet, at, protocol, ICMP_BYTES + quoted, 0xc0) else {
        return false;
    };
    let mut icmp = [if is_v4 { 3 << 24 | 13 << 16 } else { 1 << 24 | 1 << 16 }, 0];
    let mut sum = sum_of(&icmp);
    if !is_v4 {
        sum += pseudo_header(packet, protocol, ICMP_BYTES + quoted);
    }
    let quote_at = icmp_at + ICMP_BYTES;
    let header = usize::from(packet.l4_offset) - usize::from(packet.l3_offset);
    let owed_at = quote_at + header + UDP_CHECKSUM;
    let owes = header + UDP_CHECKSUM + 2 <= quoted && frame.owes_checksum(owed_at);
    // It would be made in the quotation, behind the back of the answer's own: it counts there as nothing.
    if owes && !(packet.key.proto == proto::UDP && frame.store(owed_at, &[0, 0])) {
        return false;
    }
    let Some(quote) = quotation(frame, quote_at, quoted) else {
        return false;
    };
    icmp[0] |= checksum(sum + quote);
    if owes {
        // What makes it come out as 0xffff, which is nothing in a sum of this kind. So is a header of IPv4.
        let mut rest = quote;
        if !is_v4 {
            let mut ip = Part([0; IPV6_BYTES]);
            if header != IPV6_BYTES || !frame.load(quote_at, &mut ip.0) {
                return false;
            }
            rest += checksum(pairs(&ip.0));
        }
        if !frame.store(owed_at, &(checksum(rest) as u16).to_be_bytes()) {
            return false;
        }
    }
    frame.store(icmp_at, &bytes::<2, ICMP_BYTES>(icmp).0) && frame.cut(icmp_at + ICMP_BYTES + quoted)
}

/// The sum of what is quoted.
#[inline(always)]
fn quotation<F: Answer>(frame: &F, at: usize, len: usize) -> Option<u32> {
    let (mut piece, mut word) = (Part([0; PIECE]), Part([0; WORD]));
    let mut sum = 0;
    let mut done = 0;
    for _ in 0..MOST_V6 / PIECE + 1 {
        if done + PIECE > len {
            break;
        }
        if !frame.load(at + done, &mut piece.0) {
            return None;
        }
        sum += pairs(&piece.0);
        done += PIECE;
    }
    for _ in 0..PIECE / WORD {
        if done + WORD > len {
            break;
        }
        if !frame.load(at + done, &mut word.0) {
            return None;
        }
        sum += pairs(&word.0);
        done += WORD;
    }
    Some(sum)
}

/// Writes a network header from the packet's destination to its source. Returns where its payload starts.
#[inline(always)]
fn network<F: Answer>(
    frame: &mut F,
    packet: &Packet,
    at: usize,
    protocol: u8,
    payload: usize,
    class: u8,
) -> Option<usize> {
    let (from, to) = (packet.dst().0, packet.src().0);
    let (class, protocol, payload) = (u32::from(class), u32::from(protocol), payload as u32);
    const HOPS: u32 = 64;
    if packet.ip_version == 4 {
        // Never fragmented, for which RFC 6864 lets the identification be 0.
        const DONT_FRAGMENT: u32 = 0x4000;
        let first = 0x45 << 24 | class << 16 | (IPV4_BYTES as u32 + payload);
        let mut ip = [first, DONT_FRAGMENT, HOPS << 24 | protocol << 16, v4(&from), v4(&to)];
        ip[2] |= checksum(sum_of(&ip));
        return frame.store(at, &bytes::<5, IPV4_BYTES>(ip).0).then_some(at + IPV4_BYTES);
    }
    let rest = payload << 16 | protocol << 8 | HOPS;
    let [f0, f1, f2, f3] = v6(&from);
    let [t0, t1, t2, t3] = v6(&to);
    let stored = frame.store(at, &bytes::<2, 8>([6 << 28 | class << 20, rest]).0)
        && frame.store(at + 8, &bytes::<8, 32>([f0, f1, f2, f3, t0, t1, t2, t3]).0);
    stored.then_some(at + IPV6_BYTES)
}

/// Words as they are sent. Headers are made of words, or the verifier would refuse how LLVM fills them ("misaligned stack
/// access", 6.18).
#[inline(always)]
fn bytes<const WORDS: usize, const BYTES: usize>(words: [u32; WORDS]) -> Part<BYTES>
where
    [u32; WORDS]: bytemuck::Pod,
    [u8; BYTES]: bytemuck::Pod,
{
    Part(bytemuck::must_cast(words.map(u32::to_be)))
}

/// Bytes on the stack at an even address: else the verifier refuses to have them written by words ("misaligned stack
/// access", 6.18).
#[repr(C, align(8))]
struct Part<const N: usize>([u8; N]);

/// The link header.
struct Link {
    destination: Part<6>,
    source: Part<6>,
    rest: Part<{ LINK_BYTES - 12 }>,
}

impl Link {
    #[inline(always)]
    fn empty() -> Self {
        Self { destination: Part([0; 6]), source: Part([0; 6]), rest: Part([0; LINK_BYTES - 12]) }
    }

    #[inline(always)]
    fn read<F: Answer>(&mut self, frame: &F) -> bool {
        frame.load(0, &mut self.destination.0)
            && frame.load(6, &mut self.source.0)
            && frame.load(12, &mut self.rest.0)
    }

    /// Writes it with its addresses exchanged.
    #[inline(always)]
    fn send_back<F: Answer>(&self, frame: &mut F) -> bool {
        frame.store(0, &self.source.0) && frame.store(6, &self.destination.0) && frame.store(12, &self.rest.0)
    }
}

/// The sum of the pseudo header (RFC 9293, section 3.1; RFC 8200, section 8.1). That of the answer is that of the packet:
/// a sum has no order.
#[inline(always)]
fn pseudo_header(packet: &Packet, protocol: u8, len: usize) -> u32 {
    let (a, b) = (&packet.key.a, &packet.key.b);
    let addresses =
        if packet.ip_version == 4 { sum_of(&[v4(a), v4(b)]) } else { sum_of(&v6(a)) + sum_of(&v6(b)) };
    addresses + u32::from(protocol) + len as u32
}

/// A mapped IPv4 address as a number.
#[inline(always)]
fn v4(addr: &Addr) -> u32 {
    u64::from_be(addr.words[1]) as u32
}

/// An address as numbers.
#[inline(always)]
fn v6(addr: &Addr) -> [u32; 4] {
    let [high, low] = addr.words.map(u64::from_be);
    [(high >> 32) as u32, high as u32, (low >> 32) as u32, low as u32]
}

/// The sum of the 16-bit halves of words; at most 1280 bytes of them stay far below what a word holds.
#[inline(always)]
fn sum_of(words: &[u32]) -> u32 {
    words.iter().map(|word| (word >> 16) + (word & 0xffff)).sum()
}

/// The same of bytes.
#[inline(always)]
fn pairs<const N: usize>(bytes: &[u8; N]) -> u32 {
    bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
}

/// RFC 1071.
#[inline(always)]
fn checksum(sum: u32) -> u32 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !sum & 0xffff
}
