//! Putting the programs on an interface, and replacing them there without a gap.

use crate::error::{Error, Result, chain};
use crate::hooks::{EGRESS, INGRESS};
use crate::kernel::Kernel;
use crate::links::{self, Pins, link_error, links_dir, unpin_link};
use crate::object::XDP_PROGRAM;
use crate::{dispatcher, gate, netdev, ports};
use aya::programs::Xdp;
use aya::programs::links::FdLink;
use aya::programs::xdp::{XdpLink, XdpMode as KernelMode};
use datapath::abi::Config;
use std::path::Path;

/// Where what comes in may be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// Where it costs least: see [`Ingress::resolve`].
    Auto,
    /// By XDP.
    Xdp(XdpModeChoice),
    /// By XDP, among the programs of libxdp's dispatcher.
    Libxdp(Share),
    /// At TC.
    Tc,
}

/// How ours runs among the programs of libxdp's dispatcher. What is not said is as it is, at first as libxdp has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Where the dispatcher runs.
    pub mode: XdpModeChoice,
    /// Its run priority: lower ones run first. At first 50.
    pub run_prio: Option<u32>,
    /// What it passes goes on to the next program (its chain call action is XDP_PASS): at first so. All else is the last word:
    /// a program after it must not pass what it dropped.
    pub passes_on: Option<bool>,
}

impl From<XdpModeChoice> for Ingress {
    fn from(mode: XdpModeChoice) -> Self {
        Self::Xdp(mode)
    }
}

impl Ingress {
    /// What [`Ingress::Auto`] means on an interface: XDP in the driver of a network card; TC where the driver has no XDP,
    /// where the interface is virtual (its peer hands on segments of 64 kB, which an XDP program in its driver would have
    /// cut up or copied), and beside somebody else's XDP program.
    fn resolve(self, interface: &str, ifindex: u32, ours: u32, config: &Config) -> Result<Self> {
        let (forward, marks) = (config.has(Config::FORWARD), config.mark_mask != 0);
        match self {
            Self::Auto if marks => Ok(Self::Tc),
            Self::Xdp(_) | Self::Libxdp(_) if marks => {
                Err(Error::MarkNeedsTc { interface: interface.into() })
            }
            Self::Auto if forward => Ok(Self::Xdp(XdpModeChoice::Auto)),
            Self::Auto => {
                let there = netdev::xdp(ifindex)?.program_id;
                let others = there != 0 && there != ours;
                let in_driver = netdev::xdp_features(ifindex)?.is_none_or(|features| features.native());
                let native = !netdev::facts(ifindex)?.is_virtual && !others && in_driver;
                Ok(if native { Self::Xdp(XdpModeChoice::Native) } else { Self::Tc })
            }
            Self::Tc if forward => Err(Error::ForwardNeedsXdp { interface: interface.into() }),
            asked => Ok(asked),
        }
    }
}

/// Where the XDP program may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpModeChoice {
    /// In the driver; where the driver cannot, in the network stack.
    #[default]
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the network stack.
    Generic,
}

/// How the TC program may be attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcModeChoice {
    /// By a TCX link; on kernels without, as a filter of clsact.
    #[default]
    Auto,
    /// By a TCX link or not at all.
    Tcx,
    /// As a filter of clsact, which older tools know too.
    Clsact,
}

/// Where the XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the network stack: slower, and after the kernel has made a socket buffer.
    Generic,
}

/// How the TC program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcMode {
    /// By a TCX link (Linux 6.6).
    Tcx,
    /// As a filter of the clsact qdisc.
    Clsact,
}

impl XdpMode {
    /// xdp-loader's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

impl TcMode {
    /// The word in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// Where what comes in is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JudgedAt {
    /// By XDP.
    Xdp(XdpMode),
    /// By XDP, among the programs of libxdp's dispatcher.
    Libxdp(XdpMode),
    /// At TC.
    Tc(TcMode),
}

impl JudgedAt {
    /// The word of the option: `xdp`, `libxdp` or `tc`.
    pub fn hook(self) -> &'static str {
        match self {
            Self::Xdp(_) => "xdp",
            Self::Libxdp(_) => "libxdp",
            Self::Tc(_) => "tc",
        }
    }

