//! The real tidegate daemon, in the gateway's namespace, and its command line.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Child;

use crate::lab::Lab;
use crate::registry;
use crate::topology::Plan;
use crate::topology::plan::{Document, Kind, Mode, Node, ProcessAct, Svid, XdpMode};
use crate::worker::own_command;

const BPFFS: &str = "/sys/fs/bpf";
/// Loading and verifying takes a second or two; under a debugger's load, more.
const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(5);
const LOG_LINES: usize = 200;

type Log = Rc<RefCell<VecDeque<String>>>;

/// A running gateway.
pub struct Gateway {
    tidegate: PathBuf,
    namespace: String,
    options: Vec<String>,
    run_options: Vec<String>,
    folder: PathBuf,
    child: RefCell<Option<Child>>,
    log: Log,
}

impl Gateway {
    /// Starts the daemon on the plan's gateway, if it has one, and waits until it says that it is ready.
    pub async fn start(plan: &Plan, lab: &Lab, given: Option<&Path>) -> Result<Option<Self>> {
        let Some(node) = plan.nodes.iter().find(|n| n.kind == Kind::Gateway) else { return Ok(None) };
        let tidegate = find(given)?;
        let namespace = lab.namespace(&node.name);
        let folder = Path::new(registry::FOLDER).join(format!("{}.d", lab.run()));
        let pins = Path::new(BPFFS).join("tidegate").join(lab.run());
        lab.record.borrow_mut().add_gateway(folder.clone(), pins)?;
        for part in ["documents", "run", "state"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        }
        let text = |part: &str| folder.join(part).display().to_string();
        let options = [
            ["--name", &lab.run()],
            ["--bpffs", BPFFS],
            ["--run-dir", &text("run")],
            ["--state-dir", &text("state")],
        ];
        let options: Vec<String> = options.iter().flatten().map(ToString::to_string).collect();
        let mut run_options = run_options(plan, node, &write_documents(plan, &folder.join("documents"))?);
        if let Some(svid) = &plan.gateway.svid {
            let nodes = plan.nodes.iter().filter_map(|n| n.svid.as_ref());
            let domains: BTreeSet<&str> = nodes.chain([svid]).map(Svid::trust_domain).collect();
            run_options.extend(lab.authority.write(svid, &folder.join("gateway"), domains)?);
        }
        let (child, log) = (RefCell::new(None), Log::default());
        let gateway = Self { tidegate, namespace, options, run_options, folder, child, log };
        gateway.start_daemon(lab).await?;
        Ok(Some(gateway))
    }

    /// Does something to the daemon.
    pub async fn control(&self, lab: &Lab, act: ProcessAct) -> Result<()> {
        let child = self.child.borrow_mut().take();
        match (act, child) {
            (ProcessAct::Kill, Some(mut child)) => Ok(child.kill().await?),
            (ProcessAct::Stop, Some(child)) => terminate(child).await,
            (ProcessAct::Slow, _) => bail!("a daemon is not slowed down"),
            (ProcessAct::Start, None) => self.start_daemon(lab).await,
            (ProcessAct::Start, running) => {
                *self.child.borrow_mut() = running;
                bail!("the daemon runs already")
            }
            (_, None) => bail!("the daemon does not run"),
        }
    }

    async fn start_daemon(&self, lab: &Lab) -> Result<()> {
        let mut command = own_command("exec", &self.namespace)?;
        command.arg("--").arg(&self.tidegate).args(&self.options).arg("run").args(&self.run_options);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", self.tidegate.display()))?;
        let pid = child.id().context("the daemon ended at once")?;
        lab.record.borrow_mut().add_process(pid, "tidegate")?;
        let stdout = child.stdout.take().context("no stdout")?;
        let stderr = child.stderr.take().context("no stderr")?;
        let (ready, told) = tokio::sync::oneshot::channel();
        tokio::task::spawn_local(keep(stderr, self.log.clone(), None));
        tokio::task::spawn_local(keep(stdout, self.log.clone(), Some(ready)));
        self.wait_until_ready(&mut child, told).await?;
        *self.child.borrow_mut() = Some(child);
        Ok(())
    }

    async fn wait_until_ready(
        &self,
        child: &mut Child,
        told: tokio::sync::oneshot::Receiver<()>,
    ) -> Result<()> {
        let problem = tokio::select! {
            told = told => match told {
                Ok(()) => return Ok(()),
                Err(_) => {
                    let status = child.wait().await?;
                    format!("the daemon ended before it was ready ({status})")
                }
            },
            () = tokio::time::sleep(READY_WITHIN) =>
                format!("the daemon was not ready within {} s", READY_WITHIN.as_secs()),
        };
        Err(anyhow!("{problem}; it said:\n{}", self.log().join("\n")))
    }

    /// What the daemon has written, the last lines.
    pub fn log(&self) -> Vec<String> {
        self.log.borrow().iter().cloned().collect()
    }

