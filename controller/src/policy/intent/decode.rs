//! Reads the spec of an Intent.

use super::hello::{self, Hellos};
use super::{Expected, FanOut, Intent, Response, Sensitivity, WorkloadKind, files, hours, rules};
use crate::policy::act;
use crate::policy::decode::{duration, ports, selectors};
use crate::policy::fields::{Context, Fields};
use crate::policy::quantity::{Amount, Count, RateOf};
use crate::policy::selector::Selector;
use crate::policy::yaml::{Node, Value};
use std::ops::RangeInclusive;

const FIELDS: [&str; 15] = [
    "identities",
    "workload",
    "owner",
    "sensitivity",
    "client",
    "server",
    "dns",
    "hours",
    "fanOut",
    "rate",
    "processes",
    "instances",
    "shared",
    "rules",
    "response",
];
/// Of each identity as many peers are remembered.
const MOST_PEERS: u32 = 1024;
const MOST_INSTANCES: u32 = 65_536;
const FAN_OUT_EXAMPLE: &str = "for example `fanOut: {peers: 10, per: 10m}`, or `per: lease`";
const PER_LEASE: &str = "lease";
const CLIENT_EXAMPLE: &str = "for example `client: [{to: [{labels: {app: db}}], ports: [tcp/5432]}]`";
const SERVER_EXAMPLE: &str = "for example `server: [{from: [{labels: {app: web}}], ports: [tcp/8443]}]`";

/// Reads the spec.
pub fn decode(cx: &mut Context<'_>, spec: &Node) -> Option<Intent> {
    let fields = Fields::of(cx, spec, "the spec of an Intent", &FIELDS)?;
    let identities = selectors(cx, &fields, "identities");
    if let Some(wrong) = identities.iter().find(|s| matches!(s, Selector::Cidr(_) | Selector::Any)) {
        let what = format!("an intent is of identities, not of {wrong}");
        let accepted = "name them by `spiffeId`, `spiffePath`, `trustDomain` or `labels`";
        cx.mistake(fields.optional("identities").unwrap_or(spec), what, accepted);
    }
    let kinds =
        [("service", WorkloadKind::Service), ("batch", WorkloadKind::Batch), ("agent", WorkloadKind::Agent)];
    let workload = fields
        .required(cx, "workload", "accepted: `service`, `batch`, `agent`")
        .and_then(|node| cx.word(node, "kind of workload", &kinds));
    let sensitivity = match fields.optional("sensitivity") {
        Some(node) => cx.word(node, "sensitivity", &Sensitivity::WORDS),
        None => Some(Sensitivity::default()),
    };
    let owner = fields.optional("owner").and_then(|node| cx.text(node, "`owner`")).map(str::to_owned);
    let client = expected(cx, &fields, "client", "to", CLIENT_EXAMPLE);
    let server = expected(cx, &fields, "server", "from", SERVER_EXAMPLE);
    if ["client", "server", "dns", "hours", "fanOut", "rate", "processes", "instances", "rules"]
        .iter()
        .all(|name| fields.optional(name).is_none())
    {
        cx.mistake(
            spec,
            "the Intent says nothing of connections",
            format!("{CLIENT_EXAMPLE}; `[]` for none"),
        );
    }
    let dns = fields.optional("dns").map(|node| hello::names(cx, node, "`dns`"));
    let hours = fields.optional("hours").and_then(|node| hours::decode(cx, node));
    let fan_out = fields.optional("fanOut").and_then(|node| fan_out(cx, node));
    let rate = fields.optional("rate").and_then(|node| rate(cx, node));
    let processes = fields.optional("processes").map(|node| files::decode(cx, node));
    let instances = fields
        .optional("instances")
        .and_then(|node| number(cx, node, ("`instances`", "addresses"), 1..=MOST_INSTANCES));
    let shared = fields.optional("shared");
    let shared = shared.and_then(|node| cx.word(node, "`shared`", &[("true", true), ("false", false)]));
    let rules = fields.optional("rules").map(|node| rules::decode(cx, node)).unwrap_or_default();
    let response = match fields.optional("response") {
        Some(node) => response(cx, node),
        None => Some(Response::default()),
    };
    let (name, place) = (String::new(), cx.place(spec));
    let (workload, sensitivity, response) = (workload?, sensitivity?, response?);
    Some(Intent {
        name,
        identities,
        workload,
        owner,
        sensitivity,
        client,
        server,
        dns,
        hours,
        fan_out,
        rate,
        processes,
        instances,
        shared: shared.unwrap_or_default(),
        rules,
        response,
        place,
    })
}

