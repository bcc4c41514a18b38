//! What tables are keyed by.

use bytemuck::{Pod, Zeroable};

/// An IPv6 address, or an IPv4 address mapped into IPv6 (RFC 4291, section 2.5.5.2), in network byte order.
///
/// One form for both families: one trie, one flow table, one comparison of two words.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct Addr {
    /// The sixteen bytes of the address as two native words, loaded as they lie in memory.
    pub words: [u64; 2],
}

impl Addr {
    /// The bits by which an IPv4 prefix is longer in its mapped form.
    pub const V4_PREFIX_BITS: u32 = 96;

    /// From the four bytes of an IPv4 address.
    #[inline(always)]
    pub fn v4(octets: [u8; 4]) -> Self {
        let low = u64::from(u32::from_ne_bytes(octets));
        #[cfg(target_endian = "little")]
        let word = low << 32 | 0xffff_0000;
        #[cfg(target_endian = "big")]
        let word = low | 0xffff << 32;
        Self { words: [0, word] }
    }

    /// From the sixteen bytes of an IPv6 address.
    #[inline(always)]
    pub fn v6(octets: [u8; 16]) -> Self {
        Self { words: bytemuck::must_cast(octets) }
    }

    /// The sixteen bytes in network order.
    #[inline(always)]
    pub fn octets(&self) -> [u8; 16] {
        bytemuck::must_cast(self.words)
    }

    /// Whether this is an IPv4 address in its mapped form.
    #[inline(always)]
    pub fn is_v4(&self) -> bool {
        let prefix = Self::v4([0; 4]).words;
        self.words[0] == 0 && self.words[1] & Self::v4([0xff; 4]).words[1] == self.words[1] && {
            self.words[1] & prefix[1] == prefix[1]
        }
    }

    /// A keyed hash of the address, for an index cut from its low end: as [`FlowKey::hash`].
    #[inline(always)]
    pub fn hash(&self, keys: &HashKeys) -> u32 {
        keys.of_two(self.words[0], self.words[1])
    }

    /// As the standard library's address; a mapped IPv4 address comes back as IPv4.
    pub fn to_ip(&self) -> core::net::IpAddr {
        core::net::Ipv6Addr::from(self.octets()).to_canonical()
    }
}

impl From<core::net::IpAddr> for Addr {
    fn from(ip: core::net::IpAddr) -> Self {
        match ip {
            core::net::IpAddr::V4(v4) => Self::v4(v4.octets()),
            core::net::IpAddr::V6(v6) => Self::v6(v6.octets()),
        }
    }
}

/// Which end of a [`FlowKey`] sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The end that the key calls `a`.
    A,
    /// The end that the key calls `b`.
    B,
}

impl Side {
    /// 0 for `a`, 1 for `b`: the index into the arrays of a [`super::FlowRecord`].
    #[inline(always)]
    pub fn index(self) -> usize {
        self as usize
    }

    /// From what [`index`](Self::index) says, as events, records and the kernel's arguments hold it.
    #[inline(always)]
    pub fn of(index: u32) -> Self {
        if index == 0 { Self::A } else { Self::B }
    }

    /// The other end.
    #[inline(always)]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// One key for both directions of a flow: the end with the smaller (address, port) is `a`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[expect(clippy::derived_hash_with_manual_eq, reason = "equal words are equal fields")]
pub struct FlowKey {
    /// Address of the end `a`.
    pub a: Addr,
    /// Address of the end `b`.
    pub b: Addr,
    /// Port of `a`, host order. ICMP: the type and its counterpart, as Zeek does.
    pub a_port: u16,
    /// Port of `b`, host order.
    pub b_port: u16,
    /// IP protocol number, after IPv6 extension headers.
    pub proto: u8,
    /// 4 or 6; 0 marks an empty slot.
    pub family: u8,
    /// Reserved for separate address spaces (VLAN, VRF); always 0 in this version.
    pub zone: u16,
}
const _: () = assert!(size_of::<FlowKey>() == 40);

impl PartialEq for FlowKey {
    /// Word by word: five compares instead of nine.
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let (x, y): ([u64; 5], [u64; 5]) = (bytemuck::must_cast(*self), bytemuck::must_cast(*other));
        (x[4] ^ y[4]) | (x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]) == 0
    }
}

impl FlowKey {
    /// Puts the two ends in order. Returns the key and the side that sent the packet.
    #[inline(always)]
    pub fn canonical(family: u8, proto: u8, src: (Addr, u16), dst: (Addr, u16)) -> (Self, Side) {
        let zone = 0;
        if in_order(&src, &dst) {
            (Self { a: src.0, b: dst.0, a_port: src.1, b_port: dst.1, proto, family, zone }, Side::A)
        } else {
            (Self { a: dst.0, b: src.0, a_port: dst.1, b_port: src.1, proto, family, zone }, Side::B)
        }
    }

