//! `tidegate policy history` and `policy show --revision`.

use crate::exit_code::{Code, Failure, Result};
use crate::instance::Instance;
use crate::state::{InKernel, Outcome, Revision, Store};
use crate::view::table::{self, or_dash};
use crate::view::{Format, print_json, say};
use loader::Maps;

fn open(instance: &Instance) -> Result<Store> {
    Store::read(&instance.state_file())?.ok_or_else(|| {
        let file = instance.state_file();
        Failure::new(Code::NoDaemon, format!("{} is not there: nothing was ever applied", file.display()))
    })
}

/// Prints the revisions, the latest first.
pub fn print(instance: &Instance, format: Format) -> Result<()> {
    let store = open(instance)?;
    // The maps may be gone, or not to be read by whoever asks: then the file alone is told of.
    let kernel = Maps::open(&instance.pin_dir()).and_then(|maps| maps.config.get());
    let history = match kernel {
        Ok(config) => store.history_by(&InKernel::of(&config))?,
        Err(_) => store.history()?,
    };
    if format == Format::Json {
        return print_json(&history);
    }
    let mut out = table::table(&[">REVISION", "WHEN", "WHO", "HOW", "FILES", "DIGEST", "OUTCOME"]);
    for revision in &history {
        out.add_row([
            revision.number.to_string(),
            format!("{:.0}", revision.at),
            revision.who().to_string(),
            revision.how.clone(),
            or_dash(Some(revision.files.join(" ").as_str()).filter(|names| !names.is_empty())),
            or_dash(revision.digest.get(..12)),
            outcome(revision),
        ]);
    }
    say(&table::text(&out))
}

fn outcome(revision: &Revision) -> String {
    match (revision.outcome, &revision.confirm_by) {
        (Outcome::Committed, Some(end)) if revision.in_force => {
            format!("counts, to be confirmed by {end:.0}")
        }
        (Outcome::Committed, _) if revision.in_force => "counts".into(),
        (outcome, _) => {
            let name = outcome.name().replace('_', " ");
            let why = revision.why.as_ref().map(|why| format!(": {why}"));
            name + &why.unwrap_or_default()
        }
    }
}

/// Prints the files of a revision, so that they can be applied again.
pub fn show(instance: &Instance, revision: u64, format: Format) -> Result<()> {
    let store = open(instance)?;
    let set = store.set_of(revision)?;
    if format == Format::Json {
        return print_json(&serde_json::json!({
            "revision": revision, "digest": set.digest, "files": set.files, "documents": set.documents,
        }));
    }
    if set.files.is_empty() {
        return say(&format!("# revision {revision} has no files; `-o json` shows what it says"));
    }
    for (n, file) in set.files.iter().enumerate() {
        let separator = if n == 0 { "" } else { "---\n" };
        say(&format!("{separator}# {}\n{}", file.name, file.text.trim_end()))?;
    }
    Ok(())
}
