//! libxdp's dispatchers, as their pins show them: which programs each runs, in which order.

use aya::programs::ProgramInfo;
use std::path::{Path, PathBuf};

/// A dispatcher, and what it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatcher {
    /// Index of the interface that it was made for.
    pub ifindex: u32,
    /// Id of its own program.
    pub id: u32,
    /// Its programs in the order in which they run; none where they may not be read.
    pub programs: Vec<Component>,
    pub(crate) folder: PathBuf,
}

/// A program of a dispatcher.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Component {
    /// Its id.
    pub id: u32,
    /// Its name, as far as the kernel keeps it: 15 bytes.
    pub name: String,
    pub(crate) maps: Vec<u32>,
}

impl Dispatcher {
    /// The names of its programs, joined.
    pub fn names(&self) -> String {
        let names: Vec<_> = self.programs.iter().map(|program| program.name.as_str()).collect();
        if names.is_empty() { "programs that may not be read".into() } else { names.join(", ") }
    }
}

/// Where libxdp pins: it reads the same variable.
pub(crate) fn folder() -> PathBuf {
    std::env::var_os("LIBXDP_BPFFS").map_or_else(|| "/sys/fs/bpf".into(), PathBuf::from).join("xdp")
}

/// The dispatcher whose program has this id; `None` where it is none, or its pins may not be looked at.
pub fn of(ifindex: u32, id: u32) -> Option<Dispatcher> {
    let path = folder().join(format!("dispatch-{ifindex}-{id}"));
    path.is_dir().then(|| read(path, ifindex, id))
}

/// All that have pins, also those whose interface is gone or in another network namespace.
pub(crate) fn all() -> Vec<Dispatcher> {
    let entries = std::fs::read_dir(folder()).into_iter().flatten().flatten();
    let one = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let (ifindex, id) = name.strip_prefix("dispatch-")?.split_once('-')?;
        Some(read(entry.path(), ifindex.parse().ok()?, id.parse().ok()?))
    };
    entries.filter_map(one).collect()
}

fn read(folder: PathBuf, ifindex: u32, id: u32) -> Dispatcher {
    let programs = (0..).map_while(|at| component(&folder.join(format!("prog{at}-prog")))).collect();
    Dispatcher { ifindex, id, programs, folder }
}

fn component(pin: &Path) -> Option<Component> {
    let info = ProgramInfo::from_pin(pin).ok()?;
    let name = String::from_utf8_lossy(info.name()).into_owned();
    Some(Component { id: info.id(), name, maps: info.map_ids().ok().flatten().unwrap_or_default() })
}
