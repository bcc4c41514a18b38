//! `tidegate identity`.

use crate::bindings::{Claim, Slot, SourceName};
use crate::cli::{block_on, duration};
use crate::client;
use crate::daemon::{BindRequest, Bound, WithdrawRequest};
use crate::exit_code::{Code, Failure, Result};
use crate::guard::one;
use crate::instance::Instance;
use crate::policy::Prefix;
use crate::policy::document::{Lease, OnExpiry};
use crate::policy::ports::PortMatch;
use crate::policy::scope::Scope;
use crate::policy::spiffe::SpiffeId;
use crate::state::State;
use crate::view::standing::Standing;
use crate::view::{self, OutputArg, say};
use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// `tidegate identity`.
#[derive(Debug, clap::Subcommand)]
pub enum IdentityCommand {
    /// Workloads with SPIFFE IDs, addresses and leases, and who says so
    List(OutputArg),
    /// One identity: where it acts from, what it reached, whether that was expected, whether to trust it
    #[command(after_help = "\
Example:
  tidegate identity show spiffe://acme.example/ns/shop/sa/orders")]
    Show {
        /// Its SPIFFE ID, or the name of its workload
        identity: String,
        #[command(flatten)]
        output: OutputArg,
    },
    /// Bind an address to a SPIFFE ID at once, without a file; again to renew it
    #[command(after_help = "\
Example:
  tidegate identity bind 10.1.0.7 spiffe://acme.example/ns/shop/sa/orders --for 1h")]
    Bind {
        #[command(flatten)]
        at: At,
        /// Whose it is
        spiffe_id: SpiffeId,
        /// For how long, such as 90s, 10m, 1h30m, 7d; for ever without it
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        for_: Option<SignedDuration>,
        /// What the end of that means
        #[arg(long, value_enum, default_value_t, requires = "for_")]
        on_expiry: OnExpiry,
        /// With `--on-expiry grace`: for how long traffic goes on then, and is audited
        #[arg(long, value_name = "DURATION", value_parser = duration, required_if_eq("on_expiry", "grace"))]
        grace: Option<SignedDuration>,
        /// A label that selectors can ask for, such as app=orders (may be repeated)
        #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
        /// Why, for those who look at the list
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Take back what `identity bind` bound
    Unbind(At),
}

impl IdentityCommand {
    /// The form of the list, if that is it.
    pub fn shown_at(&self) -> Option<&OutputArg> {
        match self {
            Self::List(output) => Some(output),
            Self::Show { .. } | Self::Bind { .. } | Self::Unbind(_) => None,
        }
    }
}

/// What is bound.
#[derive(Debug, clap::Args)]
pub struct At {
    /// An address, or a prefix
    address: Prefix,
    /// Only what is on this interface
    #[arg(long, value_name = "IF")]
    interface: Option<String>,
    /// Only what has this VLAN ID
    #[arg(long, value_name = "ID")]
    vlan: Option<u16>,
    /// Only these of its own ports, such as tcp/30000-30999 (may be repeated)
    #[arg(long = "port", value_name = "PROTO/PORT")]
    ports: Vec<PortMatch>,
}

impl At {
    fn slot(self) -> Slot {
        let Self { address, interface, vlan, ports } = self;
        Slot { address, scope: Scope { interface, vlan, ports } }
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.into(), value.into())).ok_or_else(|| "write NAME=VALUE".into())
}

fn grace_seconds(on_expiry: OnExpiry, grace: Option<SignedDuration>) -> Result<u16> {
    let wrong = |text: &str| Failure::new(Code::Usage, format!("--grace: {text}"));
    match grace {
        None => Ok(0),
        Some(_) if on_expiry != OnExpiry::Grace => Err(wrong("it is for `--on-expiry grace`")),
        Some(grace) => u16::try_from(grace.as_secs()).map_err(|_| wrong("at most 18h")),
    }
}

/// Runs it.
pub fn run(instance: &Instance, command: IdentityCommand) -> Result<()> {
    let source = SourceName::manual();
    match command {
        IdentityCommand::List(output) => view::lists::identities(&State::of(instance)?, output.output),
        IdentityCommand::Show { identity, output } => {
            let path = format!("/v1/identity?id={}", one(instance, &identity)?);
            let standing: Standing = block_on(client::call(instance, Method::GET, &path, &()))?;
            view::standing::print(&standing, output.output)
        }
        IdentityCommand::Bind { at, spiffe_id, for_, on_expiry, grace, labels, reason } => {
            let Slot { address, scope } = at.slot();
            let grace_s = grace_seconds(on_expiry, grace)?;
            let lease = for_.map(|d| Lease { not_after: Timestamp::now() + d, on_expiry, grace_s });
            let evidence = BTreeMap::from_iter(reason.map(|reason| ("reason".to_owned(), reason)));
            let labels = labels.into_iter().collect();
            let claim = Claim { address, scope, spiffe_id, labels, lease, evidence };
            let said = format!("{} is bound to {}", claim.slot(), claim.spiffe_id);
            let request = BindRequest { source, claims: vec![claim] };
            let bound = block_on(client::call::<Bound>(instance, Method::POST, "/v1/bindings", &request))?;
            say(&said)?;
            bound.ambiguous.iter().try_for_each(|one| say(&one.to_string()))
        }
        IdentityCommand::Unbind(at) => {
            let slot = at.slot();
            let said = format!("{slot} is no longer bound by hand");
            let request = WithdrawRequest { source, bindings: Some(vec![slot]) };
            block_on(client::call::<Bound>(instance, Method::POST, "/v1/bindings/withdraw", &request))?;
            say(&said)
        }
    }
}
