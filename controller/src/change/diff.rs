//! `tidegate policy diff`: files against what counts.

use super::PathsArg;
use crate::exit_code::Result;
use crate::instance::Instance;
use crate::policy::changes::changes;
use crate::policy::read_files;
use crate::state::{PolicySet, State};
use crate::view::{Format, print_json, say};
use jiff::Timestamp;

/// Prints in what they differ.
pub fn run(instance: &Instance, args: &PathsArg) -> Result<()> {
    let now = Timestamp::now();
    let state = State::load(&instance.state_file(), None)?;
    let set = PolicySet::read(read_files(&args.paths)?, now)?;
    // Read at the same moment, `for: 1h` is no difference.
    let before = match PolicySet::read(state.set.files.clone(), now) {
        Ok(again) if !state.set.files.is_empty() => again.documents,
        _ => state.documents().clone(),
    };
    let changes = changes(&before, &set.documents);
    if args.output.output == Format::Json {
        return print_json(&serde_json::json!({"revision": state.revision, "changes": changes}));
    }
    if changes.is_empty() {
        return say(&format!("no difference from revision {}", state.revision));
    }
    changes.iter().try_for_each(|change| say(&change.to_string()))
}
