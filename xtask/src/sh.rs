//! Commands, progress and what this machine is.

use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// The folder of the workspace.
pub fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}

/// Where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// A command that runs in the workspace's folder and finds tools that a bare root shell does not.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).env("PATH", search_path());
    command
}

/// The cargo that runs this.
pub fn cargo() -> Command {
    command(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
}

/// The PATH, cargo's folder of installed binaries and the folders of system tools behind it.
fn search_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo/bin"));
    let system = ["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from);
    for extra in home.into_iter().chain(system) {
        if !folders.contains(&extra) {
            folders.push(extra);
        }
    }
    std::env::join_paths(folders).unwrap_or(path)
}

/// Whether a program is installed.
pub fn has(program: &str) -> bool {
    std::env::split_paths(&search_path()).any(|folder| folder.join(program).is_file())
}

/// Runs a command to its end; an exit status other than 0 is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// What a command prints on its standard output.
pub fn read(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command.output().with_context(|| format!("cannot start `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}` failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command as one would type it.
pub fn show(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Says what is done now, does it, and says how long it took.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {what}");
    let start = Instant::now();
    let result = work();
    let took = start.elapsed().as_secs_f32();
    match &result {
        Ok(_) => eprintln!("    {what}: done in {took:.1} s"),
        Err(_) => eprintln!("    {what}: FAILED after {took:.1} s"),
    }
    result
}

/// A task of this command that runs in what another leaves idle, as a process of its own.
pub struct Beside {
    child: Child,
    log: PathBuf,
    task: String,
}

impl Beside {
    /// Starts `cargo xtask WORDS`, `nice` steps below this. What it prints is kept until it is asked for.
    pub fn start(words: &[&str], nice: u8) -> Result<Self> {
        let task = words.join(" ");
        let log = target_dir().join(format!("beside-{}.log", words.join("-")));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let xtask = std::env::current_exe().context("which xtask this is")?;
        let mut start = command("nice");
        start.args(["-n", &nice.to_string()]).arg(xtask).args(words).stdin(Stdio::null());
        start.stdout(file.try_clone().context("a second handle of the log")?).stderr(file);
        let child = start.spawn().with_context(|| format!("cannot start `{}`", show(&start)))?;
        eprintln!("==> {task}, beside what follows; what it prints is shown later");
        Ok(Self { child, log, task })
    }

    /// Waits for it and shows what it printed.
    pub fn end(mut self) -> Result<()> {
        let status = self.child.wait().with_context(|| format!("waiting for {}", self.task))?;
        let printed = std::fs::read(&self.log).unwrap_or_default();
        eprintln!(
            "==> {}, which ran beside what is above:\n{}",
            self.task,
            String::from_utf8_lossy(&printed)
        );
        if !status.success() {
            bail!("`cargo xtask {}` failed ({status})", self.task);
        }
        Ok(())
    }
}

/// Whether this runs as root.
pub fn is_root() -> bool {
    // The owner of /proc/self is the effective user.
    std::os::unix::fs::MetadataExt::uid(&match std::fs::metadata("/proc/self") {
        Ok(metadata) => metadata,
        Err(_) => return false,
    }) == 0
}

/// How to run a part of this as root.
pub fn sudo(task: &str) -> String {
    format!("sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo xtask {task}")
}
