//! `cargo xtask setup`: what the build and the tests need, installed where it can be.

use crate::bpf_toolchain;
use crate::{apt, sh};
use anyhow::{Result, bail};
use std::path::Path;
use std::process::Command;

const BPF_LINKER: &str = "0.13.0";
const CARGO_DEB: &str = "3.8.0";
const LLVM: &str = "/usr/lib/llvm-22";

/// A program that tests or benches call; without it they are skipped and counted so.
struct Tool {
    /// The Debian package.
    package: &'static str,
    /// The program.
    program: &'static str,
    /// What it is needed for.
    why: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool { package: "iproute2", program: "ip", why: "tests look at links and namespaces from outside" },
    Tool { package: "iproute2", program: "tc", why: "tests look at attached programs from outside" },
    Tool { package: "procps", program: "kill", why: "tests kill what they have started" },
    Tool { package: "bpftool", program: "bpftool", why: "tests look at maps and programs from outside" },
    Tool {
        package: "tshark",
        program: "tshark",
        why: "tests compare what is parsed with Wireshark's answer",
    },
    Tool { package: "tcpdump", program: "tcpdump", why: "recordings on interfaces" },
    Tool { package: "prometheus", program: "promtool", why: "tests have promtool judge the metrics" },
    Tool { package: "prometheus", program: "prometheus", why: "a test has it scrape a daemon" },
    Tool { package: "xdp-tools", program: "xdp-filter", why: "the peer in benches" },
    Tool { package: "nftables", program: "nft", why: "the peer in benches, and an oracle" },
    Tool { package: "ethtool", program: "ethtool", why: "benches switch GRO on at veth ends" },
    Tool { package: "iperf3", program: "iperf3", why: "TCP through the gateway in benches" },
];

/// What the build cannot do without.
#[derive(Default)]
struct Missing {
    packages: Vec<(&'static str, &'static str)>,
    linker: bool,
}

/// Installs what is missing; an error if the build cannot go on.
pub fn run() -> Result<()> {
    if sh::has("dpkg-deb")
        && !sh::has("cargo-deb")
        && let Err(why) = install_cargo_deb()
    {
        eprintln!("    {why:#}\n    The test of the Debian package will be skipped and reported so.");
    }
    let missing = Missing::find();
    let tools: Vec<&Tool> = TOOLS.iter().filter(|tool| !sh::has(tool.program)).collect();
    if missing.is_empty() && tools.is_empty() {
        eprintln!("==> setup: nothing to install; BPF compiler: {}", chosen()?);
        return Ok(());
    }
    if !sh::has("apt-get") {
        return elsewhere(&missing, &tools);
    }
    if !sh::is_root() {
        return unprivileged(&missing, &tools);
    }
    if !missing.is_empty() {
        sh::step("setup: what the build needs", || missing.install())?;
    }
    if !tools.is_empty()
        && let Err(why) = sh::step("setup: what tests and benches call", || install_tools(&tools))
    {
        eprintln!("    {why:#}\n    The tests that need them will be skipped and reported so.");
    }
    eprintln!("==> setup: BPF compiler: {}", chosen()?);
    Ok(())
}

fn chosen() -> Result<String> {
    match bpf_toolchain::find() {
        Ok(found) => Ok(format!("{}, linker {}", found.chosen, found.linker.display())),
        Err(why) => bail!("{why}"),
    }
}

impl Missing {
    fn find() -> Self {
        let mut missing = Self::default();
        if !sh::has("cc") {
            missing
                .packages
                .push(("build-essential", "C compiler and linker, for crates that hold C (ring)"));
        }
        missing.packages.extend(of_libxdp());
        if bpf_toolchain::find_compiler().is_err() {
            missing.packages.push(("rustc-web", "Rust compiler that knows the BPF target"));
            missing.packages.push(("libstd-rust-web-dev-bpf", "Rust's core library, built for BPF"));
        }
        if bpf_toolchain::find_linker().is_err() {
            missing.linker = true;
            missing.packages.push(("llvm-22-dev", "LLVM, which bpf-linker links BPF objects with"));
            missing.packages.push(("libpolly-22-dev", "part of LLVM that its build configuration names"));
            missing.packages.push(("zlib1g-dev", "LLVM links it"));
            missing.packages.push(("libzstd-dev", "LLVM links it"));
            missing.packages.push(("build-essential", "C compiler and linker, to build bpf-linker"));
        }
        missing
    }

    fn is_empty(&self) -> bool {
        self.packages.is_empty() && !self.linker
    }

    /// The packages that dpkg does not have, each once; says what they are for.
    fn say(&self) -> Vec<&'static str> {
        let mut names: Vec<&str> = self.packages.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        let wanted = apt::missing(&names);
        for (name, why) in self.packages.iter().filter(|(name, _)| wanted.contains(name)) {
            eprintln!("    {name}: {why}");
        }
        wanted
    }

    fn install(&self) -> Result<()> {
        let wanted = self.say();
        if !wanted.is_empty()
            && let Err(why) = apt::install(&wanted)
        {
            bail!("{why:#}\n{}", by_hand());
        }
        // The packages may have brought back the LLVM that an installed linker lacked.
        if self.linker && bpf_toolchain::find_linker().is_err() {
            install_linker()?;
        }
        Ok(())
    }
}

