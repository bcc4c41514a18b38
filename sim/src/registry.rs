//! What a run has made, written down before it is made, so that whatever is killed, a later run can remove it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::{net, ns};

/// Where records lie.
pub const FOLDER: &str = "/run/tidegate-sim";

/// A process, told apart from a later one of the same number by when it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// What it does.
    pub role: String,
    /// Its number.
    pub pid: i32,
    /// In clock ticks since boot, from /proc/PID/stat.
    pub started: u64,
}

impl Process {
    /// A process that runs now.
    pub fn of(pid: i32, role: &str) -> Result<Self> {
        let started = start_time(pid).ok_or_else(|| anyhow!("process {pid} ({role}) is gone already"))?;
        Ok(Self { role: role.into(), pid, started })
    }

    /// Whether it still runs; a zombie does not.
    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }
}

/// Field 22 of /proc/PID/stat, none for zombies.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces and parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    (state != "Z" && state != "X").then(|| fields.nth(18)?.parse().ok()).flatten()
}

/// An interface by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkName {
    /// Namespace.
    pub namespace: String,
    /// Interface.
    pub name: String,
}

/// Everything that a run has made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Name of the run.
    pub run: String,
    /// The simulator itself.
    pub owner: Process,
    /// Network namespaces.
    pub namespaces: Vec<String>,
    /// One end of each veth pair.
    pub links: Vec<LinkName>,
    /// Children.
    pub processes: Vec<Process>,
    /// Folders under bpffs that hold pins.
    pub pins: Vec<PathBuf>,
    /// Folders for state, sockets and documents.
    pub folders: Vec<PathBuf>,
}

/// What a run made, and what of it is still there.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Receipt {
    /// How many network namespaces were made.
    pub namespaces: usize,
    /// How many interfaces.
    pub links: usize,
    /// How many pins were under bpffs.
    pub pins: usize,
    /// How many processes.
    pub processes: usize,
    /// What could not be removed, each with the reason.
    pub left: Vec<String>,
}

impl Record {
    /// A record of the run of this process, on disk.
    pub fn new() -> Result<Self> {
        let pid = nix::unistd::getpid().as_raw();
        let record = Self {
            run: format!("tgsim-{pid}"),
            owner: Process::of(pid, "tidegate-sim")?,
            namespaces: Vec::new(),
            links: Vec::new(),
            processes: Vec::new(),
            pins: Vec::new(),
            folders: Vec::new(),
        };
        fs::create_dir_all(FOLDER).with_context(|| format!("cannot make {FOLDER}"))?;
        record.save()?;
        Ok(record)
    }

    fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(format!("{}.json", self.run))
    }

    /// Writes it, whole or not at all.
    pub fn save(&self) -> Result<()> {
        let path = self.path();
        let partial = path.with_extension("partial");
        fs::write(&partial, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&partial, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Notes a process.
    pub fn add_process(&mut self, pid: u32, role: &str) -> Result<()> {
        self.processes.push(Process::of(i32::try_from(pid)?, role)?);
        self.save()
    }

    /// Notes what a gateway's daemon keeps outside its namespace.
    pub fn add_gateway(&mut self, folder: PathBuf, pins: PathBuf) -> Result<()> {
        self.folders.push(folder);
        self.pins.push(pins);
        self.save()
    }

    /// Removes everything, and itself if nothing is left.
    pub fn remove_all(&self) -> Receipt {
        let mut receipt = Receipt {
            namespaces: self.namespaces.len(),
            links: self.links.len() * 2,
            pins: self.pins.iter().map(|p| count_files(p)).sum(),
            processes: self.processes.len(),
            left: Vec::new(),
        };
        let mut try_to = |what: String, result: Result<()>| {
            if let Err(error) = result {
                receipt.left.push(format!("{what}: {error:#}"));
            }
        };
        for process in &self.processes {
            try_to(format!("process {} ({})", process.pid, process.role), end(process));
        }
        // A pinned link holds its program on the interface, so pins go before links.
        for folder in self.pins.iter().chain(&self.folders) {
            try_to(folder.display().to_string(), remove_folder(folder));
        }
        for link in &self.links {
            try_to(format!("link {} in {}", link.name, link.namespace), remove_link(link));
        }
        for name in &self.namespaces {
            try_to(format!("namespace {name}"), ns::remove(name));
        }
        if receipt.left.is_empty() {
            receipt.left = self.still_there();
        }
        if receipt.left.is_empty()
            && let Err(error) = fs::remove_file(self.path())
            && error.kind() != io::ErrorKind::NotFound
        {
            receipt.left.push(format!("{}: {error}", self.path().display()));
        }
        receipt
    }

    /// Looks once more at each thing by its name.
    fn still_there(&self) -> Vec<String> {
        let namespaces = self.namespaces.iter().filter(|n| ns::path(n).exists());
        let processes = self.processes.iter().filter(|p| p.is_alive());
        let folders = self.pins.iter().chain(&self.folders).filter(|f| f.exists());
        namespaces
            .map(|n| format!("namespace {n}"))
            .chain(processes.map(|p| format!("process {} ({})", p.pid, p.role)))
            .chain(folders.map(|f| f.display().to_string()))
            .collect()
    }
}

fn remove_link(link: &LinkName) -> Result<()> {
    if !ns::path(&link.namespace).exists() {
        return Ok(());
    }
    // A file that was never mounted is no namespace, and has no links.
    match ns::within(&link.namespace, || net::remove_link(&link.name).map(|()| net::has_link(&link.name))) {
        Ok(false) => Ok(()),
        Ok(true) => Err(anyhow!("it is still there")),
        Err(error) if error.downcast_ref::<nix::Error>() == Some(&nix::Error::EINVAL) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Kills a process and waits until it is gone.
fn end(process: &Process) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    while process.is_alive() {
        if let Err(error) = kill(Pid::from_raw(process.pid), Signal::SIGKILL)
            && error != nix::Error::ESRCH
        {
            return Err(error.into());
        }
        if Instant::now() > deadline {
            return Err(anyhow!("it did not end within 5 s of SIGKILL"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn count_files(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => count_files(&entry.path()),
            _ => 1,
        })
        .sum()
}

/// What a sweep found.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Runs whose things were removed, with the receipts.
    pub removed: Vec<(String, Receipt)>,
    /// Runs that are still going on.
    pub running: Vec<(String, i32)>,
}

/// Removes what runs have left that ended without doing so themselves.
pub fn sweep() -> Result<Sweep> {
    let mut sweep = Sweep::default();
    let entries = match fs::read_dir(FOLDER) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(sweep),
        Err(error) => return Err(error).with_context(|| format!("cannot read {FOLDER}")),
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let text = match fs::read(&path) {
            Ok(text) => text,
            // Its owner finished meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let record: Record = serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged: look at it and remove it by hand", path.display()))?;
        if record.owner.is_alive() {
            sweep.running.push((record.run, record.owner.pid));
        } else {
            let receipt = record.remove_all();
            sweep.removed.push((record.run, receipt));
        }
    }
    Ok(sweep)
}
