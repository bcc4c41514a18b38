//! The gate: `tidegate_xdp` among the programs of libxdp's dispatcher, by way of a tail call.
//!
//! The array of the tail call is pinned with the maps. One gate an interface goes through it, and is known by it: libxdp makes the
//! dispatcher anew whenever a program comes or goes, and whoever calls it may be another tool.

use crate::attach::{Share, XdpModeChoice};
use crate::dispatcher::{self, Dispatcher};
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::libxdp::{self, Mode, Refusal, Turn};
use crate::links::{self, Pins, unpin, unpin_link};
use crate::netdev;
use crate::object::GATE;
use aya::maps::{MapData, MapError};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY;
use aya_obj::maps::{LegacyMap, bpf_map_def};
use rustix::fd::AsFd;
use std::path::Path;

/// The array, by its name among the pins and in the gate's object.
const MAP: &str = "TG_GATE";
const MAP_C: &std::ffi::CStr = c"TG_GATE";
const SECTION: &std::ffi::CStr = c"xdp.frags";
/// libxdp's own (`XDP_DEFAULT_RUN_PRIO`), which those who say nothing have.
const RUN_PRIO: u32 = 50;

const EPERM: i32 = 1;
const E2BIG: i32 = 7;
const EBUSY: i32 = 16;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;

fn map_error(source: MapError) -> Error {
    Error::Map { map: MAP, source }
}

fn open(pin_dir: &Path) -> Result<Option<MapData>> {
    let pin = pin_dir.join(MAP);
    if !pin.exists() {
        return Ok(None);
    }
    MapData::from_pin(pin).map(Some).map_err(map_error)
}

fn make(pin_dir: &Path) -> Result<MapData> {
    let def = bpf_map_def {
        map_type: BPF_MAP_TYPE_PROG_ARRAY as u32,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        ..bpf_map_def::default()
    };
    let object = aya_obj::Map::Legacy(LegacyMap {
        def,
        inner_def: None,
        section_index: 0,
        section_kind: aya_obj::EbpfSectionKind::Maps,
        symbol_index: None,
        data: Vec::new(),
    });
    let map = MapData::create(object, MAP, None).map_err(map_error)?;
    map.pin(pin_dir.join(MAP))
        .map_err(|error| map_error(MapError::PinError { name: Some(MAP.into()), error }))?;
    Ok(map)
}

fn id(map: &MapData) -> Result<u32> {
    map.info().map(|info| info.id()).map_err(map_error)
}

/// Gates of an array in a dispatcher.
fn gates(dispatcher: &Dispatcher, array: u32) -> impl Iterator<Item = u32> {
    dispatcher.programs.iter().filter(move |program| program.maps.contains(&array)).map(|program| program.id)
}

/// What stands on an interface, where our gate is in it.
pub(crate) struct Placed {
    /// The dispatcher.
    pub dispatcher: Dispatcher,
    /// Id of the program behind the gate, 0 for none.
    pub program_id: u32,
}

/// The dispatcher that runs on an interface and has a gate of this instance in it.
pub(crate) fn placed(pin_dir: &Path, ifindex: u32) -> Result<Option<Placed>> {
    let Some(map) = open(pin_dir)? else { return Ok(None) };
    let array = id(&map)?;
    let running = dispatcher::of(ifindex, netdev::xdp(ifindex)?.program_id);
    let ours = running.filter(|dispatcher| gates(dispatcher, array).next().is_some());
    Ok(ours.map(|dispatcher| Placed { dispatcher, program_id: libxdp::first_slot(map.fd().as_fd()) }))
}

