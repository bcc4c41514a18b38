//! `tidegate identity list`, `policy show` and `quarantine list`.

use super::table::{self, or_dash};
use super::{Format, View, print_json, say};
use crate::exit_code::Result;
use crate::policy::Documents;
use crate::policy::compile::RuleKind;
use crate::policy::selector::selectors_text;
use crate::policy::time::duration_text;
use crate::state::{State, is_manual};
use jiff::Timestamp;
use serde_json::json;

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
    let numbers: std::collections::HashMap<_, _> =
        state.numbering.identities().map(|(n, id)| (id, n)).collect();
    let files = &state.documents().workloads;
    let workloads: Vec<_> = files.iter().cloned().chain(state.bindings.workloads(files)).collect();
    if format == Format::Json {
        let none = std::collections::BTreeMap::new();
        let evidence: std::collections::HashMap<_, _> = state
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
    let rules = rules(state, &effective);
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
fn limits<'s>(state: &'s State, documents: &Documents) -> Vec<&'s crate::policy::RuleInfo> {
    let find = |name: &str| state.rules.values().find(|r| r.kind == RuleKind::Limit && r.name == name);
    documents.limits.iter().filter_map(|limit| find(&limit.name)).collect()
}

/// Current rules of policies, in the order in which they are asked.
fn rules<'s>(state: &'s State, documents: &Documents) -> Vec<&'s crate::policy::RuleInfo> {
    let find = |policy: &str, name: &str| {
        state.rules.values().find(|r| r.kind == RuleKind::Policy && r.policy == policy && r.name == name)
    };
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
