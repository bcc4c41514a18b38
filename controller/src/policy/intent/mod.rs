//! `kind: Intent`: what identities are for. It lets nothing pass and drops nothing: what they do is compared with it.

pub mod facts;
pub mod files;
pub mod hello;
pub mod hours;
pub mod rules;

use super::act::{self, Step};
use super::decode::{duration, ports, selectors};
use super::fields::{Context, Fields};
use super::place::Place;
use super::ports::PortMatch;
use super::quantity::{Amount, Count, RateOf};
use super::selector::{Selector, selectors_text};
use super::time::duration_text;
use super::yaml::{Node, Value};
use files::FilePattern;
use hello::{Hellos, NamePattern, name_list};
use hours::Hours;
use rules::Rule;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::RangeInclusive;

/// What identities are for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// metadata.name
    pub name: String,
    /// Whose intent it is: any of these. No `cidr` and no `any`: what is nobody's has no purpose.
    pub identities: Vec<Selector>,
    /// What kind of workload that is.
    pub workload: WorkloadKind,
    /// Who answers for it: findings are theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// How much harm a departure can do.
    #[serde(default)]
    pub sensitivity: Sensitivity,
    /// Connections that it opens; absent where nothing is declared of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Vec<Expected>>,
    /// Connections that it answers; absent where nothing is declared of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Vec<Expected>>,
    /// Names that it asks for; absent where nothing is declared of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Vec<NamePattern>>,
    /// When it opens connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<Hours>,
    /// To how many peers it opens connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fan_out: Option<FanOut>,
    /// How many connections it opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateOf<Count>>,
    /// What it executes where it runs on this host; absent where nothing is declared of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<Vec<FilePattern>>,
    /// At how many addresses one of the identities is at once, by leases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
    /// Whether several act under the name of one of the identities, as behind NAT: nobody is blamed for what it does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// What else is a finding.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// What becomes of a departure.
    #[serde(default)]
    pub response: Response,
    /// Where it begins.
    pub place: Place,
}

/// Connections that are expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// With whom: any of these.
    pub peers: Vec<Selector>,
    /// To which protocols and ports: any of these.
    pub ports: Vec<PortMatch>,
    /// With which ClientHellos, where they are TLS or QUIC.
    #[serde(default, skip_serializing_if = "Hellos::is_empty")]
    pub hello: Hellos,
}

/// To how many peers an identity opens connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FanOut {
    /// So many at most.
    pub peers: u32,
    /// In so many seconds; nothing where it is the time of a lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// What an identity runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadKind {
    /// Runs always, behind one identity.
    Service,
    /// Comes and goes, each run perhaps with an identity of its own.
    Batch,
    /// Decides by itself what it reaches for.
    Agent,
}

/// How much harm a departure can do: the severity of findings.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Sensitivity {
    /// Little.
    Low,
    /// Some.
    #[default]
    Medium,
    /// Much.
    High,
}

/// What becomes of a departure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// A finding.
    #[default]
    Flag,
    /// A finding, and whoever departs is quarantined.
    Contain {
        /// For so long.
        seconds: u64,
    },
    /// A finding, and whoever departs is met with one step after the other for as long as it goes on.
    Graded {
        /// The gentlest first; never none.
        steps: Vec<Step>,
    },
}

impl Response {
    /// What is done first, next, and so on; the last again where there are no more.
    pub fn step(&self, n: usize) -> Option<Step> {
        match self {
            Self::Flag => None,
            Self::Contain { seconds } => Some(Step::quarantine(*seconds)),
            Self::Graded { steps } => steps.get(n).or(steps.last()).cloned(),
        }
    }

    /// How many steps there are.
    pub fn steps(&self) -> usize {
        match self {
            Self::Flag => 0,
            Self::Contain { .. } => 1,
            Self::Graded { steps } => steps.len(),
        }
    }
}

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
pub(super) fn decode(cx: &mut Context<'_>, spec: &Node) -> Option<Intent> {
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

impl fmt::Display for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.workload.name(), selectors_text(&self.identities))?;
        for (verb, side) in [("opens to", &self.client), ("answers", &self.server)] {
            let Some(expected) = side else { continue };
            let all: Vec<_> = expected.iter().map(Expected::to_string).collect();
            let all = if all.is_empty() { "nobody".to_owned() } else { all.join(", ") };
            write!(f, "; {verb} {all}")?;
        }
        if let Some(names) = &self.dns {
            write!(f, "; asks for {}", name_list(names))?;
        }
        if let Some(hours) = &self.hours {
            write!(f, "; opens {hours}")?;
        }
        if let Some(fan_out) = &self.fan_out {
            write!(f, "; opens to {fan_out}")?;
        }
        if let Some(rate) = &self.rate {
            write!(f, "; opens {rate}")?;
        }
        if let Some(files) = &self.processes {
            write!(f, "; executes {}", files::list(files))?;
        }
        if let Some(instances) = self.instances {
            write!(f, "; is at {} at once", addresses(instances))?;
        }
        if self.shared {
            f.write_str("; is shared")?;
        }
        for rule in &self.rules {
            write!(f, "; looks for {} ({})", rule.name, String::from(rule.when.clone()))?;
        }
        write!(f, "; {} sensitivity", self.sensitivity.name())?;
        if let Some(owner) = &self.owner {
            write!(f, ", of {owner}")?;
        }
        match &self.response {
            Response::Flag => f.write_str("; flagged"),
            Response::Contain { seconds } => write!(f, "; contained for {}", duration_text(*seconds)),
            Response::Graded { steps } => {
                let then = |(n, step): (usize, &Step)| match n {
                    0 => step.to_string(),
                    _ => format!("after {} {step}", duration_text(step.after_s)),
                };
                let steps: Vec<_> = steps.iter().enumerate().map(then).collect();
                write!(f, "; contained by {}", steps.join(", "))
            }
        }
    }
}

/// `1 address`, `3 addresses`
pub fn addresses(number: u32) -> String {
    format!("{number} address{}", if number == 1 { "" } else { "es" })
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports: Vec<_> = self.ports.iter().map(PortMatch::to_string).collect();
        write!(f, "{} at {}", selectors_text(&self.peers), ports.join(" or "))?;
        if self.hello.is_empty() { Ok(()) } else { write!(f, " with {}", self.hello) }
    }
}

impl fmt::Display for FanOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seconds {
            Some(seconds) => write!(f, "{} peers in {}", self.peers, duration_text(seconds)),
            None => write!(f, "{} peers in the time of a lease", self.peers),
        }
    }
}

impl WorkloadKind {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Batch => "batch",
            Self::Agent => "agent",
        }
    }
}

impl Sensitivity {
    /// As they are written.
    pub const WORDS: [(&str, Self); 3] = [("low", Self::Low), ("medium", Self::Medium), ("high", Self::High)];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}
