//! The decision on a connection: failsafe, infrastructure, blocklist, quarantine, lease, policy, default; the first that
//! speaks decides.

pub use crate::abi::packet::Moment;
use crate::abi::policy::LeaseEnd;
use crate::abi::{
    Action, Addr, Binding, Block, Config, Decision, EndMemo, FlowKey, Holding, Limits, NEVER, Packet,
    Question, Reason, Side,
};
use crate::guard::{Listed, Service};
use crate::scope;
use crate::tables::Rules;
use crate::wire::icmp;

/// The two ends of a connection, as it was opened. The addresses stay in the key: the kernel's stack has no room for them.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    /// Address of the originator.
    pub orig: &'a Addr,
    /// Address of the responder.
    pub resp: &'a Addr,
    /// Port of the originator.
    pub orig_port: u16,
    /// Port of the responder.
    pub resp_port: u16,
    /// IP protocol number.
    pub proto: u8,
    /// The side of the key that the originator is: what says which of them is where the packet is.
    pub originator: Side,
}

impl<'a> Ends<'a> {
    /// The ends of a flow whose `originator` is known.
    #[inline(always)]
    pub fn new(key: &'a FlowKey, originator: Side) -> Self {
        let proto = key.proto;
        match originator {
            Side::A => Self {
                orig: &key.a,
                resp: &key.b,
                orig_port: key.a_port,
                resp_port: key.b_port,
                proto,
                originator,
            },
            Side::B => Self {
                orig: &key.b,
                resp: &key.a,
                orig_port: key.b_port,
                resp_port: key.a_port,
                proto,
                originator,
            },
        }
    }
}

/// A decision and what it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict holds until then: the earliest lease, grant or block that it rests on.
    pub fresh_until_ns: u64,
    /// Identity of the originator, of the responder; 0 for none.
    pub identity: [u32; 2],
    /// The rule that decided, 0 for none.
    pub rule: u32,
    /// The verdict.
    pub action: Action,
    /// The reason.
    pub reason: Reason,
    /// What the rule and the identity ask beyond the verdict: the [`crate::abi::Limits`] bits; a word, as in
    /// [`crate::judge::Verdict`]. The high half is where the connection is counted, a [`crate::abi::Holding`]: a field of its own
    /// is written at an odd place too.
    pub limits: u32,
}

impl Judgement {
    /// What holds before anything has spoken.
    #[inline(always)]
    pub fn nothing() -> Self {
        Self {
            fresh_until_ns: NEVER,
            identity: [0, 0],
            rule: 0,
            action: Action::Forwarded,
            reason: Reason::Forwarded,
            limits: 0,
        }
    }

    /// Whether packets go on.
    #[inline(always)]
    pub fn passes(&self) -> bool {
        self.action != Action::Dropped
    }

    /// Where the connection is counted among what its identity has.
    #[inline(always)]
    pub(crate) fn holding(&self) -> Holding {
        Holding((self.limits >> 16) as u16)
    }

    #[inline(always)]
    pub(crate) fn decided(&mut self, action: Action, reason: Reason, rule: u32) {
        self.action = action;
        self.reason = reason;
        self.rule = rule;
    }

    #[inline(always)]
    pub(crate) fn until(&mut self, not_after_ns: u64) {
        if not_after_ns < self.fresh_until_ns {
            self.fresh_until_ns = not_after_ns;
        }
    }
}

/// Decides on a connection by one epoch.
pub fn decide<R: Rules>(rules: &R, moment: &Moment, ends: &Ends<'_>) -> Judgement {
    let mut j = Judgement::nothing();
    decide_into(rules, moment, ends, &mut j);
    j
}

/// The same, into a `j` that holds [`Judgement::nothing`].
#[inline(always)]
pub fn decide_into<R: Rules>(rules: &R, moment: &Moment, ends: &Ends<'_>, j: &mut Judgement) {
    if is_exempt(rules, moment, ends, j) {
        return;
    }
    let mut from = end(rules, moment, ends.orig, 0, j);
    let mut to = end(rules, moment, ends.resp, 1, j);
    if from.asks | to.asks != 0 {
        narrow(rules, moment, ends, &mut from, 0, j);
        narrow(rules, moment, ends, &mut to, 1, j);
    }
    between(rules, moment, ends, &from, &to, j);
}

/// [`decide_into`] where it does not matter where the ends are. Returns whether that is so: if not, `j` is of no use.
#[inline(always)]
pub(crate) fn decide_anywhere<R: Rules>(
    rules: &R,
    moment: &Moment,
    ends: &Ends<'_>,
    j: &mut Judgement,
) -> bool {
    if is_exempt(rules, moment, ends, j) {
        return true;
    }
    let from = end(rules, moment, ends.orig, 0, j);
    let to = end(rules, moment, ends.resp, 1, j);
    if from.asks | to.asks != 0 {
        return false;
    }
    between(rules, moment, ends, &from, &to, j);
    true
}

