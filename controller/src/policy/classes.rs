//! Identity classes: ends that every selector of every rule treats alike share one.
//!
//! A class is the set of selectors that match. Policy is keyed by classes, so its size follows the rules and not the
//! fleet, and a new workload that known selectors match is one new binding.

use super::document::{Documents, Workload};
use super::hashing::{Map, Set};
use super::identity_limits::{IdentityLimits, Numbered};
use super::numbering::Numbering;
use super::placed::{Claims, Placed};
use super::prefix::Prefix;
use super::selector::{Selector, added, taken};
use super::spiffe::{SpiffeId, SpiffePattern};
use super::time::boot_time_ns;
use super::trie::ScopedPrefix;
use datapath::abi::policy::LeaseEnd;
use datapath::abi::{Binding, NEVER};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The classes of a set of documents.
pub struct Classes<'d> {
    /// What each prefix is bound to.
    pub bindings: BTreeMap<Prefix, Binding>,
    /// The same of those that do not hold everywhere.
    pub scoped: BTreeMap<ScopedPrefix, Binding>,
    /// Interfaces that bindings name, and their numbers.
    pub named_interfaces: BTreeMap<String, u32>,
    /// The selectors of each class that some prefix has.
    pub selectors: BTreeMap<u32, Vec<&'d Selector>>,
    members: Map<&'d Selector, Vec<u32>>,
    all: Vec<u32>,
}

impl<'d> Classes<'d> {
    /// Sorts every prefix of the documents into classes. `guards` are the guard lists of workloads, `limits` the limits of
    /// identities.
    pub(super) fn of(
        documents: &'d Documents,
        numbering: &mut Numbering,
        (wall_of_boot_ns, now): (i128, Timestamp),
        guards: &Map<Profile<'d>, u32>,
        limits: &IdentityLimits<'d>,
    ) -> Self {
        let index = Index::of(documents);
        let mut builder = Builder {
            numbers: index.selectors.iter().map(|s| numbering.selector(s.to_string())).collect(),
            numbering,
            profiles: Map::default(),
            classes: Map::default(),
            wall_of_boot_ns,
            now,
            guards,
            limits,
            index: &index,
        };
        let named = documents.workloads.iter().filter_map(|w| w.scope.interface.as_ref());
        let named_interfaces: BTreeMap<String, u32> =
            named.map(|name| (name.clone(), builder.numbering.interface(name))).collect();
        let points = points(documents, &index, limits.unidentified.is_some());
        let (bindings, scoped) = builder.bind(points, &named_interfaces);
        let mut selectors: BTreeMap<u32, Vec<&Selector>> = BTreeMap::from([(0, Vec::new())]);
        let mut members: Map<&Selector, Vec<u32>> = Map::default();
        for (set, class) in &builder.classes {
            for n in set {
                members.entry(index.selectors[*n]).or_default().push(*class);
            }
            selectors.insert(*class, set.iter().map(|n| index.selectors[*n]).collect());
        }
        let all = selectors.keys().copied().collect();
        Self { bindings, scoped, named_interfaces, selectors, members, all }
    }

    /// The classes that the selectors are about, sorted.
    pub fn matching(&self, selectors: &[Selector]) -> Vec<u32> {
        let of = |selector: &Selector| self.members.get(selector).into_iter().flatten().copied();
        let mut classes: Vec<u32> = if added(selectors).any(|s| *s == Selector::Any) {
            self.all.clone()
        } else {
            added(selectors).flat_map(of).collect::<BTreeSet<u32>>().into_iter().collect()
        };
        let gone: Set<u32> = taken(selectors).flat_map(of).collect();
        classes.retain(|class| !gone.contains(class));
        classes
    }
}

/// A prefix that somebody names.
#[derive(Default)]
struct Point<'d> {
    /// Who claims it.
    claims: Vec<&'d Workload>,
    cidr: Option<usize>,
}

/// Whose a prefix is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Holder<'d> {
    /// Nobody's.
    Nobody,
    /// One identity's; of several claims that agree, the one that holds longest.
    One(&'d Workload),
    /// Claimed by several identities: nobody knows whose.
    Ambiguous,
}

