//! What is said of services, resolved: what is left are entries of which the longest prefix decides.

use super::ports::PortMatch;
use datapath::abi::Decision;
use std::collections::{BTreeMap, BTreeSet};

/// An entry below a pair of classes, or below a guard list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<V = Decision> {
    /// `None` for every protocol that has no entry of its own.
    pub proto: Option<u8>,
    /// First port of the prefix.
    pub port: u16,
    /// Bits of the port that are fixed.
    pub port_bits: u32,
    /// What it says; [`Decision::NONE`] where a shorter prefix says more than it should.
    pub decision: V,
}

/// Resolves rules that come in order of precedence: the first that matches decides.
pub fn flatten(rules: &[(Decision, &[PortMatch])]) -> Vec<Entry> {
    // Behind a rule for everything, nothing is reached.
    let any = rules.iter().position(|(_, ports)| ports.contains(&PortMatch::Any));
    let below = any.map_or(Decision::NONE, |n| rules[n].0);
    let rules = &rules[..any.unwrap_or(rules.len())];
    let mut entries = Vec::new();
    if any.is_some() {
        entries.push(Entry { proto: None, port: 0, port_bits: 0, decision: below });
    }
    let protos: BTreeSet<u8> =
        rules.iter().flat_map(|(_, ports)| *ports).filter_map(PortMatch::proto).collect();
    for proto in protos {
        let segments = segments(rules, proto, below);
        let tree = Tree::of(&segments, 0, 0);
        tree.emit(below, 0, 0, &mut |port, port_bits, decision| {
            entries.push(Entry { proto: Some(proto), port, port_bits, decision });
        });
    }
    entries
}

/// Resolves what `value` says of a service, where nothing changes but at the edges of `ports`. It is asked about `None`
/// for the protocols that `ports` do not name. What is `inherited` from a shorter prefix needs no entry.
pub fn resolve<V: Copy + PartialEq>(
    ports: &[PortMatch],
    inherited: V,
    value: impl Fn(Option<(u8, u16)>) -> V,
) -> Vec<Entry<V>> {
    let below = value(None);
    let mut entries = Vec::new();
    if below != inherited {
        entries.push(Entry { proto: None, port: 0, port_bits: 0, decision: below });
    }
    let protos: BTreeSet<u8> = ports.iter().filter_map(PortMatch::proto).collect();
    for proto in protos {
        let mut edges = BTreeSet::from([0]);
        for range in ports {
            let PortMatch::Protocol { proto: own, first, last } = *range else { continue };
            if own == proto {
                edges.insert(first);
                edges.extend(last.checked_add(1));
            }
        }
        let ends = edges.iter().skip(1).map(|next| next - 1).chain([u16::MAX]);
        let segments: Vec<Segment<V>> = edges
            .iter()
            .zip(ends)
            .map(|(first, last)| (*first, last, value(Some((proto, *first)))))
            .collect();
        Tree::of(&segments, 0, 0).emit(below, 0, 0, &mut |port, port_bits, decision| {
            entries.push(Entry { proto: Some(proto), port, port_bits, decision });
        });
    }
    entries
}

/// A range of ports and what is decided for it.
type Segment<V = Decision> = (u16, u16, V);

/// Every port of a protocol, in segments without gap or overlap.
fn segments(rules: &[(Decision, &[PortMatch])], proto: u8, below: Decision) -> Vec<Segment> {
    // What no rule has claimed yet: first port -> last port.
    let mut free: BTreeMap<u16, u16> = BTreeMap::from([(0, u16::MAX)]);
    let mut taken: Vec<Segment> = Vec::new();
    for (decision, ports) in rules {
        for range in *ports {
            let PortMatch::Protocol { proto: own, first, last } = *range else { continue };
            if own == proto {
                claim(&mut free, first, last, |from, to| taken.push((from, to, *decision)));
            }
        }
    }
    taken.extend(free.into_iter().map(|(first, last)| (first, last, below)));
    taken.sort_unstable_by_key(|segment| segment.0);
    taken
}

/// Takes the free parts of a range.
fn claim(free: &mut BTreeMap<u16, u16>, first: u16, last: u16, mut take: impl FnMut(u16, u16)) {
    let before = free.range(..=first).next_back().filter(|(_, end)| **end >= first).map(|(start, _)| *start);
    let starts: Vec<u16> = before.into_iter().chain(free.range(first..=last).map(|(s, _)| *s)).collect();
    for start in starts {
        // `before` and the range both name a gap that begins at `first`.
        let Some(end) = free.remove(&start) else { continue };
        let (from, to) = (start.max(first), end.min(last));
        if start < from {
            free.insert(start, from - 1);
        }
        if to < end {
            free.insert(to + 1, end);
        }
        take(from, to);
    }
}

