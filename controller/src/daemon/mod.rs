//! `tidegate run`: loads, commits, attaches, serves. What it attached goes on when it ends.

mod api;
pub mod commit;
mod expire;
mod failsafe;
mod half_open;
pub mod inspect;
mod metrics;
mod observe;

pub use api::{
    AttachRequest, AttachedPort, BlockRequest, Committed as CommittedRevision, DetachRequest, ReleaseRequest,
    ShadowRequest, detach_each,
};

use crate::exit_code::{Code, Failure, Result};
use crate::instance::{Instance, need_root};
use crate::names::Names;
use crate::state::State;
use crate::view::flow::Moment;
use commit::Committed;
use datapath::abi::Config;
use loader::{Attached, Kernel, LoadOptions, Maps, Sizes, TcModeChoice, XdpModeChoice};
use observe::Hub;
use rustix::fs::{FlockOperation, flock};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Arguments of `tidegate run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Attach to this interface (may be repeated); without one, to those that are attached already
    #[arg(short, long, value_name = "IF")]
    pub interface: Vec<String>,
    /// Apply this file or folder (may be repeated); without one, what was applied last
    #[arg(short, long, value_name = "PATH")]
    pub policy: Vec<PathBuf>,
    /// Drop what is denied, or only say so [default: as before, at first enforce]
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
    /// Where the XDP program runs
    #[arg(long, value_enum, default_value_t)]
    pub xdp_mode: XdpModeArg,
    /// How the TC program is attached
    #[arg(long, value_enum, default_value_t)]
    pub tc_mode: TcModeArg,
    /// Serve Prometheus metrics here
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// A service of the gateway itself that no policy cuts, such as tcp/22 (may be repeated)
    #[arg(long, value_name = "PROTO/PORT")]
    pub failsafe: Vec<String>,
    /// Judge packets of these tunnels by what they carry, one level deep [default: as before, at first none]
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',')]
    pub inspect: Vec<inspect::Inspect>,
    /// Events a second, CPU, kind, reason and identity that are sent up; what is over is counted. 0: no limit
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub event_limit: u32,
    /// Capacity of a map, such as TG_CONNECTIONS=500000 (may be repeated); counts when the maps are made
    #[arg(long, value_name = "MAP=N")]
    pub map_size: Vec<String>,
}

/// Whether what is denied is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// It is dropped
    Enforce,
    /// It passes, with verdict AUDIT
    Monitor,
}

/// Where the XDP program runs.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum XdpModeArg {
    /// In the driver; in the network stack where the driver cannot
    #[default]
    Auto,
    /// In the driver or not at all
    Native,
    /// In the network stack
    Generic,
}

impl From<XdpModeArg> for XdpModeChoice {
    fn from(mode: XdpModeArg) -> Self {
        match mode {
            XdpModeArg::Auto => Self::Auto,
            XdpModeArg::Native => Self::Native,
            XdpModeArg::Generic => Self::Generic,
        }
    }
}

/// How the TC program is attached.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum TcModeArg {
    /// By a TCX link; as a filter of clsact where the kernel has none (before Linux 6.6)
    #[default]
    Auto,
    /// By a TCX link or not at all
    Tcx,
    /// As a filter of clsact, which tools before Linux 6.6 show too
    Clsact,
}

impl From<TcModeArg> for TcModeChoice {
    fn from(mode: TcModeArg) -> Self {
        match mode {
            TcModeArg::Auto => Self::Auto,
            TcModeArg::Tcx => Self::Tcx,
            TcModeArg::Clsact => Self::Clsact,
        }
    }
}

/// What the daemon's tasks share.
pub struct Shared {
    instance: Instance,
    maps: Maps,
    kernel: Mutex<Kernel>,
    committed: Mutex<Committed>,
    hub: Arc<Hub>,
    failsafe: Vec<(u8, u16)>,
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

    fn commit(&self, change: impl FnOnce(&mut State)) -> Result<u64> {
        let mut committed = lock(&self.committed);
        let revision = committed.commit(&self.maps, &self.instance.state_file(), change)?;
        self.hub.rename(Names::of(&committed.state));
        Ok(revision)
    }
}

impl Shared {
    fn shadow(&self, candidate: Option<crate::state::Shadow>) -> Result<()> {
        let mut committed = lock(&self.committed);
        let done = committed.shadow(&self.maps, &self.instance.state_file(), candidate);
        self.hub.rename(Names::of(&committed.state));
        done
    }

    /// Settings of interfaces follow their names: an interface that is made anew has another index.
    fn follow_interfaces(&self) -> Result<()> {
        if lock(&self.committed).interfaces_changed() {
            self.commit(|_| {})?;
        }
        Ok(())
    }
}

/// Runs until SIGTERM or SIGINT.
pub fn run(instance: &Instance, args: &RunArgs) -> Result<()> {
    need_root("loading programs into the kernel")?;
    let failsafe = args.failsafe.iter().map(|text| failsafe::parse(text)).collect::<Result<Vec<_>>>()?;
    let sizes = sizes(&args.map_size)?;
    let documents = commit::load_documents(&args.policy)?;
    for interface in &args.interface {
        loader::netdev::index(interface)?;
    }
    let _lock = take_lock(instance)?;
    let state = State::load(&instance.state_file())?;
    loader::bpffs::ensure(&instance.bpffs)?;
    let runtime = tokio::runtime::Runtime::new().map_err(|e| Failure::io("start the runtime", &e))?;
    let _runtime = runtime.enter();
    let metrics = args.metrics.map(bind_metrics).transpose()?;
    let socket = api::bind(&instance.socket())?;
    let (shared, attached) = match start(instance, args, state, documents, sizes, failsafe) {
        Ok(started) => started,
        Err(e) => {
            let _ = std::fs::remove_file(instance.socket());
            return Err(e);
        }
    };
    let result = runtime.block_on(serve(shared, socket, metrics, ready_line(instance, &attached)));
    let _ = std::fs::remove_file(instance.socket());
    result
}

/// Takes the maps over or makes them, commits, attaches. On failure all that is new is taken away again.
fn start(
    instance: &Instance,
    args: &RunArgs,
    state: State,
    documents: crate::policy::Documents,
    sizes: Sizes,
    failsafe: Vec<(u8, u16)>,
) -> Result<(Arc<Shared>, Vec<Attached>)> {
    let pin_dir = instance.pin_dir();
    let mut interfaces = args.interface.clone();
    if interfaces.is_empty() {
        let pinned = loader::pinned_ports(&pin_dir)?.into_iter();
        interfaces = pinned.filter(|port| port.ifindex.is_some()).map(|port| port.interface).collect();
    }
    let options = LoadOptions { pin_dir: Some(pin_dir.clone()), sizes, ..LoadOptions::default() };
    let mut kernel = Kernel::load(&options)?;
    let reused = kernel.reused_maps();
    let mut attached = Vec::new();
    let before = instance.state_file().exists().then(|| state.clone());
    let work = || -> Result<(Maps, Committed)> {
        let maps = Maps::open(&pin_dir)?;
        let mut attach = || -> Result<()> {
            for interface in &interfaces {
                attached.push(kernel.attach(interface, args.xdp_mode.into(), args.tc_mode.into())?);
            }
            Ok(())
        };
        // What runs already goes on by the old policy until all else has succeeded. What is new never runs without one.
        if reused {
            attach()?;
        }
        let mut committed = Committed::recover(state, &maps)?;
        inspect::set(&maps, &args.inspect)?;
        let from_files = !args.policy.is_empty();
        committed.commit(&maps, &instance.state_file(), |state| {
            if from_files {
                state.documents = documents;
                state.shadow = None;
            }
        })?;
        failsafe::sync(&maps, &failsafe)?;
        set_mode(&maps, args.mode, reused)?;
        maps.config.update(|config| config.event_limit = args.event_limit)?;
        if !reused {
            attach()?;
        }
        Ok((maps, committed))
    };
    match work() {
        Ok((maps, committed)) => {
            let hub = Arc::new(Hub::new(Names::of(&committed.state)));
            let (kernel, committed) = (Mutex::new(kernel), Mutex::new(committed));
            let shared = Shared { instance: instance.clone(), maps, kernel, committed, hub, failsafe };
            Ok((Arc::new(shared), attached))
        }
        Err(e) => {
            undo(&pin_dir, reused, &attached);
            if !reused {
                restore(&instance.state_file(), before.as_ref());
            }
            Err(e)
        }
    }
}

/// Puts the state file back: nothing of what it says came to be.
fn restore(path: &std::path::Path, before: Option<&State>) {
    match before {
        Some(state) => drop(state.save(path).map_err(|e| tracing::error!("{e}"))),
        None => drop(std::fs::remove_file(path)),
    }
}

fn undo(pin_dir: &std::path::Path, reused: bool, attached: &[Attached]) {
    let result = if reused {
        let new = attached.iter().filter(|a| !a.replaced);
        new.map(|a| loader::detach(pin_dir, &a.interface).map(drop)).find(|r| r.is_err()).unwrap_or(Ok(()))
    } else {
        loader::detach_all(pin_dir).map(drop)
    };
    if let Err(e) = result {
        tracing::error!("take back what was attached: {e}");
    }
}

fn set_mode(maps: &Maps, mode: Option<Mode>, reused: bool) -> Result<()> {
    let enforce = match mode {
        Some(mode) => mode == Mode::Enforce,
        None if reused => return Ok(()),
        None => true,
    };
    maps.config.update(|config| {
        config.flags &= !Config::ENFORCE;
        if enforce {
            config.flags |= Config::ENFORCE;
        }
    })?;
    Ok(())
}

fn sizes(texts: &[String]) -> Result<Sizes> {
    use datapath::abi::MapName;
    let mut sizes = Sizes::default();
    for text in texts {
        let parsed =
            text.split_once('=').and_then(|(map, n)| Some((map, n.parse::<u32>().ok().filter(|n| *n > 0)?)));
        let place = parsed.and_then(|(map, n)| {
            let place = match map {
                MapName::FLOW_SLOTS => &mut sizes.flow_slots,
                MapName::FLOW_SPILL => &mut sizes.flow_spill,
                MapName::CONNECTIONS => &mut sizes.connections,
                MapName::HALF_OPEN => &mut sizes.half_open,
                MapName::BINDINGS => &mut sizes.bindings,
                MapName::BLOCKLIST => &mut sizes.blocklist,
                MapName::GUARDS => &mut sizes.guards,
                MapName::POLICY => &mut sizes.policy,
                MapName::RULES => &mut sizes.rules,
                MapName::BUCKETS => &mut sizes.buckets,
                MapName::FAILSAFE => &mut sizes.failsafe,
                MapName::FRAGMENTS => &mut sizes.fragments,
                MapName::HANDSHAKES => &mut sizes.handshakes,
                MapName::EVENTS => &mut sizes.event_bytes,
                MapName::HELLOS => &mut sizes.hello_bytes,
                MapName::JUDGED_PORTS => &mut sizes.judged_ports,
                _ => return None,
            };
            Some((place, n))
        });
        let Some((place, n)) = place else {
            let maps: Vec<_> = MapName::ALL.into_iter().filter(|map| sizes.of(map).is_some()).collect();
            let message = format!("--map-size {text}: write MAP=N, where MAP is one of {}", maps.join(", "));
            return Err(Failure::new(Code::Usage, message));
        };
        *place = n;
    }
    Ok(sizes)
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

fn bind_metrics(addr: SocketAddr) -> Result<tokio::net::TcpListener> {
    let bind = || {
        let listener = std::net::TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    };
    bind().map_err(|e| Failure::io(format!("--metrics {addr}"), &e))
}

fn ready_line(instance: &Instance, attached: &[Attached]) -> String {
    let port = |a: &Attached| format!("{} ({} XDP, {})", a.interface, a.xdp.name(), a.tc.name());
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
    ready: String,
) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let io = |e: std::io::Error| Failure::io("listen to signals", &e);
    let (mut term, mut int) =
        (signal(SignalKind::terminate()).map_err(io)?, signal(SignalKind::interrupt()).map_err(io)?);
    let (events, hellos) = (shared.maps.events()?, shared.maps.hellos()?);
    let (hub, (reader_ended, reader)) = (shared.hub.clone(), tokio::sync::oneshot::channel());
    std::thread::spawn(move || reader_ended.send(observe::read(events, hellos, &hub)));
    tokio::spawn(every_second(shared.clone()));
    tokio::spawn(api::serve(socket, shared.clone()));
    if let Some(listener) = metrics {
        tokio::spawn(api::serve_metrics(listener, shared.clone()));
    }
    crate::view::say(&ready)?;
    tokio::select! {
        _ = term.recv() => Ok(()),
        _ = int.recv() => Ok(()),
        ended = reader => Err(match ended {
            Ok(e) => Failure::io("read the ring buffer", &e),
            Err(_) => Failure::new(Code::Failure, "the reader of the ring buffer ended"),
        }),
    }
}

/// A hello of which nothing came for so long is read as far as it goes.
const HELLO_PATIENCE: Duration = Duration::from_secs(2);

/// What time brings about: attempts without an answer, blocks that are over, new addresses, a machine that slept.
async fn every_second(shared: Arc<Shared>) {
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let expiry = Arc::new(Mutex::new(expire::Expiry::default()));
    for second in 0u64.. {
        interval.tick().await;
        let (shared, expiry) = (shared.clone(), expiry.clone());
        let work = move || -> Result<()> {
            lock(&shared.committed).settle(&shared.maps)?;
            half_open::sweep(&shared.maps, &shared.hub)?;
            lock(&expiry).sweep(&shared.maps, &shared.hub)?;
            half_open::time_out(&shared.maps, &shared.hub)?;
            let before_ns = loader::boot_ns().saturating_sub(HELLO_PATIENCE.as_nanos() as u64);
            shared.hub.give_up_hellos(before_ns, &Moment::now());
            if second % 10 == 9 {
                failsafe::sync(&shared.maps, &shared.failsafe)?;
                shared.follow_interfaces()?;
                lock(&shared.kernel).recalibrate()?;
            }
            Ok(())
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Err(e)) => tracing::warn!("{e}"),
            Err(e) => tracing::error!("{e}"),
            Ok(Ok(())) => {}
        }
    }
}