impl<'d> Holder<'d> {
    /// What claims of one prefix come to. Those whose leases are over give way to those that run.
    pub fn of(claims: &[&'d Workload], now: Timestamp) -> Self {
        let runs = |w: &&&Workload| w.lease.is_none_or(|lease| lease.end() > now);
        let running: Vec<&Workload> = claims.iter().filter(runs).copied().collect();
        let claims = if running.is_empty() { claims } else { &running };
        let longest =
            claims.iter().copied().max_by_key(|w| w.lease.map_or(Timestamp::MAX, |lease| lease.end()));
        match longest {
            None => Self::Nobody,
            Some(w) if claims.iter().all(|other| other.spiffe_id == w.spiffe_id) => Self::One(w),
            Some(_) => Self::Ambiguous,
        }
    }

    /// Whose an end is that may be any of these.
    pub fn any_of(all: impl IntoIterator<Item = Self>) -> Self {
        all.into_iter().fold(Self::Nobody, |known, other| match (known, other) {
            (known, Self::Nobody) => known,
            (Self::Nobody, other) => other,
            (Self::One(a), Self::One(b)) if a.spiffe_id == b.spiffe_id => {
                let end = |w: &Workload| w.lease.map_or(Timestamp::MAX, |lease| lease.end());
                Self::One(if end(a) >= end(b) { a } else { b })
            }
            _ => Self::Ambiguous,
        })
    }

    fn workload(self) -> Option<&'d Workload> {
        if let Self::One(workload) = self { Some(workload) } else { None }
    }
}

fn points<'d>(
    documents: &'d Documents,
    index: &Index<'d>,
    limits_strangers: bool,
) -> BTreeMap<Prefix, Point<'d>> {
    let mut points: BTreeMap<Prefix, Point<'d>> = BTreeMap::new();
    if limits_strangers {
        points.entry(Prefix::V6_ALL).or_default();
    }
    for workload in documents.workloads.iter() {
        for prefix in &workload.addresses {
            points.entry(*prefix).or_default().claims.push(workload);
        }
    }
    for (n, selector) in index.selectors.iter().enumerate() {
        if let Selector::Cidr(prefix) = selector {
            points.entry(*prefix).or_default().cidr = Some(n);
        }
    }
    // A short IPv6 prefix such as ::/0 holds the mapped IPv4 addresses in the trie, but does not mean them.
    if points.keys().any(|p| p.holds(&Prefix::V4_ALL)) {
        points.entry(Prefix::V4_ALL).or_default();
    }
    points
}

/// What a prefix hands down to those that lie in it.
struct Level<'d> {
    prefix: Prefix,
    holder: Holder<'d>,
    /// Whose it is on segments.
    placed: Placed<'d>,
    cidrs: Rc<[usize]>,
    binding: Binding,
}

/// All that selectors ask of a workload beside its addresses.
pub type Profile<'d> = (&'d SpiffeId, &'d BTreeMap<String, String>);

struct Builder<'a, 'd> {
    numbering: &'a mut Numbering,
    index: &'a Index<'d>,
    /// Stable numbers of the selectors.
    numbers: Vec<u32>,
    profiles: Map<Profile<'d>, Rc<[usize]>>,
    classes: Map<Vec<usize>, u32>,
    wall_of_boot_ns: i128,
    now: Timestamp,
    guards: &'a Map<Profile<'d>, u32>,
    limits: &'a IdentityLimits<'d>,
}

