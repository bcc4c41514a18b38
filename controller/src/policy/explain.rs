//! Why a connection is judged as it is: the rule that decides, or those that come closest.

use super::compile::{Compiled, RuleInfo};
use super::document::{Documents, Workload, rank_text};
use super::native::rules_of_flow;
use super::nearby::{ended, overridden, rules_nearby};
use super::place::Place;
use super::ports::protocol_and_port;
use super::prefix::Prefix;
use super::selector::{Selector, fits};
use super::spiffe::SpiffeId;
use super::time::duration_text;
use super::trie::lookup;
use datapath::abi::{Action, Addr, Binding, Config, FlowKey, NEVER, Reason, Side as KeySide};
use datapath::host::HostRules;
use datapath::limits;
use datapath::policy::{Ends, Judgement, Moment, decide};
use datapath::scope;
use datapath::tables::Rules;
use datapath::wire::proto;
use jiff::Timestamp;
use serde::Serialize;
use std::fmt;
use std::net::IpAddr;

/// The connection that is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Who opens it.
    pub src: Addr,
    /// Who answers.
    pub dst: Addr,
    /// IP protocol number.
    pub proto: u8,
    /// Destination port; the type for ICMP.
    pub port: u16,
}

impl Flow {
    /// Of the key of a flow, by the side that opened it.
    pub fn of(key: &FlowKey, originator: KeySide) -> Self {
        let ((src, src_port), (dst, dst_port)) = (key.end(originator), key.end(originator.other()));
        let port = if matches!(key.proto, proto::ICMP | proto::ICMPV6) { src_port } else { dst_port };
        Self { src, dst, proto: key.proto, port }
    }
}

/// Where a connection comes from, as far as somebody says so: bindings can hold on an interface, on a VLAN, or for some ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// As in [`Moment::segment`]; 0 where nobody says.
    pub segment: u32,
    /// The source port; 0, which no binding is for, where nobody says. ICMP has none.
    pub port: u16,
}

/// The ends of a connection. ICMP has its type where other protocols have the source port.
pub fn ends<'f>(flow: &'f Flow, from: Origin) -> Ends<'f> {
    let Flow { src, dst, proto, port } = flow;
    let (orig_port, resp_port) =
        if matches!(*proto, proto::ICMP | proto::ICMPV6) { (*port, 0) } else { (from.port, *port) };
    Ends { orig: src, resp: dst, orig_port, resp_port, proto: *proto, originator: KeySide::A }
}

/// What would become of a new connection, and why. Failsafe ports and monitor mode are not looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// FORWARDED, DROPPED or AUDIT.
    pub verdict: &'static str,
    /// As in metrics and docs/drops.md.
    pub reason: &'static str,
    /// Who opens it.
    pub source: End,
    /// Who answers.
    pub destination: End,
    /// `tcp/443`.
    pub service: String,
    /// The rule or blocklist entry that decides.
    pub rule: Option<RuleInfo>,
    /// What would have let it pass, nearest first.
    pub near_misses: Vec<NearMiss>,
    /// What the packet path says of it.
    #[serde(skip)]
    pub judgement: Judgement,
}

/// One end of the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct End {
    /// Its address.
    pub address: IpAddr,
    /// Who has the address.
    pub spiffe_id: Option<SpiffeId>,
    /// metadata.name of the workload.
    pub workload: Option<String>,
    /// Whether several identities claim it, so that it has none.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ambiguous: bool,
    /// Its class.
    pub class: u32,
    /// Seconds until the lease ends, negative since it ended; absent without a lease.
    pub lease_seconds: Option<i64>,
}

/// Something that keeps the connection from passing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NearMiss {
    /// What does not fit.
    pub kind: MissKind,
    /// `policy/rule` of a rule that nearly fits.
    pub rule: Option<String>,
    /// Where that rule, or the workload, stands.
    pub place: Option<Place>,
    /// A sentence.
    pub text: String,
}

/// What does not fit, nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MissKind {
    /// An end is claimed by several identities.
    Ambiguous,
    /// An end has no identity.
    NoIdentity,
    /// The lease of an end is over.
    LeaseExpired,
    /// A grant that allowed it is over.
    GrantExpired,
    /// A rule allows it at other times.
    Hours,
    /// A rule that allows it comes after the one that decides.
    Overridden,
    /// A rule allows other ports.
    Port,
    /// A rule allows other protocols.
    Protocol,
    /// A rule allows the other direction.
    Direction,
    /// A rule allows it from others.
    Source,
    /// A rule allows it to others.
    Destination,
}

/// Judges a new connection at a time of the boot clock, of which nobody says where it comes from. `compiled` is of these documents.
pub fn explain(documents: &Documents, compiled: &Compiled, flow: Flow, now_ns: u64) -> Explanation {
    explain_from(documents, compiled, (flow, Origin::default()), now_ns)
}

