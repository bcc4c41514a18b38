//! `tidegate why --event ID`: what decided then, from the event itself and the revision by which it was judged.

use super::event::line;
use super::{Format, print_json, say};
use crate::exit_code::{Code, Failure, Result};
use crate::instance::Instance;
use crate::policy::compile::RuleInfo;
use crate::policy::document::{Lease, OnExpiry, Workload};
use crate::policy::explain::{Flow, NearMiss, Origin, near_misses};
use crate::policy::spiffe::SpiffeId;
use crate::policy::{Clock, Documents, Numbering, Place, Prefix, compile};
use crate::state::{State, Store};
use crate::stream::{Files, kind};
use datapath::abi::{Addr, Reason};
use datapath::wire::proto;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;

/// Prints why an event was judged as it was.
pub fn print(instance: &Instance, id: u64, format: Format) -> Result<()> {
    let event = Files::new(instance.events_dir()).find(id)?;
    let told = Told::of(instance, &event)?;
    if format == Format::Json {
        return print_json(&json!({
            "event": event, "rule": told.rule, "meaning": told.meaning, "near_misses": told.near_misses,
            "not_known": told.not_known,
        }));
    }
    say(&line(&event))?;
    if let Some(revision) = event["revision"].as_u64() {
        say(&format!("judged by revision {revision}, epoch {}", event["epoch"]))?;
    }
    match (&told.rule, told.meaning) {
        (Some(rule), _) => say(&format!("rule {}: {}\n  in {}", rule.label(), rule.text, rule.place))?,
        (None, Some(meaning)) => say(meaning)?,
        (None, None) => {}
    }
    told.near_misses.iter().try_for_each(|miss| say(&format!("  {}", miss.text)))?;
    told.not_known.iter().try_for_each(|why| say(&format!("  not known: {why}")))
}

/// What there is to say of it.
#[derive(Default)]
struct Told {
    rule: Option<RuleInfo>,
    meaning: Option<&'static str>,
    near_misses: Vec<NearMiss>,
    not_known: Option<String>,
}

impl Told {
    fn of(instance: &Instance, event: &Value) -> Result<Self> {
        let Some(reason) = reason(event) else {
            let message =
                format!("event {} is of the kind `{}`: nothing was judged", event["id"], kind(event));
            return Err(
                Failure::new(Code::Usage, message).hint("`tidegate observe -o json` shows kinds and numbers")
            );
        };
        let mut told = Self { meaning: Some(reason.meaning()), ..Self::default() };
        let Some(state) = state_then(instance, event)? else {
            told.not_known =
                Some("its revision is not kept any more, and with it what its rules said".into());
            return Ok(told);
        };
        let at = event["time"].as_str().and_then(|time| time.parse().ok()).unwrap_or_else(Timestamp::now);
        let mut documents = state.effective(at).into_owned();
        // One that was over by then may be what the event tells of.
        documents.grants = state.grants_in_force().into_iter().cloned().collect();
        let flow = flow(event);
        for (end, address) in flow.iter().flat_map(|flow| [("source", flow.src), ("destination", flow.dst)]) {
            be_who_it_was(&mut documents, address, Was::of(&event[end], reason, at));
        }
        let clock = Clock { wall_now: at, boot_now_ns: BOOT_NS };
        let compiled = compile(&documents, &Numbering::default(), &clock);
        if let Some(label) = event["rule"].as_str() {
            told.rule = compiled.rules.values().find(|rule| rule.label() == label).cloned();
            if told.rule.is_none() {
                told.not_known = Some(format!("what {label} said: it stands in no revision that is kept"));
            }
        }
        let (Some(flow), false) = (flow, reason.passes()) else { return Ok(told) };
        // What the event says of its ends is what was judged by: a place and a port that it does not tell are in that already.
        told.near_misses = near_misses(&documents, &compiled, (flow, Origin::default()), reason, BOOT_NS);
        Ok(told)
    }
}

/// When the event was, on a boot clock that goes back further than any lease.
const BOOT_NS: u64 = 1 << 62;

/// What counted when it was judged.
fn state_then(instance: &Instance, event: &Value) -> Result<Option<State>> {
    let Some(revision) = event["revision"].as_u64() else { return Ok(None) };
    match Store::read(&instance.state_file())? {
        Some(store) => store.state_of(revision),
        None => Ok(None),
    }
}

fn reason(event: &Value) -> Option<Reason> {
    let name = event["drop_reason_desc"].as_str()?;
    Reason::ALL.iter().copied().find(|reason| reason.name() == name)
}

/// The connection; none of what is no IP.
fn flow(event: &Value) -> Option<Flow> {
    let address = |end: &str| Some(Addr::from(event["IP"][end].as_str()?.parse::<IpAddr>().ok()?));
    let (name, fields) = event["l4"].as_object()?.iter().next()?;
    let number = |field: &str| fields[field].as_u64().and_then(|n| u16::try_from(n).ok());
    let (proto, port) = match name.as_str() {
        "TCP" => (proto::TCP, number("destination_port")?),
        "UDP" => (proto::UDP, number("destination_port")?),
        "SCTP" => (proto::SCTP, number("destination_port")?),
        "ICMPv4" => (proto::ICMP, number("type")?),
        "ICMPv6" => (proto::ICMPV6, number("type")?),
        other => (other.strip_prefix("PROTO-")?.parse().ok()?, 0),
    };
    Some(Flow { src: address("source")?, dst: address("destination")?, proto, port })
}

/// Whose an end was, and by which lease.
struct Was {
    id: Option<SpiffeId>,
    lease: Option<Lease>,
}

impl Was {
    /// As the event says. Leases are told to the second, and an event is told a moment after it was judged: one that was over then
    /// is over.
    fn of(end: &Value, reason: Reason, at: Timestamp) -> Self {
        let told = &end["lease"];
        let not_after = told["not_after"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
        let is_over = |not_after: &Timestamp| {
            reason == Reason::LeaseExpired && not_after.duration_since(at) <= SignedDuration::from_secs(1)
        };
        let lease = not_after.map(|not_after| Lease {
            not_after: if is_over(&not_after) { not_after.min(at) } else { not_after },
            on_expiry: OnExpiry::Deny,
            grace_s: 0,
        });
        Self { id: end["spiffe_id"].as_str().and_then(|id| id.parse().ok()), lease }
    }
}

/// Who has the address is not looked up: the event says who had it.
fn be_who_it_was(documents: &mut Documents, address: Addr, Was { id, lease }: Was) {
    let host = Prefix::host(address);
    let of_id = |w: &&Workload| Some(&w.spiffe_id) == id.as_ref();
    let known = documents.workloads.iter().find(of_id).map(|w| w.labels.clone());
    let workloads = Arc::make_mut(&mut documents.workloads);
    for workload in workloads.iter_mut() {
        workload.addresses.retain(|prefix| !prefix.covers(&host));
    }
    workloads.retain(|workload| !workload.addresses.is_empty());
    workloads.extend(id.map(|spiffe_id| Workload {
        name: spiffe_id.path().trim_start_matches('/').to_owned(),
        addresses: vec![host],
        labels: known.unwrap_or_default(),
        lease,
        scope: Default::default(),
        place: Place { file: "the event".into(), line: 1, column: 1 },
        spiffe_id,
    }));
}