    /// How it is attached there.
    pub fn mode(self) -> &'static str {
        match self {
            Self::Xdp(mode) | Self::Libxdp(mode) => mode.name(),
            Self::Tc(mode) => mode.name(),
        }
    }
}

impl std::fmt::Display for JudgedAt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.hook(), self.mode())
    }
}

/// What attaching did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The interface.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// Where what comes in is judged.
    pub ingress: JudgedAt,
    /// Why the driver did not take it, where the mode is a fallback.
    pub native_refused: Option<String>,
    /// How the TC program for what leaves is attached.
    pub tc: TcMode,
    /// The interface was judged before; there was no moment at which it was not.
    pub replaced: bool,
}

impl Kernel {
    /// Attaches programs to an interface for both ways, or replaces them where they are. What is to be judged elsewhere from
    /// now on is judged there before it ends where it was. The kernel has to have been loaded with a pin directory. On
    /// failure the interface is as it was.
    pub fn attach(
        &mut self,
        interface: &str,
        ingress: impl Into<Ingress>,
        tc: TcModeChoice,
    ) -> Result<Attached> {
        let ifindex = netdev::index(interface)?;
        let pin_dir = self.pin_dir.clone().ok_or_else(|| Error::Attach {
            program: XDP_PROGRAM,
            interface: interface.into(),
            reason: "the programs were loaded without a pin directory".into(),
        })?;
        let dir = links_dir(&pin_dir);
        std::fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        let pins = Pins::of(&pin_dir, interface);
        let config = self.maps().config.get()?;
        let ingress = ingress.into().resolve(interface, ifindex, links::program(&pins.xdp), &config)?;
        let new_port = self.maps().judged_ports.get(&ifindex)?.is_none();
        ports::claim(self.maps(), ifindex)?;
        let result =
            self.attach_both(interface, ifindex, (ingress, tc), (&pin_dir, &pins)).and_then(|attached| {
                ports::refresh_ports(self.maps())?;
                Ok(attached)
            });
        if result.is_err() && new_port {
            // The failure is what the caller has to hear about.
            let _ = ports::release(self.maps(), ifindex);
        }
        result
    }

    fn attach_both(
        &mut self,
        interface: &str,
        ifindex: u32,
        (ingress, tc): (Ingress, TcModeChoice),
        (pin_dir, pins): (&Path, &Pins),
    ) -> Result<Attached> {
        let mode = || {
            netdev::xdp(ifindex).map(|there| if there.generic { XdpMode::Generic } else { XdpMode::Native })
        };
        let new = match ingress {
            Ingress::Auto | Ingress::Tc => {
                let (mode, was_there) =
                    INGRESS.attach(self.ingress_object()?, interface, tc, &pins.ingress)?;
                New { at: JudgedAt::Tc(mode), native_refused: None, was_there }
            }
            Ingress::Xdp(choice) => {
                if pins.gate.exists() && gate::placed(pin_dir, ifindex)?.is_some() {
                    return Err(Error::ByWayOfTc { interface: interface.into() });
                }
                let (native_refused, was_there) = self.attach_xdp(interface, ifindex, choice, &pins.xdp)?;
                New { at: JudgedAt::Xdp(mode()?), native_refused, was_there }
            }
            Ingress::Libxdp(share) => {
                let was_there = self.attach_gate(interface, ifindex, share, pins)?;
                New { at: JudgedAt::Libxdp(mode()?), native_refused: None, was_there }
            }
        };
        let tc = match EGRESS.attach(&mut self.tc, interface, tc, &pins.egress) {
            Ok((mode, _)) => mode,
            Err(e) => {
                if !new.was_there {
                    end(interface, pin_dir, pins, |at| at == new.at.hook())?;
                }
                return Err(e);
            }
        };
        let was_elsewhere = end(interface, pin_dir, pins, |at| at != new.at.hook())?;
        let New { at: ingress, native_refused, was_there } = new;
        let replaced = was_there || was_elsewhere;
        Ok(Attached { interface: interface.into(), ifindex, ingress, native_refused, tc, replaced })
    }

