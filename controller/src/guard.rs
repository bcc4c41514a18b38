//! `tidegate block` and `tidegate quarantine`.

use crate::cli::{block_on, duration};
use crate::client;
use crate::daemon::{
    BlockRequest, CommittedRevision, QuarantineRequest, RateFields, ReleaseRequest, TargetFields,
};
use crate::exit_code::{Code, Failure, Result};
use crate::instance::Instance;
use crate::policy::Prefix;
use crate::policy::act::ActName;
use crate::policy::ports::{PortError, PortMatch};
use crate::policy::selector::Selector;
use crate::policy::spiffe::SpiffeId;
use crate::policy::target::Target;
use crate::state::State;
use crate::view::blocks::BlockListArgs;
use crate::view::{self, OutputArg, say};
use hyper::Method;
use jiff::{SignedDuration, Timestamp};

/// `tidegate block`.
#[derive(Debug, clap::Subcommand)]
pub enum BlockCommand {
    /// Block at once
    #[command(after_help = "\
Examples:
  tidegate block add 10.1.0.66/32 --for 10m --reason 'scans the shop'
  tidegate block add 203.0.113.0/24 --port tcp/23 --for 10m
  tidegate block add --identity spiffe://acme.example/ns/shop/sa/orders --port udp/53
  tidegate block add --port tcp/23")]
    Add {
        #[command(flatten)]
        what: What,
        /// For how long, such as 90s, 10m, 1h30m, 7d; for ever without it
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        for_: Option<SignedDuration>,
        /// Why, for those who look at the list
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// End a block that `block add` made
    Del(What),
    /// What is blocked
    #[command(after_help = "\
Examples:
  tidegate block list
  tidegate block list --of 192.0.2.7                 which entries, of feeds too, and where they stand
  tidegate block list --feed bad/drop -o json")]
    List(BlockListArgs),
}

/// What is blocked.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub struct What {
    /// Addresses
    #[arg(conflicts_with = "identity")]
    cidr: Option<Prefix>,
    /// A SPIFFE ID, a pattern of them, or the name of a workload
    #[arg(long, value_name = "WHO")]
    identity: Option<String>,
    /// Only these services, such as tcp/23, udp/5000-5010, icmp (may be repeated)
    #[arg(long = "port", value_name = "PROTO/PORT")]
    ports: Vec<PortMatch>,
}

impl What {
    fn target(self, instance: &Instance) -> Result<Target> {
        let selector = match (self.cidr, self.identity) {
            (Some(cidr), _) => Some(Selector::Cidr(cidr)),
            (None, Some(text)) => Some(identity(instance, &text)?),
            (None, None) => None,
        };
        Ok(Target { selector, ports: self.ports })
    }
}