/// A binary trie of ports. Built and emitted as in Draves et al., "Constructing optimal IP routing tables" (1999):
/// bottom up, each node learns which values could serve it; top down, an entry is made where the inherited one cannot.
enum Tree<V> {
    Leaf(V),
    Node(Box<Tree<V>>, Box<Tree<V>>, Vec<V>),
}

impl<V: Copy + PartialEq> Tree<V> {
    /// `segments` cover at least the ports of this node.
    fn of(segments: &[Segment<V>], port: u16, bits: u32) -> Self {
        let last = port | (u32::from(u16::MAX) >> bits) as u16;
        let begin = segments.partition_point(|(_, to, _)| *to < port);
        let end = segments.partition_point(|(from, ..)| *from <= last);
        let segments = &segments[begin..end];
        if let [(_, _, first), rest @ ..] = segments
            && rest.iter().all(|(_, _, decision)| decision == first)
        {
            return Self::Leaf(*first);
        }
        let low = Self::of(segments, port, bits + 1);
        let high = Self::of(segments, port | 1 << (15 - bits), bits + 1);
        let (a, b) = (low.candidates(), high.candidates());
        let both: Vec<V> = a.iter().filter(|d| b.contains(d)).copied().collect();
        let candidates = if both.is_empty() { [a, b].concat() } else { both };
        Self::Node(Box::new(low), Box::new(high), candidates)
    }

    fn candidates(&self) -> &[V] {
        match self {
            Self::Leaf(decision) => std::slice::from_ref(decision),
            Self::Node(_, _, candidates) => candidates,
        }
    }

    fn emit(&self, inherited: V, port: u16, bits: u32, out: &mut impl FnMut(u16, u32, V)) {
        let candidates = self.candidates();
        let own = if candidates.contains(&inherited) { inherited } else { candidates[0] };
        if own != inherited {
            out(port, bits, own);
        }
        if let Self::Node(low, high, _) = self {
            low.emit(own, port, bits + 1, out);
            high.emit(own, port | 1 << (15 - bits), bits + 1, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(n: u32) -> Decision {
        Decision { rule: n, action: Decision::ALLOW, ..Decision::NONE }
    }

    fn entries(rules: &[(u32, &[&str])]) -> Vec<(Option<u8>, u16, u32, u32)> {
        let parsed: Vec<(Decision, Vec<PortMatch>)> = rules
            .iter()
            .map(|(n, ports)| (rule(*n), ports.iter().map(|p| p.parse().expect("ports")).collect()))
            .collect();
        let rules: Vec<_> = parsed.iter().map(|(d, ports)| (*d, ports.as_slice())).collect();
        flatten(&rules).iter().map(|e| (e.proto, e.port, e.port_bits, e.decision.rule)).collect()
    }

    #[test]
    fn one_port_is_one_entry() {
        assert_eq!(entries(&[(1, &["tcp/443"])]), [(Some(6), 443, 16, 1)]);
    }

    #[test]
    fn a_range_is_the_fewest_prefixes() {
        assert_eq!(
            entries(&[(1, &["tcp/8000-8010"])]),
            [(Some(6), 8000, 12, 1), (Some(6), 8011, 16, 0), (Some(6), 8012, 14, 0)]
        );
        // All but one port: the whole and a hole.
        assert_eq!(
            entries(&[(1, &["tcp/0-79", "tcp/81-65535"])]),
            [(Some(6), 0, 0, 1), (Some(6), 80, 16, 0)]
        );
    }

    #[test]
    fn an_earlier_rule_cuts_a_later_one() {
        assert_eq!(entries(&[(1, &["tcp/22"]), (2, &["tcp"])]), [(Some(6), 0, 0, 2), (Some(6), 22, 16, 1)]);
        assert_eq!(entries(&[(1, &["tcp"]), (2, &["tcp/22"])]), [(Some(6), 0, 0, 1)]);
    }

    #[test]
    fn a_rule_for_everything_ends_the_list_and_is_not_repeated_below() {
        assert_eq!(
            entries(&[(1, &["udp/53"]), (2, &["any"]), (3, &["tcp/1"])]),
            [(None, 0, 0, 2), (Some(17), 53, 16, 1)]
        );
        assert_eq!(entries(&[(1, &["icmp"]), (1, &["any"])]), [(None, 0, 0, 1)]);
    }
}
