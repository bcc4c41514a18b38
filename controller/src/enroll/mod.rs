//! `tidegate enroll`: a workload proves its SVID to gateways and keeps the lease on its address that it gets for it.

pub mod protocol;
mod talk;

use crate::cli::{block_on, duration};
use crate::exit_code::{Code, Failure, Result};
use crate::policy::spiffe::SpiffeId;
use crate::svid::tls::{Expected, client_config};
use crate::svid::{Live, SourceArgs};
use crate::view::say;
use jiff::{SignedDuration, Timestamp};
use protocol::{AskLease, Enrolled, Withdrawn};
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// After a failure, again; after the next one, later.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long `--once` waits for an SVID.
const FOR_AN_SVID: Duration = Duration::from_secs(30);

/// Arguments of `tidegate enroll`.
#[derive(Clone, Debug, clap::Args)]
pub struct EnrollArgs {
    /// Where a gateway serves enrolment (may be repeated: for IPv4 and IPv6, or several gateways)
    #[arg(long, required = true, value_name = "HOST:PORT")]
    gateway: Vec<String>,
    /// The gateway's SPIFFE ID [default: any of the own trust domain]
    #[arg(long, value_name = "SPIFFE-ID")]
    gateway_id: Option<SpiffeId>,
    /// Ask for a lease that is no longer than this, such as 10m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    lease: Option<SignedDuration>,
    /// Enrol and end; nobody renews the lease then
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    svid: SourceArgs,
}

/// Runs it, until SIGTERM or SIGINT, which give the address back.
pub fn run(args: &EnrollArgs) -> Result<()> {
    let source = args.svid.source()?.ok_or_else(|| {
        let message = "where is the SVID? Give --workload-api URI (or SPIFFE_ENDPOINT_SOCKET), or --svid-cert, \
            --svid-key and --trust-bundle";
        Failure::new(Code::Usage, message)
    })?;
    block_on(async {
        let live = source.start();
        let mut changes = live.changes();
        let io = |e: std::io::Error| Failure::io("listen to signals", &e);
        let mut end = End {
            term: signal(SignalKind::terminate()).map_err(io)?,
            int: signal(SignalKind::interrupt()).map_err(io)?,
        };
        tokio::select! {
            has_one = wait_for_svid(&live, &mut changes, args.once) => has_one?,
            () = end.asked() => return Ok(()),
        }
        let workload = Workload { args, config: config(args, &live)?, live };
        if args.once {
            return workload.enroll_everywhere().await.map(drop);
        }
        tokio::select! {
            never = workload.stay(changes) => never,
            () = end.asked() => workload.leave().await,
        }
    })
}

struct End {
    term: Signal,
    int: Signal,
}

impl End {
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

type Changes = watch::Receiver<Option<Arc<crate::svid::Material>>>;

async fn wait_for_svid(live: &Live, changes: &mut Changes, once: bool) -> Result<()> {
    let arrived = changes.wait_for(Option::is_some);
    let patience = if once { FOR_AN_SVID } else { Duration::MAX };
    match tokio::time::timeout(patience, arrived).await {
        Ok(_) => Ok(()),
        Err(_) => {
            let status = live.status();
            let why = status.error.unwrap_or_else(|| "no answer".to_owned());
            Err(Failure::new(Code::Failure, format!("no SVID from {}: {why}", status.source)))
        }
    }
}

fn config(args: &EnrollArgs, live: &Live) -> Result<Arc<ClientConfig>> {
    let own = live.status().spiffe_id;
    let expected = match (&args.gateway_id, own) {
        (Some(id), _) => Expected::Id(id.clone()),
        (None, Some(own)) => Expected::TrustDomain(
            own.trust_domain().parse().map_err(|e| Failure::failed("the own trust domain", e))?,
        ),
        (None, None) => return Err(Failure::new(Code::Failure, "there is no SVID")),
    };
    client_config(live, expected).map(Arc::new).map_err(|e| Failure::failed("TLS", e))
}

struct Workload<'a> {
    args: &'a EnrollArgs,
    config: Arc<ClientConfig>,
    live: Live,
}

impl Workload<'_> {
    /// Renews for ever: when two thirds of the shortest lease are over, when the SVID is another, and after failures.
    async fn stay(&self, mut changes: Changes) -> Result<()> {
        let mut failed = FIRST_WAIT;
        loop {
            changes.mark_unchanged();
            let wait = match self.enroll_everywhere().await {
                Ok(end) => {
                    failed = FIRST_WAIT;
                    let left = Duration::try_from(end.duration_since(Timestamp::now())).unwrap_or_default();
                    (left * 2 / 3).max(FIRST_WAIT)
                }
                Err(e) => {
                    tracing::error!("{e}");
                    let wait = failed;
                    failed = (failed * 2).min(LONGEST_WAIT);
                    wait
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = changes.changed() => {}
            }
        }
    }

    /// At all gateways, also after one refused. The first end of a lease.
    async fn enroll_everywhere(&self) -> Result<Timestamp> {
        let ask =
            AskLease { lease_seconds: self.args.lease.map(|lease| lease.as_secs().max(1).unsigned_abs()) };
        let mut first = Ok(Timestamp::MAX);
        for gateway in &self.args.gateway {
            match talk::ask::<Enrolled>(&self.config, gateway, protocol::ENROLL, &ask).await {
                Ok(enrolled) => {
                    let Enrolled { address, spiffe_id, not_after } = enrolled;
                    say(&format!("{address} is {spiffe_id} at {gateway} until {not_after}"))?;
                    first = first.map(|end| end.min(not_after));
                }
                Err(e) => first = first.and(Err(self.explained(gateway, e))),
            }
        }
        first
    }

    fn explained(&self, gateway: &str, failure: Failure) -> Failure {
        let status = self.live.status();
        let who = match (status.spiffe_id, status.not_after) {
            (Some(id), Some(end)) => format!(" (shown was {id} until {end})"),
            _ => String::new(),
        };
        Failure::new(failure.code, format!("{gateway}: {}{who}", failure.message))
    }

    /// Gives the address back everywhere.
    async fn leave(&self) -> Result<()> {
        let mut left = Ok(());
        for gateway in &self.args.gateway {
            match talk::ask::<Withdrawn>(&self.config, gateway, protocol::WITHDRAW, &()).await {
                Ok(Withdrawn { address }) => say(&format!("{address} is given back at {gateway}"))?,
                Err(e) => left = Err(self.explained(gateway, e)),
            }
        }
        left
    }
}
