//! `tidegate identity list`, `policy show` and `quarantine list`.

use super::table::{self, or_dash};
use super::{Format, View, print_json, say};
use crate::exit_code::Result;
use crate::policy::compile::RuleKind;
use crate::policy::selector::selectors_text;
use crate::policy::time::duration_text;
use crate::policy::{Documents, RuleInfo};
use crate::state::{State, is_manual};
use jiff::Timestamp;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};

/// `in 5m`, `over`, `-`.
pub(super) fn remaining(end: Option<Timestamp>, now: Timestamp) -> String {
    let Some(end) = end else { return "-".into() };
    match u64::try_from(end.as_second() - now.as_second()) {
        Ok(seconds @ 1..) => format!("in {}", duration_text(seconds)),
        _ => "over".into(),
    }
}

/// Prints workloads with their identities and leases.
pub fn identities(state: &State, format: Format) -> Result<()> {
    let now = Timestamp::now();
    let numbers: HashMap<_, _> = state.numbering.identities().map(|(n, id)| (id, n)).collect();
    let files = &state.documents().workloads;
    let workloads: Vec<_> = files.iter().cloned().chain(state.bindings.workloads(files)).collect();
    if format == Format::Json {
        let none = BTreeMap::new();
        let evidence: HashMap<_, _> = state
            .bindings
            .iter()
            .map(|(source, claim)| (claim.workload(source, &none).name, &claim.evidence))
            .collect();
        let row = |w: &crate::policy::document::Workload| {
            json!({
                "name": w.name, "identity": numbers.get(&w.spiffe_id), "spiffe_id": w.spiffe_id,
                "addresses": w.addresses, "scope": w.scope, "labels": w.labels, "lease": w.lease, "place": w.place,
                "evidence": evidence.get(&w.name),
            })
        };
        return print_json(&workloads.iter().map(row).collect::<Vec<_>>());
    }
    if workloads.is_empty() {
        return say("no identity: apply a file with `kind: Workload`, or see `tidegate identity bind`");
    }
    let mut out = table::table(&[">ID", "SPIFFE ID", "NAME", "ADDRESSES", "LABELS", "LEASE ENDS"]);
    for w in &workloads {
        let addresses: Vec<_> = w.addresses.iter().map(|address| format!("{address}{}", w.scope)).collect();
        let labels: Vec<_> = w.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        out.add_row([
            numbers.get(&w.spiffe_id).map_or_else(|| "-".into(), u32::to_string),
            w.spiffe_id.to_string(),
            w.name.clone(),
            addresses.join(" "),
            or_dash(Some(labels.join(",").as_str()).filter(|l| !l.is_empty())),
            remaining(w.lease.map(|lease| lease.not_after), now),
        ]);
    }
    say(&table::text(&out))
}

/// Prints the rules in the order in which they are asked.
pub fn policy(view: &View, format: Format) -> Result<()> {
    let state = &view.state;
    let effective = state.effective(Timestamp::now());
    let rules = rules(&state.rules, &effective);
    if format == Format::Json {
        return print_json(&json!({
            "revision": state.revision, "epoch": state.epoch, "applied_at": state.applied_at,
            "default": if effective.policies.is_empty() { "allow" } else { "deny" }, "gateway": effective.gateway,
            "rules": rules, "limits": limits(state, &effective),
        }));
    }
    let default = if effective.policies.is_empty() { "allow (no policy is loaded)" } else { "deny" };
    let at = state.applied_at.map(|t| format!(" of {t:.0}")).unwrap_or_default();
    say(&format!("revision {}{at}, epoch {}, default {default}", state.revision, state.epoch))?;
    if !rules.is_empty() {
        let mut out = table::table(&[">TIER", "RULE", "SAYS", "FROM FILE"]);
        for rule in rules {
            out.add_row([rule.tier.to_string(), rule.label(), rule.text.clone(), rule.place.to_string()]);
        }
        say(&format!("\n{}", table::text(&out)))?;
    }
    let limits = limits(state, &effective);
    if limits.is_empty() {
        return Ok(());
    }
    let mut out = table::table(&["LIMIT", "SAYS", "FROM FILE"]);
    for limit in limits {
        out.add_row([limit.label(), limit.text.clone(), limit.place.to_string()]);
    }
    say(&format!("\n{}", table::text(&out)))
}

