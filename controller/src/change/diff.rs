//! `tidegate policy diff`: files against what counts.

use super::flows;
use crate::exit_code::Result;
use crate::instance::Instance;
use crate::policy::changes::changes;
use crate::policy::read_files;
use crate::policy::what_if::WhatIf;
use crate::state::{PolicySet, State};
use crate::view::{Format, OutputArg, print_json, say};
use jiff::Timestamp;
use std::path::PathBuf;

/// `tidegate policy diff`.
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// Files, or folders of *.yaml
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Also which flows would get another verdict: those in the tables, and those that the daemon has heard of lately
    #[arg(long)]
    flows: bool,
    #[command(flatten)]
    output: OutputArg,
}

/// Runs the command.
pub fn run(instance: &Instance, args: &DiffArgs) -> Result<()> {
    let set = PolicySet::read(read_files(&args.paths)?, Timestamp::now())?;
    show(instance, set, args.flows, args.output.output).map(drop)
}

/// Prints in what files differ from what counts and, if asked, what they would make of flows; returns that.
pub fn show(instance: &Instance, set: PolicySet, with_flows: bool, format: Format) -> Result<Option<WhatIf>> {
    let now = Timestamp::now();
    let state = State::load(&instance.state_file(), None)?;
    // Read at the same moment, `for: 1h` is no difference.
    let again = |set: &PolicySet| PolicySet::read(set.files.clone(), now).map(|again| again.documents);
    let before = match again(&state.set) {
        Ok(documents) if !state.set.files.is_empty() => documents,
        _ => state.documents().clone(),
    };
    let changes = changes(&before, &again(&set)?);
    let found = if with_flows { Some(flows::changed(instance, set)?) } else { None };
    if format == Format::Json {
        let mut value = serde_json::json!({"revision": state.revision, "changes": changes});
        if let Some(found) = &found {
            value["flows"] = serde_json::json!(found);
        }
        print_json(&value)?;
        return Ok(found);
    }
    if changes.is_empty() {
        say(&format!("no difference from revision {}", state.revision))?;
    }
    changes.iter().try_for_each(|change| say(&change.to_string()))?;
    if let Some(found) = &found {
        say("")?;
        flows::print(found)?;
    }
    Ok(found)
}