/// What `client` or `server` lists. An empty list says something too: no connection is expected.
fn expected(
    cx: &mut Context<'_>,
    fields: &Fields<'_>,
    name: &str,
    peers: &str,
    example: &str,
) -> Option<Vec<Expected>> {
    let node = fields.optional(name)?;
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        return Some(Vec::new());
    }
    let mut all = Vec::new();
    for item in cx.items(node, &format!("`{name}`"), example) {
        let noun = format!("an item of `{name}`");
        let names = [&[peers, "ports"], &Hellos::FIELDS[..]].concat();
        let Some(fields) = Fields::of(cx, item, &noun, &names) else { continue };
        let peers = selectors(cx, &fields, peers);
        all.push(Expected { peers, ports: ports(cx, &fields), hello: Hellos::decode(cx, &fields) });
    }
    Some(all)
}

fn fan_out(cx: &mut Context<'_>, node: &Node) -> Option<FanOut> {
    let fields = Fields::of(cx, node, "`fanOut`", &["peers", "per"])?;
    let peers = fields
        .required(cx, "peers", FAN_OUT_EXAMPLE)
        .and_then(|node| number(cx, node, ("`peers`", "peers"), 1..=MOST_PEERS));
    let seconds = fields.required(cx, "per", FAN_OUT_EXAMPLE).and_then(|node| match &node.value {
        Value::Scalar { text, .. } if text == PER_LEASE => Some(None),
        _ => duration(cx, node, "`per`").map(Some),
    });
    Some(FanOut { peers: peers?, seconds: seconds? })
}

fn number(
    cx: &mut Context<'_>,
    node: &Node,
    (field, noun): (&str, &str),
    accepted: RangeInclusive<u32>,
) -> Option<u32> {
    let text = cx.text(node, field)?;
    let number = text.parse().ok().filter(|n| accepted.contains(n));
    if number.is_none() {
        let accepted = format!("accepted: a whole number from {} to {}", accepted.start(), accepted.end());
        cx.mistake(node, format!("`{text}` is no number of {noun}"), accepted);
    }
    number
}

fn rate(cx: &mut Context<'_>, node: &Node) -> Option<RateOf<Count>> {
    let example = "for example `rate: {connections: 600/m}`";
    let fields = Fields::of(cx, node, "`rate`", &["connections"])?;
    let node = fields.required(cx, "connections", example)?;
    cx.parsed(node, "`connections`", Count::RATE_ACCEPTED)
}

fn response(cx: &mut Context<'_>, node: &Node) -> Option<Response> {
    let fields = Fields::of(cx, node, "a response", &["action", "for", "steps"])?;
    let example = "for example `response: {action: contain, for: 15m}`";
    let action = fields.required(cx, "action", example)?;
    let contains = cx.word(action, "response", &[("flag", false), ("contain", true)])?;
    let seconds = fields.optional("for").map(|node| duration(cx, node, "`for`"));
    if let Some(steps) = fields.optional("steps") {
        let steps = act::steps(cx, steps);
        if !contains || seconds.is_some() {
            let what = if contains { "`for` beside `steps`" } else { "`steps` is for `action: contain`" };
            cx.mistake(node, what, "each step says for how long it holds");
            return None;
        }
        return Some(Response::Graded { steps: steps? });
    }
    match (contains, seconds) {
        (false, None) => Some(Response::Flag),
        (false, Some(_)) => {
            cx.mistake(node, "`for` is for `action: contain`", "a finding stays until somebody resolves it");
            None
        }
        (true, Some(seconds)) => Some(Response::Contain { seconds: seconds? }),
        (true, None) => {
            // Nothing that the loop does is for ever.
            cx.mistake(node, "the containment does not say when it ends", example);
            None
        }
    }
}