/// Current limits of identities: of several that fit one, the first holds.
fn limits<'s>(state: &'s State, documents: &Documents) -> Vec<&'s RuleInfo> {
    let of_limits = state.rules.values().filter(|rule| rule.kind == RuleKind::Limit);
    let by_name: HashMap<&str, _> = of_limits.map(|rule| (rule.name.as_str(), rule)).collect();
    documents.limits.iter().filter_map(|limit| by_name.get(limit.name.as_str()).copied()).collect()
}

/// Current rules of policies, in the order in which they are asked.
fn rules<'s>(known: &'s BTreeMap<u32, RuleInfo>, documents: &Documents) -> Vec<&'s RuleInfo> {
    let of_policies = known.values().filter(|rule| rule.kind == RuleKind::Policy);
    let by_name: HashMap<_, _> =
        of_policies.map(|rule| ((rule.policy.as_str(), rule.name.as_str()), rule)).collect();
    let find = |policy: &str, name: &str| by_name.get(&(policy, name)).copied();
    crate::policy::compile::precedence(documents).iter().filter_map(|(p, r)| find(&p.name, &r.name)).collect()
}

/// Prints quarantined identities.
pub fn quarantines(state: &State, format: Format) -> Result<()> {
    let now = Timestamp::now();
    let documents = state.effective(now);
    let quarantines = &documents.quarantines;
    if format == Format::Json {
        return print_json(&quarantines);
    }
    if quarantines.is_empty() {
        return say("nobody is quarantined");
    }
    let mut out = table::table(&["NAME", "WHO", "ACT", "EXCEPT", "ENDS", "REASON", "FROM"]);
    for q in quarantines {
        let except: Vec<_> = q.except.iter().map(ToString::to_string).collect();
        let from = if is_manual(&q.name) {
            q.place.file.trim_start_matches("tidegate ").into()
        } else {
            q.place.to_string()
        };
        let ends = if q.not_after.is_none() { "never".into() } else { remaining(q.not_after, now) };
        out.add_row([
            q.name.clone(),
            selectors_text(&q.identities),
            q.act.to_string(),
            or_dash(Some(except.join("; ").as_str()).filter(|t| !t.is_empty())),
            ends,
            or_dash(q.reason.as_deref()),
            from,
        ]);
    }
    say(&table::text(&out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile::rules_of_policies;
    use crate::policy::{Numbering, place::Place};
    use std::time::{Duration, Instant};

    fn documents(rules: usize) -> Documents {
        let rule = |n| {
            format!(
                "    - {{name: r{n}, action: allow, from: [{{any: true}}], to: [{{any: true}}], ports: [tcp/{}]}}\n",
                n % 60_000
            )
        };
        let rules: String = (0..rules).map(rule).collect();
        let text = format!(
            "apiVersion: tidegate.dev/v1\nkind: Policy\nmetadata: {{name: p}}\nspec:\n  rules:\n{rules}"
        );
        Documents::parse("p.yaml", &text, Timestamp::now()).expect("right")
    }

    #[test]
    fn ten_thousand_rules_are_not_looked_through_for_each_of_them() {
        let documents = documents(10_000);
        let known = rules_of_policies(&documents, &mut Numbering::default());
        let timed = |show: &dyn Fn() -> Vec<u32>| -> Duration {
            let began = Instant::now();
            let lines = show();
            let took = began.elapsed();
            assert!(lines.len() == 10_000 && lines.is_sorted(), "all, in their order");
            took
        };
        let line = |RuleInfo { place: Place { line, .. }, .. }: &RuleInfo| *line;
        let shown = || rules(&known, &documents).into_iter().map(line).collect();
        let one_by_one = || {
            let find = |name: &String| known.values().find(|rule| rule.policy == "p" && rule.name == *name);
            documents.policies[0].rules.iter().filter_map(|rule| find(&rule.name)).map(line).collect()
        };
        let took = (0..3).map(|_| timed(&shown)).min().expect("a time");
        let would_take = timed(&one_by_one);
        assert!(took * 4 < would_take, "{took:?} {would_take:?}");
    }
}
