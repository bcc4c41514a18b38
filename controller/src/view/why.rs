//! `tidegate why`: asks the live maps, with the programs' own code, or files alone, and names the rule or the nearest miss.

mod live;
mod question;

pub use question::{Question, WhyArgs};

use super::{Format, View, print_json, say};
use crate::exit_code::Result;
use crate::instance::Instance;
use crate::names::{reason, verdict};
use crate::policy::compile::{RuleInfo, RuleKind};
use crate::policy::explain::{Flow, NearMiss, Origin, explain_from, near_misses};
use crate::policy::feed::{Entry, Feed};
use crate::policy::ports::protocol_and_port;
use crate::policy::{Clock, Documents, Numbering, Prefix, compile, read_files};
use crate::state::{PolicySet, State};
use datapath::abi::{Addr, Binding, Limits, Reason, Side};
use datapath::holdings::Held;
use datapath::policy::Judgement;
use datapath::scope;
use jiff::Timestamp;
use question::Why;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

/// Answers on this host.
pub fn run(instance: &Instance, args: &WhyArgs, format: Format) -> Result<()> {
    match args.why() {
        Why::Event(id) => super::past::print(instance, id, format),
        Why::Files(question, paths) => offline(&paths, &question)?.print(format),
        Why::Connection(question) => print(&View::open(instance)?, &question, format),
    }
}

/// Prints what would become of a connection.
pub fn print(view: &View, args: &Question, format: Format) -> Result<()> {
    live(view, args)?.print(format)
}

/// What would become of a connection, and why.
#[derive(Debug)]
pub struct Answer {
    flow: Flow,
    ids: [Option<String>; 2],
    judgement: Judgement,
    label: Option<String>,
    rule: Option<RuleInfo>,
    listed: Vec<Listed>,
    near_misses: Vec<NearMiss>,
    limit: Option<Limited>,
}

/// An entry of the feed that decides.
#[derive(Debug)]
struct Listed {
    entry: Entry,
    path: String,
    source: String,
}

/// The limit of the identity that opens a connection which may open.
#[derive(Debug)]
struct Limited {
    name: String,
    text: String,
    place: String,
    /// What it has now; nothing where only files are asked.
    held: Option<Held>,
}

/// By the maps of a gateway.
pub fn live(view: &View, args: &Question) -> Result<Answer> {
    let now = Timestamp::now();
    let mut documents = view.state.effective(now);
    let (flow, source_port) = (args.flow(&documents)?, args.source_port()?);
    let mut segment = 0;
    if args.is_placed() {
        let mut number = 0;
        if let Some(name) = &args.interface {
            let (index, epoch) = (loader::netdev::index(name)?, view.maps.config.get()?.epoch);
            number = view.maps.interfaces.longest(&index, u32::BITS)?.map_or(0, |v| v.at(epoch).number);
        }
        segment = scope::with(scope::segment(number, args.vlan.unwrap_or(0)), Side::A);
    }
    let from = Origin { segment, port: source_port };
    let judgement = live::judge(&view.maps, &flow, from)?;
    if judgement.reason == Reason::GrantExpired {
        // It is over, and what is over does not count.
        documents.to_mut().grants = view.state.grants_in_force().into_iter().cloned().collect();
    }
    // What is blocked came close to nothing.
    let decided = judgement.passes() || judgement.reason == Reason::Blocklisted;
    let near_misses = if decided {
        Vec::new()
    } else {
        let now_ns = loader::boot_ns();
        let compiled =
            compile(&documents, &view.state.numbering, &Clock { wall_now: now, boot_now_ns: now_ns });
        near_misses(&documents, &compiled, (flow, from), judgement.reason, now_ns)
    };
    let rule = view.state.rules.get(&judgement.rule).cloned();
    Ok(Answer {
        flow,
        ids: judgement.identity.map(|number| view.names.identity(number).map(str::to_owned)),
        label: view.names.rule(judgement.rule).map(str::to_owned),
        listed: listed(&documents, rule.as_ref(), [flow.src, flow.dst]),
        rule,
        near_misses,
        limit: limit(view, &judgement)?,
        judgement,
    })
}

/// By files alone, as they would be judged by on a gateway that has nothing else: no binding of a source, no block by hand.
pub fn offline(paths: &[PathBuf], args: &Question) -> Result<Answer> {
    let now = Timestamp::now();
    let set = Arc::new(PolicySet::read(read_files(paths)?, now)?);
    by_state(&State { set, ..State::default() }, args, now)
}

/// The same by a state that is in no kernel.
pub fn by_state(state: &State, args: &Question, now: Timestamp) -> Result<Answer> {
    let documents = state.effective(now);
    let (flow, port) = (args.flow(&documents)?, args.source_port()?);
    let now_ns = loader::boot_ns();
    let compiled = compile(&documents, &Numbering::default(), &Clock { wall_now: now, boot_now_ns: now_ns });
    let number = args.interface.as_ref().and_then(|name| compiled.named_interfaces.get(name));
    let on = scope::segment(number.copied().unwrap_or(0), args.vlan.unwrap_or(0));
    let segment = if args.is_placed() { scope::with(on, Side::A) } else { 0 };
    let found = explain_from(&documents, &compiled, (flow, Origin { segment, port }), now_ns);
    let judgement = found.judgement;
    let id = |number| match number {
        Binding::AMBIGUOUS => Some("ambiguous".to_owned()),
        number => compiled.numbering.identity_of(number).map(ToString::to_string),
    };
    // What passes, also if it is audited, came close to nothing.
    let near_misses = if judgement.passes() { Vec::new() } else { found.near_misses };
    let limit = compiled.limits.get(&judgement.identity[0]).and_then(|limit| compiled.rules.get(&limit.rule));
    Ok(Answer {
        flow,
        ids: judgement.identity.map(id),
        label: found.rule.as_ref().map(RuleInfo::label),
        listed: listed(&documents, found.rule.as_ref(), [flow.src, flow.dst]),
        rule: found.rule,
        near_misses,
        limit: limit.filter(|_| is_limited(&judgement)).map(|info| Limited::of(info, None)),
        judgement,
    })
}

