//! `tidegate status`: what is attached where, and how full the tables are.

use super::{Format, View, print_json, say, table};
use crate::daemon::mark::Mask;
use crate::daemon::{forward, inspect};
use crate::exit_code::Result;
use crate::instance::Instance;
use crate::svid::{SourceState, Status};
use datapath::abi::{Config, Lost, MapName};
use loader::Maps;
use serde_json::json;

/// A map and how full it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// The map.
    pub map: &'static str,
    /// Entries in it.
    pub entries: usize,
    /// Its capacity.
    pub max_entries: u32,
}

/// How full each map is that can fill. Of the first level of the flow table, which is as large as all others, by a sample.
pub fn pressure(maps: &Maps) -> Result<Vec<Pressure>> {
    let of = |map, entries, max_entries| Pressure { map, entries, max_entries };
    let half_open = maps.half_open.len(); // first: who is answered meanwhile counts twice, not at all would be worse
    let (slots_used, slots) = maps.flows.slots_used(&maps.config.get()?)?;
    Ok(vec![
        of(MapName::CONNECTIONS, maps.connections.len()?, maps.connections.max_entries()),
        of(MapName::HALF_OPEN, half_open, maps.half_open.max_entries()),
        of(MapName::FLOW_SLOTS, slots_used, slots),
        of(MapName::FLOW_SPILL, maps.flows.spill.len()?, maps.flows.spill.max_entries()),
        of(MapName::BINDINGS, maps.bindings.len()?, maps.bindings.max_entries()),
        of(MapName::SCOPED, maps.scoped.len()?, maps.scoped.max_entries()),
        of(MapName::BLOCKLIST, maps.blocklist.len()?, maps.blocklist.max_entries()),
        of(MapName::GUARDS, maps.guards.len()?, maps.guards.max_entries()),
        of(MapName::POLICY, maps.policy.len()?, maps.policy.max_entries()),
        of(MapName::INTERFACES, maps.interfaces.len()?, maps.interfaces.max_entries()),
        of(MapName::SHADOW, maps.shadow.len()?, maps.shadow.max_entries()),
        of(MapName::HANDSHAKES, maps.handshakes.len()?, maps.handshakes.max_entries()),
        of(MapName::FAILSAFE, maps.failsafe.len()?, maps.failsafe.max_entries()),
        of(MapName::FRAGMENTS, maps.fragments.len()?, maps.fragments.max_entries()),
        of(MapName::RULES, maps.rules.len()?, maps.rules.max_entries()),
        of(MapName::BUCKETS, maps.buckets.len()?, maps.buckets.max_entries()),
        of(MapName::LIMITS, maps.limits.len()?, maps.limits.max_entries()),
        of(MapName::HOLDINGS, maps.holdings.len()?, maps.holdings.max_entries()),
        of(MapName::JUDGED_PORTS, maps.judged_ports.len()?, maps.judged_ports.max_entries()),
        of(MapName::REDIRECT, maps.redirect.all()?.len(), maps.redirect.max_entries()),
    ])
}

/// What the daemon says of itself.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// The gateway's own SVID; nothing without a source of one.
    pub svid: Option<Status>,
}

