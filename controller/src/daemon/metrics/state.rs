//! The tables, the policy, and what a candidate would change.

use super::encode::{counter, gauge, labels};
use super::kept::OTHER;
use crate::daemon::{Shared, lock};
use crate::exit_code::Result;
use crate::names::Names;
use crate::state::Reserve;
use crate::view::shadow::{counted, rule};
use crate::view::status::pressure;
use datapath::abi::{Lost, Tally};
use datapath::holdings::Held;
use prometheus::proto::{LabelPair, MetricFamily};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

pub(super) fn state(shared: &Shared) -> Result<Vec<MetricFamily>> {
    // Before the tables are counted, and what is closed after them: what comes or goes meanwhile is not evicted.
    let opened = shared.maps.tally(Tally::Opened)?;
    let maps = &shared.maps;
    let ending = lock(&shared.hub.ending);
    let (revision, identities, unconfirmed) = shared.with_state(|state| {
        let identities = state.documents().workloads.len() + state.bindings.len();
        (state.revision, identities, state.confirmation.is_some())
    });
    let ports = loader::pinned_ports(&shared.instance.pin_dir())?;
    let attached = ports.iter().map(|port| {
        let whole = port.ingress.is_some() && port.tc.is_some();
        (labels(&[("interface", &port.interface)]), f64::from(u8::from(whole)))
    });
    let pressure = pressure(maps)?;
    let entries = |map: &str| pressure.iter().find(|p| p.map == map).map_or(0, |p| p.entries) as f64;
    let full = pressure
        .iter()
        .map(|p| (labels(&[("map_name", p.map)]), p.entries as f64 / f64::from(p.max_entries.max(1))));
    let connections = [
        (labels(&[("state", "answered")]), entries(datapath::abi::MapName::CONNECTIONS)),
        (labels(&[("state", "half_open")]), entries(datapath::abi::MapName::HALF_OPEN)),
    ];
    let lost = [
        (labels(&[("source", "ring_buffer")]), maps.lost_events(Lost::NoRoom)?),
        (labels(&[("source", "event_limit")]), maps.lost_events(Lost::Limited)?),
        (labels(&[("source", "query_limit")]), maps.lost_events(Lost::Queries)?),
        (labels(&[("source", "hello_ring_buffer")]), maps.lost_events(Lost::Hello)?),
        (labels(&[("source", "observer_queue")]), shared.hub.lost.load(Ordering::Relaxed)),
        (labels(&[("source", "event_queue")]), shared.hub.telling.lost.load(Ordering::Relaxed)),
        (labels(&[("source", "event_files")]), shared.hub.pen.lost.load(Ordering::Relaxed)),
        (
            labels(&[("source", "host")]),
            shared.host.as_ref().map_or(Ok(0), |host| host.counts().map(|c| c.lost))?,
        ),
    ];
    let reserve = Reserve::of(&shared.instance.state_file()).lacks_bytes().unwrap_or(0) as f64;
    let living: f64 = connections.iter().map(|(_, n)| n).sum();
    let replaced = maps.tally(Tally::Replaced)?;
    let expired = maps.tally(Tally::Expired)?;
    drop(ending);
    let closed = [(labels(&[("how", "replaced")]), replaced), (labels(&[("how", "expired")]), expired)];
    let evicted = opened.saturating_sub(replaced + expired + living as u64);
    let held = holdings(shared)?;
    let version = labels(&[("version", env!("CARGO_PKG_VERSION"))]);
    Ok(vec![
        counter(
            "tidegate_lost_events_total",
            "Events that found no room, or were more of a kind than --event-limit.",
            lost.into_iter(),
        ),
        gauge(
            "tidegate_state_reserve_lacking_bytes",
            "What is kept on the disk for when it is full, and is not there: it was used, or there never was room for it.",
            [(vec![], reserve)].into_iter(),
        ),
        gauge("tidegate_bpf_map_pressure", "How full a map is, from 0 to 1.", full),
        counter(
            "tidegate_connections_opened_total",
            "Connections that were opened.",
            [(vec![], opened)].into_iter(),
        ),
        counter(
            "tidegate_connections_closed_total",
            "Connections that are over and were reported: gave way to another of their key, or by time.",
            closed.into_iter(),
        ),
        counter(
            "tidegate_connections_evicted_total",
            "Connections that a full table dropped without a report: opened, not closed, not tracked any more.",
            [(vec![], evicted)].into_iter(),
        ),
        gauge("tidegate_connections", "Connections that are tracked.", connections.into_iter()),
        gauge(
            "tidegate_identity_connections",
            "Connections of identities whose limit counts them, by the 50 that have most.",
            held.into_iter(),
        ),
        gauge(
            "tidegate_identities",
            "Workloads with an identity.",
            [(vec![], identities as f64)].into_iter(),
        ),
        gauge(
            "tidegate_interface_attached",
            "Whether both programs are on an interface that they were attached to.",
            attached,
        ),
        gauge(
            "tidegate_policy_unconfirmed",
            "Whether a policy waits to be confirmed, or is taken back.",
            [(vec![], f64::from(u8::from(unconfirmed)))].into_iter(),
        ),
        gauge("tidegate_policy_revision", "Commits so far.", [(vec![], revision as f64)].into_iter()),
        gauge("tidegate_build_info", "The version of the daemon.", [(version, 1.0)].into_iter()),
    ])
}

