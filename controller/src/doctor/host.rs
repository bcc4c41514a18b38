//! What the host is set to, and what this process may do.

use super::Part;
use crate::instance::Instance;
use crate::privileges;
use loader::Maps;
use rustix::thread::CapabilitySet;
use std::fs;
use std::path::PathBuf;

/// What the maps take at their default sizes on two CPUs, twice over: `loader::Sizes::default`.
const MEMORY_BYTES: u64 = 256 << 20;

pub(super) fn checks(instance: &Instance) -> Part {
    let mut part = Part::new("host");
    let held = privileges::effective();
    capabilities(&mut part, held);
    bpffs(&mut part, instance, held);
    pinned_maps(&mut part, instance);
    folders(&mut part, instance);
    memory(&mut part);
    forwarding(&mut part);
    part
}

fn capabilities(part: &mut Part, held: CapabilitySet) {
    let absent = privileges::absent(held);
    if absent.is_empty() {
        return part.ok("capabilities", "all that are needed");
    }
    for (name, why) in absent {
        part.missing("capabilities", format!("no {name}"), format!("run as root or with {name}, to {why}"));
    }
}

fn bpffs(part: &mut Part, instance: &Instance, held: CapabilitySet) {
    let dir = instance.bpffs.display();
    if !loader::bpffs::is_bpffs(&instance.bpffs) {
        let by_hand = format!("mount -t bpf bpf {dir}");
        if held.contains(CapabilitySet::SYS_ADMIN) {
            return part.warn(
                "bpffs",
                format!("not mounted on {dir}"),
                format!("nothing, `tidegate run` mounts it; or {by_hand}"),
            );
        }
        return part.missing("bpffs", format!("not mounted on {dir}"), format!("as root: {by_hand}"));
    }
    if may_write(&instance.pin_dir()) {
        return part.ok("bpffs", format!("{dir}, pins go to {}", instance.pin_dir().display()));
    }
    let to_do = format!("as root: install -d -o USER {}", instance.pin_dir().display());
    part.missing("bpffs", format!("no permission to write {}", instance.pin_dir().display()), to_do);
}

/// Whether what is enforced now can be taken over by this version. Who may not look is told of capabilities already.
fn pinned_maps(part: &mut Part, instance: &Instance) {
    match Maps::open(&instance.pin_dir()) {
        Ok(_) => part.ok("pinned maps", "are of this version: `tidegate run` takes them over, without a gap"),
        Err(loader::Error::AbiVersion { found, expected, .. }) if found < expected => part.ok(
            "pinned maps",
            format!(
                "are of ABI version {found}: `tidegate run` of this build ({expected}) replaces them in place, without a gap, and learns \
                 connections anew"
            ),
        ),
        Err(loader::Error::AbiVersion { found, expected, .. }) => part.missing(
            "pinned maps",
            format!(
                "are of ABI version {found}, this build knows {expected}: the programs of the newer version enforce on, and this one \
                 cannot take over"
            ),
            "install the newer version again; only when packets may pass unjudged for a moment: tidegate detach --all, and start this \
             version at once (docs/operations.md, Upgrade)",
        ),
        Err(_) => {}
    }
}

fn folders(part: &mut Part, instance: &Instance) {
    for (check, dir, option) in
        [("run folder", &instance.run_dir, "--run-dir"), ("state folder", &instance.state_dir, "--state-dir")]
    {
        if may_write(dir) {
            part.ok(check, dir.display().to_string());
        } else {
            let to_do = format!("as root: install -d -o USER {}; or give {option}", dir.display());
            part.missing(check, format!("no permission to write {}", dir.display()), to_do);
        }
    }
}

/// Whether files can be made there, or the folder itself where it is not there yet.
fn may_write(dir: &std::path::Path) -> bool {
    let there = dir.ancestors().find(|one| one.exists()).unwrap_or(dir);
    rustix::fs::access(there, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok()
}

/// Since Linux 5.11 maps count as the control group's memory, and RLIMIT_MEMLOCK does not limit them.
fn memory(part: &mut Part) {
    const CHECK: &str = "memory for maps";
    match memory_limit() {
        Some((path, limit)) if limit < MEMORY_BYTES => part.warn(
            CHECK,
            format!("the control group has {} MB ({})", limit >> 20, path.display()),
            "give it more (MemoryMax= of the unit), or smaller maps by --map-size",
        ),
        Some((path, limit)) => part.ok(CHECK, format!("{} MB ({})", limit >> 20, path.display())),
        None => {
            part.ok(CHECK, "the control group sets no limit; RLIMIT_MEMLOCK counts no maps since Linux 5.11")
        }
    }
}

/// The least limit on the way from this process' control group to the root, in either version of them.
fn memory_limit() -> Option<(PathBuf, u64)> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let of = |line: &str| -> Option<(PathBuf, &'static str, PathBuf)> {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let path = PathBuf::from(path.trim_start_matches('/'));
        match controllers {
            "" => Some(("/sys/fs/cgroup".into(), "memory.max", path)),
            "memory" => Some(("/sys/fs/cgroup/memory".into(), "memory.limit_in_bytes", path)),
            _ => None,
        }
    };
    let limits = groups.lines().filter_map(of).flat_map(|(root, file, group)| {
        let files: Vec<_> = group.ancestors().map(|dir| root.join(dir).join(file)).collect();
        files.into_iter().filter_map(|path| {
            let limit = fs::read_to_string(&path).ok()?.trim().parse::<u64>().ok()?;
            // Version 1 says so where there is none.
            (limit < u64::MAX >> 2).then_some((path, limit))
        })
    });
    limits.min_by_key(|(_, limit)| *limit)
}

fn forwarding(part: &mut Part) {
    let on = |file: &str| fs::read_to_string(file).is_ok_and(|text| text.trim() == "1");
    let (v4, v6) = ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding");
    match (on(v4), on(v6)) {
        (true, true) => part.ok("forwarding", "IPv4 and IPv6"),
        (v4, v6) => {
            let off = if v4 {
                "IPv6"
            } else if v6 {
                "IPv4"
            } else {
                "neither IPv4 nor IPv6"
            };
            let found = if v4 || v6 { format!("not {off}") } else { off.to_owned() };
            let to_do = "a gateway wants sysctl net.ipv4.ip_forward=1 and net.ipv6.conf.all.forwarding=1";
            part.warn("forwarding", found, to_do);
        }
    }
}
