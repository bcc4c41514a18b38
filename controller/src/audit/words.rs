//! Records in words: what somebody reads years later who has nothing but them.

use super::record::Record;
use crate::policy::time::duration_text;
use jiff::Timestamp;
use serde_json::Value;

/// What a commit changes.
pub fn changes(record: &Record) -> impl Iterator<Item = &Value> {
    record.what["changes"].as_array().into_iter().flatten()
}

/// `1 record`, `2 records`
pub fn counted(many: u64, what: &str) -> String {
    format!("{many} {what}{}", if many == 1 { "" } else { "s" })
}

/// A record in a few lines; of a commit with what became of it, where that is known.
pub fn told(record: &Record, outcome: Option<&Value>) -> String {
    told_about(record, outcome, "")
}

/// The same with what concerns an identity, by a part of its SPIFFE ID: of what else a commit changed, only how much that was.
pub fn told_about(record: &Record, outcome: Option<&Value>, about: &str) -> String {
    let Record { kind, by, what, .. } = record;
    let done = match kind.as_str() {
        "commit" => commit(record, outcome, about),
        "bind" => bind(what),
        "start" => start(what),
        "finding" if what["decision"].is_string() => decided(what),
        "finding" if what["state"].is_object() => state(what),
        "approval" if what["decision"].is_string() => approval(what),
        "brake" => match what["paused"].as_str() {
            Some(why) => format!("containment is paused, {why}"),
            None => "containment goes on".to_owned(),
        },
        kind => {
            let fields = what.as_object().into_iter().flatten();
            let fields: Vec<_> = fields.map(|(name, value)| format!("{name} {}", plain(value))).collect();
            format!("{kind} {}", fields.join(", "))
        }
    };
    format!("{} ({}): {done}", text(&by["who"]), text(&by["how"]))
}