impl Kernel {
    /// Puts the program behind the gate, and a gate among the programs of an interface where none is or it runs at another
    /// turn. Returns whether one was there.
    pub(crate) fn attach_gate(
        &mut self,
        interface: &str,
        ifindex: u32,
        share: Share,
        pins: &Pins,
    ) -> Result<bool> {
        let pin_dir = self.pin_dir.clone().ok_or_else(|| Error::Missing { what: "pin directory".into() })?;
        let there = netdev::xdp(ifindex)?;
        if links::open(&pins.xdp)?.is_some() {
            if links::program(&pins.xdp) == there.program_id {
                return Err(Error::ByWayOfTc { interface: interface.into() });
            }
            unpin_link(&pins.xdp, interface)?;
        }
        if !rustix::thread::capabilities(None)
            .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN))
        {
            let what =
                format!("share {interface} by libxdp, which opens programs by their ids (CAP_SYS_ADMIN)");
            return Err(Error::NotPermitted { what });
        }
        let (map, is_new) = match open(&pin_dir)? {
            Some(map) => (map, false),
            None => (make(&pin_dir)?, true),
        };
        let result = self.attach_through(interface, ifindex, share, &map);
        match result {
            Ok(_) => std::fs::create_dir_all(&pins.gate).map_err(Error::io("create", &pins.gate))?,
            // The failure is what the caller has to hear about.
            Err(_) if is_new => drop(unpin(&pin_dir.join(MAP))),
            Err(_) => {}
        }
        result
    }

    fn attach_through(&mut self, interface: &str, ifindex: u32, share: Share, map: &MapData) -> Result<bool> {
        if !supported() {
            return Err(refused(interface, Refusal { step: libxdp::TRY, code: EOPNOTSUPP }));
        }
        let program = self.program_behind_gate()?;
        libxdp::set_first_slot(map.fd().as_fd(), program).map_err(|why| refused(interface, why))?;
        let array = id(map)?;
        let there = netdev::xdp(ifindex)?;
        let running = dispatcher::of(ifindex, there.program_id);
        if there.program_id != 0 && running.is_none() {
            return Err(Error::OtherXdp { interface: interface.into(), id: there.program_id });
        }
        let ours: Vec<u32> = running.iter().flat_map(|dispatcher| gates(dispatcher, array)).collect();
        let before = match ours.first() {
            Some(id) => libxdp::turn(*id, ifindex).map_err(|why| refused(interface, why))?,
            None => None,
        };
        let default = before.unwrap_or(Turn { run_prio: RUN_PRIO, passes_on: true });
        let turn = Turn {
            run_prio: share.run_prio.unwrap_or(default.run_prio),
            passes_on: share.passes_on.unwrap_or(default.passes_on),
        };
        let modes = modes(share.mode, running.is_some().then_some(there.generic));
        if before == Some(turn) && modes.len() == 1 {
            return Ok(true);
        }
        // The new one first: for a moment packets are judged twice, never not at all.
        attach_in(&modes, interface, ifindex, map, turn)?;
        for id in &ours {
            libxdp::detach(*id, ifindex).map_err(|why| refused(interface, why))?;
        }
        Ok(before.is_some())
    }
}

/// The modes to try: of a dispatcher that is there its own, and none where another is asked for.
fn modes(choice: XdpModeChoice, generic: Option<bool>) -> Vec<Mode> {
    let wanted: &[Mode] = match choice {
        XdpModeChoice::Auto => &[Mode::Native, Mode::Generic],
        XdpModeChoice::Native => &[Mode::Native],
        XdpModeChoice::Generic => &[Mode::Generic],
    };
    let fits = |mode: &&Mode| generic.is_none_or(|generic| generic == (**mode == Mode::Generic));
    wanted.iter().filter(fits).copied().collect()
}

fn attach_in(modes: &[Mode], interface: &str, ifindex: u32, map: &MapData, turn: Turn) -> Result<()> {
    let mut reasons = Vec::new();
    for mode in modes {
        match libxdp::attach(GATE, SECTION, (MAP_C, map.fd().as_fd()), ifindex, *mode, turn) {
            Ok(()) => return Ok(()),
            Err(why) => reasons.push(why),
        }
    }
    match reasons.first() {
        Some(why) => Err(refused(interface, *why)),
        None => Err(Error::Dispatcher {
            interface: interface.into(),
            reason: "it runs in the other mode: leave --xdp-mode out".into(),
        }),
    }
}

/// What a number of errno means here, and what to do.
fn refused(interface: &str, why: Refusal) -> Error {
    const AFTER: &str = "use --ingress tc, which judges after any XDP program";
    let reason = match (why.step, why.code) {
        (libxdp::TRY | libxdp::MAKE, EPERM | EOPNOTSUPP) => format!(
            "this kernel takes no programs into a dispatcher ({why}): it needs programs of type EXT (Linux 5.10, \
             CONFIG_DEBUG_INFO_BTF, CONFIG_DYNAMIC_FTRACE and a JIT that has them) and /sys/fs/bpf; {AFTER}"
        ),
        (libxdp::PUT, EINVAL) => format!(
            "this kernel takes no tail call from a program in a dispatcher ({why}): Linux 6.2 does, and with \
             TIDEGATE_LIBXDP_SPEAKS=1 the verifier's reason is on standard error; {AFTER}"
        ),
        (_, EBUSY) => format!(
            "the dispatcher is of an older libxdp ({why}): `xdp-loader unload {interface} --all`, and load again what it ran"
        ),
        (_, E2BIG) => format!("the dispatcher has no room ({why}): it takes 10 programs"),
        (_, EOPNOTSUPP) => {
            format!("this kernel does not move the other programs into a new dispatcher ({why})")
        }
        _ => why.to_string(),
    };
    Error::Dispatcher { interface: interface.into(), reason }
}

