//! Whose a prefix is on a segment, or for some ports: bindings that do not hold everywhere.

use super::classes::Holder;
use super::document::Workload;
use super::ports::PortMatch;
use super::prefix::Prefix;
use super::trie::ScopedPrefix;
use datapath::abi::{Binding, ScopedKey};
use datapath::scope::segment;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Whose a prefix is on each segment that is named of it, whatever the port.
pub type Placed<'d> = Rc<BTreeMap<u32, Holder<'d>>>;

/// The claims of one prefix, by where they hold.
#[derive(Default)]
pub struct Claims<'d> {
    /// Everywhere, whatever the port.
    pub everywhere: Vec<&'d Workload>,
    placed: BTreeMap<u32, Vec<&'d Workload>>,
    /// For some ports, by segment; 0 is everywhere.
    ports: BTreeMap<u32, Vec<&'d Workload>>,
}

impl<'d> Claims<'d> {
    /// Sorts claims. `interfaces` has a number for each interface that they name.
    pub fn of(all: &[&'d Workload], interfaces: &BTreeMap<String, u32>) -> Self {
        let mut claims = Self::default();
        for workload in all.iter().copied() {
            let scope = &workload.scope;
            let interface =
                scope.interface.as_ref().and_then(|name| interfaces.get(name)).copied().unwrap_or(0);
            let segment = segment(interface, scope.vlan.unwrap_or(0));
            if !scope.ports.is_empty() {
                claims.ports.entry(segment).or_default().push(workload);
            } else if segment == 0 {
                claims.everywhere.push(workload);
            } else {
                claims.placed.entry(segment).or_default().push(workload);
            }
        }
        claims
    }

    /// Whose the prefix is on segments, by its own claims and those of the prefixes that hold it.
    pub fn placed(&self, above: Option<&Placed<'d>>, now: Timestamp) -> Placed<'d> {
        match above {
            Some(above) if self.placed.is_empty() => above.clone(),
            above => {
                let mut placed = above.map_or_else(BTreeMap::new, |above| (**above).clone());
                placed
                    .extend(self.placed.iter().map(|(segment, claims)| (*segment, Holder::of(claims, now))));
                Rc::new(placed)
            }
        }
    }

    /// What packets have to ask for beside the binding that holds everywhere: the [`Binding::ASKS`] bits.
    pub fn asks(&self, placed: &Placed<'d>) -> u8 {
        let bit = |segment: &u32| match (segment >> 12, segment & 0xfff) {
            (0, 0) => Binding::ASKS_PORTS,
            (0, _) => Binding::ASKS_VLAN,
            (_, 0) => Binding::ASKS_INTERFACE,
            _ => Binding::ASKS_BOTH,
        };
        placed.keys().chain(self.ports.keys()).fold(0, |all, segment| all | bit(segment))
    }

    /// The entries of a prefix that everywhere else is `holder`'s.
    pub fn entries(
        &self,
        prefix: &Prefix,
        holder: Holder<'d>,
        placed: &Placed<'d>,
        now: Timestamp,
    ) -> Vec<(ScopedPrefix, Holder<'d>)> {
        let mut entries: Vec<_> =
            placed.iter().map(|(segment, holder)| (ScopedPrefix::of(*segment, prefix), *holder)).collect();
        let is_placed = !placed.is_empty() || self.ports.keys().any(|segment| *segment != 0);
        if is_placed {
            let whole = Holder::any_of(placed.values().copied().chain([holder]));
            entries.push((ScopedPrefix::of(ScopedKey::SOMEWHERE, prefix), whole));
        }
        for (proto, first, last) in self.port_ranges() {
            let mut all = Vec::new();
            let segments: BTreeSet<u32> =
                self.ports.keys().chain(placed.keys()).copied().chain([0]).collect();
            for segment in segments {
                let claims = self.ports.get(&segment).map_or(&[][..], Vec::as_slice);
                let fits = |w: &&&Workload| w.scope.ports.iter().any(|ports| ports.matches(proto, first));
                let claims: Vec<_> = claims.iter().filter(fits).copied().collect();
                let whole = if segment == 0 { Some(holder) } else { placed.get(&segment).copied() };
                match Holder::of(&claims, now) {
                    Holder::Nobody => all.extend(whole),
                    own => {
                        all.push(own);
                        for (port, bits) in prefixes(first, last) {
                            let key = ScopedPrefix::of_ports(segment, &prefix.addr(), proto, port, bits);
                            entries.push((key, own));
                        }
                    }
                }
            }
            if is_placed {
                let any = Holder::any_of(all);
                for (port, bits) in prefixes(first, last) {
                    let key = ScopedPrefix::of_ports(ScopedKey::SOMEWHERE, &prefix.addr(), proto, port, bits);
                    entries.push((key, any));
                }
            }
        }
        entries
    }

    /// Ranges of ports in which nothing changes.
    fn port_ranges(&self) -> Vec<(u8, u16, u16)> {
        let ports = || self.ports.values().flatten().flat_map(|w| &w.scope.ports);
        let protos: BTreeSet<u8> = ports().filter_map(PortMatch::proto).collect();
        let mut ranges = Vec::new();
        for own in protos {
            let mut edges = BTreeSet::new();
            for range in ports() {
                if let PortMatch::Protocol { proto, first, last } = *range
                    && proto == own
                {
                    edges.extend([u32::from(first), u32::from(last) + 1]);
                }
            }
            let edges: Vec<u32> = edges.into_iter().collect();
            ranges.extend(edges.windows(2).map(|pair| (own, pair[0] as u16, (pair[1] - 1) as u16)));
        }
        ranges
    }
}

/// The fewest prefixes of ports that make up a range: port and length.
fn prefixes(first: u16, last: u16) -> Vec<(u16, u32)> {
    let (mut from, end) = (u32::from(first), u32::from(last) + 1);
    let mut prefixes = Vec::new();
    while from < end {
        let aligned = if from == 0 { 16 } else { from.trailing_zeros() };
        let fits = (end - from).ilog2();
        let size = aligned.min(fits).min(16);
        prefixes.push((from as u16, 16 - size));
        from += 1 << size;
    }
    prefixes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_ports_is_its_prefixes_and_no_port_more() {
        assert_eq!(prefixes(0, u16::MAX), [(0, 0)]);
        assert_eq!(prefixes(443, 443), [(443, 16)]);
        assert_eq!(prefixes(8000, 8010), [(8000, 13), (8008, 15), (8010, 16)]);
        let ports: Vec<u32> = prefixes(30_001, 32_766)
            .into_iter()
            .flat_map(|(port, bits)| u32::from(port)..u32::from(port) + (1 << (16 - bits)))
            .collect();
        assert_eq!(ports, (30_001..=32_766).collect::<Vec<u32>>());
    }
}
