//! `tidegate why`: asks the live maps, with the programs' own code, and names the rule or the nearest miss.

use super::{Format, View, encoded, print_json, say};
use crate::exit_code::{Code, Failure, Result};
use crate::instance::Instance;
use crate::names::{reason, verdict};
use crate::policy::compile::{RuleInfo, RuleKind};
use crate::policy::document::Workload;
use crate::policy::explain::{Flow, NearMiss, explain};
use crate::policy::feed::{Entry, Feed};
use crate::policy::ports::{PortMatch, protocol_and_port};
use crate::policy::{Clock, Documents, Prefix, compile};
use crate::state::State;
use datapath::abi::{
    Addr, Binding, BindingVersions, BlockVersions, Config, DecisionVersions, FailsafeKey, GuardKey,
    InterfaceVersions, LimitVersions, Limits, PolicyKey, Reason, RuleVersions, ScopedKey, Side,
};
use datapath::guard::Service;
use datapath::holdings::Held;
use datapath::limits;
use datapath::policy::{Ends, Judgement, Moment, decide};
use datapath::scope;
use datapath::tables::Rules;
use loader::Maps;
use serde_json::json;
use std::net::IpAddr;

/// What is asked.
#[derive(Clone, Debug, clap::Args)]
pub struct WhyArgs {
    /// Who opens the connection: an address, a workload's name or a SPIFFE ID
    #[arg(required_unless_present = "event")]
    source: Option<String>,
    /// Who answers
    #[arg(required_unless_present = "event")]
    destination: Option<String>,
    /// Port and protocol: 443, 443/tcp, 53/udp, icmp
    #[arg(required_unless_present = "event")]
    port: Option<String>,
    /// The interface by which it comes in, for bindings that hold on an interface
    #[arg(long, value_name = "IF")]
    interface: Option<String>,
    /// The VLAN ID with which it comes in, for bindings that hold on a VLAN
    #[arg(long, value_name = "ID")]
    vlan: Option<u16>,
    /// Instead of what would become of a connection, why this event was judged as it was
    #[arg(long, value_name = "ID", conflicts_with_all = ["source", "interface", "vlan"])]
    event: Option<u64>,
}

/// A question, of either kind.
enum Why {
    Connection(Question),
    Event(u64),
}

/// A connection that is asked about.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// An address, a workload's name or a SPIFFE ID.
    pub source: String,
    /// Likewise.
    pub destination: String,
    /// `443`, `443/tcp`, `icmp`
    pub port: String,
    /// The interface by which it comes in.
    pub interface: Option<String>,
    /// The VLAN ID with which it comes in.
    pub vlan: Option<u16>,
}

impl WhyArgs {
    fn why(&self) -> Why {
        if let Some(id) = self.event {
            return Why::Event(id);
        }
        // There without an event.
        let [source, destination, port] =
            [&self.source, &self.destination, &self.port].map(|text| text.clone().unwrap_or_default());
        let (interface, vlan) = (self.interface.clone(), self.vlan);
        Why::Connection(Question { source, destination, port, interface, vlan })
    }

    /// Where the daemon shows it.
    pub fn path(&self) -> String {
        match self.why() {
            Why::Event(id) => format!("/v1/why/event?id={id}"),
            Why::Connection(question) => {
                let [source, destination, port] =
                    [&question.source, &question.destination, &question.port].map(|text| encoded(text));
                format!("/v1/why?source={source}&destination={destination}&port={port}")
            }
        }
    }
}

/// Answers on this host.
pub fn run(instance: &Instance, args: &WhyArgs, format: Format) -> Result<()> {
    match args.why() {
        Why::Event(id) => super::past::print(instance, id, format),
        Why::Connection(question) => print(&View::open(instance)?, &question, format),
    }
}

