//! Mistakes that only all documents together show: names that stand twice, addresses that two workloads claim.

use super::fields::Context;
use super::hashing::Map;
use super::place::Place;
use super::ports::PortMatch;
use super::prefix::Prefix;
use super::scope::Scope;
use super::spiffe::SpiffeId;
use super::yaml::Node;
use std::collections::hash_map::Entry;

/// What was seen so far in all files.
#[derive(Default)]
pub struct Across {
    names: Map<(&'static str, String), Place>,
    /// By prefix, interface and VLAN.
    claims: Map<(Prefix, Option<String>, Option<u16>), Vec<Claim>>,
}

struct Claim {
    workload: String,
    ports: Vec<PortMatch>,
    id: Option<SpiffeId>,
    place: Place,
}

impl Across {
    /// Notes the name of a document; a second one of its kind is a mistake.
    pub fn name(&mut self, cx: &mut Context<'_>, node: &Node, kind: &'static str, name: &str) {
        match self.names.entry((kind, name.to_owned())) {
            Entry::Occupied(first) => {
                let first = format!("the first is at {}; rename one of them", first.get());
                cx.mistake(node, format!("a second {kind} is named `{name}`"), first);
            }
            Entry::Vacant(entry) => {
                entry.insert(cx.place(node));
            }
        }
    }

    /// Notes that a workload claims a prefix; a second claim is a mistake.
    pub fn claim(
        &mut self,
        cx: &mut Context<'_>,
        node: &Node,
        (prefix, scope): (Prefix, &Scope),
        workload: &str,
        id: Option<&SpiffeId>,
    ) {
        let place = (prefix, scope.interface.clone(), scope.vlan);
        let claims = self.claims.entry(place).or_default();
        let Some(first) = claims.iter().find(|claim| meet(&claim.ports, &scope.ports)) else {
            let (workload, id) = (workload.to_owned(), id.cloned());
            claims.push(Claim { workload, ports: scope.ports.clone(), id, place: cx.place(node) });
            return;
        };
        let what = match (&first.id, id) {
            _ if first.workload == workload => format!("`{workload}` names {prefix} twice"),
            (Some(a), Some(b)) if a != b => format!("{prefix} is ambiguous: {a} and {b} both claim it"),
            _ => format!("{prefix} has two workloads: `{}` and `{workload}`", first.workload),
        };
        cx.mistake(node, what, format!("the first claim is at {}; an address has one workload", first.place));
    }

    /// Takes in what was seen elsewhere. Returns whether nothing of it meets what was seen here.
    pub fn take_in(&mut self, other: Self) -> bool {
        let Self { names, claims } = other;
        self.names.reserve(names.len());
        self.claims.reserve(claims.len());
        names.into_iter().all(|(key, place)| self.names.insert(key, place).is_none())
            && claims.into_iter().all(|(place, new)| {
                let all = self.claims.entry(place).or_default();
                let known = all.len();
                all.extend(new);
                let (known, new) = all.split_at(known);
                !new.iter().any(|one| known.iter().any(|other| meet(&one.ports, &other.ports)))
            })
    }
}

/// Whether two claims of one place claim the same of it. Who claims all ports gives way to who claims some of them.
fn meet(one: &[PortMatch], other: &[PortMatch]) -> bool {
    one.is_empty() && other.is_empty() || one.iter().any(|ports| other.iter().any(|own| own.meets(ports)))
}