/// Prints the status.
pub fn print(instance: &Instance, view: &View, daemon: Option<&Daemon>, format: Format) -> Result<()> {
    let svid = daemon.and_then(|daemon| daemon.svid.as_ref());
    let ports = loader::pinned_ports(&instance.pin_dir())?;
    let config = view.maps.config.get()?;
    let mode = if config.has(Config::ENFORCE) { "enforce" } else { "monitor" };
    let default = if config.has(Config::DEFAULT_ALLOW) { "allow" } else { "deny" };
    let inspected = inspect::names(&config);
    let forward = forward::Forward::of(&config);
    let mark = Mask::of(&config);
    let sends = view.maps.redirect.all()?;
    let pressure = pressure(&view.maps)?;
    let lost = view.maps.lost_events(Lost::NoRoom)?;
    let limited = view.maps.lost_events(Lost::Limited)?;
    if format == Format::Json {
        let interfaces: Vec<_> = ports
            .iter()
            .map(|p| {
                json!({
                    "interface": p.interface, "ifindex": p.ifindex, "ingress": p.ingress.map(|at| at.hook()),
                    "ingress_mode": p.ingress.map(|at| at.mode()), "ingress_program_id": p.program_id, "tc_mode": p.tc.map(|tc| tc.name()), "dispatcher": p.beside,
                    "xdp_sends": p.ifindex.is_some_and(|ifindex| sends.contains(&ifindex)),
                })
            })
            .collect();
        let maps: Vec<_> = pressure
            .iter()
            .map(|p| json!({"map": p.map, "entries": p.entries, "max_entries": p.max_entries}))
            .collect();
        return print_json(&json!({
            "name": instance.name, "daemon": daemon.is_some(), "svid": svid, "mode": mode, "default": default, "inspect": inspected, "forward": forward.name(), "mark": mark.is_on().then(|| mark.to_string()), "interfaces": interfaces,
            "revision": view.state.revision, "epoch": config.epoch, "lost_events": lost, "limited_events": limited, "maps": maps,
            "pin_dir": instance.pin_dir(),
        }));
    }
    let runs = if daemon.is_some() { "running" } else { "not running (the programs go on)" };
    say(&format!(
        "instance {}: daemon {runs}, mode {mode}, default {default}, policy revision {}, epoch {}, lost events {lost} (and {limited} over the limit)",
        instance.name, view.state.revision, config.epoch
    ))?;
    if let Some(svid) = svid {
        say(&identity(svid))?;
    }
    if !inspected.is_empty() {
        say(&format!("judged by what they carry: {}", inspected.join(", ")))?;
    }
    if mark.is_on() {
        say(&format!("marks say who sent a packet: the bits {mark}"))?;
    }
    if forward == forward::Forward::Xdp {
        let names = |names: Vec<String>| if names.is_empty() { "none".into() } else { names.join(", ") };
        let by: Vec<_> = sends.iter().filter_map(|ifindex| loader::netdev::name(*ifindex)).collect();
        say(&format!(
            "forwarded by XDP: plain packets out of {}; by Linux: all else, and out of {}",
            names(by),
            names(forward::left_to_linux(&view.maps)?)
        ))?;
    }
    let mut out = table::table(&["INTERFACE", "INGRESS", "PROGRAM", "EGRESS"]);
    for p in &ports {
        let gone = if p.ifindex.is_none() { "interface is gone" } else { "not attached" };
        out.add_row([
            p.interface.clone(),
            p.ingress.map_or_else(|| gone.into(), |at| at.to_string()),
            p.program_id.map_or_else(|| "-".into(), |id| id.to_string()),
            p.tc.map_or("-", |tc| tc.name()).to_owned(),
        ]);
    }
    say(&format!(
        "\n{}",
        if ports.is_empty() { "no interface is attached".into() } else { table::text(&out) }
    ))?;
    for p in ports.iter().filter(|p| !p.beside.is_empty()) {
        say(&format!("{}: libxdp's dispatcher runs {}", p.interface, p.beside.join(", then ")))?;
    }
    let mut out = table::table(&["MAP", ">ENTRIES", ">OF", ">FULL"]);
    for p in &pressure {
        let percent = p.entries as f64 * 100.0 / f64::from(p.max_entries.max(1));
        let row =
            [p.map.to_owned(), p.entries.to_string(), p.max_entries.to_string(), format!("{percent:.1} %")];
        out.add_row(row);
    }
    say(&format!("\n{}", table::text(&out)))
}

/// Who the gateway is, from where, and what is wrong with that.
fn identity(svid: &Status) -> String {
    let who = match (&svid.spiffe_id, svid.not_after) {
        (Some(id), Some(end)) if end < jiff::Timestamp::now() => format!("{}, ended {end}", id.as_str()),
        (Some(id), Some(end)) => format!("{} until {end}", id.as_str()),
        _ => "nobody yet".to_owned(),
    };
    let domains: Vec<_> = svid.trust_domains.iter().map(|domain| domain.as_str()).collect();
    let believes = if domains.is_empty() { "nobody".to_owned() } else { domains.join(", ") };
    let source = match (svid.state, &svid.error) {
        (SourceState::Current, _) => "current".to_owned(),
        (state, error) => {
            format!("{} since {}: {}", state.name(), svid.since, error.as_deref().unwrap_or("no answer yet"))
        }
    };
    format!("the gateway is {who}; it believes {believes}; {} is {source}", svid.source)
}