/// Prints what would become of a connection.
pub fn print(view: &View, args: &Question, format: Format) -> Result<()> {
    let documents = view.state.effective(jiff::Timestamp::now());
    let (port, proto) = parse_port(&args.port)?;
    let (source, destination) = (address(&documents, &args.source)?, address(&documents, &args.destination)?);
    let place = place(view, args)?;
    let ask = Asked { source, destination, proto, port, place };
    let judgement = ask.judge(&view.maps)?;
    // What is blocked came close to nothing.
    let decided = judgement.passes() || judgement.reason == Reason::Blocklisted;
    let misses = if decided { Vec::new() } else { ask.near_misses(&view.state, &documents) };
    let [from, to] = judgement.identity;
    let rule = view.state.rules.get(&judgement.rule);
    let listed = listed(&documents, rule, [source, destination]);
    let limit = if judgement.limits & Limits::IDENTITY != 0 { limit(view, from)? } else { None };
    if format == Format::Json {
        return print_json(&json!({
            "IP": {"source": source.to_ip(), "destination": destination.to_ip()},
            "protocol_and_port": protocol_and_port(proto, port),
            "source": {"spiffe_id": view.names.identity(from)},
            "destination": {"spiffe_id": view.names.identity(to)},
            "verdict": verdict(judgement.action as u8), "drop_reason_desc": reason(judgement.reason as u8),
            "rule": view.names.rule(judgement.rule), "rule_text": rule.map(|r| &r.text),
            "rule_place": rule.map(|r| r.place.to_string()),
            "feed_entries": listed.iter().map(|(feed, entry)| json!({
                "cidr": entry.prefix, "path": feed.path, "line": entry.line,
                "sbl": (entry.sbl != 0).then(|| format!("SBL{}", entry.sbl)),
            })).collect::<Vec<_>>(),
            "near_misses": misses,
            "limit": limit.map(|l| json!({
                "name": l.name, "text": l.text, "place": l.place,
                "attempts": l.held.attempts, "answered": l.held.answered,
            })),
        }));
    }
    let end = |addr: Addr, identity| match view.names.identity(identity) {
        Some(id) => format!("{id} ({})", addr.to_ip()),
        None => format!("{} (no identity)", addr.to_ip()),
    };
    say(&format!("{} -> {}  {}", end(source, from), end(destination, to), protocol_and_port(proto, port)))?;
    say(&format!("{}  {}", verdict(judgement.action as u8), reason(judgement.reason as u8)))?;
    if let Some(rule) = rule {
        say(&format!("rule {}: {}\n  in {}", rule.label(), rule.text, rule.place))?;
    } else {
        say(judgement.reason.meaning())?;
    }
    listed
        .iter()
        .try_for_each(|(feed, entry)| say(&format!("  {} in {}", entry.prefix, feed.source(entry))))?;
    if let Some(Limited { name, text, place, held }) = limit {
        let Held { attempts, answered } = held;
        say(&format!("{name}: {text}\n  in {place}; counted now: {attempts} attempts, {answered} answered"))?;
    }
    misses.iter().try_for_each(|miss| say(&format!("  {}", miss.text)))
}

/// The entries of the feed that decides in which an end lies.
fn listed<'d>(
    documents: &'d Documents,
    rule: Option<&RuleInfo>,
    ends: [Addr; 2],
) -> Vec<(&'d Feed, &'d Entry)> {
    let Some(rule) = rule.filter(|rule| rule.kind == RuleKind::Feed) else { return Vec::new() };
    let lists = documents.blocklists.iter().filter(|list| list.name == rule.policy);
    let feeds = lists.flat_map(|list| &list.feeds).filter(|feed| feed.name == rule.name);
    let of = |feed: &'d Feed| {
        let found = ends.into_iter().flat_map(|end| feed.entries.covering(&Prefix::host(end)));
        found.map(move |entry| (feed, entry)).collect::<Vec<_>>()
    };
    feeds.flat_map(of).collect()
}

/// The limit of the identity that opens a connection which may open.
struct Limited {
    name: String,
    text: String,
    place: String,
    /// What it has now, where that is counted.
    held: Held,
}

fn limit(view: &View, identity: u32) -> Result<Option<Limited>> {
    let epoch = view.maps.config.get()?.epoch;
    let Some(found) = view.maps.limits.longest(&identity, u32::BITS)? else { return Ok(None) };
    let Some(info) = view.state.rules.get(&found.at(epoch).rule) else { return Ok(None) };
    let held = view.maps.holdings.get(&identity)?.map(|holdings| holdings.at(loader::boot_ns()));
    let (name, text, place) = (info.label(), info.text.clone(), info.place.to_string());
    Ok(Some(Limited { name, text, place, held: held.unwrap_or_default() }))
}

