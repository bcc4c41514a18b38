//! `tidegate policy diff --flows` and `apply --dry-run`: what files would have made of the flows that were seen.

use crate::cli::block_on;
use crate::client;
use crate::daemon::RecentFlow;
use crate::exit_code::{Code, Result};
use crate::instance::Instance;
use crate::policy::what_if::{Changed, Decided, WhatIf, what_if};
use crate::policy::{Clock, Flow, compile};
use crate::state::PolicySet;
use crate::view::flow::rows;
use crate::view::{View, say, table};
use hyper::Method;
use jiff::Timestamp;
use std::collections::HashSet;
use std::sync::Arc;

/// Decides on every flow that the tables hold or the daemon remembers, by what counts and by the files.
pub fn changed(instance: &Instance, set: PolicySet, recent: Vec<RecentFlow>) -> Result<WhatIf> {
    let view = View::open(instance)?;
    let mut flows: HashSet<Flow> =
        rows(&view.maps)?.iter().map(|row| Flow::of(&row.flow.key, row.originator)).collect();
    flows.extend(recent.into_iter().map(Flow::from));
    let now = Timestamp::now();
    let now_ns = loader::boot_ns();
    let clock = Clock { wall_now: now, boot_now_ns: now_ns };
    let before = compile(&view.state.effective(now), &view.state.numbering, &clock);
    let mut candidate = view.state;
    candidate.apply(Arc::new(set));
    let after = compile(&candidate.effective(now), &before.numbering, &clock);
    let failsafe = view.maps.failsafe.entries()?.into_keys().collect();
    Ok(what_if(flows, &before, &after, &failsafe, now_ns))
}

/// What the daemon remembers; nothing without a daemon.
pub fn recent(instance: &Instance) -> Result<Vec<RecentFlow>> {
    match block_on(client::call(instance, Method::GET, "/v1/flows/recent", &())) {
        Err(e) if e.code == Code::NoDaemon => Ok(Vec::new()),
        answer => answer,
    }
}

/// Prints each flow that changes, and how many do.
pub fn print(found: &WhatIf) -> Result<()> {
    if !found.changes.is_empty() {
        let mut out = table::table(&["FROM", "TO", "SERVICE", "NOW", "BY", "THEN", "BY"]);
        for change in &found.changes {
            let Changed { source, source_id, destination, destination_id, service, before, after } = change;
            let end = |address: &std::net::IpAddr, id: &Option<String>| match id {
                Some(id) => format!("{id} ({address})"),
                None => address.to_string(),
            };
            let said = |decided: &Decided| format!("{} {}", decided.verdict, decided.reason);
            let rule = |decided: &Decided| table::or_dash(decided.rule.as_deref());
            out.add_row([
                end(source, source_id),
                end(destination, destination_id),
                service.clone(),
                said(before),
                rule(before),
                said(after),
                rule(after),
            ]);
        }
        say(&format!("{}\n", table::text(&out)))?;
    }
    let other = found.changes.len() - found.changed;
    let by = if other == 0 {
        String::new()
    } else {
        format!("; {other} more by another rule, with the same verdict")
    };
    say(&format!("changes {} of {} flows{by}", found.changed, found.flows))
}
