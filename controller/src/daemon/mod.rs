//! `tidegate run`: loads, commits, attaches, serves. What it attached goes on when it ends.

mod acts;
mod api;
mod approve;
mod args;
mod audit;
mod bind;
mod candidate;
pub mod commit;
mod compare;
mod confirm;
mod crash;
mod descriptors;
mod enroll;
mod entries;
mod expire;
mod failsafe;
mod feeds;
pub mod forward;
mod govern;
mod half_open;
mod host;
pub mod ingress;
mod inlet;
pub mod inspect;
mod keep;
mod leases;
pub mod mark;
mod metrics;
mod observe;
mod quiet;
mod radius;
mod rebind;
mod recent;
mod recover;
mod service_manager;
mod settings;
mod standing;
mod start;
mod stream;
mod tell;
mod tick;
mod tidy;
mod usual;
mod watch;
mod whereabouts;

pub use api::{
    Applied, ApplyRequest, AskRequest, AttachRequest, AttachedPort, BindRequest, BlockRequest, CHANGED,
    Committed as CommittedRevision, DecideRequest, DetachRequest, DiffRequest, GrantRequest,
    Granted as GrantedRevision, MuteRequest, PauseRequest, QuarantineRequest, RateFields, ReleaseRequest,
    ResolveRequest, RevokeRequest, RollbackRequest, RolledBack, ShadowApplyRequest, ShadowRequest,
    TargetFields, WithdrawRequest, detach_each, document as openapi,
};
pub use args::{Mode, RunArgs, TcModeArg, XdpModeArg};
pub use bind::Bound;
pub use govern::GovernanceStatus;
pub use recent::RecentFlow;

use crate::audit::Key;
use crate::bindings::SourceName;
use crate::exit_code::{Code, Failure, Result};
use crate::governance::Approvals;
use crate::instance::Instance;
use crate::names::Names;
use crate::policy::read_files;
use crate::privileges;
use crate::state::{Author, PolicySet, Reserve, Shadow, State, Store};
use crate::svid::{Live, Source};
use commit::{Committed, Renamed};
use loader::{Attached, Kernel, Maps};
use observe::Hub;
use rustix::fs::{FlockOperation, flock};
use start::{Asked, start};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What the daemon's tasks share.
pub struct Shared {
    instance: Instance,
    maps: Maps,
    kernel: Mutex<Kernel>,
    committed: Mutex<Committed>,
    hub: Arc<Hub>,
    failsafe: Vec<(u8, u16)>,
    labels: Mutex<metrics::Labels>,
    access: api::Access,
    /// Who the gateway is; nobody without a source.
    svid: Option<Live>,
    enrolments: enroll::Counts,
    reloads: watch::Reloads,
    feeds: feeds::Feeds,
    ingress: Option<ingress::IngressArg>,
    /// How an interface that is new there is shared with other XDP programs.
    turn: ingress::Turn,
    governance: govern::Governance,
    approvals: Mutex<Approvals>,
    /// What runs here; nothing where no workload is watched.
    host: Option<host::Host>,
    /// Signs the audit record.
    audit_key: Key,
    deliveries: stream::Deliveries,
    /// Told after each commit.
    untidy: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn with_state<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&lock(&self.committed).state)
    }

    fn names(&self) -> Names {
        self.with_state(Names::of)
    }

    fn commit(&self, by: &Author, change: impl FnOnce(&mut State)) -> Result<u64> {
        self.commit_locked(&mut lock(&self.committed), by, change)
    }

    fn commit_locked(
        &self,
        committed: &mut Committed,
        by: &Author,
        change: impl FnOnce(&mut State),
    ) -> Result<u64> {
        let before = Arc::as_ptr(&committed.state.set);
        let revision = committed.commit(&self.maps, by, change)?;
        match std::mem::take(&mut committed.renamed) {
            Renamed::Rules => self.hub.rebound(),
            Renamed::All => self.hub.rename(Names::of(&committed.state)),
        }
        // Somebody may expect less than before: of local workloads all is told again, and of connections all are compared.
        if before != Arc::as_ptr(&committed.state.set) {
            if let Some(host) = &self.host {
                host.settle(&committed.state);
                host.forget();
            }
            self.governance.inlet.usual.forget();
        }
        self.governance.declare(&committed.state.documents().intents);
        self.tell_of_records(committed);
        self.feeds.renamed.notify_one();
        self.untidy.notify_one();
        Ok(revision)
    }

    fn shadow(&self, candidate: Option<Shadow>) -> Result<()> {
        let mut committed = lock(&self.committed);
        let done = committed.shadow(&self.maps, candidate);
        self.hub.rename(Names::of(&committed.state));
        done
    }

    /// What `--identities` says; nothing without it.
    fn bind_files(self: &Arc<Self>, args: &RunArgs) -> Result<()> {
        if args.identities.is_empty() {
            return self.bind_only(&SourceName::files(), Vec::new()).map(drop);
        }
        self.follow_files(args.identities.clone())
    }

    /// Takes out of the policy what the kernel has ended, and has the record tell of it.
    fn let_grants_end(&self) -> Result<()> {
        let now = jiff::Timestamp::now();
        let over = self.with_state(|state| {
            let over = state.grants_in_force().into_iter().filter(|grant| grant.not_after <= now);
            over.map(|grant| grant.name.clone()).collect::<Vec<_>>()
        });
        if !over.is_empty() {
            self.commit(&Author::daemon(format!("over: grant {}", over.join(", "))), |_| {})?;
        }
        Ok(())
    }

    /// Ends of leases, blocks, quarantines and grants follow the wall clock: it may be set, also by hours.
    fn follow_clock(&self) -> Result<()> {
        if lock(&self.committed).is_clock_set() {
            let revision = self.commit(&Author::daemon("the wall clock was set"), |_| {})?;
            tracing::warn!("the wall clock was set: by revision {revision} all ends follow it");
        }
        Ok(())
    }

    /// Settings of interfaces follow their names: an interface that is made anew has another index.
    fn follow_interfaces(&self) -> Result<()> {
        if lock(&self.committed).interfaces_changed() {
            self.commit(&Author::daemon("interfaces came or went"), |_| {})?;
        }
        Ok(())
    }
}

