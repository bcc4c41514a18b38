//! What the tests share: running the simulator, and looking for what it leaves.

#![allow(dead_code, reason = "not every test file uses all of it")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The simulator, with arguments.
pub fn sim(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-sim"));
    command.args(args).env_remove("TIDEGATE_BIN");
    command
}

/// Runs it to its end.
pub fn output(args: &[&str]) -> Output {
    sim(args).stdin(Stdio::null()).output().expect("the simulator starts")
}

/// A topology file that lives as long as the guard.
pub struct File(tempfile::TempDir);

impl File {
    /// With this text.
    pub fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("lab.yaml"), text).expect("a file");
        Self(folder)
    }

    /// Its path.
    pub fn path(&self) -> String {
        self.0.path().join("lab.yaml").display().to_string()
    }
}

/// Held by a test that looks at what the whole machine has: the others wait.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that failed has left nothing in here to be wrong.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything that a run could leave outside its namespaces.
#[derive(Debug, PartialEq, Eq)]
pub struct Residue {
    namespaces: BTreeSet<String>,
    links: BTreeSet<String>,
    pins: BTreeSet<String>,
    records: BTreeSet<String>,
    mounts: BTreeSet<String>,
}

impl Residue {
    /// What is there now.
    pub fn now() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        Self {
            namespaces: of_runs("/run/netns"),
            links: names("/sys/class/net"),
            pins: of_runs("/sys/fs/bpf/tidegate"),
            records: names("/run/tidegate-sim"),
            mounts: mounts.lines().filter(|l| l.contains("tgsim-")).map(Into::into).collect(),
        }
    }
}

/// Other programs have namespaces and pins, too; all of the simulator's carry the name of a run.
fn of_runs(folder: &str) -> BTreeSet<String> {
    names(folder).into_iter().filter(|name| name.starts_with("tgsim-")).collect()
}

fn names(folder: &str) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeSet::new() };
    entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

/// The path of a topology that is kept.
pub fn topology(name: &str) -> String {
    format!("{}/../topologies/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Runs a topology that must hold in all, and returns its report.
pub fn held(name: &str) -> serde_json::Value {
    let output = output(&["run", &topology(name), "-o", "json", "--keep-going"]);
    let report = json(&output);
    let wrong = |part: &str| -> Vec<&serde_json::Value> {
        report[part].as_array().expect(part).iter().filter(|x| x["passed"] != true).collect()
    };
    assert_eq!(report["error"], serde_json::Value::Null, "{}", String::from_utf8_lossy(&output.stderr));
    assert!(wrong("steps").is_empty(), "{:#?}", wrong("steps"));
    assert!(wrong("expectations").is_empty(), "{:#?}\n{:#}", wrong("expectations"), report["seen"]);
    assert_eq!(report["receipt"]["left"], serde_json::json!([]));
    assert_eq!((output.status.code(), &report["passed"]), (Some(0), &serde_json::json!(true)));
    report
}

/// A run in the background.
pub struct Running {
    pub child: Child,
}

impl Running {
    /// Starts one and waits until all of its workloads run.
    pub fn start(file: &File, workloads: usize) -> Self {
        let child = sim(&["run", &file.path(), "-o", "json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the simulator starts");
        let running = Self { child };
        wait_until("the workloads run", || running.processes().len() >= workloads);
        running
    }

    fn record(&self) -> PathBuf {
        Path::new("/run/tidegate-sim").join(format!("tgsim-{}.json", self.child.id()))
    }

    /// Its children, by role.
    pub fn processes(&self) -> Vec<(String, i32)> {
        let Ok(text) = fs::read(self.record()) else { return Vec::new() };
        let record: serde_json::Value = serde_json::from_slice(&text).expect("a record is whole");
        let processes = record["processes"].as_array().expect("processes");
        processes
            .iter()
            .map(|p| (p["role"].as_str().expect("role").to_string(), p["pid"].as_i64().expect("pid") as i32))
            .collect()
    }

    /// One of them.
    pub fn process(&self, role: &str) -> i32 {
        self.processes().into_iter().find(|(r, _)| r == role).expect(role).1
    }

    /// Sends a signal to the simulator itself.
    pub fn signal(&self, name: &str) {
        signal(self.child.id() as i32, name);
    }

    /// Waits for its end.
    pub fn output(self) -> Output {
        self.child.wait_with_output().expect("it ends")
    }
}

/// Sends a signal to one process that a test has started.
pub fn signal(pid: i32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().expect("kill");
    assert!(status.success(), "kill -{name} {pid}");
}

/// Waits for something that takes a moment.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a process is there, and no zombie.
pub fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z"))
}

/// The report.
pub fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "{error}: {}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}
