//! What this kernel lets Tidegate do. Nothing is attached, and what is loaded to find out is gone at once.

use crate::error::os_error;
use crate::kernel::{Kernel, LoadOptions, ProgramFacts};
use crate::shape::SHAPES;
use crate::sizes::Sizes;
use crate::{Result, gate, links};
use aya::maps::MapType;
use aya::programs::{ProgramType, SchedClassifier, TcAttachType};
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};
use std::path::Path;

/// An answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The kernel has it.
    Yes,
    /// It has not.
    No,
    /// This process may not find out.
    NotPermitted,
    /// Something else was in the way.
    Unknown(String),
}

impl Answer {
    fn of<E: std::error::Error + 'static>(result: Result<bool, E>) -> Self {
        match result {
            Ok(true) => Self::Yes,
            Ok(false) => Self::No,
            Err(e) if matches!(os_error(&e), Some(1 | 13)) => Self::NotPermitted,
            Err(e) => Self::Unknown(crate::error::chain(&e)),
        }
    }
}

/// Whether the kernel has the system call and this process may use it.
pub fn bpf() -> Answer {
    Answer::of(is_map_supported(MapType::Array))
}

/// The kinds of maps that the programs use.
pub fn map_types() -> Vec<(String, Answer)> {
    let mut types: Vec<MapType> = Vec::new();
    for shape in &SHAPES {
        if !types.contains(&shape.map_type) {
            types.push(shape.map_type);
        }
    }
    types.into_iter().map(|kind| (format!("{kind:?}"), Answer::of(is_map_supported(kind)))).collect()
}

/// The kinds of programs.
pub fn program_types() -> Vec<(String, Answer)> {
    [(ProgramType::Xdp, "XDP"), (ProgramType::SchedClassifier, "TC")]
        .into_iter()
        .map(|(kind, name)| (name.to_owned(), Answer::of(is_program_supported(kind))))
        .collect()
}

/// What the programs call.
pub fn helpers() -> Vec<(String, Answer)> {
    use aya_obj::generated::bpf_func_id::*;
    const XDP: [(BpfHelper, &str); 8] = [
        (BPF_FUNC_jiffies64, "bpf_jiffies64"),
        (BPF_FUNC_ktime_get_boot_ns, "bpf_ktime_get_boot_ns"),
        (BPF_FUNC_map_lookup_percpu_elem, "bpf_map_lookup_percpu_elem"),
        (BPF_FUNC_ringbuf_reserve, "bpf_ringbuf_reserve"),
        (BPF_FUNC_xdp_get_buff_len, "bpf_xdp_get_buff_len"),
        (BPF_FUNC_xdp_load_bytes, "bpf_xdp_load_bytes"),
        (BPF_FUNC_fib_lookup, "bpf_fib_lookup"),
        (BPF_FUNC_redirect_map, "bpf_redirect_map"),
    ];
    const TC: [(BpfHelper, &str); 2] =
        [(BPF_FUNC_skb_load_bytes, "bpf_skb_load_bytes"), (BPF_FUNC_skb_pull_data, "bpf_skb_pull_data")];
    let probe = |kind: ProgramType| {
        move |(helper, name): (BpfHelper, &str)| {
            (name.to_owned(), Answer::of(is_helper_supported(kind, helper)))
        }
    };
    let tc = TC.into_iter().map(probe(ProgramType::SchedClassifier));
    XDP.into_iter().map(probe(ProgramType::Xdp)).chain(tc).collect()
}

/// Whether programs can be attached to TC by TCX links: asks for those of the loopback interface.
pub fn tcx() -> Answer {
    match SchedClassifier::query_tcx("lo", TcAttachType::Egress) {
        Err(e) if os_error(&e) == Some(22) => Answer::No,
        answer => Answer::of(answer.map(|_| true)),
    }
}

/// Whether libxdp's dispatcher works here: has the kernel take a program into one, and lets both go.
pub fn dispatcher() -> Answer {
    let held = rustix::thread::capabilities(None).map(|sets| sets.effective);
    if !held.is_ok_and(|held| held.contains(rustix::thread::CapabilitySet::SYS_ADMIN)) {
        return Answer::NotPermitted;
    }
    if gate::supported() { Answer::Yes } else { Answer::No }
}

/// Loads the programs with small maps, and lets them go: what the verifier and the JIT make of them here. They are
/// pinned under `bpffs` for as long as it takes where this process may not mount a bpffs of its own.
pub fn load(bpffs: &Path) -> Result<Vec<ProgramFacts>> {
    let options = LoadOptions { sizes: Sizes::small(), ..LoadOptions::default() };
    match Kernel::load(&options) {
        Err(e) if e.is_permission() => {}
        kernel => return Ok(kernel?.programs()),
    }
    let pin_dir = bpffs.join("tidegate").join(format!("doctor-{}", std::process::id()));
    let kernel = Kernel::load(&LoadOptions { pin_dir: Some(pin_dir.clone()), ..options });
    let facts = kernel.map(|kernel| kernel.programs());
    if facts.is_ok() {
        links::detach_all(&pin_dir)?;
    }
    facts
}
