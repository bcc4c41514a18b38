//! `tidegate replay`: what the programs make of a capture.
//!
//! [`capture`] reads frames, [`link`] makes Ethernet of them, an [`engine`] judges them with the capture's own time,
//! [`connections`] joins what the engine's tables hold, [`output`] prints it. The engines are the shipped program
//! in the kernel ([`kernel`]) and the same source compiled natively ([`host`]); both print the same, byte for byte.

pub mod capture;
pub mod checksum;
pub mod clock;
pub mod connection_record;
pub mod connections;
pub mod cut;
pub mod engine;
pub mod host;
pub mod kernel;
pub mod link;
pub mod observed;
pub mod output;
pub mod packet_record;
pub mod reassembly;
pub mod rules;
pub mod seconds;
pub mod session;
pub mod setup;

use crate::daemon::inspect::Inspect;
use crate::exit_code::{Code, Failure};
use capture::{Capture, CaptureError, LinkType};
use engine::EngineError;
use output::Format;
use session::{Outcome, Prepared, Reading};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Arguments of `tidegate replay`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate replay capture.pcap                       connections, as a table
  tidegate replay -o json capture.pcapng             connections, a JSON object a line
  tidegate replay --packets -o json capture.pcap     every frame with its verdict
  tidegate replay --policy policies/ capture.pcap    what a policy would have done to it")]
pub struct ReplayArgs {
    /// The capture: pcap or pcapng; Ethernet, raw IP, Linux cooked or BSD loopback
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Judge by the policy in this file or folder (may be repeated); without one, all is allowed
    #[arg(long, value_name = "PATH")]
    pub policy: Vec<PathBuf>,
    /// One record a frame instead of one a connection
    #[arg(long)]
    pub packets: bool,
    /// How frames are read
    #[command(flatten)]
    pub reading: Reading,
    /// Judge packets of these tunnels by what they carry, one level deep; addresses and lengths are then those of the inner packet
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',')]
    pub inspect: Vec<Inspect>,
    /// Where the packet path runs [default: kernel as root, else host]
    #[arg(long, value_enum)]
    pub engine: Option<EngineChoice>,
    /// Drop what is denied, or only say so
    #[arg(long, value_enum, default_value_t)]
    pub mode: Mode,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Format,
}

/// Where the packet path runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum EngineChoice {
    /// The shipped program, by the kernel's test-run; needs root
    Kernel,
    /// The same source, compiled natively
    Host,
}

/// What becomes of what is denied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// It is dropped
    #[default]
    Enforce,
    /// It passes with verdict AUDIT
    Monitor,
}

/// Why a replay failed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file cannot be opened.
    #[error("cannot open {path}: {error}", path = path.display())]
    Open {
        /// The capture.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The file is no capture.
    #[error("{path}: {error}", path = path.display())]
    NotACapture {
        /// The capture.
        path: PathBuf,
        /// What is wrong with it.
        error: CaptureError,
    },
    /// Nothing in the capture is of a link type that is read here.
    #[error("{path} has frames of {links}; readable are {supported}", path = path.display(), supported = link::SUPPORTED)]
    ForeignLink {
        /// The capture.
        path: PathBuf,
        /// The link types.
        links: String,
    },
    /// The capture is cut off or damaged; what is before that was printed.
    #[error("{path}: {error}; the {frames} frames before that were replayed", path = path.display())]
    Damaged {
        /// The capture.
        path: PathBuf,
        /// How many frames were whole.
        frames: u64,
        /// What is wrong with it.
        error: CaptureError,
    },
    /// The policy is wrong.
    #[error("{0}")]
    Policy(String),
    /// The kernel engine needs more rights.
    #[error(
        "--engine kernel loads the program into the kernel, which needs root: run it with sudo, or take --engine host"
    )]
    NeedsRoot,
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// More connections gave way to others than the ring buffer could tell.
    #[error("{0} connections are missing: the ring buffer of the engine was full")]
    LostEvents(u64),
}

impl ReplayError {
    /// How the command ends.
    pub fn exit_code(&self) -> Code {
        match self {
            Self::Open { .. } | Self::NotACapture { .. } | Self::ForeignLink { .. } | Self::Policy(_) => {
                Code::Usage
            }
            Self::NeedsRoot => Code::NotPermitted,
            _ => Code::Failure,
        }
    }

    /// Whether the reader of the output has gone away, which is nothing to complain about.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl From<ReplayError> for Failure {
    fn from(error: ReplayError) -> Self {
        Self::new(error.exit_code(), error.to_string())
    }
}

