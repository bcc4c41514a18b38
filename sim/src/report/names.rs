//! How ends of flows are called: by SPIFFE ID where they have one, by node and address where not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::seen::{End, Seen};
use crate::topology::Plan;

/// Names of the nodes, and the trust domain that all SPIFFE IDs share.
#[derive(Debug, Default)]
pub struct Names {
    nodes: BTreeMap<IpAddr, String>,
    prefix: String,
}

impl Names {
    /// Of a plan.
    pub fn new(plan: &Plan) -> Self {
        let nodes = plan.nodes.iter().flat_map(|n| n.addresses().map(|a| (a, n.name.clone()))).collect();
        Self { nodes, prefix: String::new() }
    }

    /// Finds out what all SPIFFE IDs begin with, so that it is said once.
    pub fn learn(&mut self, seen: &Seen) {
        let flows = seen.flows.iter().flat_map(|f| [Some(&f.source), Some(&f.destination)]);
        let drops = seen.drops.iter().flat_map(|d| [d.source.as_ref(), d.destination.as_ref()]);
        let domains: BTreeSet<&str> = flows
            .chain(drops)
            .filter_map(|e| e?.spiffe_id.as_deref())
            .filter_map(|id| id.strip_prefix("spiffe://")?.split('/').next())
            .collect();
        if let [only] = domains.into_iter().collect::<Vec<_>>()[..] {
            self.prefix = format!("spiffe://{only}/");
        }
    }

    /// What all SPIFFE IDs begin with; empty if they differ.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The SPIFFE ID without what all begin with, or node and address.
    pub fn of(&self, end: &End) -> String {
        match &end.spiffe_id {
            Some(id) => id.strip_prefix(self.prefix.as_str()).unwrap_or(id).to_string(),
            None => self.anonymous(end.address),
        }
    }

    fn anonymous(&self, address: IpAddr) -> String {
        match self.nodes.get(&address) {
            Some(node) => format!("{node} (no ID)"),
            None => format!("{address} (no ID)"),
        }
    }
}
