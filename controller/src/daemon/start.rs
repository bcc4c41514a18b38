//! From nothing, or from what a daemon before left, to a gateway that enforces.

use super::api::Access;
use super::args::RunArgs;
use super::commit::Committed;
use super::govern::Governance;
use super::host::Host;
use super::inlet::{Inlet, Pace};
use super::leases::Leases;
use super::observe::Hub;
use super::settings::Settings;
use super::stream::Stream;
use super::{Shared, audit, compare, enroll, failsafe, feeds, forward, host, ingress, keep, watch};
use crate::audit::Key;
use crate::exit_code::Result;
use crate::governance::Approvals;
use crate::instance::Instance;
use crate::names::Names;
use crate::state::{PolicySet, Store};
use crate::svid::Live;
use loader::{Attached, Ingress, JudgedAt, Kernel, LoadOptions, Maps, Sizes, XdpModeChoice};
use std::path::Path;
use std::sync::{Arc, Mutex};

const TCP: u8 = 6;

/// What the command line asks for, read and found right.
pub(super) struct Asked {
    /// The files to apply; what was applied last without them.
    pub policy: Option<PolicySet>,
    /// Capacities of the maps.
    pub sizes: Sizes,
    /// Services that no policy cuts; those of last time without them.
    pub failsafe: Option<Vec<(u8, u16)>>,
    /// Who may use the API.
    pub access: Access,
}

/// Takes the maps over or makes them, commits, attaches. On failure all that is new is taken away again.
pub(super) fn start(
    instance: &Instance,
    args: &RunArgs,
    mut store: Store,
    asked: Asked,
    svid: Option<Live>,
) -> Result<(Arc<Shared>, Vec<Attached>)> {
    let pin_dir = instance.pin_dir();
    let before = store.in_force()?;
    let settings = Settings::load(&store)?.with(args, asked.failsafe);
    settings.mark.unwrap_or_default().check_forward(settings.forward)?;
    let interfaces = places(&pin_dir, args, &settings)?;
    let options =
        LoadOptions { pin_dir: Some(pin_dir.clone()), sizes: asked.sizes, ..LoadOptions::default() };
    let (inlet, outlet) = Inlet::new(Pace::new(args.compare_pace));
    let inlet = Arc::new(inlet);
    let (governance, baselines, writes) = Governance::open(
        &instance.findings_file(),
        &instance.observed_file(),
        inlet.clone(),
        args.containments_per_hour,
    )?;
    let approvals = Mutex::new(Approvals::open(&instance.approvals_file())?);
    let audit_key = Key::of(&instance.audit_key())?;
    let stream = Stream::open(instance, &args.deliver, &store)?;
    let (watching, host_events) = Host::start(&args.local_workload)?.unzip();
    let replaces = loader::replaces_maps(&pin_dir)?;
    let mut kernel = Kernel::load(&options)?;
    let reused = kernel.reused_maps();
    let mut attached = Vec::new();
    // Who has no identity yet is to get one.
    let enrolment = args.enrolment.enroll.map(|addr| (TCP, addr.port()));
    let failsafe: Vec<_> = settings.failsafe.iter().copied().chain(enrolment).collect();
    let work = || -> Result<(Maps, Leases, Committed)> {
        let cut = stream.told_of_what_was_cut();
        audit::record_start(&mut store, &audit_key, args, (&interfaces, &settings), (reused, cut))?;
        let maps = Maps::open(&pin_dir)?;
        let mut attach = || -> Result<()> {
            for (interface, place) in &interfaces {
                attached.push(kernel.attach(interface, *place, args.tc_mode.into())?);
            }
            Ok(())
        };
        // What runs already goes on by the old policy until all else has succeeded. What is new never runs without one.
        if reused {
            // An interface may be at TC from now on.
            settings.end_forward(&maps)?;
            settings.end_mark(&maps)?;
            attach()?;
        }
        let mut committed = Committed::recover(store, &maps)?;
        committed.mark = settings.mark.unwrap_or(committed.mark);
        committed.mark.check(&committed.state.numbering)?;
        settings.write_tunnels(&maps)?;
        committed.begin(&maps, asked.policy)?;
        failsafe::sync(&maps, &failsafe)?;
        settings.write_mode(&maps, reused)?;
        settings.write_forward(&maps)?;
        settings.write_mark(&maps)?;
        settings.save(&mut committed.store)?;
        maps.config.update(|config| config.event_limit = args.event_limit)?;
        if !reused {
            attach()?;
        }
        forward::warn(&maps)?;
        // Whoever tells of events waits for nobody who writes bindings.
        let bindings = Maps::open(&pin_dir)?.bindings;
        let leases = Leases::new(Arc::new(move |address| bindings.longest(address, 128).ok().flatten()));
        Ok((maps, leases, committed))
    };
    match work() {
        Ok((maps, leases, committed)) => {
            if loader::forget_replaced_maps(&pin_dir)? {
                tracing::info!("maps of an older version are replaced; connections are learnt anew");
            }
            let (pen, recorded, deliveries) = stream.begin();
            let hub = Arc::new(Hub::new(committed.names.clone(), leases, inlet, pen, recorded));
            hub.rename(Names::of(&committed.state));
            governance.declare(&committed.state.documents().intents);
            let enrolments = enroll::Counts::default();
            let (kernel, committed) = (Mutex::new(kernel), Mutex::new(committed));
            let (ingress, turn) = (settings.ingress, settings.turn);
            let (instance, labels, access) = (instance.clone(), Mutex::default(), asked.access);
            let reloads = watch::Reloads::default();
            let feeds = feeds::Feeds::default();
            let shared = Shared {
                instance,
                maps,
                kernel,
                committed,
                hub,
                failsafe,
                labels,
                access,
                svid,
                enrolments,
                reloads,
                feeds,
                ingress,
                turn,
                governance,
                approvals,
                host: watching,
                audit_key,
                deliveries,
                untidy: tokio::sync::Notify::new(),
            };
            if let Err(e) = shared.sign(true) {
                tracing::error!("{e}");
            }
            if let Some(host) = &shared.host {
                shared.with_state(|state| host.settle(state));
            }
            let shared = Arc::new(shared);
            let (for_loop, for_files) = (shared.clone(), shared.clone());
            std::thread::spawn(move || compare::run(&for_loop, &outlet, baselines));
            std::thread::spawn(move || keep::run(&for_files, &writes));
            if let Some(events) = host_events {
                let for_host = shared.clone();
                std::thread::spawn(move || host::read(&for_host, events));
            }
            Ok((shared, attached))
        }
        Err(e) => {
            let is_undone = if replaces {
                undo_replacing(&pin_dir, &attached)
            } else {
                undo(&pin_dir, reused, &attached);
                !reused
            };
            if is_undone {
                restore(&instance.state_file(), before);
            }
            audit::record_failed_start(&instance.state_file(), &e);
            Err(e)
        }
    }
}

