//! Loading the programs with their maps.

use crate::clock::{Clock, boot_ns};
use crate::error::{Error, Result, chain, os_error};
use crate::maps::Maps;
use crate::object::{CLOCK_PROGRAM, TC, TC_IN, TC_IN_PROGRAM, TC_PROGRAM, XDP, XDP_PROGRAM};
use crate::shape::SHAPES;
use crate::sizes::Sizes;
use crate::{aside, behind, bpffs, links};
use aya::programs::{ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use datapath::abi::{ABI_VERSION, Config};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// How much the verifier says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerifierLog {
    /// Errors, and how large the programs are.
    #[default]
    Errors,
    /// Every instruction it looked at.
    Verbose,
}

/// How to load.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Where maps and links are pinned, a directory in a bpffs. `None`: nothing outlives the [`Kernel`].
    pub pin_dir: Option<PathBuf>,
    /// Capacities of maps that are made. Maps that are pinned keep theirs.
    pub sizes: Sizes,
    /// Whether the program that judges at TC what enters is loaded at once; else it is with the first interface that needs it.
    pub tc_ingress: bool,
    /// What the verifier reports.
    pub log: VerifierLog,
    /// The time that the programs take for now instead of the clock's, for replays and tests.
    pub fixed_now_ns: Option<u64>,
    /// The seed of the flow hash; `None` for a random one. Maps that are pinned keep theirs.
    pub hash_seed: Option<u64>,
}

/// What the kernel says of a loaded program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramFacts {
    /// Its name.
    pub name: &'static str,
    /// Its id, for `bpftool prog show id`.
    pub id: u32,
    /// Instructions that the verifier processed.
    pub verified_instructions: u32,
    /// Bytes of machine code.
    pub jited_bytes: u32,
}

/// The loaded programs and their maps.
pub struct Kernel {
    pub(crate) xdp: Ebpf,
    pub(crate) tc: Ebpf,
    pub(crate) tc_in: Option<Ebpf>,
    behind_gate: Option<OwnedFd>,
    pub(crate) pin_dir: Option<PathBuf>,
    log: VerifierLog,
    maps: Maps,
    reused: bool,
}

impl Kernel {
    /// Loads the programs with shared maps. Pinned maps of this ABI are taken over with all that they hold; those of an older one are
    /// set aside, until [`forget_replaced_maps`](crate::forget_replaced_maps), and go on being judged by. What this call has pinned or
    /// set aside is as it was if it fails.
    pub fn load(options: &LoadOptions) -> Result<Self> {
        let Some(pin_dir) = &options.pin_dir else {
            let private = bpffs::Private::new()?;
            return Self::load_in(&private.path(), options);
        };
        let is_set_aside = aside::set(pin_dir)?;
        let load = || -> Result<Self> {
            let undo = Undo::before(pin_dir)?;
            let mut kernel = Self::load_in(pin_dir, options)?;
            kernel.pin_dir = Some(pin_dir.clone());
            undo.forget();
            Ok(kernel)
        };
        let loaded = load();
        if loaded.is_err() && is_set_aside {
            aside::put_replaced_maps_back(pin_dir)?;
        }
        loaded
    }

