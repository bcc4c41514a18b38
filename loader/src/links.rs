//! Pinned links: what keeps programs attached when nobody runs.

use crate::attach::{JudgedAt, TcMode, XdpMode};
use crate::clock::boot_ns;
use crate::error::{Error, Result, os_error};
use crate::hooks::{EGRESS, INGRESS};
use crate::maps::Maps;
use crate::{aside, gate, netdev, ports};
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::{SchedClassifier, TcAttachType};
use std::path::{Path, PathBuf};
use std::time::Duration;

const XDP: &str = "-xdp";
const TCX: &str = "-tc";
/// An empty folder: a filter of clsact is no object that could be pinned.
const CLSACT: &str = "-clsact";
/// The same for what enters.
const TCX_IN: &str = "-tc-in";
const CLSACT_IN: &str = "-clsact-in";
/// An empty folder too: a gate is pinned by libxdp.
const GATE: &str = "-gate";

/// The pins of one interface. bpffs allows no dots in names, interfaces do (`eth0.100`).
#[derive(Debug)]
pub(crate) struct Pins {
    pub xdp: PathBuf,
    pub egress: TcPins,
    pub ingress: TcPins,
    pub gate: PathBuf,
}

/// Those of one hook of TC; at most one of them is there.
#[derive(Debug)]
pub(crate) struct TcPins {
    pub tcx: PathBuf,
    pub clsact: PathBuf,
}

impl TcPins {
    /// How the hook's program is attached.
    fn mode(&self) -> Result<Option<TcMode>> {
        if open(&self.tcx)?.is_some() {
            return Ok(Some(TcMode::Tcx));
        }
        Ok(self.clsact.exists().then_some(TcMode::Clsact))
    }
}

pub(crate) fn links_dir(pin_dir: &Path) -> PathBuf {
    pin_dir.join("links")
}

impl Pins {
    pub(crate) fn of(pin_dir: &Path, interface: &str) -> Self {
        let name = interface.replace('%', "%25").replace('.', "%2E");
        let path = |suffix: &str| links_dir(pin_dir).join(format!("{name}{suffix}"));
        Self {
            xdp: path(XDP),
            egress: TcPins { tcx: path(TCX), clsact: path(CLSACT) },
            ingress: TcPins { tcx: path(TCX_IN), clsact: path(CLSACT_IN) },
            gate: path(GATE),
        }
    }
}

/// Opens a pinned link; `None` if there is none.
pub(crate) fn open(path: &Path) -> Result<Option<FdLink>> {
    const ENOENT: i32 = 2;
    match PinnedLink::from_pin(path) {
        Ok(link) => Ok(Some(link.into())),
        Err(e) if os_error(&e) == Some(ENOENT) => Ok(None),
        Err(e) => Err(link_error(path, &e)),
    }
}

/// Id of the program of a pinned link, 0 for none.
pub(crate) fn program(pin: &Path) -> u32 {
    open(pin).ok().flatten().and_then(|link| link.info().ok()).map_or(0, |info| info.program_id())
}

pub(crate) fn link_error(path: &Path, error: &LinkError) -> Error {
    let source = std::io::Error::other(crate::error::chain(error));
    Error::Io { what: "open the link", path: path.to_owned(), source }
}

/// An interface that programs are pinned to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedPort {
    /// Its name.
    pub interface: String,
    /// Its index now, `None` if it is gone.
    pub ifindex: Option<u32>,
    /// Where what comes in is judged, `None` if the program is not attached any more.
    pub ingress: Option<JudgedAt>,
    /// Id of the program there; `None` too for a filter of clsact.
    pub program_id: Option<u32>,
    /// How the TC program for what leaves is attached, `None` if it is not.
    pub tc: Option<TcMode>,
    /// What libxdp's dispatcher runs, in its order, where ours is among it (`tidegate_gate`); else nothing.
    pub beside: Vec<String>,
}

/// What is attached, read back from the pins and the kernel.
pub fn pinned_ports(pin_dir: &Path) -> Result<Vec<PinnedPort>> {
    interfaces(pin_dir)?.into_iter().map(|interface| pinned_port(pin_dir, interface)).collect()
}