impl<'d> Builder<'_, 'd> {
    fn bind(
        &mut self,
        points: BTreeMap<Prefix, Point<'d>>,
        interfaces: &BTreeMap<String, u32>,
    ) -> (BTreeMap<Prefix, Binding>, BTreeMap<ScopedPrefix, Binding>) {
        let (mut bindings, mut scoped) = (BTreeMap::new(), BTreeMap::new());
        let mut path: Vec<Level<'d>> = Vec::new();
        for (prefix, point) in points {
            while path.last().is_some_and(|level| !level.prefix.holds(&prefix)) {
                path.pop();
            }
            let above = path.last();
            let inherited = above.filter(|level| level.prefix.covers(&prefix));
            let claims = Claims::of(&point.claims, interfaces);
            let holder = match Holder::of(&claims.everywhere, self.now) {
                Holder::Nobody => inherited.map_or(Holder::Nobody, |level| level.holder),
                own => own,
            };
            let placed = claims.placed(inherited.map(|level| &level.placed), self.now);
            let mut cidrs: Rc<[usize]> = inherited.map_or_else(|| Rc::from([]), |level| level.cidrs.clone());
            if let Some(own) = point.cidr {
                cidrs = cidrs.iter().copied().chain([own]).collect();
            }
            let answered = above.map_or(Binding::NONE, |level| level.binding);
            let mut binding = self.binding(holder, &cidrs);
            binding.on_expiry |= claims.asks(&placed);
            if binding != answered {
                bindings.insert(prefix, binding);
            }
            for (key, holder) in claims.entries(&prefix, holder, &placed, self.now) {
                scoped.insert(key, self.binding(holder, &cidrs));
            }
            path.push(Level { prefix, holder, placed, cidrs, binding });
        }
        (bindings, scoped)
    }

    fn binding(&mut self, holder: Holder<'d>, cidrs: &[usize]) -> Binding {
        let workload = holder.workload();
        let mut set = cidrs.to_vec();
        if let Some(workload) = workload {
            let index = self.index;
            let profile = self
                .profiles
                .entry((&workload.spiffe_id, &workload.labels))
                .or_insert_with(|| index.matching(workload));
            set.extend(profile.iter());
        }
        set.sort_unstable();
        let class = if set.is_empty() && workload.is_none() { 0 } else { self.class(set) };
        let bits = |limit: Option<Numbered>| limit.map_or(0, |limit| limit.bits);
        let Some(workload) = workload else {
            let identity = if holder == Holder::Ambiguous { Binding::AMBIGUOUS } else { 0 };
            return Binding { identity, class, limits: bits(self.limits.unidentified), ..Binding::NONE };
        };
        let revoked = self.limits.revoked.get(&workload.spiffe_id).copied();
        let (not_after_ns, on_expiry) = match (revoked, &workload.lease) {
            (Some(since_ns), _) => (since_ns, LeaseEnd::Deny),
            (None, None) => (NEVER, LeaseEnd::Deny),
            (None, Some(lease)) => {
                (boot_time_ns(lease.not_after, self.wall_of_boot_ns), lease.on_expiry.in_kernel())
            }
        };
        let identity = self.numbering.identity(&workload.spiffe_id);
        let guards = self.guards.get(&(&workload.spiffe_id, &workload.labels)).copied().unwrap_or(0);
        let limits = bits(self.limits.get(&workload.spiffe_id));
        let grace_s = workload.lease.filter(|_| revoked.is_none()).map_or(0, |lease| lease.grace_s);
        Binding { identity, class, not_after_ns, on_expiry: on_expiry as u8, limits, grace_s, guards }
    }

    fn class(&mut self, set: Vec<usize>) -> u32 {
        if let Some(class) = self.classes.get(&set) {
            return *class;
        }
        let mut numbers: Vec<u32> = set.iter().map(|n| self.numbers[*n]).collect();
        numbers.sort_unstable();
        let class = self.numbering.class(&numbers);
        self.classes.insert(set, class);
        class
    }
}

/// Selectors by what they ask for, so that a workload meets only those that could match.
struct Index<'d> {
    selectors: Vec<&'d Selector>,
    ids: Map<&'d SpiffeId, usize>,
    domains: Map<&'d str, usize>,
    patterns: Map<&'d str, Vec<(usize, &'d SpiffePattern)>>,
    /// By the first of the labels that a selector asks for.
    labels: Map<(&'d String, &'d String), Vec<usize>>,
}

impl<'d> Index<'d> {
    fn of(documents: &'d Documents) -> Self {
        let distinct: Set<&Selector> = documents.selectors().filter(|s| **s != Selector::Any).collect();
        let mut selectors: Vec<&Selector> = distinct.into_iter().collect();
        selectors.sort_unstable();
        let mut index = Self {
            selectors,
            ids: Map::default(),
            domains: Map::default(),
            patterns: Map::default(),
            labels: Map::default(),
        };
        for (n, selector) in index.selectors.iter().enumerate() {
            match selector {
                Selector::SpiffeId(id) => {
                    index.ids.insert(id, n);
                }
                Selector::TrustDomain(domain) => {
                    index.domains.insert(domain.as_str(), n);
                }
                Selector::SpiffePath(pattern) => {
                    index.patterns.entry(pattern.trust_domain()).or_default().push((n, pattern));
                }
                Selector::Labels(labels) => {
                    if let Some(first) = labels.first_key_value() {
                        index.labels.entry(first).or_default().push(n);
                    }
                }
                Selector::Cidr(_) | Selector::Any | Selector::Not(_) => {}
            }
        }
        index
    }

    fn matching(&self, workload: &Workload) -> Rc<[usize]> {
        let id = &workload.spiffe_id;
        let exact = self.ids.get(id).into_iter().chain(self.domains.get(id.trust_domain())).copied();
        let patterns = self.patterns.get(id.trust_domain()).into_iter().flatten();
        let patterns = patterns.filter(|(_, pattern)| pattern.matches(id)).map(|(n, _)| *n);
        let labels = workload.labels.iter().filter_map(|pair| self.labels.get(&pair)).flatten().copied();
        let labels = labels.filter(|n| self.selectors[*n].matches_workload(id, &workload.labels));
        exact.chain(patterns).chain(labels).collect()
    }
}