    /// Runs `tidegate ARGS -o json` against this gateway and returns its documents: one, or one a line.
    pub async fn ask(&self, args: &[&str]) -> Result<Vec<serde_json::Value>> {
        let what = format!("tidegate {}", args.join(" "));
        let output = self.typed(&[args, &["-o", "json"]].concat()).await?;
        if !output.status.success() {
            bail!("{what}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        let mut values = Vec::new();
        for value in serde_json::Deserializer::from_slice(&output.stdout).into_iter() {
            match value.with_context(|| format!("{what}: its output is no JSON"))? {
                serde_json::Value::Array(rows) => values.extend(rows),
                value => values.push(value),
            }
        }
        Ok(values)
    }

    /// Runs `tidegate ARGS` against this gateway.
    pub async fn typed(&self, args: &[&str]) -> Result<Output> {
        let mut command = own_command("exec", &self.namespace)?;
        command.arg("--").arg(&self.tidegate).args(&self.options).args(args);
        command.stdin(Stdio::null()).output().await.context("cannot run tidegate")
    }

    /// Runs `tidegate enroll --once` on a node, with a certificate of its own.
    pub async fn enroll(&self, lab: &Lab, node: &Node, svid: &Svid) -> Result<Output> {
        let at = self.run_options.iter().position(|option| option == "--enroll");
        let door = at.and_then(|at| self.run_options.get(at + 1));
        let door =
            door.context("the gateway enrols nobody: give it options [--enroll, ADDRESS:PORT, ...]")?;
        let shown = lab.authority.write(svid, &self.folder.join(&node.name), [svid.trust_domain()])?;
        let mut command = own_command("exec", &lab.namespace(&node.name))?;
        command.arg("--").arg(&self.tidegate).args(["enroll", "--once", "--gateway", door]).args(shown);
        command.stdin(Stdio::null()).output().await.context("cannot run tidegate enroll")
    }

    /// Ends the daemon, if it runs.
    pub async fn stop(self) {
        let child = self.child.borrow_mut().take();
        if let Some(child) = child {
            // Whatever does not end in time is killed with all else.
            drop(terminate(child).await);
        }
    }
}

/// As an operator does.
async fn terminate(mut child: Child) -> Result<()> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).context("it has ended already")?;
    kill(Pid::from_raw(pid), Signal::SIGTERM)?;
    let ended = tokio::time::timeout(STOP_WITHIN, child.wait()).await;
    ended.with_context(|| format!("it did not end within {} s of SIGTERM", STOP_WITHIN.as_secs()))??;
    Ok(())
}

/// Keeps the last lines of an output, and tells when the daemon is ready.
async fn keep(output: impl AsyncRead + Unpin, log: Log, mut ready: Option<tokio::sync::oneshot::Sender<()>>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line.starts_with("ready")
            && let Some(ready) = ready.take()
        {
            // Nobody waits any more if the run was stopped.
            let _ = ready.send(());
        }
        let mut log = log.borrow_mut();
        if log.len() == LOG_LINES {
            log.pop_front();
        }
        log.push_back(line);
    }
}

fn run_options(plan: &Plan, node: &Node, documents: &[PathBuf]) -> Vec<String> {
    let mut options = Vec::new();
    let mut add = |name: &str, value: String| options.extend([name.to_string(), value]);
    for interface in &node.interfaces {
        add("--interface", interface.name.clone());
    }
    for document in documents {
        add("--policy", document.display().to_string());
    }
    if let Some(mode) = plan.gateway.mode {
        let mode = match mode {
            Mode::Enforce => "enforce",
            Mode::Monitor => "monitor",
        };
        add("--mode", mode.into());
    }
    if let Some(mode) = plan.gateway.xdp_mode {
        let mode = match mode {
            XdpMode::Auto => "auto",
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
        };
        add("--xdp-mode", mode.into());
    }
    for port in &plan.gateway.failsafe {
        add("--failsafe", port.clone());
    }
    // In a namespace of its own every port is free.
    add("--metrics", "127.0.0.1:9900".into());
    options.extend(plan.gateway.options.iter().cloned());
    options
}

/// Inline documents become files; JSON is YAML.
fn write_documents(plan: &Plan, folder: &Path) -> Result<Vec<PathBuf>> {
    plan.documents
        .iter()
        .enumerate()
        .map(|(index, document)| match document {
            Document::File(path) => fs::canonicalize(path).with_context(|| path.display().to_string()),
            Document::Inline(value) => {
                let path = folder.join(format!("{:03}-{}.yaml", index + 1, label(value)));
                fs::write(&path, serde_saphyr::to_string(value)?)
                    .with_context(|| format!("cannot write {}", path.display()))?;
                Ok(path)
            }
        })
        .collect()
}

/// `policy-shop`, so that the daemon's messages name what they are about.
fn label(document: &serde_json::Value) -> String {
    let text = |pointer| document.pointer(pointer).and_then(|v| v.as_str()).unwrap_or("unnamed");
    format!("{}-{}", text("/kind"), text("/metadata/name"))
        .to_lowercase()
        .replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "-")
}

/// The tidegate binary: the one given, or the one that was built with this program.
fn find(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return fs::canonicalize(path).with_context(|| format!("--tidegate {}", path.display()));
    }
    let own = std::env::current_exe()?;
    let beside = own.with_file_name("tidegate");
    if beside.is_file() {
        return Ok(beside);
    }
    bail!(
        "no tidegate at {}: build it (cargo build -p tidegate), or say where it is with --tidegate PATH",
        beside.display()
    )
}
