//! Blocklists and quarantines: prefixes with what is said of them, and the guard lists that prefixes and identities name.
//!
//! A list is what a set of entries says of services and peers, resolved so that the longest prefix decides. Everything
//! with the same set of entries names the same list.

use super::classes::Profile;
use super::compile::{RuleInfo, RuleKind};
use super::document::{BlockEntry, Documents, RuleAction, RuleMode, Workload};
use super::feed::{self, Feed};
use super::flatten::{Entry, resolve};
use super::hashing::Map;
use super::limits::Limits;
use super::numbering::Numbering;
use super::ports::PortMatch;
use super::prefix::Prefix;
use super::quarantine::Quarantine;
use super::selector::Selector;
use super::target::Target;
use super::time::boot_time_ns;
use super::trie::PolicyPrefix;
use datapath::abi::{Binding, Block, GuardKey, NEVER};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

/// The numbers of entries, in the order in which they stand.
type Set = Rc<[usize]>;

/// Every block and quarantine.
pub struct Guards<'d> {
    blocks: Vec<(&'d Target, Block)>,
    /// What stands in feeds, each sorted, and what is said of all of it.
    feeds: Vec<(&'d [feed::Entry], Block)>,
    quarantines: Vec<(&'d Quarantine, Block)>,
    lists: BTreeMap<u32, (Set, Set)>,
    /// The lists that prefixes name.
    of_prefixes: BTreeSet<u32>,
}

/// The classes that guard lists can speak of.
pub(super) struct Peers<'a> {
    /// All of them.
    pub all: &'a mut dyn Iterator<Item = u32>,
    /// Those that a selector matches, sorted.
    pub matching: Matching<'a>,
}

/// The classes of a selector.
type Matching<'a> = &'a dyn Fn(&Selector) -> Vec<u32>;

impl<'d> Guards<'d> {
    /// Gives each entry a number and a line in `rules`.
    pub fn of(
        documents: &'d Documents,
        numbering: &mut Numbering,
        rules: &mut BTreeMap<u32, RuleInfo>,
        wall_of_boot_ns: i128,
    ) -> Self {
        let mut block = |info: RuleInfo, not_after: Option<Timestamp>| {
            let not_after_ns = not_after.map_or(NEVER, |end| boot_time_ns(end, wall_of_boot_ns));
            let block = Block { rule: info.number, guards: 0, not_after_ns };
            rules.insert(info.number, info);
            block
        };
        let mut guards = Self {
            blocks: Vec::new(),
            feeds: Vec::new(),
            quarantines: Vec::new(),
            lists: BTreeMap::new(),
            of_prefixes: BTreeSet::new(),
        };
        for list in &documents.blocklists {
            for entry in &list.entries {
                let block = block(block_info(numbering, &list.name, entry), entry.not_after);
                guards.blocks.push((&entry.target, block));
            }
            for feed in &list.feeds {
                let block = block(feed_info(numbering, &list.name, feed), feed.not_after());
                guards.feeds.push((feed.entries.list(), block));
            }
        }
        for quarantine in documents.quarantines.iter().filter(|quarantine| quarantine.act.cuts_off()) {
            let block = block(quarantine_info(numbering, quarantine), quarantine.not_after);
            guards.quarantines.push((quarantine, block));
        }
        guards
    }

    /// The number of the list of a set of entries, 0 for none. It depends on what stands in the list alone, so that a
    /// number never comes to mean another set.
    fn list(&mut self, numbering: &mut Numbering, blocks: &Set, quarantines: &Set) -> u32 {
        if blocks.is_empty() && quarantines.is_empty() {
            return 0;
        }
        let text = |rules: BTreeSet<u32>| rules.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let blocked = text(blocks.iter().map(|n| self.blocks[*n].1.rule).collect());
        let quarantined = text(quarantines.iter().map(|n| self.quarantines[*n].1.rule).collect());
        let number = numbering.guards(format!("{blocked}/{quarantined}"));
        self.lists.entry(number).or_insert_with(|| (blocks.clone(), quarantines.clone()));
        number
    }

    /// What is said of each prefix. A block inside a longer-lasting one gives way to it: when the inner ends, the outer
    /// still holds.
    pub fn blocklist(&mut self, numbering: &mut Numbering) -> BTreeMap<Prefix, Block> {
        let mut blocklist = Vec::new();
        let mut numbers: HashMap<Set, u32> = HashMap::new();
        let none: Set = Rc::from([]);
        let mut path: Vec<(Prefix, Block, Set)> = Vec::new();
        let feeds = self.feeds.clone();
        for (prefix, point) in Points::of(self.points(), feeds) {
            while path.last().is_some_and(|(above, ..)| !above.holds(&prefix)) {
                path.pop();
            }
            let answered = path.last().map_or(Block::NONE, |(_, block, _)| *block);
            let inherited = path.last().filter(|(above, ..)| above.covers(&prefix));
            let (above, services) = inherited.map_or((Block::NONE, &none), |(_, block, set)| (*block, set));
            let whole = longer(Block { guards: 0, ..above }, point.whole);
            let outlasts = |n: &usize| whole.rule == 0 || self.blocks[*n].1.not_after_ns > whole.not_after_ns;
            let set: Set = if point.services.is_empty() && services.iter().all(outlasts) {
                services.clone()
            } else {
                services.iter().chain(&point.services).copied().filter(outlasts).collect()
            };
            let guards = match numbers.get(&set) {
                Some(number) => *number,
                None => {
                    let number = self.list(numbering, &set, &none);
                    self.of_prefixes.insert(number);
                    numbers.insert(set.clone(), number);
                    number
                }
            };
            let block = Block { guards, ..whole };
            if block != answered {
                blocklist.push((prefix, block));
            }
            path.push((prefix, block, set));
        }
        // From a sorted list, the map is made with full nodes.
        blocklist.into_iter().collect()
    }

    fn points(&self) -> BTreeMap<Prefix, Point> {
        let mut points: BTreeMap<Prefix, Point> = BTreeMap::new();
        for (n, (target, block)) in self.blocks.iter().enumerate() {
            // Services alone are those of every address.
            let prefixes = match &target.selector {
                Some(Selector::Cidr(prefix)) => vec![*prefix],
                Some(_) => continue,
                None => vec![Prefix::V6_ALL, Prefix::V4_ALL],
            };
            for prefix in prefixes {
                let point = points.entry(prefix).or_default();
                if target.is_about(None) {
                    point.whole = longer(point.whole, *block);
                } else {
                    point.services.push(n);
                }
            }
        }
        // As for bindings: ::/0 does not mean IPv4.
        let short = |p: &&Prefix| **p < Prefix::V4_ALL;
        let of_feed = |(list, _): &(&'d [feed::Entry], Block)| {
            let list: &'d [feed::Entry] = list;
            list.iter().map(|entry| &entry.prefix).take_while(short)
        };
        if points
            .keys()
            .chain(self.feeds.iter().flat_map(of_feed))
            .any(|p| !p.is_v4() && p.holds(&Prefix::V4_ALL))
        {
            points.entry(Prefix::V4_ALL).or_default();
        }
        points
    }

    /// The list of each workload that something is said of.
    pub fn of_workloads(
        &mut self,
        workloads: &'d [Workload],
        numbering: &mut Numbering,
    ) -> Map<Profile<'d>, u32> {
        let fits = |selector: &Selector, (id, labels): Profile<'_>| selector.matches_workload(id, labels);
        let blocks = self.blocks.iter().enumerate();
        let named: Vec<(usize, &Selector)> = blocks
            .filter_map(|(n, (target, _))| Some((n, target.selector.as_ref()?)))
            .filter(|(_, selector)| !matches!(selector, Selector::Cidr(_)))
            .collect();
        let mut found = Map::default();
        if named.is_empty() && self.quarantines.is_empty() {
            return found;
        }
        for workload in workloads {
            let profile = (&workload.spiffe_id, &workload.labels);
            if found.contains_key(&profile) {
                continue;
            }
            let blocks: Set = named.iter().filter(|(_, s)| fits(s, profile)).map(|(n, _)| *n).collect();
            let quarantines = self.quarantines.iter().enumerate();
            let quarantines: Set = quarantines
                .filter(|(_, (q, _))| q.identities.iter().any(|selector| fits(selector, profile)))
                .map(|(n, _)| n)
                .collect();
            let number = self.list(numbering, &blocks, &quarantines);
            found.insert(profile, number);
        }
        found
    }

    /// What every list says that a prefix or one of these bindings names. Who comes anew and is somebody of whom something is said takes a
    /// compile, so that no other is needed.
    pub fn entries<'b>(
        &self,
        bindings: impl Iterator<Item = &'b Binding>,
        peers: Peers<'_>,
    ) -> BTreeMap<PolicyPrefix, Block> {
        let named: HashSet<u32> = bindings.map(|binding| binding.guards).filter(|list| *list != 0).collect();
        self.entries_of(|list| named.contains(&list) || self.of_prefixes.contains(&list), peers)
    }

    /// The same of lists that are chosen otherwise.
    pub fn entries_of(
        &self,
        is_wanted: impl Fn(u32) -> bool,
        peers: Peers<'_>,
    ) -> BTreeMap<PolicyPrefix, Block> {
        let mut entries = BTreeMap::new();
        let all: Vec<u32> = peers.all.collect();
        for (list, (blocks, quarantines)) in self.lists.iter().filter(|(list, _)| is_wanted(**list)) {
            self.block_entries(*list, blocks, &mut entries);
            self.quarantine_entries(*list, quarantines, (&all, peers.matching), &mut entries);
        }
        entries
    }

    fn block_entries(&self, list: u32, set: &Set, entries: &mut BTreeMap<PolicyPrefix, Block>) {
        let ports: Vec<PortMatch> = set.iter().flat_map(|n| &self.blocks[*n].0.ports).copied().collect();
        let resolved = resolve(&ports, Block::NONE, |service| {
            let about = set.iter().map(|n| &self.blocks[*n]).filter(|(target, _)| target.is_about(service));
            about.fold(Block::NONE, |found, (_, block)| longer(found, *block))
        });
        for entry in resolved {
            let prefix = PolicyPrefix::of_service(
                GuardKey::block(list, 0, 0),
                entry.proto,
                entry.port,
                entry.port_bits,
            );
            entries.insert(prefix, entry.decision);
        }
    }

    fn quarantine_entries(
        &self,
        list: u32,
        set: &Set,
        (all_classes, matching): (&[u32], Matching<'_>),
        entries: &mut BTreeMap<PolicyPrefix, Block>,
    ) {
        let all = || set.iter().map(|n| &self.quarantines[*n]);
        let whole = all().fold(Block::NONE, |found, (_, block)| longer(found, *block));
        if whole.rule == 0 {
            return;
        }
        entries.insert(PolicyPrefix::new(GuardKey::quarantine(list, 0, 0, 0), GuardKey::LIST_BITS), whole);
        let reach: Vec<(&Target, Option<Vec<u32>>)> = all()
            .flat_map(|(quarantine, _)| &quarantine.except)
            .map(|target| (target, target.selector.as_ref().map(matching)))
            .collect();
        for class in all_classes {
            let left: Vec<&Target> = reach
                .iter()
                .filter(|(_, peers)| peers.as_ref().is_none_or(|peers| peers.binary_search(class).is_ok()))
                .map(|(target, _)| *target)
                .collect();
            let ports: Vec<PortMatch> = left.iter().flat_map(|target| &target.ports).copied().collect();
            let resolved = resolve(&ports, whole, |service| {
                let holds = |q: &Quarantine| {
                    let leaves = |t: &Target| left.iter().any(|l| std::ptr::eq(*l, t)) && t.is_about(service);
                    !q.except.iter().any(leaves)
                };
                let holding = all().filter(|(q, _)| holds(q));
                holding.fold(Block::NONE, |found, (_, block)| longer(found, *block))
            });
            for Entry { proto, port, port_bits, decision } in resolved {
                let key = GuardKey::quarantine(list, *class, 0, 0);
                entries.insert(PolicyPrefix::of_service(key, proto, port, port_bits), decision);
            }
        }
    }
}

