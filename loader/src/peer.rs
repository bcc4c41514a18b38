//! Somebody else's XDP program: run beside ours on the same frames.

use crate::error::{Error, Result, chain};
use crate::run::RunResult;
use aya::programs::{ProgramError, TestRun, TestRunOptions, Xdp};
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
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
        let run: Result<_, ProgramError> = self.program.test_run(options);
        run.map(RunResult::from).map_err(|source| Error::Run {
            program: "pinned XDP program",
            frame_bytes: frame.len(),
            source,
        })
    }
}
