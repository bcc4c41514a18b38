//! The hooks of TC: putting a program on one, and replacing it there without a gap.

use crate::attach::{TcMode, TcModeChoice};
use crate::error::{Error, Result, chain, os_error};
use crate::links::{self, TcPins, link_error, unpin, unpin_link};
use crate::object::{TC_IN_PROGRAM, TC_PROGRAM};
use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType};

/// One of the two hooks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hook {
    pub program: &'static str,
    pub attach_type: TcAttachType,
}

/// What leaves.
pub(crate) const EGRESS: Hook = Hook { program: TC_PROGRAM, attach_type: TcAttachType::Egress };
/// What enters.
pub(crate) const INGRESS: Hook = Hook { program: TC_IN_PROGRAM, attach_type: TcAttachType::Ingress };

/// Priority and handle of our clsact filters: fixed, so that the next daemon finds them again.
const CLSACT_PRIORITY: u16 = 0x7469;
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 1);
const ENOLINK: i32 = 67;
const EEXIST: i32 = 17;

impl Hook {
    fn error(self, interface: &str, reason: String) -> Error {
        Error::Attach { program: self.program, interface: interface.into(), reason }
    }

    /// Attaches the hook's program, which is in `object`. Returns how, and whether one of ours was there.
    pub fn attach(
        self,
        object: &mut Ebpf,
        interface: &str,
        choice: TcModeChoice,
        pins: &TcPins,
    ) -> Result<(TcMode, bool)> {
        let error = |reason| self.error(interface, reason);
        let program = object.program_mut(self.program);
        let program: &mut SchedClassifier = program
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| Error::Missing { what: format!("program {}", self.program) })?;
        let mut was_there = false;
        if let Some(link) = links::open(&pins.tcx)? {
            if choice == TcModeChoice::Clsact {
                drop(link);
                unpin_link(&pins.tcx, interface)?;
                was_there = true;
            } else if self.replace_tcx(program, link, pins, interface)? {
                return Ok((TcMode::Tcx, true));
            }
        }
        if pins.clsact.exists() {
            if choice != TcModeChoice::Tcx {
                self.clsact_attach(program, interface).map_err(error)?;
                return Ok((TcMode::Clsact, true));
            }
            self.clsact_detach(interface)?;
            std::fs::remove_dir(&pins.clsact).map_err(Error::io("remove", &pins.clsact))?;
            was_there = true;
        }
        let tcx = match choice {
            TcModeChoice::Clsact => "not asked for".to_owned(),
            _ => match self.new_tcx_link(program, interface) {
                Ok(link) => {
                    link.pin(&pins.tcx).map_err(|e| error(chain(&e)))?;
                    return Ok((TcMode::Tcx, was_there));
                }
                Err(e) => e,
            },
        };
        if choice == TcModeChoice::Tcx {
            return Err(error(format!("TCX: {tcx}")));
        }
        self.clsact_attach(program, interface)
            .map_err(|clsact| error(format!("TCX: {tcx}; clsact: {clsact}")))?;
        std::fs::create_dir(&pins.clsact).map_err(Error::io("create", &pins.clsact))?;
        Ok((TcMode::Clsact, was_there))
    }

    /// Takes the program off. Returns whether it was there.
    pub fn detach(self, interface: &str, is_gone: bool, pins: &TcPins) -> Result<bool> {
        let had_tcx = unpin_link(&pins.tcx, interface)?;
        let had_clsact = pins.clsact.exists();
        if had_clsact {
            // An interface that is gone has taken the filter with it.
            if !is_gone {
                self.clsact_detach(interface)?;
            }
            std::fs::remove_dir(&pins.clsact).map_err(Error::io("remove", &pins.clsact))?;
        }
        Ok(had_tcx || had_clsact)
    }

    /// Puts the program into a link that is there; `false` if the link's interface is gone, and now the pin too.
    fn replace_tcx(
        self,
        program: &mut SchedClassifier,
        link: FdLink,
        pins: &TcPins,
        interface: &str,
    ) -> Result<bool> {
        let link = SchedClassifierLink::try_from(link).map_err(|e| link_error(&pins.tcx, &e))?;
        match program.attach_to_link(link) {
            Ok(id) => {
                program.take_link(id).map_err(|e| self.error(interface, chain(&e)))?;
                Ok(true)
            }
            Err(e) if os_error(&e) == Some(ENOLINK) => {
                unpin(&pins.tcx)?;
                Ok(false)
            }
            Err(e) => Err(self.error(interface, chain(&e))),
        }
    }

    fn new_tcx_link(self, program: &mut SchedClassifier, interface: &str) -> Result<FdLink, String> {
        let order = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id = program.attach_with_options(interface, self.attach_type, order).map_err(|e| chain(&e))?;
        let link = program.take_link(id).map_err(|e| chain(&e))?;
        FdLink::try_from(link).map_err(|e| chain(&e))
    }

    /// Adds our filter, or replaces its program where it is.
    fn clsact_attach(self, program: &mut SchedClassifier, interface: &str) -> Result<(), String> {
        match tc::qdisc_add_clsact(interface) {
            Err(e) if os_error(&e) != Some(EEXIST) => return Err(chain(&e)),
            _ => {}
        }
        let old =
            SchedClassifierLink::attached(interface, self.attach_type, CLSACT_PRIORITY, CLSACT_HANDLE, None)
                .map_err(|e| e.to_string())?;
        let options = || NlOptions { priority: CLSACT_PRIORITY, handle: CLSACT_HANDLE, classid: None };
        let replaced = program.attach_to_link(old);
        let id = match replaced {
            Ok(id) => id,
            Err(_) => program
                .attach_with_options(interface, self.attach_type, TcAttachOptions::Netlink(options()))
                .map_err(|e| chain(&e))?,
        };
        let link = program.take_link(id).map_err(|e: ProgramError| chain(&e))?;
        // Dropping it would take the filter off; it has to stay when we go.
        std::mem::forget(link);
        Ok(())
    }

    /// Takes our filter off; the qdisc stays, others may use it.
    fn clsact_detach(self, interface: &str) -> Result<()> {
        match tc::qdisc_detach_program(interface, self.attach_type, self.program) {
            Ok(()) => Ok(()),
            Err(TcError::IoError(e)) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(self.error(interface, chain(&e))),
        }
    }
}