/// What is said of a prefix by itself.
struct Point {
    whole: Block,
    services: Vec<usize>,
}

impl Default for Point {
    fn default() -> Self {
        Self { whole: Block::NONE, services: Vec::new() }
    }
}

/// Every prefix of which something is said, in order: what entries say, and what feeds do.
struct Points<'d> {
    points: std::iter::Peekable<std::collections::btree_map::IntoIter<Prefix, Point>>,
    feeds: Vec<(&'d [feed::Entry], Block)>,
}

impl<'d> Points<'d> {
    fn of(points: BTreeMap<Prefix, Point>, feeds: Vec<(&'d [feed::Entry], Block)>) -> Self {
        Self { points: points.into_iter().peekable(), feeds }
    }
}

impl Iterator for Points<'_> {
    type Item = (Prefix, Point);

    fn next(&mut self) -> Option<(Prefix, Point)> {
        let heads = self.feeds.iter().filter_map(|(list, _)| list.first()).map(|entry| entry.prefix);
        let next = heads.chain(self.points.peek().map(|(prefix, _)| *prefix)).min()?;
        let own = self.points.next_if(|(prefix, _)| *prefix == next);
        let mut point = own.map(|(_, point)| point).unwrap_or_default();
        for (list, block) in &mut self.feeds {
            if let Some((entry, rest)) = list.split_first()
                && entry.prefix == next
            {
                point.whole = longer(point.whole, *block);
                *list = rest;
            }
        }
        Some((next, point))
    }
}

