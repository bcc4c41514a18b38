//! `tidegate policy apply`: at once, for as long as somebody confirms it, or after a look at live traffic.

use super::diff;
use crate::cli::{block_on, duration};
use crate::client;
use crate::daemon::{Applied, ApplyRequest, DiffRequest, ShadowApplyRequest, ShadowRequest};
use crate::exit_code::{Code, Failure, Result};
use crate::instance::Instance;
use crate::policy::time::duration_text;
use crate::policy::{SourceFile, read_files};
use crate::state::digest;
use crate::view::{Format, OutputArg, print_json, say};
use hyper::Method;
use jiff::SignedDuration;
use std::num::NonZero;
use std::path::PathBuf;

/// `tidegate policy apply`.
#[derive(Debug, clap::Args)]
pub struct ApplyArgs {
    /// Files, or folders of *.yaml
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Take it back unless `tidegate policy confirm` comes in time, also when the daemon was killed meanwhile
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    confirm_within: Option<SignedDuration>,
    /// Change nothing: say what would differ, and which of the flows seen lately would get another verdict
    #[arg(long, conflicts_with_all = ["confirm_within", "shadow"])]
    dry_run: bool,
    /// First judge live traffic by it for so long, beside what counts, and say what would change
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    shadow: Option<SignedDuration>,
    /// With --shadow, --dry-run: fail, and apply nothing, if more judgements than this come to another verdict
    #[arg(long, value_name = "N")]
    max_changes: Option<u64>,
    /// All other files that count stay as they are: these take the places of those of their names, or are added
    #[arg(long)]
    only: bool,
    #[command(flatten)]
    output: OutputArg,
}

/// Runs the command.
pub fn run(instance: &Instance, args: &ApplyArgs) -> Result<()> {
    if args.max_changes.is_some() && args.shadow.is_none() && !args.dry_run {
        return Err(Failure::new(
            Code::Usage,
            "--max-changes goes with --shadow or --dry-run: they say what would change",
        ));
    }
    let files = read_files(&args.paths)?;
    if args.dry_run {
        let asked = DiffRequest { files, only: args.only, flows: true, output: args.output.output };
        return within(args.max_changes, diff::ask(instance, asked)?.unwrap_or_default());
    }
    // What is wrong in them the daemon says: it remembers what has not changed, and need not read that again.
    let confirm_within_s = args.confirm_within.map(seconds).transpose()?;
    let done: Applied = match args.shadow {
        Some(time) => {
            // Of files beside others, only the daemon knows the digest of all.
            let digest = (!args.only).then(|| digest(&files));
            judge_beside(instance, args, files, time)?;
            let request = ShadowApplyRequest { digest, confirm_within_s };
            block_on(client::call(instance, Method::POST, "/v1/shadow/apply", &request))?
        }
        None => {
            let request = ApplyRequest { files, confirm_within_s, only: args.only };
            block_on(client::call(instance, Method::POST, "/v1/policy", &request))?
        }
    };
    if args.output.output == Format::Json {
        return print_json(&done);
    }
    say(&done.to_string())?;
    match confirm_within_s {
        Some(s) => say(&format!(
            "it is taken back unless `tidegate policy confirm` comes within {}",
            duration_text(u64::from(s.get()))
        )),
        None => Ok(()),
    }
}

fn within(most: Option<u64>, changes: u64) -> Result<()> {
    match most {
        Some(most) if changes > most => {
            let message = format!(
                "{changes} would get another verdict, more than --max-changes {most}; nothing was applied"
            );
            Err(Failure::new(Code::Failure, message))
        }
        _ => Ok(()),
    }
}

fn seconds(duration: SignedDuration) -> Result<NonZero<u32>> {
    NonZero::<u32>::try_from(u32::try_from(duration.as_secs()).unwrap_or_default()).map_err(|_| {
        Failure::new(Code::Usage, "--confirm-within: a second at least, and no longer than anybody waits")
    })
}

/// What a candidate would change, as the daemon tells it.
#[derive(serde::Deserialize)]
struct Differences {
    changes: Vec<Difference>,
}

#[derive(serde::Deserialize)]
struct Difference {
    old_verdict: String,
    new_verdict: String,
    count: u64,
}

/// Has live traffic judged by the candidate for a while, and says what it would change. Fails where that is too much, or
/// where it is interrupted; then the candidate is dropped.
fn judge_beside(
    instance: &Instance,
    args: &ApplyArgs,
    files: Vec<SourceFile>,
    time: SignedDuration,
) -> Result<()> {
    let request = ShadowRequest { files, sample: NonZero::<u32>::MIN, only: args.only };
    block_on(client::call::<()>(instance, Method::POST, "/v1/shadow", &request))?;
    let is_table = args.output.output == Format::Table;
    if is_table {
        let text = duration_text(time.unsigned_abs().as_secs());
        say(&format!(
            "live traffic is judged by the candidate too, for {text}; Ctrl-C ends it, nothing applied"
        ))?;
    }
    let waited = block_on(async {
        tokio::select! {
            () = tokio::time::sleep(time.unsigned_abs()) => Ok(()),
            _ = tokio::signal::ctrl_c() => Err(Failure::new(Code::Failure, "interrupted; nothing was applied")),
        }
    });
    let looked = waited.and_then(|()| {
        if is_table {
            block_on(client::show(instance, "/v1/shadow", Format::Table))?;
        }
        let asked = client::call(instance, Method::GET, "/v1/shadow?output=json", &());
        let Differences { changes } = block_on(asked)?;
        let other = changes.iter().filter(|one| one.old_verdict != one.new_verdict);
        within(args.max_changes, other.map(|one| one.count).sum())
    });
    if looked.is_err() {
        let drop = client::send(instance, Method::POST, "/v1/shadow/drop", &());
        block_on(drop).inspect_err(|e| tracing::warn!("the candidate is still judged: {e}")).ok();
    }
    looked
}
