//! What would become of flows that were seen, by other documents: the packet path's own code decides, natively.

use super::compile::Compiled;
use super::explain::{Flow, Origin, ends};
use super::native::host_rules;
use super::ports::protocol_and_port;
use datapath::abi::{Action, Config, FailsafeKey, Reason};
use datapath::host::HostRules;
use datapath::policy::{Moment, decide};
use serde::Serialize;
use std::collections::HashSet;
use std::net::IpAddr;

/// What is decided on a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decided {
    /// FORWARDED, DROPPED or AUDIT; as where the gateway enforces.
    pub verdict: &'static str,
    /// As in metrics and docs/drops.md.
    pub reason: &'static str,
    /// `policy/rule`, where one decided.
    pub rule: Option<String>,
}

/// A flow on which two sets of documents decide differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Who opens it.
    pub source: IpAddr,
    /// Its SPIFFE ID by what counts, or else by the candidate.
    pub source_id: Option<String>,
    /// Who answers.
    pub destination: IpAddr,
    /// Its SPIFFE ID likewise.
    pub destination_id: Option<String>,
    /// `tcp/443`.
    pub service: String,
    /// By what counts.
    pub before: Decided,
    /// By the candidate.
    pub after: Decided,
}

impl Changed {
    /// Whether it comes to another verdict, and not only by another rule or reason.
    pub fn is_verdict(&self) -> bool {
        self.before.verdict != self.after.verdict
    }
}

/// What a candidate would change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WhatIf {
    /// How many flows were looked at.
    pub flows: usize,
    /// On how many the verdict would be another.
    pub changed: usize,
    /// Those first, then those that come to the same verdict by another rule or reason.
    pub changes: Vec<Changed>,
}

/// Decides on flows by what counts and by a candidate, at one time of the boot clock.
///
/// What is decided is what a new connection would get. Limits of rules (rates, lifetimes, TLS) are for connections that run, and
/// are not looked at.
pub fn what_if(
    flows: impl IntoIterator<Item = Flow>,
    before: &Compiled,
    after: &Compiled,
    failsafe: &HashSet<FailsafeKey>,
    now_ns: u64,
) -> WhatIf {
    let (before, after) = (Side::new(before, failsafe, now_ns), Side::new(after, failsafe, now_ns));
    let mut found = WhatIf::default();
    for flow in flows {
        found.flows += 1;
        let ((was, was_ids), (will, will_ids)) = (before.decide(&flow), after.decide(&flow));
        if was != will {
            let [source_id, destination_id] =
                [0, 1].map(|end| was_ids[end].clone().or(will_ids[end].clone()));
            found.changes.push(Changed {
                source: flow.src.to_ip(),
                source_id,
                destination: flow.dst.to_ip(),
                destination_id,
                service: protocol_and_port(flow.proto, flow.port),
                before: was,
                after: will,
            });
        }
    }
    found.changes.sort_by_cached_key(|c| (!c.is_verdict(), c.source, c.destination, c.service.clone()));
    found.changed = found.changes.iter().filter(|c| c.is_verdict()).count();
    found
}

struct Side<'c> {
    compiled: &'c Compiled,
    rules: HostRules,
    moment: Moment,
    identities: std::collections::HashMap<u32, String>,
}

impl<'c> Side<'c> {
    fn new(compiled: &'c Compiled, failsafe: &HashSet<FailsafeKey>, now_ns: u64) -> Self {
        let mut rules = host_rules(compiled);
        rules.failsafe.clone_from(failsafe);
        if !failsafe.is_empty() {
            rules.config.flags |= Config::FAILSAFE;
        }
        let moment = Moment::at(&Config { epoch: 0, ..rules.config }, now_ns);
        let identities = compiled.numbering.identities().map(|(n, id)| (n, id.to_string())).collect();
        Self { compiled, rules, moment, identities }
    }

    fn decide(&self, flow: &Flow) -> (Decided, [Option<String>; 2]) {
        // Which source ports it had is not remembered: who is bound for some of an address's ports is known as who answers alone.
        let judged = decide(&self.rules, &self.moment, &ends(flow, Origin::default()));
        let rule = self.compiled.rules.get(&judged.rule).map(|rule| rule.label());
        let (action, reason): (Action, Reason) = (judged.action, judged.reason);
        let decided = Decided { verdict: action.name(), reason: reason.name(), rule };
        (decided, judged.identity.map(|number| self.identities.get(&number).cloned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Clock, Documents, Numbering, compile};
    use datapath::abi::Addr;

    fn compiled(rules: &str, numbering: &Numbering) -> Compiled {
        let text = format!(
            "apiVersion: tidegate.dev/v1\nkind: Workload\nmetadata: {{name: orders}}\n\
             spec: {{spiffeId: spiffe://td/orders, addresses: [10.0.0.1]}}\n---\n\
             apiVersion: tidegate.dev/v1\nkind: Policy\nmetadata: {{name: p}}\nspec:\n  rules:\n{rules}"
        );
        let documents = Documents::parse("p.yaml", &text, jiff::Timestamp::now()).unwrap();
        compile(&documents, numbering, &Clock { wall_now: jiff::Timestamp::now(), boot_now_ns: 1_000 })
    }

    fn rule(name: &str, action: &str, port: u16) -> String {
        format!(
            "    - {{name: {name}, action: {action}, from: [{{any: true}}], to: [{{any: true}}], ports: [tcp/{port}]}}\n"
        )
    }

    #[test]
    fn each_flow_that_changes_is_named_with_both_rules_and_the_others_are_counted() {
        let before = compiled(
            &(rule("a", "allow", 1) + &rule("b", "allow", 2) + &rule("c", "allow", 3)),
            &Numbering::default(),
        );
        let candidate = rule("a", "deny", 1)
            + &rule("other", "allow", 2)
            + &rule("c", "allow", 3)
            + &rule("d", "allow", 4);
        let after = compiled(&candidate, &before.numbering);
        let flow = |port| Flow { src: Addr::v4([10, 0, 0, 1]), dst: Addr::v4([10, 0, 0, 2]), proto: 6, port };
        let found = what_if([4, 3, 2, 1, 22, 5].map(flow), &before, &after, &HashSet::new(), 1_000);
        let told: Vec<_> = found
            .changes
            .iter()
            .map(|c| {
                let name = |decided: &Decided| decided.rule.clone().unwrap_or_default();
                (&*c.service, c.before.verdict, name(&c.before), c.after.verdict, name(&c.after))
            })
            .collect();
        assert_eq!(
            told,
            [
                ("tcp/1", "FORWARDED", "p/a".into(), "DROPPED", "p/a".into()),
                ("tcp/4", "DROPPED", String::new(), "FORWARDED", "p/d".into()),
                ("tcp/2", "FORWARDED", "p/b".into(), "FORWARDED", "p/other".into()),
            ]
        );
        assert_eq!((found.flows, found.changed), (6, 2));
        let ids = (found.changes[0].source_id.as_deref(), found.changes[0].destination_id.as_deref());
        assert_eq!(ids, (Some("spiffe://td/orders"), None));
        // A failsafe port is cut by no candidate.
        let failsafe = HashSet::from([FailsafeKey::new(Addr::v4([10, 0, 0, 2]), 6, 1)]);
        assert_eq!(what_if([flow(1)], &before, &after, &failsafe, 1_000).changes, []);
    }
}
