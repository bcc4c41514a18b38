//! `tidegate policy diff`: files against what counts.

use super::flows;
use crate::cli::block_on;
use crate::client;
use crate::daemon::{CHANGED, DiffRequest, RecentFlow};
use crate::exit_code::{Failure, Result};
use crate::instance::Instance;
use crate::policy::changes::changes;
use crate::policy::read_files;
use crate::state::{PolicySet, State};
use crate::view::{Format, OutputArg, print_json, say};
use http_body_util::BodyExt;
use hyper::Method;
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
    let (flows, output) = (args.flows, args.output.output);
    let request = DiffRequest { files: read_files(&args.paths)?, only: false, flows, output };
    ask(instance, request).map(drop)
}

/// Says in what files differ, by this host's own state and maps, or by the daemon: for another host, and for users who cannot read
/// these. Returns how many flows would get another verdict, where that is asked.
pub fn ask(instance: &Instance, request: DiffRequest) -> Result<Option<u64>> {
    if instance.remote.is_some() || !rustix::process::geteuid().is_root() {
        return block_on(by_daemon(instance, &request));
    }
    let DiffRequest { files, only, flows, output } = request;
    let now = Timestamp::now();
    let set = if only { State::of(instance)?.set.with(&files, now)? } else { PolicySet::read(files, now)? };
    let recent = flows.then_some(|| flows::recent(instance));
    show(instance, set, recent, output)
}

async fn by_daemon(instance: &Instance, request: &DiffRequest) -> Result<Option<u64>> {
    let answer = client::send(instance, Method::POST, "/v1/policy/diff", request).await?;
    let changed = answer.headers().get(CHANGED).and_then(|value| value.to_str().ok());
    let changed = changed.and_then(|text| text.parse().ok());
    let body = answer.into_body().collect().await;
    let bytes = body.map_err(|e| Failure::failed("the daemon's answer", e))?.to_bytes();
    say(String::from_utf8_lossy(&bytes).trim_end())?;
    Ok(changed)
}

/// Prints in what files differ from what counts and, with the flows that were heard of lately, on which the verdict would be another;
/// returns on how many.
pub fn show(
    instance: &Instance,
    set: PolicySet,
    recent: Option<impl FnOnce() -> Result<Vec<RecentFlow>>>,
    format: Format,
) -> Result<Option<u64>> {
    let now = Timestamp::now();
    let state = State::load(&instance.state_file(), None)?;
    // Read at the same moment, `for: 1h` is no difference.
    let again = |set: &PolicySet| PolicySet::read(set.files.clone(), now).map(|again| again.documents);
    let before = match again(&state.set) {
        Ok(documents) if !state.set.files.is_empty() => documents,
        _ => state.documents().clone(),
    };
    let changes = changes(&before, &again(&set)?);
    let found = recent.map(|recent| flows::changed(instance, set, recent()?)).transpose()?;
    let changed = found.as_ref().map(|found| found.changed as u64);
    if format == Format::Json {
        let mut value = serde_json::json!({"revision": state.revision, "changes": changes});
        if let Some(found) = &found {
            value["flows"] = serde_json::json!(found);
        }
        print_json(&value)?;
        return Ok(changed);
    }
    if changes.is_empty() {
        say(&format!("no difference from revision {}", state.revision))?;
    }
    changes.iter().try_for_each(|change| say(&change.to_string()))?;
    if let Some(found) = &found {
        say("")?;
        flows::print(found)?;
    }
    Ok(changed)
}
