//! What the maps hold, as the kernel counts it.

use crate::Sized;
use crate::grow::Grow;
use anyhow::{Context, Result};
use datapath::abi::MapName;
use std::collections::BTreeMap;
use std::path::Path;
use tidegate_benches::inside::read;
use tidegate_benches::report::{Fact, Report};

/// Bytes by map, of those that are pinned in a folder.
fn held(pins: &Path) -> Result<BTreeMap<String, f64>> {
    let mut held = BTreeMap::new();
    for entry in std::fs::read_dir(pins).with_context(|| format!("reading {}", pins.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("TG_") {
            continue;
        }
        let text = read("bpftool", &["--json", "map", "show", "pinned", &entry.path().to_string_lossy()])?;
        let map: serde_json::Value = serde_json::from_str(&text).context("what bpftool prints")?;
        held.insert(name, map["bytes_memlock"].as_f64().context("bpftool names no bytes_memlock")?);
    }
    Ok(held)
}

/// What is held at the greatest size, and what one more costs.
pub fn add(report: &mut Report, grow: Grow, sized: &[Sized]) -> Result<()> {
    let names: &[&str] = match grow {
        Grow::Flows => &[MapName::FLOW_SLOTS, MapName::CONNECTIONS],
        Grow::Rules => &[MapName::POLICY],
        Grow::Identities => &[MapName::BINDINGS],
        Grow::Prefixes => &[MapName::BLOCKLIST],
    };
    let (Some(least), Some(most)) = (sized.first(), sized.last()) else { return Ok(()) };
    let (few, many) = (held(&least.pins)?, held(&most.pins)?);
    let all = |held: &BTreeMap<String, f64>| held.values().sum::<f64>() / 1e6;
    let of = |held: &BTreeMap<String, f64>| names.iter().filter_map(|name| held.get(*name)).sum::<f64>();
    let mut fact = |name: String, value, unit| report.facts.push(Fact::of(name, value, unit));
    if grow == Grow::Flows {
        // The least size has the tables of a gateway that nobody has told otherwise.
        fact("all maps as a gateway makes them, empty".into(), all(&few), "MB");
        for (name, bytes) in few.iter().filter(|(_, bytes)| **bytes > 1e6) {
            fact(format!("of it {name}"), bytes / 1e6, "MB");
        }
    }
    fact(format!("all maps, with {} {}", most.size, grow.name()), all(&many), "MB");
    // Flow tables are made at their size, two slots a flow; tries grow as they are filled.
    let more = match grow {
        Grow::Flows => {
            f64::from(grow.tables(most.size).flow_slots - grow.tables(least.size).flow_slots) / 2.0
        }
        _ => f64::from(most.size - least.size),
    };
    fact(format!("one more of {}", grow.name()), (of(&many) - of(&few)) / more, "bytes");
    Ok(())
}
