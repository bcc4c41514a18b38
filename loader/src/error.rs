//! What can go wrong, and what to do about it.

use std::io;
use std::path::PathBuf;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the loader.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process may not use BPF.
    #[error(
        "not permitted to {what}: run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (CAP_SYS_ADMIN to mount bpffs)"
    )]
    NotPermitted {
        /// What was tried.
        what: String,
    },
    /// The kernel does not say when its programs have returned.
    #[error("wait for the programs that run (membarrier): {0}")]
    Grace(#[source] io::Error),
    /// The kernel did not take an object.
    #[error("load {object}: {source}")]
    Load {
        /// Which object.
        object: &'static str,
        /// aya's reason.
        source: Box<aya::EbpfError>,
    },
    /// The verifier, or the kernel's version, refused a program.
    #[error("the kernel refuses the program {program}: {reason}")]
    Program {
        /// The program.
        program: &'static str,
        /// The kernel's reason, with the verifier's log.
        reason: String,
    },
    /// The programs that watch local workloads cannot do so.
    #[error("{what}: {why}")]
    Host {
        /// What was tried.
        what: String,
        /// The kernel's reason.
        why: String,
    },
    /// An object lacks a program or a map.
    #[error("the embedded BPF objects have no {what}: this build is incomplete, build again")]
    Missing {
        /// What is missing.
        what: String,
    },
    /// Pinned maps come from another version.
    #[error("the maps under {pin_dir} are of ABI version {found}, this build knows {expected}: {}", way_on(*.found, *.expected))]
    AbiVersion {
        /// Where the maps are pinned.
        pin_dir: PathBuf,
        /// The version in TG_CONFIG.
        found: u32,
        /// The version of this build.
        expected: u32,
    },
    /// A pinned map has another shape.
    #[error(
        "the pinned map {path} is {found}, this build needs {expected}, though both are of one ABI version: use the build that made \
         it, or another --name; `tidegate detach --all` removes it, and lets everything pass until the next start"
    )]
    MapShape {
        /// The pin.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What it has to be.
        expected: String,
    },
    /// Nothing is pinned there.
    #[error("no maps of Tidegate under {pin_dir}: no daemon has run with this --name and --bpffs")]
    NotPinned {
        /// Where they were looked for.
        pin_dir: PathBuf,
    },
    /// A map operation failed.
    #[error("map {map}: {source}")]
    Map {
        /// The map.
        map: &'static str,
        /// aya's reason.
        source: aya::maps::MapError,
    },
    /// A map has no room.
    #[error("map {map} is full ({max_entries} entries): start with a larger --map-size {map}=N")]
    MapFull {
        /// The map.
        map: &'static str,
        /// Its capacity.
        max_entries: u32,
    },
    /// There is no such interface.
    #[error("no interface {name} in this network namespace; it has: {}", list(.present))]
    NoInterface {
        /// The name that was asked for.
        name: String,
        /// The interfaces that exist.
        present: Vec<String>,
    },
    /// Somebody else's XDP program is on the interface.
    #[error(
        "interface {interface} already has XDP program {id} of somebody else: look at it with `bpftool prog show id {id}` and \
         `ip link show {interface}`, take it off with `ip link set dev {interface} xdp off` if it may go"
    )]
    OtherXdp {
        /// The interface.
        interface: String,
        /// Id of the program there.
        id: u32,
    },
    /// Programs of others are on the interface, and ours may join them.
    #[error(
        "interface {interface} already has libxdp's dispatcher of somebody else (XDP program {id}), which runs {programs}: \
         --ingress libxdp puts Tidegate's program among them, --ingress tc judges after them all"
    )]
    OtherDispatcher {
        /// The interface.
        interface: String,
        /// Id of the dispatcher.
        id: u32,
        /// What it runs.
        programs: String,
    },
    /// libxdp's dispatcher does not take our program.
    #[error("share {interface} through libxdp's dispatcher: {reason}")]
    Dispatcher {
        /// The interface.
        interface: String,
        /// Why, and what to do.
        reason: String,
    },
    /// An interface has one XDP program: a dispatcher, or ours.
    #[error(
        "{interface} cannot go from XDP to libxdp's dispatcher or back at once, for an interface has one XDP program: go by way \
         of --ingress tc, which leaves no gap"
    )]
    ByWayOfTc {
        /// The interface.
        interface: String,
    },
    /// XDP forwards only what it judged itself.
    #[error(
        "{interface} cannot be judged at TC while XDP forwards: use --ingress xdp, or start the daemon with --forward linux"
    )]
    ForwardNeedsXdp {
        /// The interface.
        interface: String,
    },
    /// Frames have no mark before the kernel makes a socket buffer of them.
    #[error(
        "{interface} cannot be judged by XDP while packets are marked: use --ingress tc, or start the daemon with --mark none"
    )]
    MarkNeedsTc {
        /// The interface.
        interface: String,
    },
    /// Attaching failed.
    #[error("attach {program} to {interface}: {reason}")]
    Attach {
        /// The program.
        program: &'static str,
        /// The interface.
        interface: String,
        /// What the kernel said to each way that was tried.
        reason: String,
    },
    /// The kernel's test-run failed.
    #[error("test-run of {program} with a frame of {frame_bytes} bytes: {source}")]
    Run {
        /// The program.
        program: &'static str,
        /// Length of the frame.
        frame_bytes: usize,
        /// aya's reason.
        source: aya::programs::ProgramError,
    },
    /// The tick length could not be told.
    #[error("cannot calibrate the clock: {reason}")]
    Clock {
        /// Why.
        reason: String,
    },
    /// A name that bpffs cannot hold.
    #[error("{path} cannot be a pin directory: bpffs allows no dots in names")]
    PinName {
        /// The directory.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A question to the kernel about interfaces failed.
    #[error("ask the kernel about interfaces: {0}")]
    Netlink(io::Error),
}

/// What to do about maps of another version.
fn way_on(found: u32, expected: u32) -> &'static str {
    if found < expected {
        "`tidegate run` of this build replaces them in place, without a gap"
    } else {
        "use the newer tidegate that made them, or another --name; `tidegate detach --all` removes them, and lets everything pass until \
         the next start"
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

impl Error {
    /// An I/O error with what was tried.
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::PermissionDenied => {
                Self::NotPermitted { what: format!("{what} {}", path.display()) }
            }
            _ => Self::Io { what, path, source },
        }
    }

    /// Whether more privileges would help.
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::NotPermitted { .. })
    }
}

/// The system error at the bottom of a chain, if there is one.
pub(crate) fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(code) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(code);
        }
        next = error.source();
    }
    None
}

/// The whole chain in one line: aya's errors keep the reason in their source.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = source.source();
    }
    text
}
