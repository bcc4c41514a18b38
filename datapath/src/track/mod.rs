//! Connection and handshake state: what a packet changes in the shared record of its connection.

pub mod history;
pub mod quic;
pub mod sctp;
pub mod stream;
pub mod tcp;
pub mod tls;

use crate::abi::{Config, Connection, Endpoint, Packet, Reason, Side};
use crate::wire::proto;

pub use history::conn_state;
#[cfg(feature = "host")]
pub use history::history;

/// What the last packet brought about, to be counted and reported once: bits of `Connection::happened`.
pub mod happened {
    /// The connection was answered: it moves among the established.
    pub const ANSWERED: u8 = 1 << 0;
    /// The TCP handshake completed.
    pub const ESTABLISHED: u8 = 1 << 1;
    /// The SYN was answered by a reset.
    pub const REFUSED: u8 = 1 << 2;
    /// The SYN was sent again.
    pub const RETRANSMITTED: u8 = 1 << 3;
    /// A QUIC handshake began.
    pub const QUIC: u8 = 1 << 4;
    /// The first Retry of a QUIC handshake.
    pub const RETRY: u8 = 1 << 5;
    /// The first Version Negotiation of a QUIC handshake.
    pub const VERSIONS: u8 = 1 << 6;
    /// An Initial packet of QUIC came: the only ones that carry a hello.
    pub const INITIAL: u8 = 1 << 7;
}

/// Which side opened the connection that a packet without a record belongs to.
///
/// A SYN-ACK is an answer, and so are an INIT ACK, a COOKIE ACK and an echo reply: who may not ask must not be let in by being answered first. In
/// mid-stream the end on a well-known port is taken for the server, where only one is
/// on one. In every other case the sender opened it.
#[inline(always)]
pub fn originator(packet: &Packet) -> Side {
    let sender = packet.side();
    if !packet.has(Packet::HAS_TCP) {
        let answers = is_icmp_reply(packet) || packet.sctp(Packet::SCTP_INIT_ACK | Packet::SCTP_COOKIE_ACK);
        return if answers { sender.other() } else { sender };
    }
    let syn = packet.flag(Packet::SYN);
    let midstream = !syn && packet.src().1 < 1024 && packet.dst().1 >= 1024;
    if syn && packet.flag(Packet::ACK) || midstream { sender.other() } else { sender }
}

/// Replies to echo, timestamp, information and address mask requests (RFC 792, RFC 950), and to their kin of ICMPv6
/// (RFC 4443, RFC 4620). Advertisements come unasked and are none.
#[inline(always)]
fn is_icmp_reply(packet: &Packet) -> bool {
    if packet.key.proto == proto::ICMP {
        packet.has(Packet::HAS_ICMP) && matches!(packet.icmp_type, 0 | 14 | 16 | 18)
    } else {
        packet.has(Packet::HAS_ICMP) && matches!(packet.icmp_type, 129 | 140)
    }
}

/// The reason for refusing a packet that opens no connection of its protocol, where nothing is taken up in mid-stream: no SYN,
/// no INIT, the reply to an ICMP request.
#[inline(always)]
pub(crate) fn midstream(packet: &Packet) -> Option<Reason> {
    if packet.has(Packet::HAS_TCP) {
        let opens = packet.flag(Packet::SYN) && !packet.flag(Packet::ACK);
        return if opens { None } else { Some(Reason::Midstream) };
    }
    if packet.has(Packet::HAS_SCTP) {
        return if packet.sctp(Packet::SCTP_INIT) { None } else { Some(Reason::SctpMidstream) };
    }
    if is_icmp_reply(packet) { Some(Reason::IcmpUnsolicited) } else { None }
}

/// A number for a connection of whose key no other is known. By the time, so that records of one that was forgotten since,
/// which other CPUs may still have, are not taken for its own.
#[inline(always)]
pub fn incarnation(now_ns: u64) -> u32 {
    (now_ns >> 20) as u32
}

/// Begins the record of a connection of which nothing was seen before this packet.
#[inline(always)]
pub fn open(conn: &mut Connection, packet: &Packet, originator: Side, incarnation: u32, now_ns: u64) {
    *conn = bytemuck::Zeroable::zeroed();
    conn.opened_ns = now_ns;
    conn.last_ns = now_ns;
    conn.incarnation = incarnation;
    conn.originator = originator.index() as u8;
    // What acknowledges a SYN names its sequence number.
    let answers = packet.flag(Packet::SYN) && packet.flag(Packet::ACK);
    conn.isn = if answers { packet.ack.wrapping_sub(1) } else { packet.seq };
    let opens = if packet.has(Packet::HAS_SCTP) {
        packet.sctp(Packet::SCTP_INIT)
    } else {
        !packet.has(Packet::HAS_TCP) || packet.flag(Packet::SYN) && !packet.flag(Packet::ACK)
    };
    if !opens {
        conn.flags |= Connection::IS_MIDSTREAM;
        if originator != packet.side() {
            conn.flags |= Connection::IS_FLIPPED;
        }
    }
}