fn parse_port(text: &str) -> Result<(u16, u8)> {
    let wrong = || {
        let message = format!("`{text}` is no port: write 443, 443/tcp, 53/udp, icmp or icmpv6");
        Failure::new(Code::Usage, message)
    };
    let (port, proto) = match text.split_once('/') {
        Some((port, proto)) if port.parse::<u16>().is_ok() => (port, proto),
        Some((proto, port)) => (port, proto),
        None if text.parse::<u16>().is_ok() => (text, "tcp"),
        None => ("0", text),
    };
    let Ok(PortMatch::Protocol { proto, .. }) = proto.parse() else { return Err(wrong()) };
    Ok((port.parse().map_err(|_| wrong())?, proto))
}

fn address(documents: &Documents, text: &str) -> Result<Addr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(ip.into());
    }
    let named = |w: &&Workload| w.name == text || w.spiffe_id.as_str() == text;
    let workload = documents.workloads.iter().find(named);
    workload.and_then(|w| w.addresses.first()).map(Prefix::addr).ok_or_else(|| {
        Failure::new(
            Code::Usage,
            format!("`{text}` is no address, and no workload has this name or SPIFFE ID"),
        )
    })
}

/// Where the source is, as a [`Moment`] says it; 0 where nobody says.
fn place(view: &View, args: &Question) -> Result<u32> {
    if args.interface.is_none() && args.vlan.is_none() {
        return Ok(0);
    }
    let mut number = 0;
    if let Some(name) = &args.interface {
        let (index, epoch) = (loader::netdev::index(name)?, view.maps.config.get()?.epoch);
        number = view.maps.interfaces.longest(&index, u32::BITS)?.map_or(0, |v| v.at(epoch).number);
    }
    Ok(scope::with(scope::segment(number, args.vlan.unwrap_or(0)), Side::A))
}

struct Asked {
    source: Addr,
    destination: Addr,
    proto: u8,
    port: u16,
    place: u32,
}

impl Asked {
    fn judge(&self, maps: &Maps) -> Result<Judgement> {
        let config = maps.config.get()?;
        let moment = Moment { segment: self.place, ..Moment::at(&config, loader::boot_ns()) };
        let rules = Fetched::new(maps, self, config, &moment)?;
        // Policy names a service's port; of ICMP, the type, which stands in the originator's place.
        let ends = Ends {
            orig: &self.source,
            resp: &self.destination,
            orig_port: self.port,
            resp_port: self.port,
            proto: self.proto,
            originator: Side::A,
        };
        let mut judged = decide(&rules, &moment, &ends);
        limits::timed(&rules, &moment, &mut judged);
        Ok(judged)
    }
}

impl Asked {
    /// What the documents say of what came closest.
    fn near_misses(&self, state: &State, documents: &Documents) -> Vec<NearMiss> {
        let now_ns = loader::boot_ns();
        let clock = Clock { wall_now: jiff::Timestamp::now(), boot_now_ns: now_ns };
        let compiled = compile(documents, &state.numbering, &clock);
        let Self { source: src, destination: dst, proto, port, place: _ } = *self;
        explain(documents, &compiled, Flow { src, dst, proto, port }, now_ns).near_misses
    }
}

/// What the maps answer for one question, so that the programs' own code can be asked.
struct Fetched {
    config: Config,
    bindings: [(Addr, Option<BindingVersions>); 2],
    scoped: Vec<(ScopedKey, BindingVersions)>,
    blocks: [(Addr, Option<BlockVersions>); 2],
    guards: Vec<(PolicyKey, BlockVersions)>,
    decision: Option<DecisionVersions>,
    /// The numbers of the limits of the rule that this names.
    rule: Option<RuleVersions>,
    failsafe: bool,
}

