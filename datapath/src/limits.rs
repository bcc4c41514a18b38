//! Limits of a rule: TLS that it asks for, an end to its connections, and rates.
//!
//! What a limit decides for a whole connection is part of its judgement ([`opening`], [`running`]) and is cached with it.
//! What needs every packet ([`by_packet`]) keeps the flow from being settled: nothing of it is on the fast lane.

use crate::abi::packet::Trace;
use crate::abi::{
    Action, BucketKey, Config, Connection, Direction, Endpoint, Limits, Packet, Reason, RuleSettings,
    Settled, TlsState, Unit,
};
use crate::admit::find;
use crate::event;
use crate::frame::Frame;
use crate::policy::{Judgement, Moment};
use crate::tables::{Buckets, Plane, Rules, Slots, Tables};
use crate::track::history;
use crate::wire::tls;

/// What a packet wants of a token bucket.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Boot-clock time.
    pub now_ns: u64,
    /// How long the bucket takes to regain what is taken.
    pub cost_ns: u64,
    /// How long the empty bucket takes to fill.
    pub burst_ns: u64,
}

/// A word that CPUs share. The BPF target of rustc has no compare-and-swap, though BPF has one.
pub trait Word {
    /// Its value.
    fn load(&self) -> u64;
    /// Makes it `next` if it is `seen`, and says whether it was.
    fn replace(&self, seen: u64, next: u64) -> bool;
}

#[cfg(target_has_atomic = "64")]
impl Word for core::sync::atomic::AtomicU64 {
    fn load(&self) -> u64 {
        self.load(core::sync::atomic::Ordering::Relaxed)
    }

    fn replace(&self, seen: u64, next: u64) -> bool {
        use core::sync::atomic::Ordering::{AcqRel, Relaxed};
        self.compare_exchange(seen, next, AcqRel, Relaxed).is_ok()
    }
}

/// A packet that loses a bucket to other CPUs so often is refused: a limit is never exceeded.
const MAX_RACES: usize = 8;

/// Takes from a bucket that is kept as the time at which it is full again (the "theoretical arrival time" of ITU-T
/// I.371, annex A): one word, so that CPUs that share it need no lock, and nothing has to fill it. Returns whether it
/// held so much.
#[inline(always)]
pub fn take(full_ns: &impl Word, claim: &Claim) -> bool {
    for _ in 0..MAX_RACES {
        let seen = full_ns.load();
        let from = if seen > claim.now_ns { seen } else { claim.now_ns };
        let next = from + claim.cost_ns;
        if next - claim.now_ns > claim.burst_ns {
            return false;
        }
        if full_ns.replace(seen, next) {
            return true;
        }
    }
    false
}

/// What the gateway makes of a TCP connection whose beginning was not seen. What no policy cuts, this does not either.
#[inline(always)]
pub(crate) fn midstream(packet: &Packet, moment: &Moment, j: &mut Judgement) {
    let policy = moment.flags & (Config::MIDSTREAM_DENY | Config::MIDSTREAM_ALERT);
    let opens = packet.flag(Packet::SYN) && !packet.flag(Packet::ACK);
    if policy == 0 || opens || !packet.has(Packet::HAS_TCP) || j.reason != Reason::Forwarded {
        return;
    }
    let denies = policy & Config::MIDSTREAM_DENY != 0;
    j.decided(if denies { Action::Dropped } else { Action::Audit }, Reason::Midstream, j.rule);
}

/// The limits of a connection that is about to open.
#[inline(always)]
pub fn opening<R: Rules, B: Buckets>(rules: &R, buckets: &mut B, moment: &Moment, j: &mut Judgement) {
    if !j.passes() {
        return;
    }
    let Some(settings) = settings(rules, j.rule, moment) else {
        return;
    };
    if j.limits & Limits::LIFETIME != 0 {
        j.until(moment.now_ns.saturating_add(settings.lifetime_ns));
    }
    if j.limits & Limits::RATE != 0
        && !has_token(buckets, settings, (j.rule, j.identity[0]), Unit::Connections, 1, moment)
    {
        violated(j, Reason::RateLimited);
        // Good for this packet alone: the next may find a token.
        j.until(moment.now_ns);
    }
}

