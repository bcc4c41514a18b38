//! What a replay notes of a connection beyond what the programs keep: it sees every packet, where they see only those
//! that are not settled.
//!
//! These are the letters of Zeek's history that need sequence numbers or windows of every packet (`T`, `G`, `W`), that
//! need checksums, which XDP does not verify (`C`), and resets and FINs that come again elsewhere in the stream. The rules
//! are Zeek's. State comes from the same tracking that the programs do, on a record of its own.

use datapath::abi::{Connection, Endpoint, Packet, Side};
use datapath::track;

/// A letter that comes again is written down at the 1st, 10th, 100th ... time, as Zeek does.
const SCALE: u64 = 10;
/// Segments beyond a hole that are kept. With more, gaps of that side are no longer looked for.
const MAX_AHEAD: usize = 4096;
/// A SYN or RST that is further away says nothing of where a stream is.
const FAR: i32 = 1 << 20;

/// A connection as the replay saw it.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Tracked from every packet that went on. Its history has the letters that the programs keep, too.
    conn: Connection,
    streams: [Stream; 2],
    /// Letters that the programs do not keep: how many of theirs come before, who, which.
    extra: Vec<(usize, Side, char)>,
    /// IP bytes of `a` and `b` beyond what the IP headers say.
    pub unsaid_bytes: [u64; 2],
    /// The engines' time of the first packet.
    pub first_ns: u64,
    /// Who opened it, by its first packet.
    pub originator: Side,
}

/// One direction of a TCP connection.
#[derive(Clone, Debug, Default)]
struct Stream {
    /// Sequence number of the SYN, or what it would have been.
    start: u32,
    /// Behind the furthest segment.
    last: u32,
    /// Up to here everything is there, or was counted as a gap.
    delivered: u32,
    /// Behind the FIN.
    end: Option<u32>,
    /// Segments beyond a hole, in their order.
    ahead: Vec<(u32, u32)>,
    is_lost: bool,
    fin_at: Option<u32>,
    rst_at: Option<u32>,
    counts: [u64; 4],
}

const COUNTED: [char; 4] = ['T', 'C', 'G', 'W'];

impl Observed {
    /// Of a connection whose first packet is this.
    pub fn new(packet: &Packet, now_ns: u64) -> Self {
        let originator = track::originator(packet);
        let mut conn: Connection = bytemuck::Zeroable::zeroed();
        track::open(&mut conn, packet, originator, 0, now_ns);
        Self {
            conn,
            streams: Default::default(),
            extra: Vec::new(),
            unsaid_bytes: [0; 2],
            first_ns: now_ns,
            originator,
        }
    }

    /// Notes a packet that went on. `is_cut` says that the capture has not all of its payload.
    pub fn packet(&mut self, packet: &Packet, is_cut: bool, now_ns: u64) {
        let is_orig = self.conn.is_originator(packet.side());
        if !packet.has(Packet::HAS_TCP) {
            if packet.fragment_offset == 0 {
                track::datagram(&mut self.conn, is_orig, now_ns);
            }
            return;
        }
        let before = self.states(packet.side());
        track::tcp::segment(&mut self.conn, packet, is_orig, now_ns);
        if packet.has(Packet::IS_FRAGMENT) {
            return; // the rest of the segment is elsewhere
        }
        let side = packet.side();
        self.begin(packet, before.0);
        self.again(packet);
        self.window(packet, before);
        if self.stream(side).advance(packet, before.0) {
            self.count(0, side);
        }
        if packet.flag(Packet::FIN) {
            self.stream(side).end = Some(packet.seq.wrapping_add(sequence_bytes(packet)));
        }
        if packet.flag(Packet::ACK) && before.1 != Endpoint::Inactive {
            let gaps = self.stream(side.other()).acknowledged(packet.ack);
            if self.is_clean() {
                (0..gaps).for_each(|_| self.count(2, side.other()));
            }
        }
        if !is_cut && packet.payload_bytes != 0 && !packet.flag(Packet::RST) {
            self.stream(side).take(packet);
        }
    }

    /// Notes a packet with a wrong checksum, which nobody took.
    pub fn wrong_checksum(&mut self, side: Side) {
        self.count(1, side);
    }

    /// The history: the letters that the programs kept, with the others between them.
    pub fn history(&self, kept: &str, originator: Side) -> String {
        let mut extra = self.extra.iter().peekable();
        let mut all = String::new();
        let letters = kept.chars().filter(|letter| *letter != '^').count();
        let mut seen = 0;
        let mut insert = |all: &mut String, seen: usize| {
            while let Some((_, side, letter)) = extra.next_if(|(after, ..)| *after <= seen || seen == letters)
            {
                let is_orig = *side == originator;
                all.push(if is_orig { *letter } else { letter.to_ascii_lowercase() });
            }
        };
        for letter in kept.chars() {
            if letter != '^' {
                insert(&mut all, seen);
                seen += 1;
            }
            all.push(letter);
        }
        insert(&mut all, letters);
        all
    }

    fn stream(&mut self, side: Side) -> &mut Stream {
        &mut self.streams[side.index()]
    }

    /// State of a side and of its peer.
    fn states(&self, side: Side) -> (Endpoint, Endpoint) {
        let (orig, resp) = (self.conn.orig(), self.conn.resp());
        if self.conn.is_originator(side) { (orig, resp) } else { (resp, orig) }
    }

