//! A virtual machine, for what this machine's kernel may not do: programs in libxdp's dispatcher. Debian's kernel under QEMU, with the
//! programs and libraries of this machine in its memory; `ci/vm-dispatcher.sh` is its first process and says what held.

use super::{Length, Outcome, tools};
use crate::{build, sh};
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const QEMU: &str = "qemu-system-x86_64";
/// Under software emulation it takes a minute or two, of which the verifier takes most.
const LIMIT: Duration = Duration::from_secs(1200);
/// What the first process calls beside busybox and `tidegate`.
const PROGRAMS: [&str; 4] = ["ip", "xdp-filter", "xdp-loader", "bpftool"];
const MODULES: [&str; 3] = ["veth", "cls_bpf", "sch_ingress"];
/// The first process.
const SCRIPT: &str = include_str!("../../../ci/vm-dispatcher.sh");

pub fn run(_: Length) -> Result<Outcome> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(Outcome::Skipped("the virtual machine is an x86_64".into()));
    }
    if let Some(why) = tools::missing(&[QEMU, "busybox", "ip", "xdp-filter", "bpftool"]) {
        return Ok(Outcome::Skipped(why));
    }
    let folder = sh::target_dir().join("oracle/vm");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let kernel = match kernel(&folder) {
        Ok(kernel) => kernel,
        Err(why) => return Ok(Outcome::Skipped(format!("no kernel to boot: {why:#}"))),
    };
    let initrd = sh::step("the virtual machine's files", || initrd(&folder, &kernel))?;
    judge(&boot(&kernel.image, &initrd)?)
}

/// A kernel, unpacked.
struct Kernel {
    image: PathBuf,
    modules: PathBuf,
}

/// Debian's newest kernel for virtual machines that apt knows here.
fn kernel(folder: &Path) -> Result<Kernel> {
    let listed = sh::read(sh::command("apt-cache").args(["pkgnames", "linux-image-"]))?;
    let named = listed.lines().filter(|name| name.ends_with("-cloud-amd64-unsigned"));
    let package = named
        .max_by_key(|name| numbers(name))
        .context("apt knows no linux-image-...-cloud-amd64-unsigned")?;
    let root = folder.join(package);
    if !root.join("boot").is_dir() {
        sh::step(&format!("{package} of Debian, unpacked beside the build"), || {
            let before = folder.join("download");
            let _ = fs::remove_dir_all(&before);
            fs::create_dir_all(&before)?;
            sh::run(sh::command("apt-get").current_dir(&before).args(["download", "-qq", package]))?;
            let file = first(&before, "linux-image-")?;
            let unpacked = before.join("unpacked");
            sh::run(Command::new("dpkg-deb").arg("-x").arg(file).arg(&unpacked))?;
            fs::rename(&unpacked, &root)?;
            Ok(fs::remove_dir_all(&before)?)
        })?;
    }
    let modules = ["lib/modules", "usr/lib/modules"].map(|path| root.join(path));
    let modules = modules.into_iter().find(|path| path.is_dir()).context("the package holds no modules")?;
    Ok(Kernel { image: first(&root.join("boot"), "vmlinuz-")?, modules })
}

/// The numbers in a name, for comparing versions.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect()
}

fn first(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let mut entries = fs::read_dir(folder)?.flatten();
    let found = entries.find(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    Ok(found.with_context(|| format!("no {prefix} in {}", folder.display()))?.path())
}

/// The file system of the machine, as the kernel unpacks it into memory.
fn initrd(folder: &Path, kernel: &Kernel) -> Result<PathBuf> {
    let root = folder.join("root");
    let _ = fs::remove_dir_all(&root);
    for dir in ["bin", "dev", "modules", "proc", "programs", "sys", "usr/bin"] {
        fs::create_dir_all(root.join(dir))?;
    }
    let busybox = find("busybox")?;
    copy(&busybox, &root)?;
    let applets = sh::read(Command::new(&busybox).arg("--list"))?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        std::os::unix::fs::symlink(&busybox, root.join("bin").join(applet))?;
    }
    let tidegate = build::with_tests()?.join("tidegate");
    let stripped = root.join("usr/bin/tidegate");
    sh::run(Command::new("strip").arg("-o").arg(&stripped).arg(&tidegate))?;
    let programs = PROGRAMS.iter().map(|program| find(program)).collect::<Result<Vec<_>>>()?;
    for (program, name) in programs.iter().zip(PROGRAMS) {
        copy(program, &root)?;
        std::os::unix::fs::symlink(program, root.join("programs").join(name))?;
    }
    for library in libraries(programs.iter().chain([&tidegate]))? {
        copy(&library, &root)?;
    }
    let objects = Path::new("/usr/lib/x86_64-linux-gnu/bpf");
    let objects = if objects.is_dir() { objects } else { Path::new("/usr/lib/bpf") };
    for object in
        fs::read_dir(objects).with_context(|| format!("{} of xdp-tools", objects.display()))?.flatten()
    {
        copy(&object.path(), &root)?;
    }
    for module in MODULES {
        unpack_module(&kernel.modules, module, &root.join("modules"))?;
    }
    fs::write(root.join("init"), SCRIPT)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    let file = folder.join("initrd");
    let archive = fs::File::create(&file)?;
    let pack = "find . | busybox cpio -o -H newc";
    sh::run(Command::new("sh").args(["-c", pack]).current_dir(&root).stdout(archive).stderr(Stdio::null()))?;
    Ok(file)
}