    /// Address and port of one end.
    #[inline(always)]
    pub fn end(&self, side: Side) -> (Addr, u16) {
        match side {
            Side::A => (self.a, self.a_port),
            Side::B => (self.b, self.b_port),
        }
    }

    /// A keyed hash of the whole key, to index the first-level flow table.
    ///
    /// Multiply-shift hashing of a vector (Dietzfelbinger 1996, Thorup 2015): a sum of products by odd secrets, of which
    /// only the top bits depend on every bit of the key. So the top half counts, turned round, for an index is cut from
    /// its low end. No product waits for another, and IPv4 flows spare the halves of addresses that all of them share.
    /// An attacker who does not know the secrets cannot choose collisions, and what one costs is a spilled record.
    #[inline(always)]
    pub fn hash(&self, keys: &HashKeys) -> u32 {
        let words: [u64; 5] = bytemuck::must_cast(*self);
        let product = |word: usize| words[word].wrapping_mul(keys.odd[word]);
        let mut h = product(1).wrapping_add(product(3)).wrapping_add(product(4));
        if self.family != 4 {
            h = h.wrapping_add(product(0)).wrapping_add(product(2));
        }
        ((h >> 32) as u32).swap_bytes()
    }
}

#[inline(always)]
fn in_order(x: &(Addr, u16), y: &(Addr, u16)) -> bool {
    if x.0.words[1] != y.0.words[1] {
        return x.0.words[1] < y.0.words[1];
    }
    if x.0.words[0] != y.0.words[0] {
        return x.0.words[0] < y.0.words[0];
    }
    x.1 <= y.1
}

/// The secrets of the flow hash.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct HashKeys {
    /// One for each word of a [`FlowKey`], odd.
    odd: [u64; 5],
}

impl HashKeys {
    /// The hash of two words.
    #[inline(always)]
    pub(super) fn of_two(&self, x: u64, y: u64) -> u32 {
        let h = x.wrapping_mul(self.odd[0]).wrapping_add(y.wrapping_mul(self.odd[1]));
        ((h >> 32) as u32).swap_bytes()
    }

    /// From a seed, by SplitMix64 (Steele et al. 2014).
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        let odd = core::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) | 1
        });
        Self { odd }
    }
}

/// Key of the policy trie: source class, destination class, protocol, port, longest prefix first.
///
/// Bytes, because a trie compares bytes: classes and port in big-endian. A zero byte puts the port where a store to it
/// is aligned.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct PolicyKey {
    /// Source class (4), destination class (4), protocol (1), zero (1), port (2).
    pub bytes: [u8; 12],
}

impl PolicyKey {
    /// Prefix length that fixes both classes and leaves protocol and port open.
    pub const CLASSES_BITS: u32 = 64;
    /// Prefix length that fixes the protocol as well.
    pub const PROTOCOL_BITS: u32 = 80;
    /// Prefix length of a key with every field fixed.
    pub const FULL_BITS: u32 = 96;

    /// The key of one flow, to be looked up with [`Self::FULL_BITS`].
    #[inline(always)]
    pub fn new(src_class: u32, dst_class: u32, proto: u8, port: u16) -> Self {
        let s = src_class.to_be_bytes();
        let d = dst_class.to_be_bytes();
        let p = port.to_be_bytes();
        Self { bytes: [s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3], proto, 0, p[0], p[1]] }
    }

    /// Whether it is of sources that have no class: see [`super::Config::NOBODY_NAMED`].
    pub fn is_of_nobody(&self) -> bool {
        self.bytes[..4] == [0; 4]
    }
}

/// Key of the bindings that do not hold everywhere: segment, address, protocol, port of the end itself, longest prefix first.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct ScopedKey {
    /// Where: see [`crate::scope::segment`]; 0 for everywhere. Big-endian.
    pub segment: [u8; 4],
    /// The address.
    pub addr: [u8; 16],
    /// Protocol (1), zero (1), port (2).
    pub service: [u8; 4],
}

impl ScopedKey {
    /// The segment of an end of which nobody knows where it is.
    pub const SOMEWHERE: u32 = u32::MAX;
    /// Prefix length that fixes the segment alone.
    pub const SEGMENT_BITS: u32 = 32;
    /// Prefix length that fixes segment, address and protocol.
    pub const PROTOCOL_BITS: u32 = 32 + 128 + 16;
    /// Prefix length of a key with every field fixed.
    pub const FULL_BITS: u32 = 32 + 128 + 32;

