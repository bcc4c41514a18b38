//! Verdicts and the reasons for them. docs/drops.md is generated from this table.

/// What becomes of a packet (Hubble's verdicts).
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// It goes on.
    Forwarded = 1,
    /// It is dropped.
    Dropped = 2,
    /// It goes on, although it would have been dropped (monitor mode, an audited rule, a lease that only alerts).
    Audit = 4,
}

impl Action {
    /// From its number; numbers of no verdict are [`Action::Dropped`].
    #[inline(always)]
    pub fn from_u8(n: u8) -> Self {
        match n {
            1 => Self::Forwarded,
            4 => Self::Audit,
            _ => Self::Dropped,
        }
    }

    /// Hubble's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forwarded => "FORWARDED",
            Self::Dropped => "DROPPED",
            Self::Audit => "AUDIT",
        }
    }
}

/// Which way a packet crosses the interface.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Into the gateway (XDP).
    Ingress = 0,
    /// Out of the gateway, what it sends itself (TC).
    Egress = 1,
}

impl Direction {
    /// How many there are.
    pub const COUNT: usize = 2;

    /// From its number.
    #[inline(always)]
    pub fn from_u8(n: u8) -> Self {
        if n == 0 { Self::Ingress } else { Self::Egress }
    }

    /// Hubble's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "INGRESS",
            Self::Egress => "EGRESS",
        }
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $n:literal, $name:literal, $code:literal;)+) => {
        /// Why a verdict is what it is. The number indexes counters, and 20 was one that is no more; [`Reason::code`] is what
        /// users see.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant = $n,)+
        }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// From its number; numbers of no reason are [`Reason::InvalidPacket`].
            #[inline(always)]
            pub fn from_u8(n: u8) -> Self {
                match n {
                    $($n => Self::$variant,)+
                    _ => Self::InvalidPacket,
                }
            }

            /// The metric label: Cilium's name where one fits.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Cilium's number where the name is Cilium's, else a number of our own below 130.
            pub fn code(self) -> u8 {
                match self {
                    $(Self::$variant => $code,)+
                }
            }

            /// What it means, a sentence or two.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+).trim_ascii_start(),)+
                }
            }
        }
    };
}

