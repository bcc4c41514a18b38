//! Which compiler and linker build the BPF objects.
//!
//! The loader's build script includes this file by path, so that set-up and build agree. Only std is used.
//!
//! A compiler will do if it is new enough and has a core library for BPF: a prebuilt one (Debian's rustc-web with
//! libstd-rust-web-dev-bpf) or, on a nightly toolchain, the sources to build one from (rust-src).

use std::path::{Path, PathBuf};
use std::process::Command;

/// The target of the BPF objects.
pub const TARGET: &str = "bpfel-unknown-none";
/// Set this to a rustc to have it used instead of what would be chosen.
pub const RUSTC_VARIABLE: &str = "TIDEGATE_BPF_RUSTC";
/// The oldest rustc that compiles the workspace (rust-version in Cargo.toml).
const MIN_RUSTC: (u32, u32) = (1, 95);
/// The oldest bpf-linker that is known to work.
const MIN_LINKER: (u32, u32) = (0, 13);

/// What builds the BPF objects.
#[derive(Clone, Debug)]
pub struct BpfToolchain {
    /// The cargo to call.
    pub cargo: PathBuf,
    /// The compiler.
    pub rustc: PathBuf,
    /// Whether cargo has to build core from source (`-Z build-std=core`).
    pub build_std: bool,
    /// bpf-linker.
    pub linker: PathBuf,
    /// One line for people: what was chosen.
    pub chosen: String,
}

impl BpfToolchain {
    /// `cargo SUBCOMMAND --target bpfel-unknown-none` with this compiler and linker. The caller adds the packages,
    /// the profile and a target folder of its own.
    pub fn command(&self, subcommand: &str, rustflags: &[&str]) -> Command {
        let linker = format!("linker={}", self.linker.display());
        let mut flags = vec!["-C", &linker];
        flags.extend(rustflags);
        let mut command = Command::new(&self.cargo);
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_outer_cargos(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        command
            .arg(subcommand)
            .args(["--target", TARGET])
            .env("RUSTC", &self.rustc)
            // aya-ebpf uses asm_experimental_arch; the compiler need not be a nightly for it.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
        if self.build_std {
            command.args(["-Z", "build-std=core"]);
        }
        command
    }
}

/// Whether a variable describes the host build that runs us: flags, features, a wrapper, a job server of which we are
/// no direct child.
fn is_outer_cargos(name: &str) -> bool {
    const EXACT: [&str; 9] = [
        "RUSTFLAGS",
        "RUSTDOCFLAGS",
        "RUSTUP_TOOLCHAIN",
        "TARGET",
        "HOST",
        "OUT_DIR",
        "PROFILE",
        "MAKEFLAGS",
        "MFLAGS",
    ];
    // How cargo reaches its registries and speaks to people is the same for both.
    const KEPT: [&str; 5] = ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_TERM_"];
    let outer = ["CARGO_", "RUSTC", "DEP_"].iter().any(|prefix| name.starts_with(prefix));
    (outer || EXACT.contains(&name)) && !KEPT.iter().any(|kept| name.starts_with(kept))
}

/// The toolchain of this machine, or what is missing and how to get it.
pub fn find() -> Result<BpfToolchain, String> {
    let compiler = find_compiler()?;
    let linker = find_linker()?;
    Ok(BpfToolchain { linker, ..compiler })
}

/// The compiler alone; `linker` is left empty.
pub fn find_compiler() -> Result<BpfToolchain, String> {
    let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    if let Some(rustc) = std::env::var_os(RUSTC_VARIABLE) {
        let rustc = PathBuf::from(rustc);
        return judge(&rustc, &cargo, RUSTC_VARIABLE);
    }
    let mut rejected = Vec::new();
    match judge(Path::new("/usr/bin/rustc"), &cargo, "Debian's rustc-web") {
        Ok(found) => return Ok(found),
        Err(why) => rejected.push(why),
    }
    match rustup_which("rustc").zip(rustup_which("cargo")) {
        Some((rustc, cargo)) => match judge(&rustc, &cargo, "rustup's nightly") {
            Ok(found) => return Ok(found),
            Err(why) => rejected.push(why),
        },
        None => rejected.push("rustup has no nightly toolchain".into()),
    }
    Err(format!(
        "no Rust compiler here builds for {TARGET}:\n  - {}\n\
         Install one: on Debian `apt-get install rustc-web libstd-rust-web-dev-bpf`, elsewhere \
         `rustup toolchain install nightly --component rust-src`; or name one in {RUSTC_VARIABLE}.",
        rejected.join("\n  - ")
    ))
}

/// bpf-linker, on the PATH or where cargo installs.
pub fn find_linker() -> Result<PathBuf, String> {
    let mut places: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    places.extend(cargo_home.map(|home| home.join("bin")));
    let Some(linker) = places.iter().map(|place| place.join("bpf-linker")).find(|path| path.is_file()) else {
        return Err("bpf-linker is not installed: `cargo xtask setup` installs it".into());
    };
    match printed_version(&linker) {
        Some(version) if version >= MIN_LINKER => Ok(linker),
        Some((major, minor)) => Err(format!(
            "{} is version {major}.{minor}, needed is {}.{}: `cargo xtask setup` replaces it",
            linker.display(),
            MIN_LINKER.0,
            MIN_LINKER.1
        )),
        None => Err(format!(
            "{} does not start (its LLVM is gone?): `cargo xtask setup` replaces it",
            linker.display()
        )),
    }
}

/// Whether a compiler will do, and how.
fn judge(rustc: &Path, cargo: &Path, name: &str) -> Result<BpfToolchain, String> {
    let shown = rustc.display();
    let Some(version) = printed_version(rustc) else {
        return Err(format!("{name}: {shown} is not there or does not start"));
    };
    let (major, minor) = version;
    if version < MIN_RUSTC {
        return Err(format!("{name}: {shown} is {major}.{minor}, needed is {}.{}", MIN_RUSTC.0, MIN_RUSTC.1));
    }
    let sysroot = output(Command::new(rustc).args(["--print", "sysroot"]))
        .ok_or_else(|| format!("{name}: {shown} --print sysroot failed"))?;
    let rustlib = Path::new(sysroot.trim()).join("lib/rustlib");
    let build_std = if rustlib.join(TARGET).join("lib").is_dir() {
        false
    } else if rustlib.join("src/rust/library/core").is_dir() {
        true
    } else {
        return Err(format!("{name}: {shown} has neither a core library for {TARGET} nor rust-src"));
    };
    let how = if build_std { "core built from rust-src" } else { "prebuilt core" };
    Ok(BpfToolchain {
        cargo: cargo.to_owned(),
        rustc: rustc.to_owned(),
        build_std,
        linker: PathBuf::new(),
        chosen: format!("{name} {major}.{minor} ({shown}, {how})"),
    })
}

fn rustup_which(tool: &str) -> Option<PathBuf> {
    let path = output(Command::new("rustup").args(["which", "--toolchain", "nightly", tool]))?;
    Some(PathBuf::from(path.trim()))
}

/// Major and minor of the first version in what `TOOL --version` prints.
fn printed_version(tool: &Path) -> Option<(u32, u32)> {
    let text = output(Command::new(tool).arg("--version"))?;
    let word = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let mut parts = word.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
