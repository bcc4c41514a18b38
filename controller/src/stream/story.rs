//! What happened to an identity, in its order: its events joined, with what repeats told once.

use super::{Weight, kind};
use crate::audit::{Kind, Record, told_about};
use crate::policy::spiffe::SpiffeId;
use crate::view::event::line;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

/// Whose story, and of when.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// A SPIFFE ID; what is none is a part of several.
    pub identity: String,
    /// From then on.
    pub since: Option<Timestamp>,
    /// Until then.
    pub until: Option<Timestamp>,
}

/// The events of a story: those that concern the identity, and what became of commits that do.
pub struct Chosen<'w> {
    wanted: &'w Wanted,
    revisions: HashSet<u64>,
}

impl Chosen<'_> {
    /// Whether the next event is one.
    pub fn takes(&mut self, event: &Value) -> bool {
        if let Some(revision) = revision(event, Kind::Outcome) {
            return self.revisions.contains(&revision);
        }
        let is_wanted = self.wanted.wants(event);
        self.revisions.extend(revision(event, Kind::Commit).filter(|_| is_wanted));
        is_wanted
    }
}

/// The revision that a record of this kind tells of.
fn revision(event: &Value, kind: Kind) -> Option<u64> {
    let record = event.get("record").filter(|record| record["kind"] == kind.name())?;
    record["what"]["revision"].as_u64()
}

impl Wanted {
    /// To choose its events by, in their order.
    pub fn chosen(&self) -> Chosen<'_> {
        Chosen { wanted: self, revisions: HashSet::new() }
    }

    /// Whether a line can be of one, before it is read.
    pub fn may_be(&self, line: &str) -> bool {
        line.contains(&self.identity) || line.contains("\"kind\":\"outcome\"")
    }

    /// Whether an event is a part of it.
    fn wants(&self, event: &Value) -> bool {
        self.is_in_time(event) && self.concerns(event)
    }

    /// Whether it is of that time.
    pub fn is_in_time(&self, event: &Value) -> bool {
        let time = event.get("time").and_then(|time| time.as_str()?.parse::<Timestamp>().ok());
        let early = self.since.is_some_and(|since| time.is_none_or(|time| time < since));
        let late = self.until.is_some_and(|until| time.is_none_or(|time| time > until));
        !early && !late
    }

    /// Whether it is about the identity.
    pub fn concerns(&self, event: &Value) -> bool {
        let one = ["/source/spiffe_id", "/destination/spiffe_id", "/approval/identity"]
            .map(|end| event.pointer(end));
        let lists = ["/finding/identities", "/record/about"].map(|list| event.pointer(list)?.as_array());
        let several = lists.into_iter().flatten().flatten();
        one.into_iter().flatten().chain(several).any(|id| id.as_str().is_some_and(|id| self.is(id)))
    }

    fn is(&self, id: &str) -> bool {
        match self.identity.parse::<SpiffeId>() {
            Ok(_) => id == self.identity,
            Err(_) => id.contains(&self.identity),
        }
    }
}

/// Something that happened, once or again and again.
struct Told {
    text: String,
    again: u64,
    last: String,
}

/// A story that is being put together.
#[derive(Default)]
pub struct Story {
    /// A part of the SPIFFE IDs that it is about.
    about: String,
    told: Vec<Told>,
    /// Where what can repeat is told.
    known: HashMap<String, usize>,
    /// Where commits are told, by their revisions.
    commits: HashMap<u64, (usize, Record)>,
}

impl Story {
    /// Of identities with this in their SPIFFE IDs.
    pub fn of(about: &str) -> Self {
        Self { about: about.to_owned(), ..Self::default() }
    }

    /// Takes the next event.
    pub fn add(&mut self, event: &Value) {
        if let Some(revision) = revision(event, Kind::Outcome) {
            return self.came_to(revision, &event["record"]["what"]);
        }
        let Some((key, text)) = tell(event, &self.about) else { return };
        if let Some(revision) = revision(event, Kind::Commit)
            && let Ok(record) = serde_json::from_value(event["record"].clone())
        {
            self.commits.insert(revision, (self.told.len(), record));
        }
        // A lease that is given or taken back begins another series.
        if key.is_none() && is_of_leases(event) {
            self.known.retain(|key, _| !key.starts_with(RENEWAL));
        }
        let last = time(event);
        if let Some(place) = key.as_ref().and_then(|key| self.known.get(key)) {
            let told = &mut self.told[*place];
            (told.again, told.last) = (told.again + 1, last);
            return;
        }
        self.known.extend(key.map(|key| (key, self.told.len())));
        self.told.push(Told { text, again: 0, last });
    }

    /// Tells what became of a commit in its own place.
    fn came_to(&mut self, revision: u64, outcome: &Value) {
        if let Some((place, record)) = self.commits.get(&revision) {
            let told = told_about(record, Some(outcome), &self.about);
            self.told[*place].text = format!("{:.0}  {told}", record.at);
        }
    }

