//! Running the loaded programs on frames of the caller's, without an interface.

use crate::clock::Reading;
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::object::{CLOCK_PROGRAM, TC_IN_PROGRAM, TC_PROGRAM, XDP_PROGRAM};
use aya::programs::{
    ProgramError, SchedClassifier, TestRun, TestRunAttrs, TestRunOptions, TestRunResult, Xdp,
};
use datapath::abi::Direction;
use datapath::weight::Gso;
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// What a test-run returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunResult {
    /// The program's return value: an XDP or TC action.
    pub action: u32,
    /// Mean time of one run.
    pub duration_ns: u64,
    /// Length of the frame afterwards, where it was asked for.
    pub frame_bytes: usize,
}

/// What stands beside the bytes of a socket buffer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside {
    /// The interface by which it came in, 0 if the host itself sends it.
    pub ingress_ifindex: u32,
    /// Segments that it holds.
    pub gso: Gso,
    /// Its mark.
    pub mark: u32,
}

impl Beside {
    /// As `struct __sk_buff`, of which the kernel takes mark, priority, ingress_ifindex, ifindex, cb, gso_segs, gso_size and a
    /// few more; all else has to be 0. Without ifindex the frame crosses the loopback interface.
    fn context(&self) -> [u8; 192] {
        let mut context = [0; 192];
        let mut put = |at: usize, word: u32| context[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        put(8, self.mark);
        put(36, self.ingress_ifindex);
        put(164, self.gso.segments);
        put(176, self.gso.size);
        context
    }
}

impl From<TestRunResult> for RunResult {
    fn from(run: TestRunResult) -> Self {
        Self {
            action: run.return_value,
            duration_ns: run.duration.as_nanos() as u64,
            frame_bytes: run.data_size_out as usize,
        }
    }
}

/// Actions of an XDP program (`enum xdp_action`).
impl RunResult {
    /// XDP: drop.
    pub const XDP_DROP: u32 = 1;
    /// XDP: go on.
    pub const XDP_PASS: u32 = 2;
    /// XDP: send it back.
    pub const XDP_TX: u32 = 3;
    /// TC: go on with the next program.
    pub const TC_NEXT: u32 = u32::MAX;
    /// TC: go on.
    pub const TC_OK: u32 = 0;
    /// TC: drop.
    pub const TC_SHOT: u32 = 2;
    /// TC: send it by another way, or back.
    pub const TC_REDIRECT: u32 = 7;
}

impl Kernel {
    /// Runs the XDP program on a frame, `repeat` times.
    pub fn run_xdp(&self, frame: &[u8], repeat: u32) -> Result<RunResult> {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
        self.run_program(XDP_PROGRAM, frame.len(), options)
    }

    /// Runs the XDP program once and reads the frame back. `out` has to have room for it.
    pub fn run_xdp_out(&self, frame: &[u8], out: &mut [u8]) -> Result<RunResult> {
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(out), ..TestRunOptions::new() };
        self.run_program(XDP_PROGRAM, frame.len(), options)
    }

    /// Sends `packets` frames through the XDP program as if they had come from the driver: what it passes enters the
    /// network stack, what it transmits leaves.
    pub fn run_xdp_live(&self, frame: &[u8], packets: u32, batch: u32) -> Result<RunResult> {
        let attrs = TestRunAttrs::new().xdp_live_frames(batch);
        let options =
            TestRunOptions { data_in: Some(frame), repeat: packets, attrs, ..TestRunOptions::new() };
        self.run_program(XDP_PROGRAM, frame.len(), options)
    }

    /// Runs the TC program for what enters on a frame. The kernel has to have been loaded with it.
    pub fn run_tc_in(&self, frame: &[u8], repeat: u32) -> Result<RunResult> {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
        self.run_program(TC_IN_PROGRAM, frame.len(), options)
    }