    /// The key of an end; `service` is protocol and port as [`crate::scope::service`] puts them together.
    #[inline(always)]
    pub fn new(segment: u32, addr: &Addr, service: u32) -> Self {
        Self { segment: segment.to_be_bytes(), addr: addr.octets(), service: service.to_be_bytes() }
    }
}

/// What a guard list says of a service: a [`PolicyKey`] whose first word is the list and the layer.
///
/// A list is what blocks and quarantines say of some end of a connection: of a prefix, of an identity. Two layers are
/// kept apart because a blocklist speaks before a quarantine does.
#[derive(Clone, Copy, Debug)]
pub struct GuardKey;

impl GuardKey {
    /// Prefix length that fixes the list and its layer alone.
    pub const LIST_BITS: u32 = 32;

    /// The blocks of a list, for a service. They speak of no peer.
    #[inline(always)]
    pub fn block(list: u32, proto: u8, port: u16) -> PolicyKey {
        PolicyKey::new(list << 1, 0, proto, port)
    }

    /// The quarantines of a list, for a peer's class and a service.
    #[inline(always)]
    pub fn quarantine(list: u32, peer: u32, proto: u8, port: u16) -> PolicyKey {
        PolicyKey::new(list << 1 | 1, peer, proto, port)
    }
}

/// A service of the gateway itself that no policy may cut: the host's own address, protocol, port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct FailsafeKey {
    /// An address of the gateway.
    pub addr: Addr,
    /// Port, host order.
    pub port: u16,
    /// IP protocol number, in as many bytes as make each store to the key an aligned one.
    pub proto: u16,
    /// Padding.
    pub _pad: u32,
}

impl FailsafeKey {
    /// The key of a service.
    #[inline(always)]
    pub fn new(addr: Addr, proto: u8, port: u16) -> Self {
        Self { addr, port, proto: u16::from(proto), _pad: 0 }
    }
}

/// A fragmented datagram: later fragments find the ports of the first here (RFC 791, section 3.2; RFC 8200, 4.5).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct FragmentKey {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Identification field, 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// IP protocol number, in as many bytes as make each store to the key an aligned one.
    pub proto: u32,
}

/// Ports of a first fragment.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct FragmentPorts {
    /// Source port, host order.
    pub src_port: u16,
    /// Destination port, host order.
    pub dst_port: u16,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::proto;

    /// Flows that differ in 16 bits alone, whichever, do not share a few slots.
    #[test]
    fn neighbours_spread() {
        type Make = fn([u8; 2]) -> FlowKey;
        let makes: [(&str, Make); 5] = [
            ("hosts of a /16", |[x, y]| {
                FlowKey::canonical(
                    4,
                    proto::UDP,
                    (Addr::v4([10, 1, x, y]), 1024),
                    (Addr::v4([10, 2, 0, 2]), 53),
                )
                .0
            }),
            ("servers of a /16", |[x, y]| {
                FlowKey::canonical(
                    4,
                    proto::UDP,
                    (Addr::v4([10, 1, 0, 1]), 1024),
                    (Addr::v4([10, 2, x, y]), 53),
                )
                .0
            }),
            ("networks", |[x, y]| {
                FlowKey::canonical(
                    4,
                    proto::UDP,
                    (Addr::v4([x, y, 0, 1]), 1024),
                    (Addr::v4([10, 2, 0, 2]), 53),
                )
                .0
            }),
            ("ports", |port| {
                let port = u16::from_be_bytes(port);
                FlowKey::canonical(
                    4,
                    proto::TCP,
                    (Addr::v4([10, 1, 0, 1]), port),
                    (Addr::v4([10, 2, 0, 2]), 443),
                )
                .0
            }),
            ("hosts of a /112", |[x, y]| {
                let host = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, x, y];
                let server = [0xfd, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
                FlowKey::canonical(6, proto::TCP, (Addr::v6(host), 1024), (Addr::v6(server), 443)).0
            }),
        ];
        for seed in 0..50 {
            let keys = HashKeys::new(seed);
            for (what, make) in makes {
                let mut used = [0u64; 1024];
                for n in 0..=u16::MAX {
                    let slot = make(n.to_be_bytes()).hash(&keys) as usize & 0xffff;
                    used[slot / 64] |= 1 << (slot % 64);
                }
                let used: u32 = used.iter().map(|word| word.count_ones()).sum();
                // A single product steps through the slots evenly; an unlucky secret makes that few steps.
                assert!(used > 2_048, "{what} take {used} of 65,536 slots with seed {seed}");
            }
        }
    }
}
