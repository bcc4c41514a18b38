//! `tidegate policy shadow status`: what a candidate would change.

use super::{Format, View, print_json, say, table};
use crate::exit_code::Result;
use crate::names::Names;
use datapath::abi::ShadowKey;
use loader::Maps;
use serde_json::json;

/// What two epochs said of the flows of the sample.
#[derive(Debug, Default)]
pub struct Counted {
    /// Judgements on which both agree.
    pub same: u64,
    /// The others: those that change a verdict first, then by count.
    pub changes: Vec<(ShadowKey, u64)>,
}

/// Reads the map.
pub fn counted(maps: &Maps) -> Result<Counted> {
    let mut counted = Counted::default();
    for (key, cpus) in maps.shadow.entries()? {
        let n: u64 = cpus.iter().sum();
        if key == ShadowKey::SAME {
            counted.same = n;
        } else {
            counted.changes.push((key, n));
        }
    }
    counted.changes.sort_by_key(|(key, n)| (key.old_action == key.new_action, std::cmp::Reverse(*n), *key));
    Ok(counted)
}

/// The name of a rule, `-` for none.
pub fn rule(names: &Names, number: u32) -> &str {
    names.rule(number).unwrap_or("-")
}

/// Prints it.
pub fn print(view: &View, format: Format) -> Result<()> {
    let shadow = view.state.shadow.as_ref();
    let counted = counted(&view.maps)?;
    if format == Format::Json {
        let row = |(key, n): &(ShadowKey, u64)| {
            let [(old, old_reason), (new, new_reason)] = key.verdicts();
            json!({
                "old_rule": view.names.rule(key.old_rule), "new_rule": view.names.rule(key.new_rule),
                "old_verdict": old.name(), "old_reason": old_reason.name(),
                "new_verdict": new.name(), "new_reason": new_reason.name(), "count": n,
            })
        };
        return print_json(&json!({
            "pending": shadow.is_some(), "sample": shadow.map(|s| s.sample), "since": shadow.map(|s| s.since),
            "same": counted.same, "changes": counted.changes.iter().map(row).collect::<Vec<_>>(),
        }));
    }
    let changed: u64 = counted.changes.iter().map(|(_, n)| n).sum();
    match shadow {
        Some(s) => say(&format!("a candidate judges 1 of {} flows since {:.0}", s.sample, s.since))?,
        None => say("no candidate is judged; what the last one would have changed:")?,
    }
    say(&format!("judged alike {}, otherwise {changed}", counted.same))?;
    if counted.changes.is_empty() {
        return Ok(());
    }
    let mut out = table::table(&[">COUNT", "NOW", "BY", "THEN", "BY"]);
    for (key, n) in &counted.changes {
        let [(old, old_reason), (new, new_reason)] = key.verdicts();
        out.add_row([
            n.to_string(),
            format!("{} {}", old.name(), old_reason.name()),
            rule(&view.names, key.old_rule).to_owned(),
            format!("{} {}", new.name(), new_reason.name()),
            rule(&view.names, key.new_rule).to_owned(),
        ]);
    }
    say(&format!("\n{}", table::text(&out)))
}