/// Runs the command.
///
/// # Errors
/// See [`ReplayError`]; what was whole of a damaged capture is printed before.
pub fn run(args: ReplayArgs) -> Result<(), ReplayError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let done = run_to(&args, &mut out);
    let flushed = out.flush().map_err(ReplayError::from);
    match done.and(flushed) {
        Err(error) if error.is_closed_pipe() => Ok(()),
        done => done,
    }
}

/// Runs the command with its output going to `out`.
///
/// # Errors
/// As [`run`].
pub fn run_to(args: &ReplayArgs, out: &mut impl Write) -> Result<(), ReplayError> {
    let engine = args.engine.unwrap_or_else(default_engine);
    if engine == EngineChoice::Kernel && !is_root() {
        return Err(ReplayError::NeedsRoot);
    }
    let (capture, file_bytes) = open(&args.file)?;
    let flows = flow_capacity(file_bytes);
    let outcome = session::replay(
        capture,
        |first_ns| prepare(args, engine, flows, first_ns),
        |record| match args.packets {
            true => Ok(output::packet(out, args.output, &record)?),
            false => Ok(()),
        },
    )?;
    if !args.packets {
        output::connections(out, args.output, &outcome.connections)?;
    }
    out.flush()?;
    if outcome.fragments_left > 0 {
        eprintln!("{} frames left out: fragments of datagrams that are not whole", outcome.fragments_left);
    }
    judge_outcome(&args.file, outcome)
}

fn prepare(
    args: &ReplayArgs,
    engine: EngineChoice,
    flows: u32,
    first_ns: u64,
) -> Result<Prepared<'static>, ReplayError> {
    let enforce = args.mode == Mode::Enforce;
    let setup = setup::Setup::read(&args.policy, enforce, first_ns)?.inspecting(&args.inspect);
    let rules = setup.rule_names();
    let engine: Box<dyn engine::Engine> = match engine {
        EngineChoice::Kernel => Box::new(kernel::KernelEngine::new(&setup, flows)?),
        EngineChoice::Host => Box::new(host::HostEngine::new(&setup)),
    };
    Ok(Prepared { engine, rules, enforce, reading: args.reading })
}

/// No more flows than this have room in a file: so the kernel's tables lose none, as the native ones do not.
fn flow_capacity(file_bytes: u64) -> u32 {
    const SMALLEST_RECORD: u64 = 16 + 20;
    // What a CPU has set aside of a table is not there for others: some is spare.
    (file_bytes / SMALLEST_RECORD * 5 / 4 + 4096).min(MAX_FLOWS) as u32
}

/// Some 300 MB of kernel memory; the flows of a larger capture give way to one another as on a gateway.
const MAX_FLOWS: u64 = 1 << 20;

fn open(path: &Path) -> Result<(Capture<BufReader<File>>, u64), ReplayError> {
    let failed = |error| ReplayError::Open { path: path.into(), error };
    let file = File::open(path).map_err(failed)?;
    let file_bytes = file.metadata().map_err(failed)?.len();
    let capture = Capture::open(BufReader::with_capacity(1 << 16, file))
        .map_err(|error| ReplayError::NotACapture { path: path.into(), error })?;
    match capture.link() {
        Some(link) if link::Link::of(link).is_none() => Err(foreign(path, [link])),
        _ => Ok((capture, file_bytes)),
    }
}

fn foreign(path: &Path, links: impl IntoIterator<Item = LinkType>) -> ReplayError {
    let links: Vec<_> = links.into_iter().map(link::link_name).collect();
    ReplayError::ForeignLink { path: path.into(), links: links.join(", ") }
}

/// What was printed is right; this says what is missing from it.
fn judge_outcome(path: &Path, outcome: Outcome) -> Result<(), ReplayError> {
    if let Some(error) = outcome.damage {
        return Err(ReplayError::Damaged { path: path.into(), frames: outcome.frames, error });
    }
    if !outcome.foreign_links.is_empty() {
        return Err(foreign(path, outcome.foreign_links));
    }
    match outcome.lost_events {
        0 => Ok(()),
        lost => Err(ReplayError::LostEvents(lost)),
    }
}

fn default_engine() -> EngineChoice {
    let (engine, name) = match is_root() {
        true => (EngineChoice::Kernel, "kernel: the shipped program, by test-run"),
        false => (EngineChoice::Host, "host: not root, so the same path compiled natively"),
    };
    eprintln!("engine {name}");
    engine
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