impl Fetched {
    fn new(maps: &Maps, asked: &Asked, config: Config, moment: &Moment) -> Result<Self> {
        let both = [asked.source, asked.destination];
        let service = scope::service(asked.proto, asked.port);
        let [from, to] = both.map(|addr| maps.bindings.longest(&addr, 128));
        let [block_from, block_to] = both.map(|addr| maps.blocklist.longest(&addr, 128));
        let mut fetched = Self {
            config,
            bindings: [(asked.source, from?), (asked.destination, to?)],
            scoped: Vec::new(),
            blocks: [(asked.source, block_from?), (asked.destination, block_to?)],
            guards: Vec::new(),
            decision: None,
            rule: None,
            failsafe: false,
        };
        for addr in both {
            for segment in scope::segments(asked.place) {
                let key = ScopedKey::new(segment, &addr, service);
                fetched.scoped.extend(maps.scoped.longest(&key, ScopedKey::FULL_BITS)?.map(|v| (key, v)));
            }
        }
        let ends = [(0, Side::A), (1, Side::B)].map(|(n, side)| {
            let (addr, versions) = &fetched.bindings[n];
            let wide = versions.map_or(Binding::NONE, |v| *v.at(config.epoch));
            let asks = u32::from(wide.on_expiry & Binding::ASKS) | scope::is_here(moment, side);
            fetched.narrowed(addr, moment, asks, service).map_or(wide, |v| *v.at(config.epoch))
        });
        let lists = fetched.blocks.iter().filter_map(|(_, v)| Some(v.as_ref()?.at(config.epoch).guards));
        let lists: Vec<u32> = ends.iter().map(|end| end.guards).chain(lists).collect();
        for list in lists.into_iter().filter(|list| *list != 0) {
            let peers = ends.map(|peer| GuardKey::quarantine(list, peer.class, asked.proto, asked.port));
            for key in peers.into_iter().chain([GuardKey::block(list, asked.proto, asked.port)]) {
                let found = maps.guards.longest(&key, PolicyKey::FULL_BITS)?;
                fetched.guards.extend(found.map(|versions| (key, versions)));
            }
        }
        let key = PolicyKey::new(ends[0].class, ends[1].class, asked.proto, asked.port);
        fetched.decision = maps.policy.longest(&key, PolicyKey::FULL_BITS)?;
        if let Some(decision) = &fetched.decision {
            fetched.rule = maps.rules.longest(&decision.at(config.epoch).rule, u32::BITS)?;
        }
        let failsafe = FailsafeKey::new(asked.destination, asked.proto, asked.port);
        fetched.failsafe = maps.failsafe.get(&failsafe)?.is_some();
        Ok(fetched)
    }
}

impl Rules for Fetched {
    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn coarse_ns(&self, _config: &Config) -> u64 {
        loader::boot_ns()
    }

    fn now_ns(&self, _config: &Config) -> u64 {
        loader::boot_ns()
    }

    fn binding(&self, addr: &Addr) -> Option<&BindingVersions> {
        self.bindings.iter().find(|(a, _)| a == addr)?.1.as_ref()
    }

    fn scoped(&self, segment: u32, addr: &Addr, service: u32) -> Option<&BindingVersions> {
        let key = ScopedKey::new(segment, addr, service);
        self.scoped.iter().find(|(k, _)| *k == key).map(|(_, versions)| versions)
    }

    fn block(&self, addr: &Addr) -> Option<&BlockVersions> {
        self.blocks.iter().find(|(a, _)| a == addr)?.1.as_ref()
    }

    fn guard(&self, key: &PolicyKey) -> Option<&BlockVersions> {
        self.guards.iter().find(|(k, _)| k == key).map(|(_, versions)| versions)
    }

    fn decision(&self, _key: &PolicyKey) -> Option<&DecisionVersions> {
        self.decision.as_ref()
    }

    fn interface(&self, _ifindex: u32) -> Option<&InterfaceVersions> {
        None // the question names none
    }

    fn rule(&self, _number: u32) -> Option<&RuleVersions> {
        self.rule.as_ref() // of the one that decides: when it ends; all else is for connections that run
    }

    fn limit(&self, _identity: u32) -> Option<&LimitVersions> {
        None // as above
    }

    fn is_failsafe(&self, addr: &Addr, _service: Service) -> bool {
        self.failsafe && *addr == self.bindings[1].0
    }
}
