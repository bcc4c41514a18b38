//! The kernel: what it has of what the programs need.

use super::Part;
use crate::instance::Instance;
use loader::probe::{self, Answer};

/// Its verifier takes the arguments of global functions for keys of maps ("bpf: Consider all `mem_types` compatible for
/// map_{key,value} args", d1673304097c); 6.1 refuses them ("R2 type=mem expected=fp, pkt").
const OLDEST: (u32, u32) = (6, 2);
const AS_ROOT: &str = "run `tidegate doctor` as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON";

pub(super) fn checks(instance: &Instance) -> Part {
    let mut part = Part::new("kernel");
    release(&mut part);
    let bpf = probe::bpf();
    match &bpf {
        Answer::Yes => part.ok("bpf()", "permitted"),
        Answer::NotPermitted => part.missing("bpf()", "not permitted", AS_ROOT),
        Answer::No => {
            part.missing("bpf()", "not there", "use a kernel with CONFIG_BPF_SYSCALL");
        }
        Answer::Unknown(why) => part.missing("bpf()", why.clone(), "see what keeps this process from it"),
    }
    if bpf == Answer::Yes {
        group(
            &mut part,
            "program types",
            &probe::program_types(),
            "CONFIG_NET_CLS_ACT and CONFIG_BPF_SYSCALL",
        );
        group(&mut part, "map types", &probe::map_types(), "a ring buffer and device maps (Linux 5.8)");
        group(&mut part, "helpers", &probe::helpers(), "these helpers (Linux 5.18 has all)");
        load(&mut part, instance);
        tcx(&mut part);
        dispatcher(&mut part);
    }
    forwarding(&mut part);
    jit(&mut part);
    btf(&mut part);
    part
}

fn release(part: &mut Part) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|word| word.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= OLDEST {
        return part.ok("release", release);
    }
    part.missing(
        "release",
        release,
        "use Linux 6.2 or newer (tried: 6.12 and 6.18): the verifier of 6.1 refuses the programs",
    );
}

/// Probes of one kind in one line.
fn group(part: &mut Part, check: &str, answers: &[(String, Answer)], wanted: &str) {
    let named = |what: fn(&Answer) -> bool| -> Vec<&str> {
        answers.iter().filter(|(_, answer)| what(answer)).map(|(name, _)| name.as_str()).collect()
    };
    let (absent, hidden) =
        (named(|answer| *answer == Answer::No), named(|answer| *answer == Answer::NotPermitted));
    if !absent.is_empty() {
        return part.missing(
            check,
            format!("not there: {}", absent.join(", ")),
            format!("use a kernel with {wanted}"),
        );
    }
    if !hidden.is_empty() {
        return part.missing(check, format!("not permitted: {}", hidden.join(", ")), AS_ROOT);
    }
    let unknown = answers.iter().find_map(|(name, answer)| match answer {
        Answer::Unknown(why) => Some(format!("{name}: {why}")),
        _ => None,
    });
    match unknown {
        Some(why) => part.warn(check, why, "nothing, if the line `programs` is ok"),
        None => part.ok(check, named(|answer| *answer == Answer::Yes).join(", ")),
    }
}

/// The proof of the pudding: the programs themselves.
fn load(part: &mut Part, instance: &Instance) {
    match probe::load(&instance.bpffs) {
        Err(e) => {
            let said = e.to_string();
            let line = said.lines().next().unwrap_or_default();
            part.missing(
                "programs",
                line,
                "what the message says; `tidegate run` shows the verifier's whole log",
            );
        }
        Ok(programs) => {
            let each = programs.iter().map(|p| {
                format!(
                    "{}: {} instructions verified, {} bytes of machine code",
                    p.name, p.verified_instructions, p.jited_bytes
                )
            });
            part.ok("programs", each.collect::<Vec<_>>().join("; "));
        }
    }
}

fn tcx(part: &mut Part) {
    match probe::tcx() {
        Answer::Yes => part.ok("TCX links", "there"),
        Answer::No => part.warn(
            "TCX links",
            "not there: egress is a filter of the clsact qdisc",
            "nothing; Linux 6.6 has them, and a link cannot be taken off by who changes the qdisc",
        ),
        Answer::NotPermitted => part.warn("TCX links", "not permitted to ask", AS_ROOT),
        Answer::Unknown(why) => part.warn("TCX links", why, "see --tc-mode clsact"),
    }
}

fn dispatcher(part: &mut Part) {
    const CHECK: &str = "libxdp's dispatcher";
    const BESIDE: &str =
        "nothing, unless XDP programs are to share an interface: `--ingress tc` judges after any of them";
    match probe::dispatcher() {
        Answer::Yes => {
            part.ok(CHECK, "works: `--ingress libxdp` shares an interface with other XDP programs")
        }
        Answer::NotPermitted => part.warn(
            CHECK,
            "not permitted to try (CAP_SYS_ADMIN)",
            "run `tidegate doctor` as root; `--ingress tc` judges after any XDP program and needs no more",
        ),
        Answer::No => part.warn(CHECK, "this kernel takes no programs into one (type EXT)", BESIDE),
        Answer::Unknown(why) => part.warn(CHECK, why, BESIDE),
    }
}

fn forwarding(part: &mut Part) {
    const LOOPBACK: u32 = 1;
    match loader::netdev::xdp_features(LOOPBACK) {
        Ok(Some(_)) => part.ok("drivers tell", "what they can do with XDP; --forward xdp can be used"),
        Ok(None) => part.warn(
            "drivers tell",
            "nothing of what they can do with XDP",
            "Linux 6.3 for --forward xdp; all else works without",
        ),
        Err(e) => part.warn("drivers tell", e.to_string(), "see --forward linux, which is the default"),
    }
}

fn jit(part: &mut Part) {
    let value = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/core/{name}")).ok();
    match value("bpf_jit_enable").as_deref().map(str::trim) {
        Some("0") => part.warn("JIT", "off: programs are interpreted", "sysctl net.core.bpf_jit_enable=1"),
        Some("2") => part.warn(
            "JIT",
            "on, and writes what it makes into the kernel's log",
            "sysctl net.core.bpf_jit_enable=1",
        ),
        Some(_) => part.ok("JIT", "on"),
        None => part.warn("JIT", "cannot read net.core.bpf_jit_enable", "run `tidegate doctor` as root"),
    }
    if value("bpf_jit_harden").as_deref().map(str::trim) == Some("2") {
        let to_do = "sysctl net.core.bpf_jit_harden=1: then only programs of users without privileges are hardened, and ours run at full speed";
        part.warn(
            "JIT hardening",
            "for all programs: constants are blinded, which costs instructions",
            to_do,
        );
    }
}

fn btf(part: &mut Part) {
    if std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
        return part.ok("BTF", "/sys/kernel/btf/vmlinux");
    }
    let to_do =
        "nothing: Tidegate's programs need none; CONFIG_DEBUG_INFO_BTF is for bpftool and other tools";
    part.warn("BTF", "the kernel has no BTF of its own", to_do);
}