/// The limits of a connection that is tracked and judged again.
#[inline(always)]
pub fn running<R: Rules>(rules: &R, conn: &mut Connection, moment: &Moment, j: &mut Judgement) {
    conn.flags &= !Connection::IS_CUT;
    if !j.passes() {
        return;
    }
    if j.limits & Limits::TLS_REQUIRED != 0 && is_plaintext(conn) {
        violated(j, Reason::TlsRequired);
    }
    if j.limits & Limits::LIFETIME != 0
        && let Some(settings) = settings(rules, j.rule, moment)
    {
        let end_ns = conn.opened_ns.saturating_add(settings.lifetime_ns);
        if moment.now_ns >= end_ns {
            violated(j, Reason::LifetimeExceeded);
        } else {
            j.until(end_ns);
        }
    }
    if !j.passes() && moment.flags & Config::ENFORCE != 0 {
        conn.flags |= Connection::IS_CUT;
    }
}

#[inline(always)]
fn violated(j: &mut Judgement, reason: Reason) {
    let action = if j.limits & Limits::AUDIT != 0 { Action::Audit } else { Action::Dropped };
    j.decided(action, reason, j.rule);
}

/// Which kinds of packets of a dropped flow need nothing but counting.
#[inline(always)]
pub(crate) fn settled_drops(j: &Judgement) -> u16 {
    match j.reason {
        Reason::RateLimited => 0,
        // A SYN may open the next connection.
        Reason::TlsRequired | Reason::LifetimeExceeded | Reason::Midstream => Settled::ACK | Settled::DATA,
        _ if j.limits & Limits::REJECT != 0 => 0,
        _ => Settled::ALL,
    }
}

/// Whether packets of the connection have to be looked at although it is established.
#[inline(always)]
pub(crate) fn looks_on(conn: &Connection) -> bool {
    u32::from(conn.limits) & Limits::RATE != 0
        || u32::from(conn.limits) & Limits::TLS_REQUIRED != 0 && conn.tls == TlsState::Unknown as u8
}

/// Limits that need every packet. Changes the verdict in `trace` if the packet does not keep them.
#[inline(always)]
pub fn by_packet<F: Frame, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    trace: &mut Trace,
    index: u32,
) {
    let (Some(config), Some(slot)) = (plane.rules.config(), plane.slots.slot(index)) else {
        return;
    };
    let moment = Moment::on(&plane.rules, config, frame.ifindex());
    let packet = &trace.packet;
    let Some(conn) = find(&mut plane.connections, &mut plane.half_open, &packet.key) else {
        return; // another CPU took it away since; the next packet opens it anew
    };
    let (reason, is_cut, is_news) = if u32::from(conn.limits) & Limits::RATE != 0
        && !is_within_rates(&plane.rules, &mut plane.buckets, conn, packet, &moment)
    {
        let is_first = conn.flags & Connection::IS_THROTTLED == 0;
        conn.flags |= Connection::IS_THROTTLED;
        (Reason::RateLimited, false, is_first)
    } else if u32::from(conn.limits) & Limits::TLS_REQUIRED == 0 {
        return;
    } else {
        match hello(frame, conn, packet) {
            Hello::Fine => return,
            Hello::Early => (Reason::TlsRequired, false, false),
            Hello::Missing => (Reason::TlsRequired, true, true),
        }
    };
    let only_audits = u32::from(conn.limits) & Limits::AUDIT != 0 || moment.flags & Config::ENFORCE == 0;
    let action = if only_audits { Action::Audit } else { Action::Dropped };
    if is_cut {
        conn.tls = TlsState::NotTls as u8;
        if !only_audits {
            conn.flags |= Connection::IS_CUT;
        }
        if slot.key == packet.key {
            slot.record.action = action as u8;
            slot.record.reason = reason as u8;
            let dropped = Settled::both(Settled::ACK | Settled::DATA);
            slot.record.settled = if only_audits { 0 } else { dropped };
            if moment.flags & Config::BY_INTERFACE != 0 {
                slot.record.fresh_until_ns = 0; // the next packet may enter by an interface of another mode
            }
        }
    }
    if is_news {
        let j = Judgement {
            fresh_until_ns: 0,
            identity: conn.identity,
            rule: conn.rule,
            action,
            reason,
            limits: u32::from(conn.limits),
        };
        event::verdict(&mut plane.sink, frame, direction, packet, &moment, &j, conn.originator_side());
    }
    trace.action = action as u8;
    trace.reason = reason as u8;
}