    /// Returns why the driver refused, where it did, and whether a link was there.
    fn attach_xdp(
        &mut self,
        interface: &str,
        ifindex: u32,
        choice: XdpModeChoice,
        pin: &Path,
    ) -> Result<(Option<String>, bool)> {
        let error = |reason| Error::Attach { program: XDP_PROGRAM, interface: interface.into(), reason };
        let program = self.xdp.program_mut(XDP_PROGRAM);
        let program: &mut Xdp = program
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| Error::Missing { what: format!("program {XDP_PROGRAM}") })?;
        let there = netdev::xdp(ifindex)?;
        if let Some(link) = links::open(pin)? {
            let ours = link.info().map_err(|e| link_error(pin, &e))?.program_id();
            let fits = choice == XdpModeChoice::Auto || (choice == XdpModeChoice::Generic) == there.generic;
            if ours != 0 && ours == there.program_id && fits {
                let link = XdpLink::try_from(link).map_err(|e| link_error(pin, &e))?;
                let id = program.attach_to_link(link).map_err(|e| error(chain(&e)))?;
                // Dropped: the pin keeps it attached.
                program.take_link(id).map_err(|e| error(chain(&e)))?;
                return Ok((None, true));
            }
            // The interface that it was for is gone, or it is to run elsewhere.
            drop(link);
            unpin_link(pin, interface)?;
        }
        let there = netdev::xdp(ifindex)?;
        if there.program_id != 0 {
            return Err(others(interface, ifindex, there.program_id));
        }
        let modes: &[KernelMode] = match choice {
            XdpModeChoice::Auto => &[KernelMode::Driver, KernelMode::Skb],
            XdpModeChoice::Native => &[KernelMode::Driver],
            XdpModeChoice::Generic => &[KernelMode::Skb],
        };
        let mut refused = Vec::new();
        for &mode in modes {
            match new_xdp_link(program, ifindex, mode) {
                Ok(link) => {
                    link.pin(pin).map_err(|e| error(chain(&e)))?;
                    return Ok((refused.pop(), false));
                }
                Err(reason) => {
                    let name = if mode == KernelMode::Skb { "generic" } else { "native" };
                    refused.push(format!("{name} mode: {reason}"));
                }
            }
        }
        Err(error(refused.join("; ")))
    }
}

/// What judges from now on.
struct New {
    at: JudgedAt,
    native_refused: Option<String>,
    was_there: bool,
}

/// Takes off what judges at the places that are meant, which are named as [`JudgedAt::hook`] does.
fn end(interface: &str, pin_dir: &Path, pins: &Pins, is_meant: impl Fn(&str) -> bool) -> Result<bool> {
    let by_xdp = is_meant("xdp") && unpin_link(&pins.xdp, interface)?;
    let by_libxdp = is_meant("libxdp") && gate::detach(pin_dir, interface, &pins.gate)?;
    let at_tc = is_meant("tc") && INGRESS.detach(interface, false, &pins.ingress)?;
    Ok(by_xdp || by_libxdp || at_tc)
}

/// Somebody else's program.
fn others(interface: &str, ifindex: u32, id: u32) -> Error {
    let interface = interface.to_owned();
    match dispatcher::of(ifindex, id) {
        Some(dispatcher) => Error::OtherDispatcher { interface, id, programs: dispatcher.names() },
        None => Error::OtherXdp { interface, id },
    }
}

fn new_xdp_link(program: &mut Xdp, ifindex: u32, mode: KernelMode) -> Result<FdLink, String> {
    let id = program.attach_to_if_index(ifindex, mode).map_err(|e| chain(&e))?;
    let link = program.take_link(id).map_err(|e| chain(&e))?;
    // A link that is none of the kernel's objects would go when we go: aya made it by netlink. It is undone by drop.
    FdLink::try_from(link).map_err(|_| "this kernel has no XDP links (Linux 5.9 or newer has)".into())
}
