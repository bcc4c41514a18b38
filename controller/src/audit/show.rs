//! The records for people: who did what when, and what became of it, from the record alone.

use super::record::Record;
use super::{Kind, Summary};
use crate::exit_code::{Code, Failure, Result};
use crate::policy::time::parse_duration;
use crate::state::Store;
use crate::view::{Format, OutputArg, print_json, say};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::HashMap;
use std::fmt;

/// `tidegate audit show`.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// From then on: a time (RFC 3339), or so long ago, such as 24h
    #[arg(long, value_name = "WHEN", value_parser = when)]
    since: Option<Timestamp>,
    /// Until then
    #[arg(long, value_name = "WHEN", value_parser = when)]
    until: Option<Timestamp>,
    /// Only what concerns identities with this in their SPIFFE ID
    #[arg(long, value_name = "TEXT")]
    identity: Option<String>,
    /// Only records of this kind, or commits that change this kind of thing, such as rule, block, quarantine (may be
    /// repeated)
    #[arg(long, value_name = "KIND")]
    kind: Vec<String>,
    #[command(flatten)]
    output: OutputArg,
}

/// A time, or how long ago.
pub fn when(text: &str) -> Result<Timestamp, String> {
    let ago = parse_duration(text).and_then(|ago| Timestamp::now().checked_sub(ago).ok());
    ago.or_else(|| text.parse().ok()).ok_or_else(|| "write 24h, or a time as 2026-11-01T12:00:00Z".into())
}

impl ShowArgs {
    fn wants(&self, record: &Record) -> bool {
        let in_time = self.since.is_none_or(|since| record.at >= since)
            && self.until.is_none_or(|until| record.at <= until);
        let about = self.identity.as_ref().is_none_or(|text| record.about.iter().any(|id| id.contains(text)));
        let is_kind =
            |kind: &String| record.kind == *kind || changes(record).any(|change| change["what"] == **kind);
        in_time && about && (self.kind.is_empty() || self.kind.iter().any(is_kind))
    }
}

/// Prints the records that are asked for.
pub fn run(store: &Store, args: &ShowArgs) -> Result<()> {
    let mut outcomes = HashMap::new();
    let mut shown = Vec::new();
    store.audit(0, |seq, text, _| {
        let record = Record::read(&text).map_err(|why| {
            let message = format!("record {seq}: {why}; `tidegate audit verify` says more");
            Failure::new(Code::Failure, message)
        })?;
        if record.kind == Kind::Outcome.name()
            && let Some(revision) = record.what["revision"].as_u64()
        {
            outcomes.insert(revision, record.what.clone());
        }
        let wants = args.wants(&record);
        // Of a commit, its outcome is told with it.
        let is_asked = |kind: Kind| args.kind.iter().any(|asked| asked == kind.name());
        let is_detail = record.kind == Kind::Checkpoint.name() || record.kind == Kind::Outcome.name();
        if wants && (!is_detail || is_asked(Kind::Checkpoint) || is_asked(Kind::Outcome)) {
            shown.push((record, text));
        }
        Ok(())
    })?;
    shown.iter().try_for_each(|(record, text)| {
        let outcome = record.what["revision"].as_u64().and_then(|revision| outcomes.get(&revision));
        match args.output.output {
            Format::Json => {
                let mut value: Value =
                    serde_json::from_str(text).map_err(|e| Failure::failed("a record", e))?;
                if let Some(outcome) = outcome.filter(|_| record.kind == Kind::Commit.name()) {
                    value["outcome"] = outcome.clone();
                }
                print_json(&value)
            }
            Format::Table => {
                let Record { seq, at, .. } = record;
                say(&format!("{seq:>6}  {at:.0}  {}", told(record, outcome)))
            }
        }
    })
}

fn changes(record: &Record) -> impl Iterator<Item = &Value> {
    record.what["changes"].as_array().into_iter().flatten()
}

/// A record in a few lines.
pub fn told(record: &Record, outcome: Option<&Value>) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let Record { kind, by, what, .. } = record;
    let mut told = format!("{} ({}): ", text(&by["who"]), text(&by["how"]));
    match kind.as_str() {
        "commit" => {
            let became = match outcome {
                Some(outcome) => {
                    let why = outcome["why"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
                    text(&outcome["outcome"]).replace('_', " ") + &why
                }
                None => "its outcome is in another record".into(),
            };
            told.push_str(&format!("revision {}, {became}", what["revision"]));
            if let Some(confirm) = what.get("confirm").filter(|c| c["revision"] == what["revision"]) {
                told.push_str(&format!(", to be confirmed by {}", text(&confirm["by"])));
            }
            changes(record).for_each(|change| told.push_str(&format!("\n        {}", told_change(change))));
            if let Some(more) = what["changes_left_out"].as_u64() {
                told.push_str(&format!("\n        and {more} more"));
            }
            for file in what["files"].as_array().into_iter().flatten() {
                let (name, digest) = (text(&file["name"]), text(&file["digest"]));
                told.push_str(&format!("\n        file {name} sha256:{digest}"));
            }
        }
        "bind" => {
            told.push_str("addresses are bound");
            for claim in what["claims"].as_array().into_iter().flatten() {
                let side = |side: &str| match &claim[side] {
                    Value::Null => "nobody's".to_owned(),
                    claim => {
                        let until = claim["until"].as_str().map(|end| format!(" until {end}"));
                        text(&claim["spiffe_id"]) + &until.unwrap_or_default()
                    }
                };
                let (before, after) = (side("before"), side("after"));
                told.push_str(&format!("\n        {}: {after} (was {before})", text(&claim["address"])));
            }
            if let Some(more) = what["claims_left_out"].as_u64() {
                told.push_str(&format!("\n        and {more} more"));
            }
        }
        "start" => {
            told.push_str(&format!("the daemon starts, version {}", text(&what["version"])));
            for (name, value) in what["options"].as_object().into_iter().flatten() {
                told.push_str(&format!(", {name} {}", plain(value)));
            }
            if what["unclean"] == true {
                told.push_str("; the one before did not say that it ended");
            }
            if let Some(last) = what["told_of"].as_u64() {
                told.push_str(&format!("; records up to {last} had been told of, and were cut off"));
            }
        }
        kind => {
            let fields = what.as_object().into_iter().flatten();
            let fields: Vec<_> = fields.map(|(name, value)| format!("{name} {}", plain(value))).collect();
            told.push_str(&format!("{kind} {}", fields.join(", ")));
        }
    }
    told
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

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(from), Some(to)) = (self.from, self.to) {
            writeln!(f, "{} records from {from:.0} to {to:.0}", self.records)?;
        } else {
            writeln!(f, "no records")?;
        }
        writeln!(f, "head {} {}", self.head.seq, self.head.hash)?;
        let unsigned = self.head.seq.saturating_sub(self.signed_to + u64::from(self.checkpoints > 0));
        write!(
            f,
            "{} checkpoints, the last signs record {}; {unsigned} records came after it",
            self.checkpoints, self.signed_to
        )?;
        for key in &self.keys {
            write!(f, "\nsigned by {key}")?;
        }
        for finding in &self.findings {
            write!(f, "\n! {}", finding.what)?;
        }
        match self.more_findings {
            0 => Ok(()),
            more => write!(f, "\n! and {more} more"),
        }
    }
}