/// Takes a packet and its bytes from the buckets of the rule. A packet for which there are not enough bytes has still
/// been counted as a packet.
#[inline(always)]
fn is_within_rates<R: Rules, B: Buckets>(
    rules: &R,
    buckets: &mut B,
    conn: &Connection,
    packet: &Packet,
    moment: &Moment,
) -> bool {
    let Some(settings) = settings(rules, conn.rule, moment) else {
        return true;
    };
    let whose = (conn.rule, conn.identity[0]);
    has_token(buckets, settings, whose, Unit::Packets, 1, moment)
        && has_token(buckets, settings, whose, Unit::Bytes, packet.ip_bytes, moment)
}

#[inline(always)]
fn has_token<B: Buckets>(
    buckets: &mut B,
    settings: &RuleSettings,
    (rule, identity): (u32, u32),
    unit: Unit,
    units: u32,
    moment: &Moment,
) -> bool {
    let rate = &settings.rates[unit as usize];
    if rate.units == 0 {
        return true;
    }
    let key = BucketKey { rule, identity: if settings.per_identity != 0 { identity } else { 0 } };
    let claim = Claim { now_ns: moment.now_ns, cost_ns: rate.cost_ns(units), burst_ns: rate.burst_ns };
    buckets.take(&key, unit, &claim)
}

#[inline(always)]
fn settings<'r, R: Rules>(rules: &'r R, rule: u32, moment: &Moment) -> Option<&'r RuleSettings> {
    Some(rules.rule(rule)?.at(moment.epoch))
}

/// Whether what the connection began with was no TLS.
#[inline(always)]
fn is_plaintext(conn: &Connection) -> bool {
    conn.tls == TlsState::NotTls as u8 && conn.flags & Connection::IS_TLS_MIDSTREAM == 0
}

/// What a packet says of a TLS handshake that has to be there.
enum Hello {
    /// The hello was seen, or is here, or nothing was said yet.
    Fine,
    /// Payload ahead of the hello: that may still come.
    Early,
    /// The connection begins with something else.
    Missing,
}

#[inline(always)]
fn hello<F: Frame>(frame: &F, conn: &mut Connection, packet: &Packet) -> Hello {
    let is_orig = conn.is_originator(packet.side());
    let syn = packet.flag(Packet::SYN);
    if syn && is_orig && conn.resp() == Endpoint::Inactive {
        conn.isn = packet.seq; // tried again with another number
    }
    if conn.tls != TlsState::Unknown as u8 {
        return if is_plaintext(conn) { Hello::Missing } else { Hello::Fine };
    }
    if packet.fragment_offset != 0 {
        return Hello::Early; // what it holds is not looked at
    }
    if packet.payload_bytes == 0 || packet.flag(Packet::RST) {
        return Hello::Fine;
    }
    let record = tls::record(frame, usize::from(packet.payload_offset));
    let was_opened =
        syn || history::has(conn, history::SYN, true) || history::has(conn, history::HANDSHAKE, false);
    if !was_opened {
        return match record {
            // Taken up in mid-stream: a record under keys has to do.
            Some(record) if record.content == tls::APPLICATION_DATA => {
                conn.tls = TlsState::NotTls as u8;
                conn.flags |= Connection::IS_TLS_MIDSTREAM;
                Hello::Fine
            }
            _ => Hello::Missing,
        };
    }
    if !is_orig {
        return Hello::Missing;
    }
    if packet.seq.wrapping_add(u32::from(syn)) != conn.isn.wrapping_add(1) {
        return Hello::Early;
    }
    match record {
        Some(r) if r.content == tls::HANDSHAKE && r.first[0] == tls::CLIENT_HELLO => Hello::Fine,
        _ => Hello::Missing,
    }
}