reasons! {
    /// Passed: a rule allows it, or no policy is loaded.
    Forwarded = 0, "FORWARDED", 0;
    /// Passed: a reply, or a later packet of a connection that was allowed.
    Established = 1, "ESTABLISHED", 1;
    /// Passed: an ICMP error about a connection that was allowed (RFC 792, RFC 4443).
    Related = 2, "RELATED", 2;
    /// Passed: ARP, neighbour discovery (RFC 4861) or link control, without which no policy could be reached.
    Infrastructure = 3, "INFRASTRUCTURE", 3;
    /// Passed: a failsafe port of the gateway itself, which no policy may cut.
    Failsafe = 4, "FAILSAFE", 4;
    /// No rule allows it.
    PolicyDenied = 5, "POLICY_DENIED", 133;
    /// A rule denies it.
    PolicyDeny = 6, "POLICY_DENY", 181;
    /// No rule allows it, and one of the ends has no identity.
    InvalidIdentity = 7, "INVALID_IDENTITY", 171;
    /// The lease of one end's identity is over.
    LeaseExpired = 8, "LEASE_EXPIRED", 10;
    /// One end is on a blocklist.
    Blocklisted = 9, "BLOCKLISTED", 11;
    /// The frame ends within the Ethernet header, or says nothing that a parser can hold on to.
    InvalidPacket = 10, "INVALID_PACKET_DROPPED", 134;
    /// The packet ends within the header of a protocol that has no reason of its own for it: ESP, GRE.
    CtInvalidHeader = 11, "CT_TRUNCATED_OR_INVALID_HEADER", 135;
    /// An EtherType that is none of IPv4, IPv6, ARP and link control.
    UnsupportedL2 = 12, "UNSUPPORTED_L2_PROTOCOL", 166;
    /// More VLAN tags than this version reads.
    VlanFiltered = 13, "VLAN_FILTERED", 182;
    /// The frame ends within the IPv4 header (RFC 791, section 3.1).
    Ipv4Truncated = 14, "IPV4_HEADER_TRUNCATED", 12;
    /// The frame ends within the IPv6 header (RFC 8200, section 3).
    Ipv6Truncated = 15, "IPV6_HEADER_TRUNCATED", 13;
    /// An IPv6 extension header is cut off, or longer than the packet (RFC 8200, section 4).
    InvalidExtension = 16, "INVALID_IPV6_EXTENSION_HEADER", 156;
    /// A later fragment whose first fragment was not seen.
    FragmentOrphan = 17, "FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND", 175;
    /// A first fragment that does not hold all headers up to the ports (RFC 1858, RFC 7112).
    FragmentTiny = 18, "FRAGMENT_WITHOUT_HEADER", 14;
    /// Flags that no TCP sends: none at all, or SYN with FIN or RST.
    TcpInvalidFlags = 19, "TCP_INVALID_FLAGS", 15;
    /// A table of the program is missing or out of step: nothing can be judged.
    NoConfiguration = 21, "NO_CONFIGURATION_AVAILABLE_TO_PERFORM_POLICY_DECISION", 165;
    /// Passed: sent by the gateway for a packet that XDP judged on its way in.
    JudgedAtIngress = 22, "JUDGED_AT_INGRESS", 5;
    /// The rule asks for TLS, and the connection does not begin with a ClientHello (RFC 8446, section 5.1).
    TlsRequired = 23, "TLS_REQUIRED", 16;
    /// The connection has lasted for as long as its rule lets one last.
    LifetimeExceeded = 24, "LIFETIME_EXCEEDED", 17;
    /// More packets, bytes or new connections than the rule, or the limit of the originator's identity, lets pass.
    RateLimited = 25, "DROP_RATE_LIMITED", 198;
    /// The frame ends within a VLAN tag.
    VlanTruncated = 26, "VLAN_TAG_TRUNCATED", 40;
    /// The EtherType says IPv4, the header another version.
    Ipv4Version = 27, "IPV4_VERSION_MISMATCH", 41;
    /// The IPv4 header says that it has less than five words (RFC 791, section 3.1).
    Ipv4HeaderLength = 28, "IPV4_HEADER_LENGTH_INVALID", 42;
    /// The IPv4 packet says that it is shorter than its own header.
    Ipv4TotalLength = 29, "IPV4_TOTAL_LENGTH_INVALID", 43;
    /// The frame ends before the IPv4 packet in it does.
    Ipv4CutOff = 30, "IPV4_PACKET_CUT_OFF", 44;
    /// The IPv4 options do not add up to the header's length (RFC 791, section 3.1).
    Ipv4Options = 31, "IPV4_OPTIONS_MALFORMED", 45;
    /// The packet names its own way: IPv4 loose or strict source route (RFC 7126, section 4.3), or an IPv6 routing header
    /// of type 0 with segments left (RFC 5095). Its destination address is not where it ends.
    SourceRouted = 32, "SOURCE_ROUTED", 46;
    /// The EtherType says IPv6, the header another version.
    Ipv6Version = 33, "IPV6_VERSION_MISMATCH", 47;
    /// The frame ends before the IPv6 packet in it does.
    Ipv6CutOff = 34, "IPV6_PACKET_CUT_OFF", 48;
    /// More IPv6 extension headers than this version follows.
    ExtensionChain = 35, "IPV6_EXTENSION_CHAIN_TOO_LONG", 49;
    /// An IPv6 extension header where none of its kind may stand: hop-by-hop options that are not the first, or a second
    /// fragment header (RFC 8200, section 4.1).
    ExtensionOrder = 36, "IPV6_EXTENSION_ORDER", 50;
    /// A fragment that more follow is not a multiple of eight bytes long, or a fragment is empty (RFC 8200, section 4.5).
    FragmentLength = 37, "FRAGMENT_LENGTH_INVALID", 51;
    /// A fragment that ends beyond the longest datagram (RFC 8200, section 4.5).
    FragmentBeyond = 38, "FRAGMENT_BEYOND_DATAGRAM", 52;
    /// A fragment that would overwrite the flags of a TCP header that was judged (RFC 1858, section 3).
    FragmentOverlap = 39, "FRAGMENT_OVERLAPS_HEADER", 53;
    /// The packet ends within the TCP header.
    TcpTruncated = 40, "TCP_HEADER_TRUNCATED", 54;
    /// The TCP header says that it has less than five words (RFC 9293, section 3.1).
    TcpDataOffset = 41, "TCP_DATA_OFFSET_INVALID", 55;
    /// The TCP options of a SYN do not add up to the header's length, or one of them has a length of another.
    TcpOptions = 42, "TCP_OPTIONS_MALFORMED", 56;
    /// The packet ends within the UDP header.
    UdpTruncated = 43, "UDP_HEADER_TRUNCATED", 57;
    /// The UDP header says that the datagram is shorter than itself or longer than the packet (RFC 768).
    UdpLength = 44, "UDP_LENGTH_INVALID", 58;
    /// The packet ends within the SCTP header or its first chunk's.
    SctpTruncated = 45, "SCTP_HEADER_TRUNCATED", 59;
    /// The first SCTP chunk is shorter than its own header or longer than the packet, or an INIT has a verification tag,
    /// or not its own packet (RFC 9260, sections 3.2 and 8.5.1).
    SctpChunk = 46, "SCTP_CHUNK_INVALID", 60;
    /// The packet ends within the ICMP or ICMPv6 header.
    IcmpTruncated = 47, "ICMP_HEADER_TRUNCATED", 61;
    /// Neighbour discovery from beyond the link: its hop limit is not 255 (RFC 4861, sections 6.1 and 7.1).
    NdHopLimit = 48, "ND_HOP_LIMIT_INVALID", 62;
    /// Neighbour discovery with a code, or shorter than its kind is (RFC 4861, sections 6.1, 7.1 and 8.1).
    NdMalformed = 49, "ND_MALFORMED", 63;
    /// A segment of a connection whose beginning was not seen, where the gateway takes up none in mid-stream.
    Midstream = 50, "TCP_MIDSTREAM", 64;
    /// The header of a tunnel that is looked into is cut off, or of a shape that its standard refuses (RFC 7348, RFC 8926,
    /// RFC 2784), or carries more than the packet holds.
    TunnelMalformed = 51, "TUNNEL_MALFORMED", 65;
    /// A reset that is not in the window of the connection that it is about (RFC 5961, section 3), or that answers a SYN
    /// and does not acknowledge it (RFC 9293, section 3.10.7.3).
    TcpInvalidRst = 52, "TCP_INVALID_RST", 66;
    /// The identity of one end is quarantined.
    Quarantined = 53, "QUARANTINED", 67;
    /// The originator's identity has as many unanswered connections at once as its limit lets it have.
    TooManyAttempts = 54, "TOO_MANY_ATTEMPTS", 68;
    /// The originator's identity has as many connections at once as its limit lets it have.
    TooManyConnections = 55, "TOO_MANY_CONNECTIONS", 69;
    /// Judged when it entered by another interface, and sent out by XDP itself (`tidegate run --forward xdp`).
    Redirected = 56, "REDIRECTED", 6;
    /// A reply of ICMP or ICMPv6 to a request that was not seen, where the gateway takes up nothing in mid-stream.
    IcmpUnsolicited = 57, "ICMP_UNSOLICITED_REPLY", 70;
    /// A packet of an SCTP association whose INIT was not seen, where the gateway takes up none in mid-stream.
    SctpMidstream = 58, "SCTP_MIDSTREAM", 71;
    /// An SCTP packet that carries another verification tag than its association has (RFC 9260, section 8.5).
    SctpInvalidTag = 59, "SCTP_INVALID_TAG", 72;
    /// No rule allows it, and one of the ends is claimed by several identities: nobody is taken for any of them.
    AmbiguousIdentity = 60, "AMBIGUOUS_IDENTITY", 73;
    /// The grant that let it pass is over, and no rule does.
    GrantExpired = 61, "GRANT_EXPIRED", 74;
    /// The hours of the rule that let it pass are over, and no other rule does.
    OutsideHours = 62, "OUTSIDE_HOURS", 75;
    /// The connections that the identity of one end had were cut: this one was opened before, or nobody saw it being opened.
    ConnectionCut = 63, "CONNECTION_CUT", 76;
}

impl Reason {
    /// Whether the reason lets a packet pass.
    #[inline(always)]
    pub fn passes(self) -> bool {
        matches!(
            self,
            Self::Forwarded
                | Self::Established
                | Self::Related
                | Self::Infrastructure
                | Self::Failsafe
                | Self::JudgedAtIngress
                | Self::Redirected
        )
    }
}