/// As many identities have labels of their own.
pub(super) const IDENTITIES: usize = 50;

/// What identities with a limit of it have, most first.
fn holdings(shared: &Shared) -> Result<Vec<(Vec<LabelPair>, f64)>> {
    let now_ns = loader::boot_ns();
    let all = shared.maps.holdings.entries()?.into_iter().map(|(id, holdings)| (id, holdings.at(now_ns)));
    let mut all: Vec<_> = all.filter(|(_, held)| *held != Held::default()).collect();
    all.sort_by_key(|(id, held)| (std::cmp::Reverse(held.attempts + held.answered), *id));
    all.truncate(IDENTITIES);
    let names = shared.with_state(Names::of);
    let one = |(id, held): &(u32, Held)| {
        let identity = names.identity(*id).unwrap_or("unidentified").to_owned();
        let of = |state, count: u64| (labels(&[("identity", &identity), ("state", state)]), count as f64);
        [of("answered", held.answered), of("half_open", held.attempts)]
    };
    Ok(all.iter().flat_map(one).collect())
}

/// What a candidate policy would change.
pub(super) fn shadow(shared: &Shared) -> Result<Vec<MetricFamily>> {
    let names = shared.names();
    let counted = counted(&shared.maps)?;
    let pending = shared.with_state(|state| state.shadow.is_some());
    let mut kept = lock(&shared.labels);
    let mut changes: BTreeMap<[&str; 6], u64> = BTreeMap::new();
    for (key, n) in &counted.changes {
        let [(old, old_reason), (new, new_reason)] = key.verdicts();
        let (old_rule, new_rule) = (rule(&names, key.old_rule), rule(&names, key.new_rule));
        let row = [old_rule, old.name(), old_reason.name(), new_rule, new.name(), new_reason.name()];
        let row = if kept.changes.has_place(&row) { row } else { [OTHER; 6] };
        *changes.entry(row).or_default() += n;
    }
    let changes = changes.iter().map(|(row, n)| {
        const LABELS: [&str; 6] =
            ["old_rule", "old_verdict", "old_reason", "new_rule", "new_verdict", "new_reason"];
        (labels(&LABELS.into_iter().zip(*row).collect::<Vec<_>>()), *n)
    });
    Ok(vec![
        gauge(
            "tidegate_shadow_pending",
            "Whether a candidate policy is judged beside the one that counts.",
            [(vec![], f64::from(u8::from(pending)))].into_iter(),
        ),
        counter(
            "tidegate_shadow_same_total",
            "Judgements of the sample on which the candidate agrees.",
            [(vec![], counted.same)].into_iter(),
        ),
        counter(
            "tidegate_shadow_difference_total",
            "Judgements of the sample on which the candidate says otherwise.",
            changes,
        ),
    ])
}
