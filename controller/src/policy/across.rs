//! Mistakes that only all documents together show: names that stand twice, addresses that two workloads claim.

use super::fields::Context;
use super::place::Place;
use super::ports::PortMatch;
use super::prefix::Prefix;
use super::scope::Scope;
use super::spiffe::SpiffeId;
use super::yaml::Node;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// What was seen so far in all files.
#[derive(Default)]
pub struct Across {
    names: HashMap<(String, String), Place>,
    /// By prefix, interface and VLAN.
    claims: HashMap<(Prefix, Option<String>, Option<u16>), Vec<Claim>>,
}

struct Claim {
    workload: String,
    ports: Vec<PortMatch>,
    id: Option<SpiffeId>,
    place: Place,
}

impl Across {
    /// Notes the name of a document; a second one of its kind is a mistake.
    pub fn name(&mut self, cx: &mut Context<'_>, node: &Node, kind: &str, name: &str) {
        match self.names.entry((kind.to_owned(), name.to_owned())) {
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
        // Who claims all ports gives way to who claims some of them.
        let meets = |claim: &&Claim| {
            claim.ports.is_empty() && scope.ports.is_empty()
                || claim.ports.iter().any(|ports| scope.ports.iter().any(|own| own.meets(ports)))
        };
        let Some(first) = claims.iter().find(meets) else {
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
}