/// The same of one that comes from somewhere.
pub fn explain_from(
    documents: &Documents,
    compiled: &Compiled,
    asked: (Flow, Origin),
    now_ns: u64,
) -> Explanation {
    let flow = asked.0;
    let (judgement, [src, dst]) = sides(documents, compiled, &asked, now_ns);
    Explanation {
        verdict: judgement.action.name(),
        reason: judgement.reason.name(),
        source: src.view(now_ns),
        destination: dst.view(now_ns),
        service: protocol_and_port(flow.proto, flow.port),
        rule: compiled.rules.get(&judgement.rule).cloned(),
        near_misses: nearest(documents, compiled, judgement.reason, (&flow, now_ns), &src, &dst),
        judgement,
    }
}

/// What came closest to let a connection pass that was judged elsewhere, by what the same documents have become in the kernel.
pub fn near_misses(
    documents: &Documents,
    compiled: &Compiled,
    asked: (Flow, Origin),
    reason: Reason,
    now_ns: u64,
) -> Vec<NearMiss> {
    let (_, [src, dst]) = sides(documents, compiled, &asked, now_ns);
    nearest(documents, compiled, reason, (&asked.0, now_ns), &src, &dst)
}

fn sides<'d>(
    documents: &'d Documents,
    compiled: &Compiled,
    (flow, from): &(Flow, Origin),
    now_ns: u64,
) -> (Judgement, [Side<'d>; 2]) {
    let rules = rules_of_flow(compiled, flow.src, flow.dst, flow.proto, flow.port);
    let config = Config { epoch: 0, ..rules.config };
    let moment = Moment { segment: from.segment, ..Moment::at(&config, now_ns) };
    let ends = ends(flow, *from);
    let side = |addr, key_side, port| {
        let service = scope::service(flow.proto, port);
        Side::of(documents, compiled, (&rules, &moment), (addr, key_side, service))
    };
    let src = side(flow.src, KeySide::A, ends.orig_port);
    let dst = side(flow.dst, KeySide::B, ends.resp_port);
    (judge(&rules, &moment, &ends), [src, dst])
}

/// What would have let pass what was judged so.
fn nearest(
    documents: &Documents,
    compiled: &Compiled,
    reason: Reason,
    (flow, now_ns): (&Flow, u64),
    src: &Side<'_>,
    dst: &Side<'_>,
) -> Vec<NearMiss> {
    let boot = i128::from(compiled.numbering.kept_wall_of_boot_ns().unwrap_or(0));
    let now = Timestamp::from_nanosecond(boot + i128::from(now_ns)).unwrap_or(Timestamp::MAX);
    match reason {
        Reason::LeaseExpired => [src, dst].into_iter().filter_map(|side| side.expired(now_ns)).collect(),
        Reason::PolicyDeny => overridden(documents, (flow, now), src, dst),
        Reason::InvalidIdentity
        | Reason::AmbiguousIdentity
        | Reason::PolicyDenied
        | Reason::OutsideHours
        | Reason::GrantExpired => {
            let mut misses: Vec<NearMiss> = [src, dst].into_iter().filter_map(Side::stranger).collect();
            misses.extend(ended(documents, (flow, now), src, dst));
            misses.extend(rules_nearby(documents, (flow, now), src, dst));
            misses
        }
        _ => Vec::new(),
    }
}

/// Judges by the code of the packet path.
fn judge(rules: &HostRules, moment: &Moment, ends: &Ends<'_>) -> Judgement {
    let mut judged = decide(rules, moment, ends);
    limits::timed(rules, moment, &mut judged);
    judged
}

/// One end: what the maps and what the documents say of it.
pub(super) struct Side<'d> {
    prefix: Prefix,
    binding: Binding,
    workload: Option<&'d Workload>,
    /// Who claims its address, where these are several identities.
    claimants: Vec<&'d Workload>,
    /// Whether who has the address depends on where it is, or on its port.
    is_shared: bool,
}

impl<'d> Side<'d> {
    fn of(
        documents: &'d Documents,
        compiled: &Compiled,
        (rules, moment): (&HostRules, &Moment),
        (addr, side, service): (Addr, KeySide, u32),
    ) -> Self {
        let prefix = Prefix::host(addr);
        let mut binding = lookup(&compiled.bindings, &prefix).map_or(Binding::NONE, |(_, binding)| *binding);
        if binding.on_expiry & Binding::ASKS != 0 {
            let asks = u32::from(binding.on_expiry & Binding::ASKS) | scope::is_here(moment, side);
            let found = rules.narrowed(&addr, moment, asks, service);
            binding = found.map_or(binding, |versions| *versions.at(moment.epoch));
            let is_its =
                |w: &Workload| compiled.numbering.identity_number(&w.spiffe_id) == Some(binding.identity);
            let mut claimants =
                documents.workloads.iter().filter(|w| w.addresses.iter().any(|p| p.covers(&prefix)));
            let (workload, claimants) = match binding.identity {
                Binding::AMBIGUOUS => (None, claimants.collect()),
                _ => (claimants.find(|w| is_its(w)), Vec::new()),
            };
            return Self { prefix, binding, workload, claimants, is_shared: true };
        }
        let claims = documents.workloads.iter().flat_map(|w| w.addresses.iter().map(move |p| (p, w)));
        let claims: Vec<_> = claims.filter(|(p, _)| p.covers(&prefix)).collect();
        let longest = claims.iter().map(|(p, _)| p.bits()).max();
        let longest: Vec<_> =
            claims.into_iter().filter(|(p, _)| Some(p.bits()) == longest).map(|(_, w)| w).collect();
        if binding.identity == Binding::AMBIGUOUS {
            return Self { prefix, binding, workload: None, claimants: longest, is_shared: false };
        }
        // Of several that agree, the one that holds longest.
        let workload =
            longest.into_iter().max_by_key(|w| w.lease.map_or(Timestamp::MAX, |lease| lease.end()));
        Self { prefix, binding, workload, claimants: Vec::new(), is_shared: false }
    }