/// Runs until SIGTERM or SIGINT.
pub fn run(instance: &Instance, args: &RunArgs) -> Result<()> {
    privileges::need("loading programs into the kernel")?;
    descriptors::raise();
    let asked = asked(args)?;
    let svid = args.svid.source()?;
    let enrolment = args.enrolment.rules(svid.is_some())?;
    if args.listen.is_some() && svid.is_none() {
        let message = "--listen needs an SVID: --workload-api, or --svid-cert, --svid-key and --trust-bundle";
        return Err(Failure::new(Code::Usage, message));
    }
    for interface in &args.interface {
        loader::netdev::index(interface)?;
    }
    forward::check(args.forward)?;
    let _lock = take_lock(instance)?;
    let reserve = Reserve::of(&instance.state_file());
    reserve.give_to_start();
    let store = Store::open(&instance.state_file())?;
    if let Err(e) = reserve.fill() {
        tracing::warn!("nothing can be kept back for a full disk: {e}");
    }
    loader::bpffs::ensure(&instance.bpffs)?;
    let runtime = tokio::runtime::Runtime::new().map_err(|e| Failure::io("start the runtime", &e))?;
    let _runtime = runtime.enter();
    let svid = svid.map(Source::start);
    let enrolment = match enrolment {
        Some((addr, rules)) => Some((enroll::bind(addr)?, rules)),
        None => None,
    };
    let metrics = args.metrics.map(|addr| bind_tcp("--metrics", addr)).transpose()?;
    let listen = args.listen.map(|addr| bind_tcp("--listen", addr)).transpose()?;
    let socket = api::bind(&instance.socket())?;
    let started = start(instance, args, store, asked, svid).and_then(|(shared, attached)| {
        shared.bind_files(args)?;
        Ok((shared, attached))
    });
    let (shared, attached) = match started {
        Ok(started) => started,
        Err(e) => {
            let _ = std::fs::remove_file(instance.socket());
            return Err(e);
        }
    };
    if let Some((listener, rules)) = enrolment {
        runtime.spawn(enroll::serve(listener, rules, shared.clone()));
    }
    let result =
        runtime.block_on(serve(shared.clone(), socket, metrics, listen, ready_line(instance, &attached)));
    shared.record_findings();
    shared.governance.flush();
    shared.governance.keep();
    shared.record_stop(result.as_ref().err());
    shared.hub.telling.finish();
    shared.hub.pen.finish();
    let _ = std::fs::remove_file(instance.socket());
    result
}