/// Takes the gate of an interface out; the other programs stay. Returns whether it was there.
pub(crate) fn detach(pin_dir: &Path, interface: &str, pin: &Path) -> Result<bool> {
    if !pin.exists() {
        return Ok(false);
    }
    if let (Some(map), Ok(ifindex)) = (open(pin_dir)?, netdev::index(interface)) {
        let array = id(&map)?;
        for dispatcher in dispatcher::all().iter().filter(|dispatcher| dispatcher.ifindex == ifindex) {
            take_out(interface, dispatcher, array)?;
        }
    }
    std::fs::remove_dir(pin).map_err(Error::io("remove", pin))?;
    Ok(true)
}

/// Takes every gate out that is left: of interfaces that were renamed, and what libxdp has pinned of those that are gone.
pub(crate) fn detach_all(pin_dir: &Path) -> Result<()> {
    let Some(map) = open(pin_dir)? else { return Ok(()) };
    let array = id(&map)?;
    for dispatcher in dispatcher::all() {
        let interface =
            netdev::name(dispatcher.ifindex).unwrap_or_else(|| format!("interface {}", dispatcher.ifindex));
        take_out(&interface, &dispatcher, array)?;
    }
    Ok(())
}

fn take_out(interface: &str, dispatcher: &Dispatcher, array: u32) -> Result<()> {
    let ours: Vec<u32> = gates(dispatcher, array).collect();
    let runs = netdev::xdp(dispatcher.ifindex).is_ok_and(|there| there.program_id == dispatcher.id);
    match ours.is_empty() {
        true => Ok(()),
        false if runs => {
            let out = |id| libxdp::detach(id, dispatcher.ifindex).map_err(|why| refused(interface, why));
            ours.into_iter().try_for_each(out)
        }
        // It went with its interface, or another took its place: its pins are left, and hold all that it ran.
        false => {
            let failed = Error::io("remove", &dispatcher.folder);
            let entries = std::fs::read_dir(&dispatcher.folder).into_iter().flatten().flatten();
            entries.map(|entry| unpin(&entry.path())).try_for_each(|gone| gone.map(drop))?;
            std::fs::remove_dir(&dispatcher.folder).map_err(failed)
        }
    }
}

/// Whether this kernel takes programs into a dispatcher: it is given one, which is gone again at once.
pub(crate) fn supported() -> bool {
    let was_there = dispatcher::folder().is_dir();
    let supported = libxdp::supported();
    if !was_there {
        // Empty, or somebody else's by now: then it stays.
        let _ = std::fs::remove_dir(dispatcher::folder());
    }
    supported
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LoadOptions, PinnedXdp, RunResult, Sizes, behind};
    use datapath::abi::Config;

    /// As XDP: a kernel that takes no programs into a dispatcher has tail calls all the same, and the same rules for them.
    #[test]
    #[ignore = "needs root: loads the programs"]
    fn a_gate_passes_until_a_program_is_behind_it_and_then_it_is_what_that_says() {
        let pin_dir = std::path::PathBuf::from(format!("/sys/fs/bpf/tidegate/gate{}", std::process::id()));
        let options =
            LoadOptions { pin_dir: Some(pin_dir.clone()), sizes: Sizes::small(), ..LoadOptions::default() };
        let mut kernel = Kernel::load(&options).expect("the programs load");
        let mut run = || -> Result<[u32; 3]> {
            kernel.maps().config.update(|config| config.flags |= Config::ENFORCE)?;
            let truncated = [0x45; 64];
            let map = make(&pin_dir)?;
            let gate = behind::load(GATE, "tidegate_gate", &pin_dir, |_| None)?;
            let pin = pin_dir.join("TG_GATE_PROGRAM");
            libxdp::pin(&gate, &pin).expect("a pin");
            let gate = PinnedXdp::open(&pin)?;
            let judged = kernel.run_xdp(&truncated, 1)?.action;
            let open = gate.run(&truncated, 1)?.action;
            assert_eq!(libxdp::first_slot(map.fd().as_fd()), 0);
            libxdp::set_first_slot(map.fd().as_fd(), kernel.program_behind_gate()?).expect("a slot");
            assert_ne!(libxdp::first_slot(map.fd().as_fd()), 0);
            Ok([judged, open, gate.run(&truncated, 1)?.action])
        };
        let actions = run();
        links::detach_all(&pin_dir).expect("the pins go");
        let wanted = [RunResult::XDP_DROP, RunResult::XDP_PASS, RunResult::XDP_DROP];
        assert_eq!(actions.expect("they run"), wanted, "judged, through the open gate, through the gate");
    }
}