impl Answer {
    /// Prints it.
    pub fn print(&self, format: Format) -> Result<()> {
        if format == Format::Json { print_json(&self.json()) } else { self.table() }
    }

    /// As programs read it.
    pub fn json(&self) -> Value {
        let Self { flow, ids: [from, to], judgement, rule, limit, .. } = self;
        let entry = |Listed { entry, path, .. }: &Listed| {
            json!({
                "cidr": entry.prefix, "path": path, "line": entry.line,
                "sbl": (entry.sbl != 0).then(|| format!("SBL{}", entry.sbl)),
            })
        };
        json!({
            "IP": {"source": flow.src.to_ip(), "destination": flow.dst.to_ip()},
            "protocol_and_port": protocol_and_port(flow.proto, flow.port),
            "source": {"spiffe_id": from},
            "destination": {"spiffe_id": to},
            "verdict": verdict(judgement.action as u8), "drop_reason_desc": reason(judgement.reason as u8),
            "rule": self.label, "rule_text": rule.as_ref().map(|r| &r.text),
            "rule_place": rule.as_ref().map(|r| r.place.to_string()),
            "feed_entries": self.listed.iter().map(entry).collect::<Vec<_>>(),
            "near_misses": self.near_misses,
            "limit": limit.as_ref().map(|l| json!({
                "name": l.name, "text": l.text, "place": l.place,
                "attempts": l.held.as_ref().map(|held| held.attempts),
                "answered": l.held.as_ref().map(|held| held.answered),
            })),
        })
    }

    fn table(&self) -> Result<()> {
        let Self { flow, ids: [from, to], judgement, .. } = self;
        let end = |addr: Addr, id: &Option<String>| match id {
            Some(id) => format!("{id} ({})", addr.to_ip()),
            None => format!("{} (no identity)", addr.to_ip()),
        };
        let service = protocol_and_port(flow.proto, flow.port);
        say(&format!("{} -> {}  {service}", end(flow.src, from), end(flow.dst, to)))?;
        say(&format!("{}  {}", verdict(judgement.action as u8), reason(judgement.reason as u8)))?;
        if let Some(rule) = &self.rule {
            say(&format!("rule {}: {}\n  in {}", rule.label(), rule.text, rule.place))?;
        } else {
            say(judgement.reason.meaning())?;
        }
        self.listed.iter().try_for_each(|one| say(&format!("  {} in {}", one.entry.prefix, one.source)))?;
        if let Some(Limited { name, text, place, held }) = &self.limit {
            let counted = held.as_ref().map(|Held { attempts, answered }| {
                format!("; counted now: {attempts} attempts, {answered} answered")
            });
            say(&format!("{name}: {text}\n  in {place}{}", counted.unwrap_or_default()))?;
        }
        self.near_misses.iter().try_for_each(|miss| say(&format!("  {}", miss.text)))
    }
}

/// The entries of the feed that decides in which an end lies.
fn listed(documents: &Documents, rule: Option<&RuleInfo>, ends: [Addr; 2]) -> Vec<Listed> {
    let Some(rule) = rule.filter(|rule| rule.kind == RuleKind::Feed) else { return Vec::new() };
    let lists = documents.blocklists.iter().filter(|list| list.name == rule.policy);
    let feeds = lists.flat_map(|list| &list.feeds).filter(|feed| feed.name == rule.name);
    let of = |feed: &Feed| {
        let found = ends.into_iter().flat_map(|end| feed.entries.covering(&Prefix::host(end)));
        let listed =
            |entry: &Entry| Listed { entry: *entry, path: feed.path.clone(), source: feed.source(entry) };
        found.map(listed).collect::<Vec<_>>()
    };
    feeds.flat_map(of).collect()
}

fn is_limited(judgement: &Judgement) -> bool {
    judgement.limits & Limits::IDENTITY != 0
}

impl Limited {
    fn of(info: &RuleInfo, held: Option<Held>) -> Self {
        Self { name: info.label(), text: info.text.clone(), place: info.place.to_string(), held }
    }
}

fn limit(view: &View, judgement: &Judgement) -> Result<Option<Limited>> {
    let identity = judgement.identity[0];
    if !is_limited(judgement) {
        return Ok(None);
    }
    let epoch = view.maps.config.get()?.epoch;
    let Some(found) = view.maps.limits.longest(&identity, u32::BITS)? else { return Ok(None) };
    let Some(info) = view.state.rules.get(&found.at(epoch).rule) else { return Ok(None) };
    let held = view.maps.holdings.get(&identity)?.map(|holdings| holdings.at(loader::boot_ns()));
    Ok(Some(Limited::of(info, Some(held.unwrap_or_default()))))
}
