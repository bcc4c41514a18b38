//! `tidegate intent`.

use super::observed::Observed;
use super::propose::propose;
use crate::cli::{block_on, duration};
use crate::client;
use crate::exit_code::{Code, Failure, Result};
use crate::guard::one;
use crate::instance::Instance;
use crate::policy::spiffe::SpiffePattern;
use crate::view::say;
use hyper::Method;
use jiff::{SignedDuration, Timestamp};

/// `tidegate intent`.
#[derive(Debug, clap::Subcommand)]
pub enum IntentCommand {
    /// Propose an intent from what an identity was seen to do, as YAML for a person to read
    #[command(after_help = "\
Examples:
  tidegate intent learn spiffe://acme.example/ns/shop/sa/orders --over 24h > orders.yaml
  tidegate intent learn 'spiffe://acme.example/ns/batch/job/*' --over 7d
What is left out stands there as comments, with the reason. Nothing is applied.")]
    Learn {
        /// The SPIFFE ID, a pattern of them, which are one class, or the name of a workload
        identity: String,
        /// How far back, such as 90s, 10m, 1h30m, 7d
        #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "24h")]
        over: SignedDuration,
    },
}

/// Runs `tidegate intent`.
pub fn run(instance: &Instance, command: IntentCommand) -> Result<()> {
    let IntentCommand::Learn { identity, over } = command;
    // A pattern that has no wildcard is one identity.
    let identity = match identity.starts_with("spiffe://") {
        true => identity,
        false => one(instance, &identity)?.to_string(),
    };
    let identity: SpiffePattern =
        identity.parse().map_err(|e| Failure::new(Code::Usage, format!("{identity}: {e}")))?;
    let path = format!("/v1/observed?identity={}", identity.as_str());
    let observed: Observed = block_on(client::call(instance, Method::GET, &path, &()))?;
    if observed.pairs.is_empty() && observed.deeds.is_empty() {
        let message = format!("nothing was seen of {} since {:.0}", identity.as_str(), observed.since);
        return Err(Failure::new(Code::NotFound, message)
            .hint("`tidegate identity list` shows who there is; whoever talks through the gateway is seen"));
    }
    say(propose(&identity, &observed, over, Timestamp::now()).trim_end())
}
