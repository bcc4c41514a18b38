//! `tidegate audit show`: who did what when, and what became of it, from the record alone.

use super::record::Record;
use super::words::{changes, counted, told};
use super::{Kind, Summary};
use crate::exit_code::{Code, Failure, Result};
use crate::policy::changes::What;
use crate::policy::time::parse_duration;
use crate::state::Store;
use crate::view::{Format, OutputArg, print_json, say};
use clap::builder::PossibleValuesParser;
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
    #[arg(long, value_name = "KIND", value_parser = kinds())]
    kind: Vec<String>,
    #[command(flatten)]
    output: OutputArg,
}

/// Kinds of records, and of what commits change.
fn kinds() -> PossibleValuesParser {
    let changed = What::ALL.map(What::name).into_iter();
    PossibleValuesParser::new(Kind::ALL.map(Kind::name).into_iter().chain(changed))
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
    if shown.is_empty() && args.output.output == Format::Table {
        return say("no record is of that");
    }
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

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(from), Some(to)) = (self.from, self.to) {
            writeln!(f, "{} from {from:.0} to {to:.0}", counted(self.records, "record"))?;
        } else {
            writeln!(f, "no records")?;
        }
        writeln!(f, "head {} {}", self.head.seq, self.head.hash)?;
        let unsigned = self.head.seq.saturating_sub(self.signed_to + u64::from(self.checkpoints > 0));
        write!(
            f,
            "{}, the last signs record {}; {} came after it",
            counted(self.checkpoints, "checkpoint"),
            self.signed_to,
            counted(unsigned, "record")
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