/// Whether the record is of a connection that is over, so that this packet begins another.
///
/// Idle times count from the last packet on this CPU or in the record, whichever is later.
#[inline(always)]
pub fn is_over(conn: &Connection, packet: &Packet, last_ns: u64, now_ns: u64, config: &Config) -> bool {
    let idle_ns = now_ns.saturating_sub(if last_ns > conn.last_ns { last_ns } else { conn.last_ns });
    if packet.has(Packet::HAS_SCTP) && conn.closed_ns != 0 {
        let lingers = now_ns.saturating_sub(conn.closed_ns) < config.close_linger_ns;
        return packet.sctp(Packet::SCTP_INIT) || !lingers;
    }
    if !packet.has(Packet::HAS_TCP) {
        return idle_ns > timeout_ns(conn, packet.key.proto, config);
    }
    let opens = packet.flag(Packet::SYN) && !packet.flag(Packet::ACK) && packet.seq != conn.isn;
    if opens && conn.flags & Connection::IS_CUT != 0 {
        return true;
    }
    if conn.closed_ns != 0 {
        return opens || now_ns.saturating_sub(conn.closed_ns) >= config.close_linger_ns;
    }
    if conn.orig() == Endpoint::SynSent && conn.resp() == Endpoint::Inactive {
        return now_ns.saturating_sub(conn.opened_ns) >= config.attempt_timeout_ns;
    }
    idle_ns > timeout_ns(conn, packet.key.proto, config)
}

/// Whether nothing was heard of a connection for so long that what quotes one of its packets is no news of it. By the
/// shared record alone, which a busy flow looks at several times in an idle time.
#[inline(always)]
pub fn is_forgotten(conn: &Connection, protocol: u8, now_ns: u64, config: &Config) -> bool {
    now_ns.saturating_sub(conn.last_ns) > timeout_ns(conn, protocol, config)
}

/// How long nothing has to be heard of a connection in its state for it to be over.
#[inline(always)]
pub fn timeout_ns(conn: &Connection, protocol: u8, config: &Config) -> u64 {
    let (orig, resp) = (conn.orig(), conn.resp());
    match protocol {
        proto::TCP if conn.closed_ns != 0 || stream::is_asked(conn) => config.close_linger_ns,
        proto::TCP if orig == Endpoint::SynSent && resp == Endpoint::Inactive => config.attempt_timeout_ns,
        proto::TCP if orig == Endpoint::Closed || resp == Endpoint::Closed => config.half_closed_timeout_ns,
        proto::TCP if conn.syn_ack_ns != 0 && conn.established_ns == 0 => config.handshake_timeout_ns,
        proto::TCP => config.tcp_idle_timeout_ns,
        proto::UDP if resp == Endpoint::Inactive => config.unreplied_timeout_ns,
        proto::ICMP | proto::ICMPV6 => config.icmp_timeout_ns,
        proto::SCTP if conn.closed_ns != 0 => config.close_linger_ns,
        proto::SCTP if !sctp::is_established(conn) => config.handshake_timeout_ns,
        proto::SCTP if orig == Endpoint::Closed || resp == Endpoint::Closed => config.half_closed_timeout_ns,
        proto::SCTP => config.sctp_timeout_ns,
        _ => config.datagram_timeout_ns,
    }
}

/// How long nothing has to be heard of a connection that is about to open for it to be over, roughly: its first packet has
/// not changed its record yet.
#[inline(always)]
pub fn first_timeout_ns(protocol: u8, config: &Config) -> u64 {
    match protocol {
        proto::TCP => config.attempt_timeout_ns,
        proto::UDP => config.unreplied_timeout_ns,
        proto::ICMP | proto::ICMPV6 => config.icmp_timeout_ns,
        proto::SCTP => config.handshake_timeout_ns,
        _ => config.datagram_timeout_ns,
    }
}

/// When a connection is over if nothing more is heard of it. Not earlier: packets of one that is settled look at its record
/// four times in the shortest idle time.
#[inline(always)]
pub fn ends_ns(conn: &Connection, protocol: u8, now_ns: u64, config: &Config) -> u64 {
    let timeout_ns = timeout_ns(conn, protocol, config);
    if protocol == proto::TCP && conn.orig() == Endpoint::SynSent && conn.resp() == Endpoint::Inactive {
        return conn.opened_ns.saturating_add(timeout_ns);
    }
    now_ns.saturating_add(timeout_ns).saturating_add(config.shortest_idle_ns / 4)
}

/// Whether a connection belongs among the answered.
#[inline(always)]
pub fn is_answered(conn: &Connection, protocol: u8) -> bool {
    match protocol {
        proto::TCP => tcp::is_answered(conn),
        proto::SCTP => sctp::is_answered(conn),
        _ => conn.resp() != Endpoint::Inactive,
    }
}

/// A flow of datagrams whose responder goes on for so long without another word of the originator is wanted all the same.
const WANTED_NS: u64 = 2_000_000_000;

/// Changes the record by a packet of any protocol but TCP and SCTP: who has sent something.
///
/// An answer alone does not move it among the answered: it is what a flood gets whose sources are not the sender's, and it must not
/// push out the living. An originator that speaks again after an answer has most likely had it.
#[inline(always)]
pub fn datagram(conn: &mut Connection, is_orig: bool, now_ns: u64) {
    let i = usize::from(!is_orig);
    let was_answered = conn.state[1] != Endpoint::Inactive as u8;
    if conn.state[i] != Endpoint::Established as u8 {
        conn.state[i] = Endpoint::Established as u8;
        history::note(conn, history::DATA, is_orig);
    }
    let goes_on = is_orig || now_ns.saturating_sub(conn.opened_ns) > WANTED_NS;
    if was_answered && goes_on && !is_wanted(conn) {
        conn.stream |= Connection::IS_WANTED;
        conn.happened |= happened::ANSWERED;
    }
}

/// Whether a flow of datagrams went on after its first answer.
#[inline(always)]
pub(crate) fn is_wanted(conn: &Connection) -> bool {
    conn.stream & Connection::IS_WANTED != 0
}

/// The name of a protocol in records: Zeek's where it has one.
pub fn proto_name(number: u8) -> &'static str {
    match number {
        proto::TCP => "tcp",
        proto::UDP => "udp",
        proto::ICMP | proto::ICMPV6 => "icmp",
        proto::SCTP => "sctp",
        _ => "unknown_transport",
    }
}