    /// Its address.
    pub fn address(&self) -> IpAddr {
        self.prefix.addr().to_ip()
    }

    fn is_over(&self, now_ns: u64) -> bool {
        now_ns >= self.binding.not_after_ns
    }

    /// Whether a rule's selectors are about it.
    pub fn matches(&self, selectors: &[Selector]) -> bool {
        fits(selectors, |selector| match (selector, self.workload) {
            (Selector::Any, _) => true,
            (Selector::Cidr(cidr), _) => cidr.covers(&self.prefix),
            (selector, Some(w)) => selector.matches_workload(&w.spiffe_id, &w.labels),
            (_, None) => false,
        })
    }

    fn lease_seconds(&self, now_ns: u64) -> Option<i64> {
        (self.binding.not_after_ns != NEVER).then(|| {
            let left = i128::from(self.binding.not_after_ns) - i128::from(now_ns);
            i64::try_from(left.div_euclid(1_000_000_000)).unwrap_or(i64::MAX)
        })
    }

    fn view(&self, now_ns: u64) -> End {
        End {
            address: self.address(),
            spiffe_id: self.workload.map(|w| w.spiffe_id.clone()),
            workload: self.workload.map(|w| w.name.clone()),
            ambiguous: !self.claimants.is_empty(),
            class: self.binding.class,
            lease_seconds: self.lease_seconds(now_ns),
        }
    }

    fn stranger(&self) -> Option<NearMiss> {
        if self.workload.is_some() {
            return None;
        }
        if !self.claimants.is_empty() {
            let who: Vec<_> =
                self.claimants.iter().map(|w| format!("{} ({})", w.spiffe_id, w.place.file)).collect();
            let text = format!("{} is ambiguous: {} claim it", self.address(), who.join(" and "));
            return Some(NearMiss { kind: MissKind::Ambiguous, rule: None, place: None, text });
        }
        let why = if self.is_shared {
            "whose it is depends on its interface, VLAN or port, and it is nobody's where this comes from"
        } else {
            "no Workload has this address"
        };
        let text = format!("{} has no identity: {why}", self.address());
        Some(NearMiss { kind: MissKind::NoIdentity, rule: None, place: None, text })
    }

    fn expired(&self, now_ns: u64) -> Option<NearMiss> {
        let workload = self.workload.filter(|_| self.is_over(now_ns))?;
        let ago = self.lease_seconds(now_ns).unwrap_or(0).unsigned_abs();
        let text = format!(
            "the lease of {} ({}) ended {} ago",
            workload.spiffe_id,
            self.address(),
            duration_text(ago)
        );
        Some(NearMiss { kind: MissKind::LeaseExpired, rule: None, place: Some(workload.place.clone()), text })
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        match (&self.spiffe_id, &self.workload) {
            (Some(id), Some(name)) => write!(f, "  {id} ({name})")?,
            _ if self.ambiguous => f.write_str("  ambiguous: several identities claim it")?,
            _ if self.class == 0 => f.write_str("  no identity")?,
            _ => f.write_str("  no identity, known by address")?,
        }
        match self.lease_seconds {
            Some(left) if left > 0 => write!(f, ", lease ends in {}", duration_text(left.unsigned_abs())),
            Some(left) => write!(f, ", lease ended {} ago", duration_text(left.unsigned_abs())),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}: {}", self.verdict, self.reason, self.service)?;
        writeln!(f, "  from  {}", self.source)?;
        write!(f, "  to    {}", self.destination)?;
        match &self.rule {
            Some(rule) => {
                let rank = rank_text(rule.tier, rule.priority);
                write!(f, "\n  rule  {} ({rank}, {}): {}", rule.label(), rule.place, rule.text)?
            }
            None if self.verdict == Action::Dropped.name() && self.reason != Reason::LeaseExpired.name() => {
                f.write_str("\n  rule  none allows it")?;
            }
            None => {}
        }
        for miss in &self.near_misses {
            write!(f, "\n  near  {}", miss.text)?;
        }
        Ok(())
    }
}