    /// Runs the TC program for what enters once and reads the frame back. `out` has to have room for it.
    pub fn run_tc_in_out(&self, frame: &[u8], out: &mut [u8]) -> Result<RunResult> {
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(out), ..TestRunOptions::new() };
        self.run_program(TC_IN_PROGRAM, frame.len(), options)
    }

    /// Runs the TC program for what leaves on a frame that came in by `ingress_ifindex` (0: the host itself sends it).
    pub fn run_tc(&self, frame: &[u8], ingress_ifindex: u32, repeat: u32) -> Result<RunResult> {
        let context = Beside { ingress_ifindex, ..Beside::default() }.context();
        let options =
            TestRunOptions { data_in: Some(frame), ctx_in: Some(&context), repeat, ..TestRunOptions::new() };
        self.run_program(TC_PROGRAM, frame.len(), options)
    }

    /// Runs the TC program for what leaves once on a frame of the host itself and reads it back. `out` has to have room for it.
    pub fn run_tc_out(&self, frame: &[u8], out: &mut [u8]) -> Result<RunResult> {
        let context = Beside::default().context();
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        self.run_program(TC_PROGRAM, frame.len(), options)
    }

    /// Runs the TC program of a direction once on a socket buffer with what stands beside its bytes. Its mark is afterwards what
    /// the program made of it.
    pub fn run_tc_as(&self, direction: Direction, frame: &[u8], beside: &mut Beside) -> Result<RunResult> {
        let context = beside.context();
        let mut after = context;
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            ctx_out: Some(&mut after),
            ..TestRunOptions::new()
        };
        let program = match direction {
            Direction::Ingress => TC_IN_PROGRAM,
            Direction::Egress => TC_PROGRAM,
        };
        let run = self.run_program(program, frame.len(), options)?;
        beside.mark = u32::from_ne_bytes([after[8], after[9], after[10], after[11]]);
        Ok(run)
    }

    /// The kernel's tick counter and boot clock, read by the kernel at one moment.
    pub(crate) fn read_clock(&self) -> Result<Reading> {
        let mut out = [0u8; 64];
        let options =
            TestRunOptions { data_in: Some(&[0; 64]), data_out: Some(&mut out), ..TestRunOptions::new() };
        self.run_program(CLOCK_PROGRAM, 64, options)?;
        let word = |at: usize| out[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Ok(Reading { ticks: word(0), boot_ns: word(8) })
    }

    fn run_program(
        &self,
        program: &'static str,
        frame_bytes: usize,
        options: TestRunOptions<'_>,
    ) -> Result<RunResult> {
        let missing = || Error::Missing { what: format!("program {program}") };
        let object = match program {
            TC_PROGRAM => Some(&self.tc),
            TC_IN_PROGRAM => self.tc_in.as_ref(),
            _ => Some(&self.xdp),
        };
        let loaded = object.and_then(|object| object.program(program)).ok_or_else(missing)?;
        let run = |loaded| -> Result<TestRunResult, ProgramError> {
            if matches!(program, TC_PROGRAM | TC_IN_PROGRAM) {
                <&SchedClassifier>::try_from(loaded)?.test_run(options)
            } else {
                <&Xdp>::try_from(loaded)?.test_run(options)
            }
        };
        run(loaded).map(RunResult::from).map_err(|source| Error::Run { program, frame_bytes, source })
    }
}

/// Keeps the calling thread on one CPU while it lives, so that per-CPU values of a test-run are found again.
#[derive(Debug)]
pub struct CpuPin {
    before: CpuSet,
    cpu: usize,
}

impl CpuPin {
    /// Pins the calling thread to the CPU it is on.
    pub fn here() -> Result<Self> {
        Self::to(sched_getcpu())
    }

    /// Pins the calling thread to a CPU.
    pub fn to(cpu: usize) -> Result<Self> {
        let pin = || -> rustix::io::Result<Self> {
            let before = sched_getaffinity(None)?;
            let mut one = CpuSet::new();
            one.set(cpu);
            sched_setaffinity(None, &one)?;
            Ok(Self { before, cpu })
        };
        pin().map_err(|e| Error::io("pin the thread to a CPU", "")(e.into()))
    }

    /// CPUs that the calling thread may run on.
    pub fn allowed() -> Result<Vec<usize>> {
        let allowed =
            sched_getaffinity(None).map_err(|e| Error::io("ask for the thread's CPUs", "")(e.into()))?;
        Ok((0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect())
    }

    /// The CPU.
    pub fn cpu(&self) -> usize {
        self.cpu
    }
}

impl Drop for CpuPin {
    fn drop(&mut self) {
        // The old set was valid; a CPU that went offline since leaves the thread where it is.
        let _ = sched_setaffinity(None, &self.before);
    }
}