    fn load_in(dir: &Path, options: &LoadOptions) -> Result<Self> {
        let mut xdp = load_object("xdp", XDP, dir, options)?;
        let mut tc = load_object("tc", TC, dir, options)?;
        let mut tc_in = options.tc_ingress.then(|| load_object("tc", TC_IN, dir, options)).transpose()?;
        let maps = Maps::from_source(|name| xdp.take_map(name).or_else(|| tc.take_map(name)))?;
        // The verifier takes a second or two for each: side by side where there are two CPUs.
        std::thread::scope(|scope| {
            let tc = scope.spawn(|| {
                tc_in.as_mut().map(|object| load_classifier(object, TC_IN_PROGRAM)).transpose()?;
                load_classifier(&mut tc, TC_PROGRAM)
            });
            load_xdp(&mut xdp, XDP_PROGRAM)?;
            load_xdp(&mut xdp, CLOCK_PROGRAM)?;
            tc.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        let before = maps.config.get()?;
        let is_written = before.abi_version == ABI_VERSION;
        let reused = is_written && !aside::is_set(dir);
        let kernel =
            Self { xdp, tc, tc_in, behind_gate: None, maps, pin_dir: None, log: options.log, reused };
        let mut config = if is_written { before } else { kernel.new_config(options) };
        kernel.set_clock(&mut config, options.fixed_now_ns)?;
        kernel.maps.config.set(&config)?;
        Ok(kernel)
    }

    fn new_config(&self, options: &LoadOptions) -> Config {
        let seed = options.hash_seed.unwrap_or_else(random_seed);
        let attempt_mask = self.maps.half_open.sets() - 1;
        Config { attempt_mask, ..Config::new(self.maps.flows.slots.len(), seed) }
    }

    fn set_clock(&self, config: &mut Config, fixed_now_ns: Option<u64>) -> Result<()> {
        if let Some(now) = fixed_now_ns {
            config.flags |= Config::FIXED_CLOCK;
            config.fixed_now_ns = now;
            return Ok(());
        }
        let clock = Clock::calibrate(|| self.read_clock())?;
        config.flags &= !Config::FIXED_CLOCK;
        config.tick_ns = clock.tick_ns;
        config.boot_offset_ns = clock.boot_offset_ns;
        Ok(())
    }

    /// Sets the clock again if it is off by more than a tick or two: ticks do not count while a machine sleeps. Returns
    /// whether it was.
    pub fn recalibrate(&self) -> Result<bool> {
        let config = self.maps.config.get()?;
        let now = self.read_clock()?;
        let ticked = now.ticks.wrapping_mul(config.tick_ns).wrapping_add(config.boot_offset_ns);
        // By rights the tick lies less than one tick behind.
        let behind_ns = now.boot_ns.wrapping_sub(ticked) as i64;
        if behind_ns.unsigned_abs() <= 2 * config.tick_ns {
            return Ok(false);
        }
        let clock = Clock::calibrate(|| self.read_clock())?;
        self.maps.config.update(|config| {
            config.tick_ns = clock.tick_ns;
            config.boot_offset_ns = clock.boot_offset_ns;
        })?;
        Ok(true)
    }

    /// Sets the time that the programs take for now; for kernels that were loaded with a fixed time.
    pub fn set_now(&self, now_ns: u64) -> Result<()> {
        self.maps.config.update(|config| config.fixed_now_ns = now_ns).map(drop)
    }

    /// The maps.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// Whether the maps were there before, and hold what is judged by.
    pub fn reused_maps(&self) -> bool {
        self.reused
    }

    /// What the kernel says of the loaded programs.
    pub fn programs(&self) -> Vec<ProgramFacts> {
        let facts = |object: &Ebpf, name: &'static str| {
            let program = object.program(name)?;
            let info = program.info().ok()?;
            Some(ProgramFacts {
                name,
                id: info.id(),
                verified_instructions: info.verified_instruction_count().unwrap_or(0),
                jited_bytes: info.size_jitted(),
            })
        };
        let at_tc = self.tc_in.as_ref().and_then(|object| facts(object, TC_IN_PROGRAM));
        [facts(&self.xdp, XDP_PROGRAM), facts(&self.tc, TC_PROGRAM), at_tc].into_iter().flatten().collect()
    }

    /// The object with the program that judges at TC what enters, loaded if it was not yet.
    pub(crate) fn ingress_object(&mut self) -> Result<&mut Ebpf> {
        let object = match (self.tc_in.take(), &self.pin_dir) {
            (Some(object), _) => object,
            (None, Some(dir)) => {
                let options = LoadOptions { log: self.log, ..LoadOptions::default() };
                let mut object = load_object("tc", TC_IN, dir, &options)?;
                load_classifier(&mut object, TC_IN_PROGRAM)?;
                object
            }
            (None, None) => return Err(Error::Missing { what: format!("program {TC_IN_PROGRAM}") }),
        };
        Ok(self.tc_in.insert(object))
    }

    /// The XDP program as it stands behind gates, loaded if it was not yet.
    pub(crate) fn program_behind_gate(&mut self) -> Result<BorrowedFd<'_>> {
        let program = match (self.behind_gate.take(), &self.pin_dir) {
            (Some(program), _) => program,
            (None, Some(dir)) => behind::load(XDP, XDP_PROGRAM, dir, |name| self.xdp.map(name))?,
            (None, None) => return Err(Error::Missing { what: "pin directory".into() }),
        };
        let program: &OwnedFd = self.behind_gate.insert(program);
        Ok(program.as_fd())
    }
}

fn load_xdp(object: &mut Ebpf, program: &'static str) -> Result<()> {
    load_program(object, program, |program| <&mut Xdp>::try_from(program)?.load())
}

fn load_classifier(object: &mut Ebpf, program: &'static str) -> Result<()> {
    load_program(object, program, |program| <&mut SchedClassifier>::try_from(program)?.load())
}

