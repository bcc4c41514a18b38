//! Putting the programs on an interface, and replacing them there without a gap.

use crate::error::{Error, Result, chain, os_error};
use crate::kernel::Kernel;
use crate::links::{self, Pins, link_error, links_dir, unpin, unpin_link};
use crate::object::{TC_PROGRAM, XDP_PROGRAM};
use crate::{netdev, ports};
use aya::programs::links::FdLink;
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle};
use aya::programs::xdp::{XdpLink, XdpMode as KernelMode};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp};
use std::path::Path;

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

/// What attaching did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The interface.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// Where the XDP program runs.
    pub xdp: XdpMode,
    /// Why the driver did not take it, where the mode is a fallback.
    pub native_refused: Option<String>,
    /// How the TC program is attached.
    pub tc: TcMode,
    /// The programs were there and were replaced in place.
    pub replaced: bool,
}

/// Priority and handle of our clsact filter: fixed, so that the next daemon finds it again.
const CLSACT_PRIORITY: u16 = 0x7469;
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 1);

impl Kernel {
    /// Attaches both programs to an interface, or replaces them where they are. The kernel has to have been loaded with
    /// a pin directory. On failure the interface is as it was.
    pub fn attach(&mut self, interface: &str, xdp: XdpModeChoice, tc: TcModeChoice) -> Result<Attached> {
        let ifindex = netdev::index(interface)?;
        let pin_dir = self.pin_dir.clone().ok_or_else(|| Error::Attach {
            program: XDP_PROGRAM,
            interface: interface.into(),
            reason: "the programs were loaded without a pin directory".into(),
        })?;
        let dir = links_dir(&pin_dir);
        std::fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        let pins = Pins::of(&pin_dir, interface);
        let new_port = self.maps().judged_ports.get(&ifindex)?.is_none();
        ports::claim(self.maps(), ifindex)?;
        let result = self.attach_both(interface, ifindex, (xdp, tc), &pins).and_then(|attached| {
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
        (xdp, tc): (XdpModeChoice, TcModeChoice),
        pins: &Pins,
    ) -> Result<Attached> {
        let (native_refused, replaced) = self.attach_xdp(interface, ifindex, xdp, &pins.xdp)?;
        let tc = match self.attach_tc(interface, tc, pins) {
            Ok(tc) => tc,
            Err(e) => {
                if !replaced {
                    unpin_link(&pins.xdp, interface)?;
                }
                return Err(e);
            }
        };
        let xdp = if netdev::xdp(ifindex)?.generic { XdpMode::Generic } else { XdpMode::Native };
        Ok(Attached { interface: interface.into(), ifindex, xdp, native_refused, tc, replaced })
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
            return Err(Error::OtherXdp { interface: interface.into(), id: there.program_id });
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

    fn attach_tc(&mut self, interface: &str, choice: TcModeChoice, pins: &Pins) -> Result<TcMode> {
        let error = |reason| Error::Attach { program: TC_PROGRAM, interface: interface.into(), reason };
        let program = self.tc.program_mut(TC_PROGRAM);
        let program: &mut SchedClassifier = program
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| Error::Missing { what: format!("program {TC_PROGRAM}") })?;
        if let Some(link) = links::open(&pins.tcx)? {
            if choice == TcModeChoice::Clsact {
                drop(link);
                unpin_link(&pins.tcx, interface)?;
            } else if replace_tcx(program, link, &pins.tcx, interface)? {
                return Ok(TcMode::Tcx);
            }
        }
        if pins.clsact.exists() {
            if choice != TcModeChoice::Tcx {
                clsact_attach(program, interface).map_err(error)?;
                return Ok(TcMode::Clsact);
            }
            clsact_detach(interface, TC_PROGRAM)?;
            std::fs::remove_dir(&pins.clsact).map_err(Error::io("remove", &pins.clsact))?;
        }
        let tcx = match choice {
            TcModeChoice::Clsact => "not asked for".to_owned(),
            _ => match new_tcx_link(program, interface) {
                Ok(link) => {
                    link.pin(&pins.tcx).map_err(|e| error(chain(&e)))?;
                    return Ok(TcMode::Tcx);
                }
                Err(e) => e,
            },
        };
        if choice == TcModeChoice::Tcx {
            return Err(error(format!("TCX: {tcx}")));
        }
        clsact_attach(program, interface).map_err(|clsact| error(format!("TCX: {tcx}; clsact: {clsact}")))?;
        std::fs::create_dir(&pins.clsact).map_err(Error::io("create", &pins.clsact))?;
        Ok(TcMode::Clsact)
    }
}

/// Puts the program into a link that is there; `false` if the link's interface is gone, and now the pin too.
fn replace_tcx(program: &mut SchedClassifier, link: FdLink, pin: &Path, interface: &str) -> Result<bool> {
    let error = |reason| Error::Attach { program: TC_PROGRAM, interface: interface.into(), reason };
    let link = SchedClassifierLink::try_from(link).map_err(|e| link_error(pin, &e))?;
    match program.attach_to_link(link) {
        Ok(id) => {
            program.take_link(id).map_err(|e| error(chain(&e)))?;
            Ok(true)
        }
        Err(e) if os_error(&e) == Some(ENOLINK) => {
            unpin(pin)?;
            Ok(false)
        }
        Err(e) => Err(error(chain(&e))),
    }
}

const ENOLINK: i32 = 67;
const EEXIST: i32 = 17;

fn new_xdp_link(program: &mut Xdp, ifindex: u32, mode: KernelMode) -> Result<FdLink, String> {
    let id = program.attach_to_if_index(ifindex, mode).map_err(|e| chain(&e))?;
    let link = program.take_link(id).map_err(|e| chain(&e))?;
    // A link that is none of the kernel's objects would go when we go: aya made it by netlink. It is undone by drop.
    FdLink::try_from(link).map_err(|_| "this kernel has no XDP links (Linux 5.9 or newer has)".into())
}

fn new_tcx_link(program: &mut SchedClassifier, interface: &str) -> Result<FdLink, String> {
    let order = TcAttachOptions::TcxOrder(LinkOrder::default());
    let id = program.attach_with_options(interface, TcAttachType::Egress, order).map_err(|e| chain(&e))?;
    let link = program.take_link(id).map_err(|e| chain(&e))?;
    FdLink::try_from(link).map_err(|e| chain(&e))
}

/// Adds our filter, or replaces its program where it is.
fn clsact_attach(program: &mut SchedClassifier, interface: &str) -> Result<(), String> {
    match tc::qdisc_add_clsact(interface) {
        Err(e) if os_error(&e) != Some(EEXIST) => return Err(chain(&e)),
        _ => {}
    }
    let old =
        SchedClassifierLink::attached(interface, TcAttachType::Egress, CLSACT_PRIORITY, CLSACT_HANDLE, None)
            .map_err(|e| e.to_string())?;
    let options = || NlOptions { priority: CLSACT_PRIORITY, handle: CLSACT_HANDLE, classid: None };
    let replaced = program.attach_to_link(old);
    let id = match replaced {
        Ok(id) => id,
        Err(_) => program
            .attach_with_options(interface, TcAttachType::Egress, TcAttachOptions::Netlink(options()))
            .map_err(|e| chain(&e))?,
    };
    let link = program.take_link(id).map_err(|e: ProgramError| chain(&e))?;
    // Dropping it would take the filter off; it has to stay when we go.
    std::mem::forget(link);
    Ok(())
}

/// Takes our filter off; the qdisc stays, others may use it.
pub(crate) fn clsact_detach(interface: &str, program: &'static str) -> Result<()> {
    match tc::qdisc_detach_program(interface, TcAttachType::Egress, program) {
        Ok(()) => Ok(()),
        Err(TcError::IoError(e)) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::Attach { program, interface: interface.into(), reason: chain(&e) }),
    }
}
