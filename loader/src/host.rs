//! Programs that watch local workloads. They are attached as long as this is held: nothing of them outlives the daemon.

use crate::error::{Error, Result, chain};
use crate::maps::Events;
use crate::object::HOST;
use crate::pod::P;
use aya::maps::{HashMap, Map, MapData, PerCpuArray};
use aya::programs::{CgroupAttachMode, CgroupSockAddr, TracePoint};
use aya::{Ebpf, EbpfLoader};
use datapath::abi::{Deed, HostCount};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const EXEC: &str = "tidegate_exec";
const CONNECTS: [&str; 2] = ["tidegate_connect4", "tidegate_connect6"];

/// The loaded programs, attached to what is watched.
pub struct HostWatch {
    ebpf: Ebpf,
    watched: HashMap<MapData, u64, u32>,
    deeds: HashMap<MapData, P<Deed>, u32>,
    counts: PerCpuArray<MapData, u64>,
}

/// What was counted since the programs were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCounts {
    /// What watched cgroups did.
    pub seen: u64,
    /// What was told of it: the first of each kind.
    pub told: u64,
    /// What was not told, since there was no room.
    pub lost: u64,
}

impl HostWatch {
    /// Loads the programs, and attaches the one that sees what is executed. It sees what watched cgroups do and no more.
    ///
    /// # Errors
    /// What the kernel refuses; without tracefs, which systemd mounts at /sys/kernel/tracing, there are no tracepoints.
    pub fn load() -> Result<Self> {
        let failed = |what: &str, e: &(dyn std::error::Error + 'static)| Error::Host {
            what: what.into(),
            why: chain(e),
        };
        let mut ebpf = EbpfLoader::new().load(HOST).map_err(|e| failed("load the programs", &e))?;
        let mut take = |name: &'static str| {
            ebpf.take_map(name).ok_or_else(|| Error::Missing { what: format!("map {name}") })
        };
        let map = |e: aya::maps::MapError| failed("open a map", &e);
        let watched = HashMap::try_from(take("TG_WATCHED")?).map_err(map)?;
        let deeds = HashMap::try_from(take("TG_DEEDS")?).map_err(map)?;
        let counts = PerCpuArray::try_from(take("TG_HOST_COUNTS")?).map_err(map)?;
        let exec: &mut TracePoint = program(&mut ebpf, EXEC)?;
        exec.load().map_err(|e| failed("load the program of the tracepoint", &e))?;
        exec.attach("sched", "sched_process_exec").map_err(|e| {
            failed(
                "attach to the tracepoint sched_process_exec (is tracefs mounted at /sys/kernel/tracing?)",
                &e,
            )
        })?;
        for name in CONNECTS {
            let connect: &mut CgroupSockAddr = program(&mut ebpf, name)?;
            connect.load().map_err(|e| failed("load the program of the cgroup", &e))?;
        }
        Ok(Self { ebpf, watched, deeds, counts })
    }

    /// Watches a cgroup, and all below it; returns its id.
    ///
    /// # Errors
    /// Where that is no cgroup v2, or the kernel refuses.
    pub fn watch(&mut self, cgroup: &Path) -> Result<u64> {
        let what = || format!("watch the cgroup {}", cgroup.display());
        let failed = |e: &(dyn std::error::Error + 'static)| Error::Host { what: what(), why: chain(e) };
        let file = File::open(cgroup).map_err(|e| failed(&e))?;
        // The id of a cgroup is its inode.
        let id = file.metadata().map_err(|e| failed(&e))?.ino();
        for name in CONNECTS {
            let connect: &mut CgroupSockAddr = program(&mut self.ebpf, name)?;
            // By a link, which is one of several whatever its mode says; it takes no flag.
            connect.attach(&file, CgroupAttachMode::Single).map_err(|e| failed(&e))?;
        }
        self.watched.insert(id, 1, 0).map_err(|e| failed(&e))?;
        Ok(id)
    }

    /// The events. Taken once.
    ///
    /// # Errors
    /// Where they were taken.
    pub fn events(&mut self) -> Result<Events> {
        match self.ebpf.take_map("TG_HOST_EVENTS") {
            Some(Map::RingBuf(map)) => Events::new("TG_HOST_EVENTS", &map),
            _ => Err(Error::Missing { what: "ring buffer TG_HOST_EVENTS".into() }),
        }
    }

    /// Has everything told again that is done from now on: somebody else may have to hear of it.
    pub fn forget(&mut self) {
        let known: Vec<_> = self.deeds.keys().filter_map(Result::ok).collect();
        // What went by itself is gone.
        known.iter().for_each(|deed| drop(self.deeds.remove(deed)));
    }

    /// What was counted.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn counts(&self) -> Result<HostCounts> {
        let count = |what: HostCount| -> Result<u64> {
            let values = self.counts.get(&(what as u32), 0);
            let values = values.map_err(|source| Error::Map { map: "TG_HOST_COUNTS", source })?;
            Ok(values.iter().sum())
        };
        Ok(HostCounts {
            seen: count(HostCount::Seen)?,
            told: count(HostCount::Told)?,
            lost: count(HostCount::Lost)?,
        })
    }
}

/// Where cgroups of version 2 are mounted.
pub fn cgroup_root() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mut of_type = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    of_type.find(|fields| fields.get(2) == Some(&"cgroup2")).map(|fields| PathBuf::from(fields[1]))
}

fn program<'e, P>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut P>
where
    &'e mut P: TryFrom<&'e mut aya::programs::Program>,
{
    let missing = || Error::Missing { what: format!("program {name}") };
    ebpf.program_mut(name).ok_or_else(missing)?.try_into().map_err(|_| missing())
}
