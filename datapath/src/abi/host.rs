//! What local workloads do on the host: programs that are executed and sockets that are connected, by cgroup.

use super::key::Addr;
use bytemuck::{Pod, Zeroable};

/// What a process did.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// It executed a file.
    Exec = 1,
    /// It connected a socket, or gave a datagram socket its peer.
    Connect = 2,
}

/// What is told once of a cgroup, and counted from then on.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Deed {
    /// The watched cgroup, by its id (cgroup v2).
    pub cgroup: u64,
    /// [`Did::Connect`]: to whom.
    pub addr: Addr,
    /// [`Did::Connect`]: to which port.
    pub port: u16,
    /// [`Did::Connect`]: IP protocol number.
    pub proto: u8,
    /// A [`Did`].
    pub did: u8,
    /// Padding.
    pub _pad: u32,
    /// [`Did::Exec`]: the path as it was given to execve(2), cut off where it is longer. [`Did::Connect`]: the name of the process, 16
    /// bytes at most. Zeroes behind it.
    pub name: [u8; Deed::NAME],
}
const _: () = assert!(size_of::<Deed>() == 32 + Deed::NAME);

impl Deed {
    /// Bytes of a name.
    pub const NAME: usize = 128;

    /// What was done; `None` for a kind of another version.
    pub fn did(&self) -> Option<Did> {
        match self.did {
            1 => Some(Did::Exec),
            2 => Some(Did::Connect),
            _ => None,
        }
    }

    /// The name without what is behind it.
    pub fn name(&self) -> &[u8] {
        let end = self.name.iter().position(|byte| *byte == 0).unwrap_or(Self::NAME);
        &self.name[..end]
    }
}

/// That something was done for the first time.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct HostEvent {
    /// Boot-clock time.
    pub time_ns: u64,
    /// The process.
    pub pid: u32,
    /// Padding.
    pub _pad: u32,
    /// What.
    pub deed: Deed,
}
const _: () = assert!(size_of::<HostEvent>() == 16 + size_of::<Deed>());

/// What a CPU counted: indices into a map.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostCount {
    /// Deeds of watched cgroups.
    Seen = 0,
    /// Those that were told.
    Told = 1,
    /// Those for which the ring buffer had no room.
    Lost = 2,
}

impl HostCount {
    /// How many there are.
    pub const COUNT: u32 = 3;
}

/// Levels of the hierarchy in which a watched cgroup is looked for: a container's is some below its pod's.
pub const CGROUP_LEVELS: i32 = 12;
