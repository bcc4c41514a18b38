//! Mistakes that only all documents together show: names that stand twice, addresses that two workloads claim.

use super::fields::Context;
use super::place::Place;
use super::prefix::Prefix;
use super::spiffe::SpiffeId;
use super::yaml::Node;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// What was seen so far in all files.
#[derive(Default)]
pub struct Across {
    names: HashMap<(String, String), Place>,
    claims: HashMap<Prefix, Claim>,
}

struct Claim {
    workload: String,
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
        prefix: Prefix,
        workload: &str,
        id: Option<&SpiffeId>,
    ) {
        let first = match self.claims.entry(prefix) {
            Entry::Vacant(entry) => {
                entry.insert(Claim { workload: workload.to_owned(), id: id.cloned(), place: cx.place(node) });
                return;
            }
            Entry::Occupied(first) => first.into_mut(),
        };
        let what = match (&first.id, id) {
            _ if first.workload == workload => format!("`{workload}` names {prefix} twice"),
            (Some(a), Some(b)) if a != b => format!("{prefix} is ambiguous: {a} and {b} both claim it"),
            _ => format!("{prefix} has two workloads: `{}` and `{workload}`", first.workload),
        };
        cx.mistake(node, what, format!("the first claim is at {}; an address has one workload", first.place));
    }
}