fn find(program: &str) -> Result<PathBuf> {
    let path = sh::read(sh::command("sh").args(["-c", &format!("command -v {program}")]))?;
    let path = fs::canonicalize(path.trim())?;
    Ok(path)
}

/// Copies a file of this machine to the same place in there.
fn copy(file: &Path, root: &Path) -> Result<()> {
    let to = root.join(file.strip_prefix("/").unwrap_or(file));
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::copy(file, &to).with_context(|| format!("cannot copy {}", file.display()))?;
    Ok(())
}

/// What `ldd` lists, the loader as well.
fn libraries<'a>(programs: impl Iterator<Item = &'a PathBuf>) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for program in programs {
        let listed = sh::read(Command::new("ldd").arg(program))?;
        let paths = listed.split_whitespace().filter(|word| word.starts_with('/'));
        all.extend(paths.map(PathBuf::from));
    }
    all.sort();
    all.dedup();
    Ok(all)
}

/// Modules may be packed; busybox loads plain ones.
fn unpack_module(modules: &Path, name: &str, to: &Path) -> Result<()> {
    let find = format!("find {} -name '{name}.ko*'", modules.display());
    let found = sh::read(Command::new("sh").args(["-c", &find]))?;
    let file = found.lines().next().with_context(|| format!("the kernel has no module {name}"))?;
    let plain = fs::File::create(to.join(format!("{name}.ko")))?;
    let unpack = match Path::new(file).extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz -dc",
        Some("zst") => "zstd -dc",
        _ => "cat",
    };
    let unpack = format!("{unpack} {file}");
    sh::run(Command::new("sh").args(["-c", &unpack]).stdout(plain))
}

/// Boots, shows what the machine says as it says it, and returns the lines.
fn boot(image: &Path, initrd: &Path) -> Result<Vec<String>> {
    let mut qemu = Command::new(QEMU);
    // One processor: with two, emulated by a thread each, one now and then runs into the breakpoint that the kernel sets
    // for a moment while it patches its own code ("Oops: int3").
    qemu.args(["-accel", "tcg,thread=single", "-cpu", "max", "-smp", "1"]);
    qemu.args(["-m", "1500", "-nographic", "-no-reboot"]);
    qemu.args([
        "-nic",
        "none",
        "-append",
        "console=ttyS0 quiet panic=-1 no_timer_check ipv6.disable=1 mitigations=off",
    ]);
    qemu.arg("-kernel").arg(image).arg("-initrd").arg(initrd);
    let mut child =
        Machine(qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start QEMU")?);
    let stdout = child.0.stdout.take().context("QEMU has no output")?;
    let (send, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if send.send(line).is_err() {
                return;
            }
        }
    });
    let end = Instant::now() + LIMIT;
    let mut said = Vec::new();
    while let Ok(line) = lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
        eprintln!("    vm: {line}");
        said.push(line);
    }
    if Instant::now() >= end {
        bail!("the virtual machine did not end within {} s", LIMIT.as_secs());
    }
    Ok(said)
}

/// Ends with whoever started it.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn judge(said: &[String]) -> Result<Outcome> {
    if let Some(wrong) = said.iter().find(|line| line.contains("NOT OK: ")) {
        bail!("{wrong}");
    }
    let statements = SCRIPT.lines().filter(|line| line.starts_with("ok \"")).count();
    let held = said.iter().filter(|line| line.starts_with("ok ")).count();
    if held != statements || !said.iter().any(|line| line == "DONE") {
        bail!(
            "{held} of {statements} statements held, then it ended: {}",
            said.last().map_or("", String::as_str)
        );
    }
    Ok(Outcome::Passed)
}