/// `tidegate quarantine`.
#[derive(Debug, clap::Subcommand)]
pub enum QuarantineCommand {
    /// Cut an identity off at once, both ways, live connections too; or do less about it
    #[command(after_help = "\
Examples:
  tidegate quarantine add orders --for 2h --reason 'beacons to a C2'
  tidegate quarantine add spiffe://acme.example/ns/shop/sa/orders --except udp/53 --except 10.9.0.5/32,tcp/22
  tidegate quarantine add orders --act limit --rate connections=10/s --rate bytes=1MB/s --for 15m
  tidegate quarantine add orders --act cut-flows --for 1h")]
    Add {
        /// A SPIFFE ID, a pattern of them, or the name of a workload
        who: String,
        /// What to do, where it is not to be cut off
        #[arg(long, value_enum, default_value_t)]
        act: ActName,
        /// Of --act limit: how much passes (may be repeated)
        #[arg(long, value_name = "packets|bytes|connections=RATE")]
        rate: Vec<String>,
        /// What stays in reach: a peer (CIDR, SPIFFE ID, workload), services, or services of a peer (may be repeated)
        #[arg(long, value_name = "PEER|PROTO/PORT|PEER,PROTO/PORT")]
        except: Vec<String>,
        /// For how long, such as 90s, 10m, 1h30m, 7d; for ever without it
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        for_: Option<SignedDuration>,
        /// Why, for those who look at the list
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// End a quarantine that `quarantine add` made
    Del {
        /// As it was given to `quarantine add`
        who: String,
        /// Undo this alone
        #[arg(long, value_enum)]
        act: Option<ActName>,
    },
    /// Who is quarantined
    List(OutputArg),
}

/// Runs `tidegate block`.
pub fn block(instance: &Instance, command: BlockCommand) -> Result<()> {
    let (path, what, not_after, reason, done) = match command {
        BlockCommand::Add { what, for_, reason } => {
            ("/v1/block", what, for_.map(|d| Timestamp::now() + d), reason, "blocked")
        }
        BlockCommand::Del(what) => ("/v1/unblock", what, None, None, "no longer blocked"),
        BlockCommand::List(args) => return args.print(&State::of(instance)?),
    };
    let target = what.target(instance)?;
    let request = BlockRequest { target: target.clone().into(), not_after, reason };
    let committed: CommittedRevision = block_on(client::call(instance, Method::POST, path, &request))?;
    say(&format!("{target} is {done} (revision {})", committed.revision))
}

/// Runs `tidegate quarantine`.
pub fn quarantine(instance: &Instance, command: QuarantineCommand) -> Result<()> {
    match command {
        QuarantineCommand::Add { who, act, rate, except, for_, reason } => {
            let except = except.iter().map(|text| exception(instance, text).map(Into::into));
            let request = QuarantineRequest {
                who: identities(instance, &who)?,
                act,
                rate: rates(&rate)?,
                except: except.collect::<Result<_>>()?,
                reason,
                not_after: for_.map(|d| Timestamp::now() + d),
            };
            let call = client::call(instance, Method::POST, "/v1/quarantine", &request);
            let committed: CommittedRevision = block_on(call)?;
            say(&format!("{who} is {} (revision {})", act.done(), committed.revision))
        }
        QuarantineCommand::Del { who, act } => {
            let request = ReleaseRequest { who: identities(instance, &who)?, act };
            let call = client::call(instance, Method::POST, "/v1/unquarantine", &request);
            let committed: CommittedRevision = block_on(call)?;
            let what = act.unwrap_or_default().done();
            say(&format!("{who} is no longer {what} (revision {})", committed.revision))
        }
        QuarantineCommand::List(output) => view::lists::quarantines(&State::of(instance)?, output.output),
    }
}

/// `connections=10/s`
fn rates(texts: &[String]) -> Result<Option<RateFields>> {
    if texts.is_empty() {
        return Ok(None);
    }
    let mut fields = RateFields::default();
    for text in texts {
        let place = match text.split_once('=') {
            Some(("packets", rate)) => (&mut fields.packets, rate),
            Some(("bytes", rate)) => (&mut fields.bytes, rate),
            Some(("connections", rate)) => (&mut fields.connections, rate),
            _ => {
                let message = format!("--rate {text} names no packets, bytes or connections");
                return Err(Failure::new(Code::Usage, message).hint("for example --rate connections=10/s"));
            }
        };
        *place.0 = Some(place.1.to_owned());
    }
    Ok(Some(fields))
}

fn identities(instance: &Instance, text: &str) -> Result<TargetFields> {
    Ok(Target { selector: Some(identity(instance, text)?), ports: Vec::new() }.into())
}

/// A SPIFFE ID, a pattern, or a workload's SPIFFE ID by its name.
pub(crate) fn identity(instance: &Instance, text: &str) -> Result<Selector> {
    let wrong = |e: &dyn std::fmt::Display| Failure::new(Code::Usage, e.to_string());
    if text.starts_with("spiffe://") {
        return if text.contains('*') {
            text.parse().map(Selector::SpiffePath).map_err(|e| wrong(&e))
        } else {
            text.parse().map(Selector::SpiffeId).map_err(|e| wrong(&e))
        };
    }
    if instance.remote.is_some() {
        let message = format!("`{text}` is no SPIFFE ID: names of workloads are known on the gateway itself");
        return Err(Failure::new(Code::Usage, message));
    }
    let state = State::of(instance)?;
    let workload = state.documents().workloads.iter().find(|w| w.name == text);
    workload.map(|w| Selector::SpiffeId(w.spiffe_id.clone())).ok_or_else(|| {
        wrong(&format!("`{text}` is no SPIFFE ID, such as spiffe://acme.example/ns/shop/sa/orders, and no workload's name"))
    })
}

/// One identity, by its SPIFFE ID or by the name of its workload.
pub(crate) fn one(instance: &Instance, text: &str) -> Result<SpiffeId> {
    match identity(instance, text)? {
        Selector::SpiffeId(id) => Ok(id),
        other => Err(Failure::new(Code::Usage, format!("{other} is no single identity"))
            .hint("name one by its SPIFFE ID: `tidegate identity list` shows who there is")),
    }
}

/// `10.9.0.5/32`, `udp/53`, or both with a comma between them.
fn exception(instance: &Instance, text: &str) -> Result<Target> {
    let mut target = Target::default();
    for part in text.split(',') {
        if let Ok(ports) = part.parse::<PortMatch>() {
            target.ports.push(ports);
        } else if target.selector.is_some() {
            let message = format!("--except {text}: two peers; give each an --except of its own");
            return Err(Failure::new(Code::Usage, message));
        } else if let Ok(cidr) = part.parse::<Prefix>() {
            target.selector = Some(Selector::Cidr(cidr));
        } else {
            let peer = identity(instance, part).map_err(|e| {
                let message = format!(
                    "--except {text}: `{part}` is no peer and no service: {}; {}",
                    e.message,
                    PortError::ACCEPTED
                );
                Failure::new(Code::Usage, message)
            })?;
            target.selector = Some(peer);
        }
    }
    Ok(target)
}
