//! Limits of a rule: TLS that it asks for, an end to its connections, and rates. Those of an identity are in
//! [`crate::identity`].
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
use crate::identity;
use crate::policy::{Judgement, Moment};
use crate::stage::Stages;
use crate::tables::{Attempts, Buckets, Plane, Rules, Slots, Tables};
use crate::track::{self, history};
use crate::weight::Weight;
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
impl Word for &core::sync::atomic::AtomicU64 {
    fn load(&self) -> u64 {
        core::sync::atomic::AtomicU64::load(self, core::sync::atomic::Ordering::Relaxed)
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
/// held so much. A frame of many segments may be more than any bucket holds: a full one gives it, and is owed the rest.
#[inline(always)]
pub fn take(full_ns: &impl Word, claim: &Claim) -> bool {
    for _ in 0..MAX_RACES {
        let seen = full_ns.load();
        let from = if seen > claim.now_ns { seen } else { claim.now_ns };
        let next = from + claim.cost_ns;
        if next - claim.now_ns > claim.burst_ns && from > claim.now_ns {
            return false;
        }
        if full_ns.replace(seen, next) {
            return true;
        }
    }
    false
}

/// What the gateway makes of a connection whose beginning was not seen. What no policy cuts, this does not either. Where attempts
/// push each other out its beginning may have been seen: there the policy alone denies, or who floods would keep others out
/// (docs/adr/0012-no-syn-cookies.md).
#[inline(always)]
pub(crate) fn midstream<H: Attempts>(half_open: &mut H, packet: &Packet, moment: &Moment, j: &mut Judgement) {
    let policy = moment.flags & (Config::MIDSTREAM_DENY | Config::MIDSTREAM_ALERT);
    let reason = match track::midstream(packet) {
        Some(reason) if policy != 0 && j.reason == Reason::Forwarded => reason,
        _ => return,
    };
    let denies = policy & Config::MIDSTREAM_DENY != 0 && !half_open.is_full(&packet.key);
    j.decided(if denies { Action::Dropped } else { Action::Audit }, reason, j.rule);
}

/// The limits of a connection that is about to open.
#[inline(always)]
pub fn opening<R: Rules, B: Buckets>(
    rules: &R,
    buckets: &mut B,
    packet: &Packet,
    moment: &Moment,
    j: &mut Judgement,
) {
    if j.limits & Limits::CUT != 0 && j.passes() && track::midstream(packet).is_some() {
        identity::cut(rules, 0, moment, j); // nobody knows how old it is
    }
    if j.passes() && j.limits & (Limits::LIFETIME | Limits::RATE) != 0 {
        of_rule(rules, buckets, moment, j);
    }
    if j.passes() && j.limits & (Limits::IDENTITY_HELD | Limits::IDENTITY_OPENS) != 0 {
        identity::opening(rules, buckets, packet, moment, j);
    }
}

#[inline(always)]
fn of_rule<R: Rules, B: Buckets>(rules: &R, buckets: &mut B, moment: &Moment, j: &mut Judgement) {
    let Some(settings) = settings(rules, j.rule, moment) else {
        return;
    };
    if j.limits & Limits::LIFETIME != 0 {
        lasts(settings, moment.now_ns, moment, j);
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
    if conn.identity[0] != j.identity[0] {
        conn.held = 0; // it counts as another's from now on; where it was counted, that ends by itself
    }
    if !j.passes() {
        return;
    }
    if j.limits & Limits::CUT != 0 {
        identity::cut(rules, conn.opened_ns, moment, j);
    }
    if j.passes() && j.limits & Limits::TLS_REQUIRED != 0 && is_plaintext(conn) {
        violated(j, Reason::TlsRequired);
        let asks = identity::asks_tls(rules, j.identity, moment);
        if asks != 0 {
            j.rule = asks;
        }
    }
    if j.limits & Limits::LIFETIME != 0
        && let Some(settings) = settings(rules, j.rule, moment)
    {
        lasts(settings, conn.opened_ns, moment, j);
    }
    if !j.passes() && moment.flags & Config::ENFORCE != 0 {
        conn.flags |= Connection::IS_CUT;
    }
}

/// Has the judgement hold until the connection's life is over, or the rule that it rests on.
#[inline(always)]
fn lasts(settings: &RuleSettings, opened_ns: u64, moment: &Moment, j: &mut Judgement) {
    let end_ns = settings.end_ns(opened_ns);
    if moment.now_ns < end_ns {
        return j.until(end_ns);
    }
    violated(
        j,
        match settings.timed {
            0 => Reason::LifetimeExceeded,
            RuleSettings::HOURS => Reason::OutsideHours,
            _ => Reason::GrantExpired,
        },
    );
}

/// Whether the rule that decided is over, for who asks what would become of a connection and opens none.
pub fn timed<R: Rules>(rules: &R, moment: &Moment, j: &mut Judgement) {
    if j.limits & Limits::LIFETIME != 0
        && let Some(settings) = settings(rules, j.rule, moment)
    {
        lasts(settings, moment.now_ns, moment, j);
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
        Reason::RateLimited | Reason::TooManyAttempts | Reason::TooManyConnections => 0,
        // A SYN may open the next connection.
        Reason::TlsRequired
        | Reason::LifetimeExceeded
        | Reason::Midstream
        | Reason::SctpMidstream
        | Reason::IcmpUnsolicited => Settled::ACK | Settled::DATA,
        _ if j.limits & Limits::REJECT != 0 => 0,
        _ => Settled::ALL,
    }
}

/// Whether packets of the connection have to be looked at although it is established.
#[inline(always)]
pub(crate) fn looks_on(conn: &Connection) -> bool {
    u32::from(conn.limits) & (Limits::RATE | Limits::IDENTITY_RATE) != 0
        || u32::from(conn.limits) & Limits::TLS_REQUIRED != 0 && conn.tls == TlsState::Unknown as u8
}

/// Limits that need every packet. Changes the verdict in `trace` if the packet does not keep them.
#[inline(always)]
pub fn by_packet<F: Stages<T>, T: Tables>(
    frame: &F,
    direction: Direction,
    plane: &mut Plane<T>,
    trace: &mut Trace,
    index: u32,
) {
    let Some(slot) = plane.slots.slot(index) else {
        return;
    };
    let moment = &trace.moment;
    let packet = &trace.packet;
    let Some(conn) = find(&mut plane.connections, &mut plane.half_open, &packet.key) else {
        return; // another CPU took it away since; the next packet opens it anew
    };
    let over = rate_exceeded(&plane.rules, &mut plane.buckets, conn, packet, moment);
    let mut rule = conn.rule;
    let mut audits = u32::from(conn.limits) & Limits::AUDIT != 0;
    let (reason, is_cut, is_news) = if let Some(over) = over {
        (rule, audits) = (over.rule, over.audits);
        let is_first = conn.flags & Connection::IS_THROTTLED == 0;
        conn.flags |= Connection::IS_THROTTLED;
        (Reason::RateLimited, false, is_first)
    } else if u32::from(conn.limits) & Limits::TLS_REQUIRED == 0 {
        return;
    } else {
        let is_missing = match hello(frame, conn, packet) {
            Hello::Fine => return,
            Hello::Early => false,
            Hello::Missing => true,
        };
        let asks = identity::asks_tls(&plane.rules, conn.identity, moment);
        if asks != 0 {
            rule = asks;
        }
        (Reason::TlsRequired, is_missing, is_missing)
    };
    let only_audits = audits || moment.flags & Config::ENFORCE == 0;
    let action = if only_audits { Action::Audit } else { Action::Dropped };
    if is_cut {
        conn.tls = TlsState::NotTls as u8;
        if !only_audits {
            conn.flags |= Connection::IS_CUT;
        }
        // Nothing follows what is dropped, so it is counted here.
        conn.happened = 0;
        frame.account(direction, &mut plane.sink, conn, packet, moment);
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
            rule,
            action,
            reason,
            limits: u32::from(conn.limits),
        };
        event::verdict(&mut plane.sink, frame, direction, packet, moment, &j, conn.originator_side());
    }
    trace.rule = rule;
    trace.action = action as u8;
    trace.reason = reason as u8;
}

/// A rate that a packet is over.
#[derive(Clone, Copy)]
struct Over {
    /// Whose: a rule, or the limit of an identity.
    rule: u32,
    /// Whether it passes with verdict AUDIT.
    audits: bool,
}

/// The rate that the packet is over, if it is over one: its rule's, then its identity's.
#[inline(always)]
fn rate_exceeded<R: Rules, B: Buckets>(
    rules: &R,
    buckets: &mut B,
    conn: &Connection,
    packet: &Packet,
    moment: &Moment,
) -> Option<Over> {
    let limits = u32::from(conn.limits);
    if limits & Limits::RATE != 0
        && let Some(settings) = settings(rules, conn.rule, moment)
        && !is_within(buckets, settings, (conn.rule, conn.identity[0]), packet, moment)
    {
        return Some(Over { rule: conn.rule, audits: limits & Limits::AUDIT != 0 });
    }
    if limits & Limits::IDENTITY_RATE != 0
        && let Some((rule, settings)) = identity::limit(rules, conn.identity[0], moment)
        && !is_within(buckets, settings, (rule, conn.identity[0]), packet, moment)
    {
        return Some(Over { rule, audits: settings.audit != 0 });
    }
    None
}

/// Takes a packet and its bytes from buckets. A packet for which there are not enough bytes has still been counted as a
/// packet.
#[inline(always)]
fn is_within<B: Buckets>(
    buckets: &mut B,
    settings: &RuleSettings,
    whose: (u32, u32),
    packet: &Packet,
    moment: &Moment,
) -> bool {
    let weight = Weight::of(packet);
    has_token(buckets, settings, whose, Unit::Packets, weight.packets, moment)
        && has_token(buckets, settings, whose, Unit::Bytes, weight.ip_bytes, moment)
}

#[inline(always)]
pub(crate) fn has_token<B: Buckets>(
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
pub(crate) fn settings<'r, R: Rules>(rules: &'r R, rule: u32, moment: &Moment) -> Option<&'r RuleSettings> {
    Some(rules.rule(rule)?.at(moment.epoch))
}

/// Whether its rule wants TLS of a connection that began with something else.
#[inline(always)]
pub(crate) fn lacks_tls(conn: &Connection) -> bool {
    u32::from(conn.limits) & Limits::TLS_REQUIRED != 0 && is_plaintext(conn)
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