/// Everything that can be wrong with the command line is found before anything is touched.
fn asked(args: &RunArgs) -> Result<Asked> {
    let failsafe = failsafe::parse_all(&args.failsafe)?;
    let sizes = args::sizes(&args.map_size)?;
    let access = api::Access::open(args.api_roles.as_deref())?;
    let set = match &args.policy[..] {
        [] => None,
        paths => Some(PolicySet::read(read_files(paths)?, jiff::Timestamp::now())?),
    };
    if !args.identities.is_empty() {
        watch::read(&args.identities)?;
    }
    Ok(Asked { policy: set, sizes, failsafe: (!args.failsafe.is_empty()).then_some(failsafe), access })
}

fn take_lock(instance: &Instance) -> Result<std::fs::File> {
    let path = instance.lock();
    let io = |e: &std::io::Error| Failure::io(format!("open {}", path.display()), e);
    std::fs::create_dir_all(&instance.run_dir).map_err(|e| io(&e))?;
    let options = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = options.map_err(|e| io(&e))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        let message = format!(
            "a daemon named {} runs already (it holds {}): stop it, or use another --name",
            instance.name,
            path.display()
        );
        Failure::new(Code::AlreadyRunning, message)
    })?;
    Ok(file)
}

fn bind_tcp(option: &str, addr: SocketAddr) -> Result<tokio::net::TcpListener> {
    let bind = || {
        let listener = std::net::TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    };
    bind().map_err(|e| Failure::io(format!("{option} {addr}"), &e))
}

fn ready_line(instance: &Instance, attached: &[Attached]) -> String {
    let port = |a: &Attached| format!("{} ({}, egress {})", a.interface, a.ingress, a.tc.name());
    let ports: Vec<_> = attached.iter().map(port).collect();
    let on = if ports.is_empty() { "no interface yet".to_owned() } else { ports.join(", ") };
    for a in attached {
        if let Some(why) = &a.native_refused {
            tracing::warn!("{} runs in generic mode, the driver refused: {why}", a.interface);
        }
    }
    format!("ready {}: {on}", instance.name)
}

async fn serve(
    shared: Arc<Shared>,
    socket: api::ControlSocket,
    metrics: Option<tokio::net::TcpListener>,
    listen: Option<tokio::net::TcpListener>,
    ready: String,
) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let io = |e: std::io::Error| Failure::io("listen to signals", &e);
    let (mut term, mut int) =
        (signal(SignalKind::terminate()).map_err(io)?, signal(SignalKind::interrupt()).map_err(io)?);
    let (events, hellos) = (shared.maps.events()?, shared.maps.hellos()?);
    let (hub, (reader_ended, reader)) = (shared.hub.clone(), tokio::sync::oneshot::channel());
    let teller = hub.clone();
    std::thread::spawn(move || teller.tell_all());
    std::thread::spawn(move || reader_ended.send(observe::read(events, hellos, &hub)));
    tokio::spawn(tick::every_second(shared.clone()));
    tokio::spawn(feeds::follow(shared.clone()));
    tokio::spawn(tidy::behind_commits(shared.clone()));
    socket.open_to(shared.access.has_users());
    let router = api::router(shared.clone());
    if let (Some(listener), Some(live)) = (listen, shared.svid.clone()) {
        tokio::spawn(api::listen(listener, live, router.clone()));
    }
    tokio::spawn(socket.serve(router, shared.clone()));
    if let Some(listener) = metrics {
        tokio::spawn(api::serve_metrics(listener, shared.clone()));
    }
    crate::view::say(&ready)?;
    service_manager::ready(&ready);
    let ended = tokio::select! {
        _ = term.recv() => Ok(()),
        _ = int.recv() => Ok(()),
        ended = reader => Err(match ended {
            Ok(e) => Failure::io("read the ring buffer", &e),
            Err(_) => Failure::new(Code::Failure, "the reader of the ring buffer ended"),
        }),
    };
    service_manager::stopping();
    ended
}