/// The block that lasts longer; the first of two that last alike.
fn longer(first: Block, second: Block) -> Block {
    let second_outlasts = first.rule == 0 || second.not_after_ns > first.not_after_ns;
    if second.rule != 0 && second_outlasts { second } else { first }
}

fn block_info(numbering: &mut Numbering, list: &str, entry: &BlockEntry) -> RuleInfo {
    let name = entry.target.to_string();
    let until = entry.not_after.map(|end| format!(" until {end:.0}")).unwrap_or_default();
    let reason = entry.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    RuleInfo {
        number: numbering.block(list, &name),
        kind: RuleKind::Block,
        policy: list.to_owned(),
        text: format!("block {name}{until}{reason}"),
        name,
        tier: 0,
        priority: None,
        action: RuleAction::Deny,
        mode: RuleMode::Enforce,
        limits: Limits::default(),
        place: entry.place.clone(),
    }
}

fn feed_info(numbering: &mut Numbering, list: &str, feed: &Feed) -> RuleInfo {
    RuleInfo {
        number: numbering.feed(list, &feed.name),
        kind: RuleKind::Feed,
        policy: list.to_owned(),
        name: feed.name.clone(),
        tier: 0,
        priority: None,
        action: RuleAction::Deny,
        mode: RuleMode::Enforce,
        limits: Limits::default(),
        place: feed.place.clone(),
        text: format!("block {feed}"),
    }
}

pub(super) fn quarantine_info(numbering: &mut Numbering, quarantine: &Quarantine) -> RuleInfo {
    RuleInfo {
        number: numbering.quarantine(&quarantine.name),
        kind: RuleKind::Quarantine,
        policy: "quarantine".into(),
        text: quarantine.to_string(),
        name: quarantine.name.clone(),
        tier: 0,
        priority: None,
        action: RuleAction::Deny,
        mode: RuleMode::Enforce,
        limits: Limits::default(),
        place: quarantine.place.clone(),
    }
}