    /// Its lines.
    pub fn lines(self) -> impl Iterator<Item = String> {
        self.told.into_iter().map(|Told { text, again, last }| match again {
            0 => text,
            1 => format!("{text} (again at {last})"),
            times => format!("{text} ({times} times more, the last at {last})"),
        })
    }
}

fn time(event: &Value) -> String {
    let time = event.get("time").and_then(|time| time.as_str()?.parse::<Timestamp>().ok());
    time.map_or_else(|| "-".into(), |time| format!("{time:.0}"))
}

/// What an event says, and by what it is known again; nothing of what says no more than others do.
fn tell(event: &Value, about: &str) -> Option<(Option<String>, String)> {
    let at = time(event);
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    if let Some(renewed) = renewal(event) {
        return Some((Some(format!("{RENEWAL}{renewed}")), format!("{at}  {renewed}")));
    }
    if Weight::of(event) == Weight::Decision {
        return Some((None, format!("{at}  {}", decided(event, about)?)));
    }
    let client = text("/source/spiffe_id").or(text("/IP/source")).unwrap_or("-");
    let server = text("/destination/spiffe_id").or(text("/IP/destination")).unwrap_or("-");
    let what = match kind(event) {
        "verdict" | "drop" => {
            let verdict = text("/verdict").unwrap_or("-");
            let by = text("/rule").map_or_else(
                || text("/drop_reason_desc").unwrap_or("-").into(),
                |rule| format!("rule {rule}"),
            );
            format!("{client} -> {server} {}: {verdict}, {by}", service(event))
        }
        "handshake" if text("/handshake/outcome") != Some("completed") => {
            let [kind, outcome] = ["/handshake/kind", "/handshake/outcome"].map(|p| text(p).unwrap_or("-"));
            let alert = text("/handshake/alert").map(|alert| format!(" ({alert})")).unwrap_or_default();
            format!("{client} -> {server} {}: {kind} handshake {outcome}{alert}", service(event))
        }
        "client_hello" => {
            let sni = text("/tls_sni").unwrap_or("no name");
            format!("{client} -> {server} {}: ClientHello for {sni}", service(event))
        }
        "process" => format!("{client} executes {}", text("/process/path").unwrap_or("-")),
        "socket" => {
            let by = text("/process/name").unwrap_or("-");
            format!("{client} connects to {server} {} by {by}", service(event))
        }
        "dns_query" => {
            let name = text("/l7/dns/query").unwrap_or("-");
            format!("{client} -> {server} {}: asks for {name}", service(event))
        }
        _ => return None,
    };
    Some((Some(what.clone()), format!("{at}  {what}")))
}

/// Before what renewals are known again by.
const RENEWAL: &str = "renewal ";

/// Whether an event tells that leases were given, renewed, refused or taken back.
fn is_of_leases(event: &Value) -> bool {
    kind(event) == "enrolment" || event.pointer("/record/kind").is_some_and(|kind| kind == "bind")
}

/// What is renewed, in words, where an event tells that leases were renewed and nothing else: who renews every few minutes for a month has
/// one line.
fn renewal(event: &Value) -> Option<String> {
    if !is_of_leases(event) {
        return None;
    }
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    if kind(event) == "enrolment" {
        let is_renewed = text("/enrolment/outcome") == Some("renewed");
        let (id, address) = (text("/source/spiffe_id")?, text("/IP/source")?);
        return is_renewed.then(|| format!("{id} ({address})  enrolment renewed"));
    }
    let claims = event.pointer("/record/what/claims")?.as_array()?;
    let same = |claim: &Value| {
        let of = |side: &str| Some(claim.get(side)?.get("spiffe_id")?.as_str()?.to_owned());
        let (before, after) = (of("before")?, of("after")?);
        (before == after).then(|| Some(format!("{} of {after}", claim["address"].as_str()?)))?
    };
    let renewed: Vec<String> = claims.iter().map(same).collect::<Option<_>>()?;
    let by = text("/record/by/how").unwrap_or("-");
    (!renewed.is_empty()).then(|| format!("the daemon ({by}): leases are renewed: {}", renewed.join(", ")))
}

/// `tcp/443`
fn service(event: &Value) -> String {
    let l4 = event.get("l4").and_then(|l4| l4.as_object()?.iter().next());
    let Some((name, fields)) = l4 else { return "-".into() };
    let name = name.to_ascii_lowercase();
    match fields.get("destination_port").and_then(Value::as_u64) {
        Some(port) => format!("{name}/{port}"),
        None => name,
    }
}

fn decided(event: &Value, about: &str) -> Option<String> {
    match event.get("record") {
        Some(record) => {
            let record = serde_json::from_value(record.clone()).ok()?;
            Some(told_about(&record, None, about))
        }
        // Its line has a time of its own before it.
        None => line(event).split_once("  ").map(|(_, rest)| rest.to_owned()),
    }
}