fn pinned_port(pin_dir: &Path, interface: String) -> Result<PinnedPort> {
    let pins = Pins::of(pin_dir, &interface);
    let ifindex = netdev::index(&interface).ok();
    let Some(index) = ifindex else {
        let beside = Vec::new();
        return Ok(PinnedPort { interface, ifindex, ingress: None, program_id: None, tc: None, beside });
    };
    let state = netdev::xdp(index)?;
    let mode = if state.generic { XdpMode::Generic } else { XdpMode::Native };
    let by_xdp = program(&pins.xdp);
    let gate = if pins.gate.exists() { gate::placed(pin_dir, index)? } else { None };
    let mut beside = Vec::new();
    let (ingress, program_id) = if by_xdp != 0 && by_xdp == state.program_id {
        (Some(JudgedAt::Xdp(mode)), by_xdp)
    } else if let Some(placed) = gate.filter(|placed| placed.program_id != 0) {
        beside = placed.dispatcher.programs.into_iter().map(|program| program.name).collect();
        (Some(JudgedAt::Libxdp(mode)), placed.program_id)
    } else {
        (pins.ingress.mode()?.map(JudgedAt::Tc), program(&pins.ingress.tcx))
    };
    let program_id = Some(program_id).filter(|id| *id != 0);
    Ok(PinnedPort { interface, ifindex, ingress, program_id, tc: pins.egress.mode()?, beside })
}

/// Names of the interfaces that have a pin.
fn interfaces(pin_dir: &Path) -> Result<Vec<String>> {
    let dir = links_dir(pin_dir);
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("read", dir)(e)),
    };
    let mut names: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let file = entry.file_name().into_string().ok()?;
            let suffixes = [XDP, TCX, CLSACT, TCX_IN, CLSACT_IN, GATE];
            let name = suffixes.iter().find_map(|suffix| file.strip_suffix(suffix))?;
            Some(name.replace("%2E", ".").replace("%25", "%"))
        })
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Takes the programs off an interface. Returns whether there was anything to take off.
pub fn detach(pin_dir: &Path, interface: &str) -> Result<bool> {
    let pins = Pins::of(pin_dir, interface);
    let ifindex = netdev::index(interface).ok();
    let had_xdp = unpin_link(&pins.xdp, interface)?;
    let had_gate = gate::detach(pin_dir, interface, &pins.gate)?;
    let had_ingress = INGRESS.detach(interface, ifindex.is_none(), &pins.ingress)?;
    if let (Some(ifindex), Ok(maps)) = (ifindex, Maps::open(pin_dir)) {
        ports::release(&maps, ifindex)?;
    }
    let had_egress = EGRESS.detach(interface, ifindex.is_none(), &pins.egress)?;
    Ok(had_xdp || had_gate || had_ingress || had_egress)
}

/// Removes the pin of a link and waits until its program is off: the kernel takes a link off some time after its last
/// pin is gone.
pub(crate) fn unpin_link(pin: &Path, interface: &str) -> Result<bool> {
    let program = program(pin);
    let was_there = unpin(pin)?;
    if let (id @ 1.., Ok(ifindex)) = (program, netdev::index(interface)) {
        let deadline = boot_ns() + 2_000_000_000;
        while runs(id, interface, ifindex) && boot_ns() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    Ok(was_there)
}

fn runs(program: u32, interface: &str, ifindex: u32) -> bool {
    let at_tc = |hook| {
        SchedClassifier::query_tcx(interface, hook)
            .is_ok_and(|(_, programs)| programs.iter().any(|info| info.id() == program))
    };
    netdev::xdp(ifindex).is_ok_and(|state| state.program_id == program)
        || at_tc(TcAttachType::Egress)
        || at_tc(TcAttachType::Ingress)
}

/// Takes everything off and removes every pin: nothing of Tidegate is left in the kernel once no process holds it.
/// Works whatever version made the pins.
pub fn detach_all(pin_dir: &Path) -> Result<Vec<String>> {
    let names = interfaces(pin_dir)?;
    for name in &names {
        detach(pin_dir, name)?;
    }
    gate::detach_all(pin_dir)?;
    aside::forget_replaced_maps(pin_dir)?;
    for map in map_pins(pin_dir)? {
        unpin(&map)?;
    }
    for dir in [links_dir(pin_dir), pin_dir.to_owned()] {
        match std::fs::remove_dir(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", dir)(e)),
            _ => {}
        }
    }
    Ok(names)
}

/// The pins of maps, whatever version made them.
pub(crate) fn map_pins(pin_dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(pin_dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("read", pin_dir)(e)),
    };
    let is_map =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("TG_"));
    Ok(entries.flatten().map(|entry| entry.path()).filter(is_map).collect())
}

pub(crate) fn unpin(path: &Path) -> Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("remove the pin", path)(e)),
    }
}