/// What passes whoever the ends are.
#[inline(always)]
fn is_exempt<R: Rules>(rules: &R, moment: &Moment, ends: &Ends<'_>, j: &mut Judgement) -> bool {
    if moment.flags & Config::FAILSAFE != 0
        && (rules.is_failsafe(ends.resp, Service { proto: ends.proto, port: ends.resp_port })
            || rules.is_failsafe(ends.orig, Service { proto: ends.proto, port: ends.orig_port }))
    {
        j.decided(Action::Forwarded, Reason::Failsafe, 0);
        return true;
    }
    if icmp::is_discovery(ends.proto, ends.orig_port) {
        j.decided(Action::Forwarded, Reason::Infrastructure, 0);
        return true;
    }
    false
}

/// Decides between two ends that are known.
#[inline(always)]
fn between<R: Rules>(rules: &R, moment: &Moment, ends: &Ends<'_>, from: &End, to: &End, j: &mut Judgement) {
    let service = Service { proto: ends.proto, port: policy_port(ends) };
    if is_cut(rules, from, service, moment, j) || is_cut(rules, to, service, moment, j) {
        return;
    }
    if is_listed(rules, from, to, service, moment, j) {
        return;
    }
    if from.lease == Lease::Denies || to.lease == Lease::Denies {
        return j.decided(Action::Dropped, Reason::LeaseExpired, 0);
    }
    by_policy(rules, moment, ends, from.class, to.class, j);
    if (from.limits | to.limits) != 0 && j.passes() {
        j.limits |= u32::from(from.limits & Binding::LIMITS) << Limits::IDENTITY_SHIFT;
        if (from.limits | to.limits) & Binding::RESTRICTED != 0 {
            rules.restrict(ends.proto, moment, j);
        }
    }
    if j.action == Action::Forwarded && (from.lease == Lease::Alerts || to.lease == Lease::Alerts) {
        j.decided(Action::Audit, Reason::LeaseExpired, j.rule);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lease {
    Runs,
    Alerts,
    Denies,
}

#[derive(Clone, Copy)]
struct End {
    class: u32,
    guards: u32,
    limits: u8,
    /// What other bindings of the address there are: the [`Binding::ASKS`] bits.
    asks: u8,
    lease: Lease,
    /// The block that cuts all of it, 0 for none.
    block: u32,
    /// The list of those that cut some services, 0 for none.
    block_guards: u32,
}

/// Notes the identity of an end. Returns its class, how its lease stands, and what blocks it.
#[inline(always)]
fn end<R: Rules>(rules: &R, moment: &Moment, addr: &Addr, which: usize, j: &mut Judgement) -> End {
    let known = rules.about(addr, moment, |memo| {
        j.identity[which] = memo.identity;
        let lease = lease(moment, memo.lease_not_after_ns, memo.on_expiry, memo.grace_s, j);
        let block = memo.blocks(moment.now_ns);
        if block != 0 {
            j.until(memo.block_not_after_ns);
        }
        End {
            class: memo.class,
            guards: memo.guards,
            limits: memo.limits,
            asks: memo.asks(),
            lease,
            block,
            block_guards: memo.block_guards,
        }
    });
    known.unwrap_or(End {
        class: 0,
        guards: 0,
        limits: 0,
        asks: 0,
        lease: Lease::Denies,
        block: 0,
        block_guards: 0,
    })
}

/// How a lease stands; the judgement holds until that changes.
#[inline(always)]
fn lease(moment: &Moment, not_after_ns: u64, on_expiry: u8, grace_s: u16, j: &mut Judgement) -> Lease {
    if moment.now_ns < not_after_ns {
        j.until(not_after_ns);
        return Lease::Runs;
    }
    if on_expiry & !Binding::ASKS == LeaseEnd::Alert as u8 {
        return Lease::Alerts;
    }
    let grace_ends_ns = not_after_ns.saturating_add(u64::from(grace_s) * 1_000_000_000);
    if moment.now_ns < grace_ends_ns {
        j.until(grace_ends_ns);
        return Lease::Alerts;
    }
    Lease::Denies
}

/// Takes an end for whom a binding says that holds only where it is, or for its port.
#[inline(always)]
fn narrow<R: Rules>(
    rules: &R,
    moment: &Moment,
    ends: &Ends<'_>,
    end: &mut End,
    which: usize,
    j: &mut Judgement,
) {
    if end.asks == 0 {
        return;
    }
    let (addr, port, side) = if which == 0 {
        (ends.orig, ends.orig_port, ends.originator)
    } else {
        (ends.resp, ends.resp_port, ends.originator.other())
    };
    let asks = u32::from(end.asks) | scope::is_here(moment, side);
    if let Some(versions) = rules.narrowed(addr, moment, asks, scope::service(ends.proto, port)) {
        let binding = versions.at(moment.epoch);
        j.identity[which] = binding.identity;
        end.class = binding.class;
        end.guards = binding.guards;
        end.limits = binding.limits;
        end.lease = lease(moment, binding.not_after_ns, binding.on_expiry, binding.grace_s, j);
    }
}

/// Whether an entry blocks an end, or this service of it.
#[inline(always)]
fn is_cut<R: Rules>(rules: &R, end: &End, service: Service, moment: &Moment, j: &mut Judgement) -> bool {
    let rule = if end.block != 0 {
        end.block
    } else if end.block_guards != 0 {
        rules.blocked(end.block_guards, service, moment, j)
    } else {
        return false;
    };
    if rule != 0 {
        j.decided(Action::Dropped, Reason::Blocklisted, rule);
    }
    rule != 0
}

/// Whether the list of an identity, of either end, speaks of this service.
#[inline(always)]
fn is_listed<R: Rules>(
    rules: &R,
    from: &End,
    to: &End,
    service: Service,
    moment: &Moment,
    j: &mut Judgement,
) -> bool {
    if from.guards | to.guards == 0 {
        return false;
    }
    let listed = Listed { guards: [from.guards, to.guards], classes: [from.class, to.class] };
    rules.is_listed(&listed, service, moment, j)
}

/// Asks both tries what an epoch says of an address.
#[inline(always)]
pub fn look_up<R: Rules>(rules: &R, addr: &Addr, epoch: u32, memo: &mut EndMemo) {
    let binding = match rules.binding(addr) {
        Some(versions) => versions.at(epoch),
        None => &Binding::NONE,
    };
    memo.bind(binding);
    match rules.block(addr) {
        Some(versions) => memo.block(versions.at(epoch)),
        None => memo.block(&Block::NONE),
    }
}

/// Asks the trie what an epoch decides.
#[inline(always)]
pub fn look_up_decision<R: Rules>(rules: &R, asked: &Question, epoch: u32) -> Decision {
    match rules.decision(&asked.key()) {
        Some(versions) => *versions.at(epoch),
        None => Decision::NONE,
    }
}

#[inline(always)]
fn by_policy<R: Rules>(rules: &R, moment: &Moment, ends: &Ends<'_>, from: u32, to: u32, j: &mut Judgement) {
    let decision = if from == 0 && moment.flags & Config::NOBODY_NAMED != 0 {
        Decision::NONE
    } else {
        rules.decided(&Question::new(from, to, ends.proto, policy_port(ends)), moment)
    };
    j.limits = u32::from(decision.limits);
    match decision.action {
        Decision::ALLOW => j.decided(Action::Forwarded, Reason::Forwarded, decision.rule),
        Decision::DENY if decision.audit != 0 => j.decided(Action::Audit, Reason::PolicyDeny, decision.rule),
        Decision::DENY => j.decided(Action::Dropped, Reason::PolicyDeny, decision.rule),
        _ if moment.flags & Config::DEFAULT_ALLOW != 0 => {}
        _ => {
            let is_strange = from == 0 || to == 0;
            let reason = if is_ambiguous(&j.identity) {
                Reason::AmbiguousIdentity
            } else if is_strange {
                Reason::InvalidIdentity
            } else {
                Reason::PolicyDenied
            };
            j.decided(Action::Dropped, reason, 0);
            j.limits = if moment.flags & Config::REJECT != 0 { Limits::REJECT } else { 0 };
        }
    }
}

#[inline(always)]
fn is_ambiguous(identity: &[u32; 2]) -> bool {
    identity[0] == Binding::AMBIGUOUS || identity[1] == Binding::AMBIGUOUS
}

/// Policy names the port that a service listens on; ICMP has none, its type stands there.
#[inline(always)]
fn policy_port(ends: &Ends<'_>) -> u16 {
    use crate::wire::proto;
    if ends.proto == proto::ICMP || ends.proto == proto::ICMPV6 { ends.orig_port } else { ends.resp_port }
}

/// Whether a blocklist or a quarantine names an end of a packet that is not judged by its own flow. `j` then says so, of who sent it
/// and to whom.
#[inline(always)]
pub(crate) fn is_blocked<R: Rules>(rules: &R, moment: &Moment, packet: &Packet, j: &mut Judgement) -> bool {
    let ends = Ends::new(&packet.key, packet.side());
    let service = Service { proto: ends.proto, port: policy_port(&ends) };
    let from = end(rules, moment, ends.orig, 0, j);
    let to = end(rules, moment, ends.resp, 1, j);
    if is_cut(rules, &from, service, moment, j) || is_cut(rules, &to, service, moment, j) {
        return true;
    }
    is_listed(rules, &from, &to, service, moment, j)
}