fn commit(record: &Record, outcome: Option<&Value>, about: &str) -> String {
    let what = &record.what;
    let became = match outcome {
        Some(outcome) => {
            let why = outcome["why"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
            text(&outcome["outcome"]).replace('_', " ") + &why
        }
        None => "its outcome is in another record".into(),
    };
    let mut told = format!("revision {}, {became}", what["revision"]);
    if let Some(confirm) = what.get("confirm").filter(|c| c["revision"] == what["revision"]) {
        told.push_str(&format!(", to be confirmed by {}", text(&confirm["by"])));
    }
    let has = |change: &Value, field: &str| change[field].as_str().is_some_and(|text| text.contains(about));
    let is_its = |change: &&Value| ["name", "before", "after"].iter().any(|field| has(change, field));
    let others = changes(record).filter(|change| !is_its(change)).count() as u64;
    changes(record)
        .filter(is_its)
        .for_each(|change| told.push_str(&format!("{BELOW}{}", told_change(change))));
    match others + what["changes_left_out"].as_u64().unwrap_or_default() {
        0 => {}
        more => told.push_str(&format!("{BELOW}and {more} more")),
    }
    let files = what["files"].as_array().into_iter().flatten().filter(|_| about.is_empty());
    for file in files {
        let (name, digest) = (text(&file["name"]), text(&file["digest"]));
        told.push_str(&format!("{BELOW}file {name} sha256:{digest}"));
    }
    told
}

fn bind(what: &Value) -> String {
    let mut told = "addresses are bound".to_owned();
    for claim in what["claims"].as_array().into_iter().flatten() {
        let side = |side: &str| match &claim[side] {
            Value::Null => "nobody's".to_owned(),
            claim => {
                let until = claim["until"].as_str().map(|end| format!(" until {end}"));
                text(&claim["spiffe_id"]) + &until.unwrap_or_default()
            }
        };
        let (before, after) = (side("before"), side("after"));
        told.push_str(&format!("{BELOW}{}: {after} (was {before})", text(&claim["address"])));
    }
    if let Some(more) = what["claims_left_out"].as_u64() {
        told.push_str(&format!("{BELOW}and {more} more"));
    }
    told
}

fn start(what: &Value) -> String {
    let mut told = format!("the daemon starts, version {}", text(&what["version"]));
    for (name, value) in what["options"].as_object().into_iter().flatten() {
        told.push_str(&format!(", {name} {}", plain(value)));
    }
    if what["unclean"] == true {
        told.push_str("; the one before did not say that it ended");
    }
    if let Some(last) = what["told_of"].as_u64() {
        told.push_str(&format!("; records up to {last} had been told of, and were cut off"));
    }
    told
}

/// `finding 2: contain (quarantine, step 1) until ...`
fn decided(what: &Value) -> String {
    let mut told = format!("finding {}: {}", what["finding"], text(&what["decision"]));
    if let Some(act) = what["act"].as_str() {
        told.push_str(&format!(" ({act}, step {}) until {}", what["step"], second(&what["until"])));
    }
    if let Some(signal) = what["signal"].as_str() {
        told.push_str(&format!(" ({signal}, intent {})", text(&what["intent"])));
    }
    if let Some(held) = what["held_back"].as_str() {
        told.push_str(&format!("{BELOW}held back: {held}"));
    }
    told + &because(what)
}

/// `finding 1 is muted until ...`
fn state(what: &Value) -> String {
    let state = &what["state"];
    let until = if state["until"].is_string() {
        format!(" until {}", second(&state["until"]))
    } else {
        String::new()
    };
    let note = state["note"].as_str().map(|note| format!(": {note}")).unwrap_or_default();
    format!("finding {} is {}{until}{note}{}", what["finding"], text(&state["state"]), because(what))
}

/// `approval 1 is asked for: quarantine for 1h00m`
fn approval(what: &Value) -> String {
    let decision = match text(&what["decision"]).as_str() {
        "asked" => "is asked for".to_owned(),
        "lapsed" => format!("lapsed, and is {}", text(&what["it_is"])),
        said => format!("is {said}"),
    };
    let wanted = match &what["access"] {
        Value::Null => text(&what["act"]),
        access => format!("access to {} at {}", text(&access["to"]), plain(&access["ports"])),
    };
    let mut told = format!("approval {} {decision}: {wanted}", what["approval"]);
    if let Some(seconds) = what["seconds"].as_u64() {
        told.push_str(&format!(" for {}", duration_text(seconds)));
    }
    told.push_str(&format!(", asked for by {}", text(&what["asked_by"])));
    if let Some(finding) = what["finding"].as_u64() {
        told.push_str(&format!(" for finding {finding}"));
    }
    if let Some(note) = what["note"].as_str() {
        told.push_str(&format!("{BELOW}note: {note}"));
    }
    if let Some(over) = what["over"].as_str() {
        told.push_str(&format!("{BELOW}has to be approved: {over}"));
    }
    if let Some(radius) = what["radius"].as_object() {
        let number = |field: &str| radius.get(field).and_then(Value::as_u64).unwrap_or_default();
        let of = ["addresses", "peers", "connections"].map(|field| format!("{} {field}", number(field)));
        told.push_str(&format!("{BELOW}touches {}", of.join(", ")));
    }
    let agreed = what["agreed"].as_array().into_iter().flatten().map(|agreed| text(&agreed["by"]));
    let agreed: Vec<_> = agreed.collect();
    if !agreed.is_empty() {
        told.push_str(&format!("{BELOW}agreed: {}", agreed.join(", ")));
    }
    told + &because(what)
}

fn because(what: &Value) -> String {
    what["why"].as_str().map(|why| format!("{BELOW}why: {why}")).unwrap_or_default()
}

/// Before what stands below the first line.
const BELOW: &str = "\n        ";

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").to_owned()
}

/// A time without what is less than a second.
fn second(value: &Value) -> String {
    let time = value.as_str().and_then(|time| time.parse::<Timestamp>().ok());
    time.map_or_else(|| text(value), |time| format!("{time:.0}"))
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".into(),
        Value::Object(both) if both.len() == 2 && both.contains_key("before") => {
            format!("{} (was {})", plain(&both["after"]), plain(&both["before"]))
        }
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(" "),
        value => value.to_string(),
    }
}

fn told_change(change: &Value) -> String {
    let text = |field: &str| change[field].as_str().unwrap_or_default();
    let (what, name) = (text("what"), text("name"));
    match (change["before"].as_str(), change["after"].as_str()) {
        (Some(before), Some(after)) => format!("~ {what} {name}: {before}\n            now {after}"),
        (Some(before), None) => format!("- {what} {name}: {before}"),
        (None, after) => format!("+ {what} {name}: {}", after.unwrap_or_default()),
    }
}