fn load_object(object: &'static str, bytes: &[u8], dir: &Path, options: &LoadOptions) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(match options.log {
        // With more, a program that is too complex is looked at again and again for room in the log.
        VerifierLog::Errors => VerifierLogLevel::STATS,
        VerifierLog::Verbose => VerifierLogLevel::VERBOSE | VerifierLogLevel::STATS,
    });
    loader.default_map_pin_directory(dir);
    for shape in &SHAPES {
        shape.open(dir)?;
        loader.map_pin_path(shape.name, dir.join(shape.name));
        if let Some(max_entries) = options.sizes.of(shape.name) {
            loader.map_max_entries(shape.name, max_entries);
        }
    }
    loader.load(bytes).map_err(|source| match os_error(&source) {
        Some(EPERM | EACCES) => Error::NotPermitted { what: format!("load the {object} object") },
        _ => Error::Load { object, source: Box::new(source) },
    })
}

const EPERM: i32 = 1;
const EACCES: i32 = 13;
const EINVAL: i32 = 22;

fn load_program(
    object: &mut Ebpf,
    program: &'static str,
    load: impl FnOnce(&mut aya::programs::Program) -> Result<(), ProgramError>,
) -> Result<()> {
    let found =
        object.program_mut(program).ok_or_else(|| Error::Missing { what: format!("program {program}") })?;
    load(found).map_err(|error| refusal(program, &error))
}

fn refusal(program: &'static str, error: &ProgramError) -> Error {
    let said_nothing = match error {
        ProgramError::LoadError { verifier_log, .. } => verifier_log.to_string().trim().is_empty(),
        _ => true,
    };
    match os_error(error) {
        Some(EPERM) => Error::NotPermitted { what: format!("load the program {program}") },
        Some(EINVAL) if said_nothing => {
            let release = rustix::system::uname().release().to_string_lossy().into_owned();
            let reason = format!(
                "kernel {release} does not know its kind; Tidegate needs Linux 6.2 or newer with CONFIG_BPF_SYSCALL, \
                 CONFIG_NET_CLS_ACT and XDP in the driver or in the stack"
            );
            Error::Program { program, reason }
        }
        _ => Error::Program { program, reason: end_of_log(&chain(error)) },
    }
}

/// The verifier's reason comes last, after all that it looked at.
fn end_of_log(text: &str) -> String {
    const LINES: usize = 60;
    let lines: Vec<_> = text.lines().collect();
    match lines.len().checked_sub(LINES) {
        Some(cut @ 1..) => format!("{}\n... {cut} lines ...\n{}", lines[0], lines[cut..].join("\n")),
        _ => text.to_owned(),
    }
}

fn random_seed() -> u64 {
    let mut seed = [0u8; 8];
    match rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty()) {
        Ok(8) => u64::from_ne_bytes(seed),
        // Eight bytes are never interrupted; a kernel without the call still gets a seed nobody outside knows.
        _ => boot_ns().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(std::process::id()),
    }
}

/// Removes, unless told to forget, the pins that were not there when it was made.
struct Undo {
    pin_dir: PathBuf,
    made_dir: bool,
    before: Option<HashSet<PathBuf>>,
}

impl Undo {
    fn before(pin_dir: &Path) -> Result<Self> {
        let dotted = |part: std::path::Component<'_>| part.as_os_str().to_string_lossy().contains('.');
        let made_dir = !pin_dir.exists();
        std::fs::create_dir_all(pin_dir).map_err(|e| match e.kind() {
            // bpffs answers EPERM to a dot in a name.
            std::io::ErrorKind::PermissionDenied if pin_dir.components().any(dotted) => {
                Error::PinName { path: pin_dir.to_owned() }
            }
            _ => Error::io("create the pin directory", pin_dir)(e),
        })?;
        if !bpffs::is_bpffs(pin_dir) {
            if made_dir {
                let _ = std::fs::remove_dir(pin_dir);
            }
            let source = std::io::Error::other("it is in no bpffs: mount -t bpf bpf /sys/fs/bpf");
            return Err(Error::Io { what: "pin under", path: pin_dir.to_owned(), source });
        }
        let before = links::map_pins(pin_dir)?.into_iter().collect();
        Ok(Self { pin_dir: pin_dir.to_owned(), made_dir, before: Some(before) })
    }

    fn forget(mut self) {
        self.before = None;
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        let Some(before) = &self.before else { return };
        let now = links::map_pins(&self.pin_dir).unwrap_or_default();
        for path in now.iter().filter(|path| !before.contains(*path)) {
            let _ = std::fs::remove_file(path);
        }
        if self.made_dir {
            let _ = std::fs::remove_dir(&self.pin_dir);
        }
    }
}
