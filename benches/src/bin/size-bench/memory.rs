//! What the maps hold, as the kernel counts it.

use crate::Sized;
use crate::grow::Grow;
use anyhow::{Context, Result};
use datapath::abi::MapName;
use std::path::Path;
use tidegate_benches::inside::read;
use tidegate_benches::report::{Fact, Report};

/// Bytes of all maps that are pinned in a folder, and of those of some names.
fn held(pins: &Path, names: &[&str]) -> Result<(f64, f64)> {
    let (mut all, mut some) = (0.0, 0.0);
    for entry in std::fs::read_dir(pins).with_context(|| format!("reading {}", pins.display()))? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with("TG_") {
            continue;
        }
        let path = entry.path();
        let text = read("bpftool", &["--json", "map", "show", "pinned", &path.to_string_lossy()])?;
        let map: serde_json::Value = serde_json::from_str(&text).context("what bpftool prints")?;
        let bytes = map["bytes_memlock"].as_f64().context("bpftool names no bytes_memlock")?;
        all += bytes;
        if names.iter().any(|name| entry.file_name() == *name) {
            some += bytes;
        }
    }
    Ok((all, some))
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
    let ((least_all, least_some), (most_all, most_some)) =
        (held(&least.pins, names)?, held(&most.pins, names)?);
    let mut fact = |name: String, value, unit| report.facts.push(Fact { name, value, unit });
    fact(format!("memory of all maps at {} {}", least.size, grow.name()), least_all / 1e6, "MB");
    fact(format!("memory of all maps at {} {}", most.size, grow.name()), most_all / 1e6, "MB");
    // Flow tables are made at their size; tries grow as they are filled.
    let more = match grow {
        Grow::Flows => {
            let (few, many) = (grow.tables(least.size), grow.tables(most.size));
            f64::from(many.connections - few.connections)
        }
        _ => f64::from(most.size - least.size),
    };
    fact(format!("memory of one more of {}", grow.name()), (most_some - least_some) / more, "bytes");
    Ok(())
}