/// The interfaces to attach to, and where what comes in by each is to be judged.
fn places(pin_dir: &Path, args: &RunArgs, settings: &Settings) -> Result<Vec<(String, Ingress)>> {
    let pinned = loader::pinned_ports(pin_dir)?;
    let mut interfaces = args.interface.clone();
    // Programs of an older version cannot stay anywhere: their maps are written by nobody any more.
    if interfaces.is_empty() || loader::replaces_maps(pin_dir)? {
        let there =
            pinned.iter().filter(|port| port.ifindex.is_some() && !interfaces.contains(&port.interface));
        let there: Vec<String> = there.map(|port| port.interface.clone()).collect();
        interfaces.extend(there);
    }
    let place = |interface: String| {
        let there = ingress::there(&pinned, &interface);
        let place = ingress::place(args.ingress, args.how, there, settings.ingress)?;
        let place = settings.turn.of_new(place, there);
        let place = ingress::beside_forwarding(&interface, place, settings.forward)?;
        let place = ingress::beside_marks(&interface, place, settings.mark)?;
        Ok((interface, place))
    };
    let places = interfaces.iter().cloned().map(place).collect();
    // Those that are not named stay where they are.
    for port in pinned.iter().filter(|port| port.ifindex.is_some() && !interfaces.contains(&port.interface)) {
        if let Some(JudgedAt::Xdp(_) | JudgedAt::Libxdp(_)) = port.ingress {
            ingress::beside_marks(&port.interface, XdpModeChoice::Auto.into(), settings.mark)?;
        }
    }
    places
}

/// Puts the saved state back: nothing of what it says came to be.
fn restore(path: &Path, before: Option<u64>) {
    let Some(before) = before else { return Store::remove(path) };
    let why = "the daemon could not start";
    if let Err(e) = Store::open(path).and_then(|mut store| store.go_back(before, why)) {
        tracing::error!("{e}");
    }
}

/// Takes back maps that were to replace those of an older version, unless some interface is judged by them: what is judged goes on to be,
/// everywhere, and the next start goes on with the others. Returns whether they are taken back.
fn undo_replacing(pin_dir: &Path, attached: &[Attached]) -> bool {
    if !attached.is_empty() {
        tracing::error!("some interfaces are judged by the older version still: start again");
        return false;
    }
    if let Err(e) = loader::put_replaced_maps_back(pin_dir) {
        tracing::error!("put the maps of the older version back: {e}");
    }
    true
}

pub(super) fn undo(pin_dir: &Path, reused: bool, attached: &[Attached]) {
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
