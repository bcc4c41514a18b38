//! The decision on a connection: failsafe, infrastructure, blocklist, quarantine, lease, policy, default; the first that
//! speaks decides.

use crate::abi::policy::LeaseEnd;
use crate::abi::{
    Action, Addr, Config, Decision, FailsafeKey, FlowKey, Holding, Limits, NEVER, Packet, PolicyKey, Reason,
    Side,
};
use crate::guard::{Listed, Service};
use crate::tables::Rules;
use crate::wire::icmp;

/// What a packet is judged by: read once, so that one packet never sees two epochs.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The epoch.
    pub epoch: u32,
    /// [`Config`] flags.
    pub flags: u32,
    /// Boot-clock time.
    pub now_ns: u64,
    /// No verdict holds beyond this: a quarter of the shortest idle time from now.
    pub refresh_ns: u64,
    /// [`Config::event_limit`].
    pub event_limit: u32,
}

impl Moment {
    /// Now, by what the controller says.
    #[inline(always)]
    pub fn now<R: Rules>(rules: &R, config: &Config) -> Self {
        Self::at(config, rules.now_ns(config))
    }

    /// Now, for what enters by an interface.
    #[inline(always)]
    pub fn on<R: Rules>(rules: &R, config: &Config, ifindex: u32) -> Self {
        let mut moment = Self::now(rules, config);
        if moment.flags & Config::BY_INTERFACE != 0
            && let Some(versions) = rules.interface(ifindex)
        {
            let own = versions.at(moment.epoch);
            moment.flags = moment.flags & !own.mask | own.flags;
        }
        moment
    }

    /// At a given time.
    #[inline(always)]
    pub fn at(config: &Config, now_ns: u64) -> Self {
        let refresh_ns = now_ns + config.shortest_idle_ns / 4;
        Self { epoch: config.epoch, flags: config.flags, now_ns, refresh_ns, event_limit: config.event_limit }
    }
}

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
}

impl<'a> Ends<'a> {
    /// The ends of a flow whose `originator` is known.
    #[inline(always)]
    pub fn new(key: &'a FlowKey, originator: Side) -> Self {
        let proto = key.proto;
        match originator {
            Side::A => {
                Self { orig: &key.a, resp: &key.b, orig_port: key.a_port, resp_port: key.b_port, proto }
            }
            Side::B => {
                Self { orig: &key.b, resp: &key.a, orig_port: key.b_port, resp_port: key.a_port, proto }
            }
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
    if is_failsafe(rules, ends.resp, ends.resp_port, ends.proto)
        || is_failsafe(rules, ends.orig, ends.orig_port, ends.proto)
    {
        return j.decided(Action::Forwarded, Reason::Failsafe, 0);
    }
    if icmp::is_discovery(ends.proto, ends.orig_port) {
        return j.decided(Action::Forwarded, Reason::Infrastructure, 0);
    }
    let from = identify(rules, moment, ends.orig, 0, j);
    let to = identify(rules, moment, ends.resp, 1, j);
    let service = Service { proto: ends.proto, port: policy_port(ends) };
    if rules.is_blocked(ends.orig, service, moment, j) || rules.is_blocked(ends.resp, service, moment, j) {
        return;
    }
    if from.guards | to.guards != 0 {
        let listed = Listed { guards: [from.guards, to.guards], classes: [from.class, to.class] };
        if rules.is_listed(&listed, service, moment, j) {
            return;
        }
    }
    if from.lease == Lease::Denies || to.lease == Lease::Denies {
        return j.decided(Action::Dropped, Reason::LeaseExpired, 0);
    }
    by_policy(rules, moment, ends, from.class, to.class, j);
    if from.limits != 0 && j.passes() {
        j.limits |= u32::from(from.limits) << Limits::IDENTITY_SHIFT;
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
    lease: Lease,
}

/// Notes the identity of an end. Returns its class and how its lease stands.
#[inline(always)]
fn identify<R: Rules>(rules: &R, moment: &Moment, addr: &Addr, end: usize, j: &mut Judgement) -> End {
    let Some(versions) = rules.binding(addr) else {
        return End { class: 0, guards: 0, limits: 0, lease: Lease::Runs };
    };
    let binding = versions.at(moment.epoch);
    j.identity[end] = binding.identity;
    let lease = if moment.now_ns < binding.not_after_ns {
        j.until(binding.not_after_ns);
        Lease::Runs
    } else if binding.on_expiry == LeaseEnd::Deny as u8 {
        Lease::Denies
    } else {
        Lease::Alerts
    };
    End { class: binding.class, guards: binding.guards, limits: binding.limits, lease }
}

#[inline(always)]
fn by_policy<R: Rules>(rules: &R, moment: &Moment, ends: &Ends<'_>, from: u32, to: u32, j: &mut Judgement) {
    let key = PolicyKey::new(from, to, ends.proto, policy_port(ends));
    let decision = match rules.decision(&key) {
        Some(versions) => *versions.at(moment.epoch),
        None => Decision::NONE,
    };
    j.limits = u32::from(decision.limits);
    match decision.action {
        Decision::ALLOW => j.decided(Action::Forwarded, Reason::Forwarded, decision.rule),
        Decision::DENY if decision.audit != 0 => j.decided(Action::Audit, Reason::PolicyDeny, decision.rule),
        Decision::DENY => j.decided(Action::Dropped, Reason::PolicyDeny, decision.rule),
        _ if moment.flags & Config::DEFAULT_ALLOW != 0 => {}
        _ => {
            let is_strange = from == 0 || to == 0;
            let reason = if is_strange { Reason::InvalidIdentity } else { Reason::PolicyDenied };
            j.decided(Action::Dropped, reason, 0);
            j.limits = if moment.flags & Config::REJECT != 0 { Limits::REJECT } else { 0 };
        }
    }
}

/// Policy names the port that a service listens on; ICMP has none, its type stands there.
#[inline(always)]
fn policy_port(ends: &Ends<'_>) -> u16 {
    use crate::wire::proto;
    if ends.proto == proto::ICMP || ends.proto == proto::ICMPV6 { ends.orig_port } else { ends.resp_port }
}

#[inline(always)]
fn is_failsafe<R: Rules>(rules: &R, addr: &Addr, port: u16, proto: u8) -> bool {
    rules.is_failsafe(&FailsafeKey::new(*addr, proto, port))
}

/// Whether a blocklist names an end of a packet that is not judged by its own flow.
#[inline(always)]
pub(crate) fn is_blocked<R: Rules>(rules: &R, moment: &Moment, packet: &Packet) -> bool {
    let mut j = Judgement::nothing();
    let ends = Ends::new(&packet.key, packet.side());
    let service = Service { proto: ends.proto, port: policy_port(&ends) };
    rules.is_blocked(ends.orig, service, moment, &mut j)
        || rules.is_blocked(ends.resp, service, moment, &mut j)
}
