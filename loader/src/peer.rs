//! XDP programs of others: run beside ours on the same frames, or to send frames to ours.

use crate::error::{Error, Result, chain};
use crate::kernel::Kernel;
use crate::object::XDP_PROGRAM;
use crate::run::RunResult;
use aya::maps::ProgramArray;
use aya::programs::xdp::XdpMode;
use aya::programs::{ProgramError, ProgramFd, TestRun, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use aya_obj::programs::xdp::XdpAttachType;
use std::path::Path;

/// An XDP program that another tool has pinned.
pub struct PinnedXdp {
    program: Xdp,
}

impl PinnedXdp {
    /// Opens a pinned program.
    pub fn open(pin: &Path) -> Result<Self> {
        Xdp::from_pin(pin, XdpAttachType::Interface).map(|program| Self { program }).map_err(|error| {
            Error::io("open the pinned XDP program", pin)(std::io::Error::other(chain(&error)))
        })
    }

    /// Runs it on a frame, `repeat` times.
    pub fn run(&self, frame: &[u8], repeat: u32) -> Result<RunResult> {
        run(&self.program, "pinned XDP program", frame, TestRunOptions { repeat, ..TestRunOptions::new() })
    }
}

/// An XDP program of an object of the caller's. It lives as long as this, and so does its place on an interface.
pub struct PeerXdp {
    object: Ebpf,
    name: &'static str,
}

impl PeerXdp {
    /// Loads the program `name` of an ELF object.
    pub fn load(object: &[u8], name: &'static str) -> Result<Self> {
        let mut object = EbpfLoader::new()
            .load(object)
            .map_err(|source| Error::Load { object: name, source: Box::new(source) })?;
        let failed = |error: ProgramError| Error::Program { program: name, reason: chain(&error) };
        xdp_mut(&mut object, name)?.load().map_err(failed)?;
        Ok(Self { object, name })
    }

    /// Runs it on a frame, `repeat` times; what it writes into the frame is there the next time.
    pub fn run(&self, frame: &[u8], repeat: u32) -> Result<RunResult> {
        let options = TestRunOptions { repeat, ..TestRunOptions::new() };
        run(xdp(&self.object, self.name)?, self.name, frame, options)
    }

    /// Runs it on `packets` frames as if they had come in by an interface of this network namespace: what it transmits
    /// leaves by that interface.
    pub fn run_live(&self, frame: &[u8], ifindex: u32, packets: u32, batch: u32) -> Result<RunResult> {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let mut context = [0u8; 24];
        context[4..8].copy_from_slice(&(frame.len() as u32).to_ne_bytes());
        context[12..16].copy_from_slice(&ifindex.to_ne_bytes());
        let attrs = TestRunAttrs::new().xdp_live_frames(batch);
        let options =
            TestRunOptions { ctx_in: Some(&context), repeat: packets, attrs, ..TestRunOptions::new() };
        run(xdp(&self.object, self.name)?, self.name, frame, options)
    }

    /// Puts it on an interface, in the driver, until this is dropped or [`PeerXdp::detach`] takes it off.
    pub fn attach(&mut self, interface: &str, ifindex: u32) -> Result<()> {
        let program = self.name;
        let failed = |error: ProgramError| Error::Attach {
            program,
            interface: interface.into(),
            reason: chain(&error),
        };
        xdp_mut(&mut self.object, program)?
            .attach_to_if_index(ifindex, XdpMode::Driver)
            .map(drop)
            .map_err(failed)
    }

    /// Takes it off every interface; it has to be loaded again to run.
    pub fn detach(&mut self) -> Result<()> {
        let program = self.name;
        let failed = |error: ProgramError| Error::Program { program, reason: chain(&error) };
        let xdp = xdp_mut(&mut self.object, program)?;
        xdp.unload().and_then(|()| xdp.load()).map_err(failed)
    }

    /// Has its tail call by `map`, slot 0, end in our XDP program.
    pub fn continue_in(&mut self, map: &str, kernel: &Kernel) -> Result<()> {
        let fd = xdp(&kernel.xdp, XDP_PROGRAM)?.fd();
        self.set_next(map, fd)
    }

    /// Has its tail call by `map`, slot 0, end in a pinned program.
    pub fn continue_in_pinned(&mut self, map: &str, pinned: &PinnedXdp) -> Result<()> {
        self.set_next(map, pinned.program.fd())
    }

    fn set_next(&mut self, map: &str, fd: Result<&ProgramFd, ProgramError>) -> Result<()> {
        let program = self.name;
        let failed = |reason| Error::Program { program, reason };
        let fd = fd.map_err(|error| failed(chain(&error)))?;
        let map = self.object.map_mut(map).ok_or_else(|| Error::Missing { what: format!("map {map}") })?;
        ProgramArray::try_from(map)
            .and_then(|mut array| array.set(0, fd, 0))
            .map_err(|error| failed(format!("the tail call's target is refused: {}", chain(&error))))
    }
}

fn missing(name: &str) -> Error {
    Error::Missing { what: format!("XDP program {name}") }
}

fn xdp<'a>(object: &'a Ebpf, name: &str) -> Result<&'a Xdp> {
    object.program(name).and_then(|program| program.try_into().ok()).ok_or_else(|| missing(name))
}

fn xdp_mut<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    object.program_mut(name).and_then(|program| program.try_into().ok()).ok_or_else(|| missing(name))
}

fn run(xdp: &Xdp, name: &'static str, frame: &[u8], options: TestRunOptions<'_>) -> Result<RunResult> {
    let run: Result<_, ProgramError> = xdp.test_run(TestRunOptions { data_in: Some(frame), ..options });
    run.map(RunResult::from).map_err(|source| Error::Run { program: name, frame_bytes: frame.len(), source })
}