    /// Where a stream starts.
    fn begin(&mut self, packet: &Packet, mine: Endpoint) {
        let stream = self.stream(packet.side());
        let is_syn = packet.flag(Packet::SYN);
        let begins = match mine {
            Endpoint::Inactive => true,
            Endpoint::SynSent | Endpoint::SynAckSent => is_syn && packet.seq != stream.start,
            Endpoint::Established | Endpoint::Partial => is_syn,
            Endpoint::Closed | Endpoint::Reset => false,
        };
        if !begins {
            return;
        }
        let first = packet.seq.wrapping_add(u32::from(is_syn));
        stream.start = first.wrapping_sub(1);
        stream.last = if is_syn { packet.seq.wrapping_add(sequence_bytes(packet)) } else { packet.seq };
        stream.delivered = first;
        stream.ahead.clear();
    }

    /// A FIN or RST that comes again at another place has its letter again.
    fn again(&mut self, packet: &Packet) {
        let (side, seq) = (packet.side(), packet.seq);
        match packet.tcp_flags & (Packet::SYN | Packet::FIN | Packet::RST) {
            Packet::FIN => {
                let place = Some(seq.wrapping_add(packet.payload_bytes));
                let before = std::mem::replace(&mut self.stream(side).fin_at, place);
                if before.is_some() && before != place {
                    self.note('F', side);
                }
            }
            Packet::RST => {
                let before = self.stream(side).rst_at.replace(seq);
                if before.is_some_and(|before| before != seq) {
                    self.note('R', side);
                }
            }
            _ => {}
        }
    }

    /// No room is no news in a reset or after one, nor when the peer has nothing more to send.
    fn window(&mut self, packet: &Packet, (mine, theirs): (Endpoint, Endpoint)) {
        let is_news = !packet.flag(Packet::RST) && mine != Endpoint::Reset && theirs != Endpoint::Closed;
        if packet.tcp_window == 0 && is_news {
            self.count(3, packet.side());
        }
    }

    /// Whether both ends are established, or were until they closed.
    fn is_clean(&self) -> bool {
        self.conn.state.iter().all(|state| {
            let (state, before) = (Endpoint::from_u8(state & 0x0f), Endpoint::from_u8(state >> 4));
            state == Endpoint::Established || state == Endpoint::Closed && before == Endpoint::Established
        })
    }

    fn count(&mut self, which: usize, side: Side) {
        let count = &mut self.stream(side).counts[which];
        *count += 1;
        let mut power = 1;
        while power < *count {
            power *= SCALE;
        }
        if power == *count {
            self.note(COUNTED[which], side);
        }
    }

    fn note(&mut self, letter: char, side: Side) {
        let kept = track::history(&self.conn).trim_start_matches('^').len();
        self.extra.push((kept, side, letter));
    }
}

/// What a segment takes of the sequence numbers (RFC 9293, section 3.4). Data in a reset is none of the stream.
fn sequence_bytes(packet: &Packet) -> u32 {
    let data = if packet.flag(Packet::RST) { 0 } else { packet.payload_bytes };
    data + u32::from(packet.flag(Packet::SYN)) + u32::from(packet.flag(Packet::FIN))
}

/// How far `a` is behind `b`, if it is.
fn ahead_of(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

impl Stream {
    /// Moves the end of the stream. True if the segment has data and brings nothing new.
    fn advance(&mut self, packet: &Packet, mine: Endpoint) -> bool {
        let next = packet.seq.wrapping_add(sequence_bytes(packet));
        let advance = ahead_of(next, self.last);
        let is_first_fin = packet.flag(Packet::FIN) && self.last == self.start.wrapping_add(1);
        if packet.flag(Packet::SYN | Packet::RST) && !(-FAR..=FAR).contains(&advance) {
            return false;
        }
        if is_first_fin {
            self.last = next;
            return false;
        }
        if mine == Endpoint::Reset {
            return false;
        }
        if advance > 0 {
            self.last = next;
            return false;
        }
        packet.payload_bytes != 0
    }

    /// The peer has all up to here. Returns how many holes are before it.
    fn acknowledged(&mut self, ack: u32) -> u64 {
        let end = self.end.map(|end| end.wrapping_sub(1)).filter(|end| ahead_of(ack, *end) > 0);
        let ack = end.unwrap_or(ack);
        let mut gaps = 0;
        if self.is_lost || ahead_of(ack, self.delivered) <= 0 {
            return 0;
        }
        while let Some((from, to)) = self.ahead.first().copied()
            && ahead_of(from, ack) < 0
        {
            gaps += u64::from(ahead_of(from, self.delivered) > 0);
            self.deliver(to);
        }
        if ahead_of(ack, self.delivered) > 0 {
            gaps += 1;
            self.deliver(ack);
        }
        gaps
    }

    /// Adds a segment's data.
    fn take(&mut self, packet: &Packet) {
        let from = packet.seq.wrapping_add(u32::from(packet.flag(Packet::SYN)));
        let to = from.wrapping_add(packet.payload_bytes);
        if ahead_of(from, self.start) <= 0 || ahead_of(to, self.delivered) <= 0 {
            return; // before the beginning, or known
        }
        if ahead_of(from, self.delivered) <= 0 {
            self.deliver(to);
        } else if self.ahead.len() < MAX_AHEAD {
            let place = self.ahead.partition_point(|(other, _)| ahead_of(*other, from) < 0);
            self.ahead.insert(place, (from, to));
        } else {
            self.is_lost = true;
        }
    }

    /// Everything up to `to` is there, and what goes on from it.
    fn deliver(&mut self, to: u32) {
        if ahead_of(to, self.delivered) > 0 {
            self.delivered = to;
        }
        while let Some((from, to)) = self.ahead.first().copied()
            && ahead_of(from, self.delivered) <= 0
        {
            self.ahead.remove(0);
            if ahead_of(to, self.delivered) > 0 {
                self.delivered = to;
            }
        }
    }
}