/// What the crate libxdp-sys builds libxdp and its dispatcher with, where it is not here. `.cargo/config.toml` names clang.
fn of_libxdp() -> Vec<(&'static str, &'static str)> {
    const WHY: &str = "compiles libxdp's dispatcher, by which XDP programs share an interface";
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang-19".into());
    let has_library = |name: &str| {
        let exists = sh::command("pkg-config").args(["--exists", name]).status();
        exists.is_ok_and(|status| status.success())
    };
    let wanted = [
        (sh::has(&clang) || Path::new(&clang).is_file(), "clang-19", WHY),
        (sh::has("m4"), "m4", "writes the dispatcher's source"),
        (sh::has("make"), "build-essential", "C compiler and make, to build libxdp"),
        (sh::has("pkg-config"), "pkg-config", "finds the libraries that libxdp links"),
        (has_library("libelf"), "libelf-dev", "libxdp reads objects with it"),
        (has_library("zlib"), "zlib1g-dev", "libelf reads compressed sections with it"),
    ];
    let absent = wanted.into_iter().filter(|(is_here, _, _)| !is_here);
    absent.map(|(_, package, why)| (package, why)).collect()
}

/// Writes Debian packages. Needs no root: cargo installs into the user's own folder.
pub fn install_cargo_deb() -> Result<()> {
    sh::step(
        &format!("setup: cargo-deb {CARGO_DEB} from crates.io, writes the Debian package (a minute or so)"),
        || sh::run(cargo_install("cargo-deb", CARGO_DEB).arg("--no-default-features")),
    )
}

/// `cargo install` of a version that is known to work. The binary goes where `sh::has` and find_linker look; the build is
/// not kept among the workspace's.
fn cargo_install(name: &str, version: &str) -> Command {
    let mut cargo = sh::cargo();
    cargo.args(["install", name, "--version", version, "--locked", "--force"]);
    cargo.env_remove("CARGO_INSTALL_ROOT").env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    cargo
}

fn install_linker() -> Result<()> {
    if !Path::new(LLVM).is_dir() {
        bail!("{LLVM} is not there, although llvm-22-dev is installed\n{}", by_hand());
    }
    sh::step(
        &format!("setup: bpf-linker {BPF_LINKER} from crates.io, links BPF objects (a minute or so)"),
        || {
            sh::run(
                cargo_install("bpf-linker", BPF_LINKER)
                    .args(["--no-default-features", "--features", "llvm-22"])
                    .env("LLVM_PREFIX", LLVM),
            )
        },
    )
}

fn install_tools(tools: &[&Tool]) -> Result<()> {
    let mut packages: Vec<&str> = tools.iter().map(|tool| tool.package).collect();
    packages.dedup();
    for tool in tools {
        eprintln!("    {}: {} ({})", tool.package, tool.program, tool.why);
    }
    // Whether users who are not root may capture: no, which is also the default.
    apt::preseed("wireshark-common wireshark-common/install-setuid boolean false");
    let installed = apt::install(&packages);
    if packages.contains(&"prometheus") {
        // Tests start their own: no server is to run from now on.
        apt::disable_service("prometheus");
    }
    installed
}

/// Root is needed to install: say what to type, and stop if the build needs it.
fn unprivileged(missing: &Missing, tools: &[&Tool]) -> Result<()> {
    if !tools.is_empty() {
        let names: Vec<&str> = tools.iter().map(|tool| tool.program).collect();
        eprintln!("==> setup: without {} the tests that call them are skipped", names.join(", "));
        eprintln!("    to have them: {}", sh::sudo("setup"));
    }
    if missing.is_empty() {
        return Ok(());
    }
    let wanted = missing.say();
    if wanted.is_empty() && missing.linker {
        // cargo installs it into the user's own folder.
        return install_linker();
    }
    bail!(
        "the build needs packages that only root can install. Run\n  sudo apt-get install --no-install-recommends {}\n\
         and then `cargo xtask setup` again",
        wanted.join(" ")
    )
}

/// No apt: name what is needed.
fn elsewhere(missing: &Missing, tools: &[&Tool]) -> Result<()> {
    for tool in tools {
        eprintln!("==> setup: {} is not installed ({}); such tests are skipped", tool.program, tool.why);
    }
    if missing.is_empty() {
        return Ok(());
    }
    let compiler = bpf_toolchain::find_compiler().err().unwrap_or_default();
    let linker = bpf_toolchain::find_linker().err().unwrap_or_default();
    bail!(
        "this system has no apt-get, so what is missing has to be installed by hand.\n{compiler}\n{linker}\n{}",
        by_hand()
    )
}

fn by_hand() -> String {
    format!(
        "To install by hand:\n\
         \x20 rustup toolchain install nightly --component rust-src   (or Debian's rustc-web, libstd-rust-web-dev-bpf)\n\
         \x20 LLVM 22 with its headers, from the distribution or from LLVM itself\n\
         \x20 LLVM_PREFIX={LLVM} cargo install bpf-linker --version {BPF_LINKER} --locked --no-default-features --features llvm-22\n\
         \x20 a C compiler, make, m4, pkg-config, libelf and zlib with their headers, and clang 19 (another: the variable CLANG names it)"
    )
}
