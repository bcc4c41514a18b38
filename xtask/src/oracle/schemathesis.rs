//! Schemathesis: requests made from the OpenAPI document, right ones and wrong ones, to a real daemon. Its answers have to be what
//! the document says, and never a 500.

use super::{Length, Outcome};
use crate::{build, sh};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// From PyPI, into a folder of its own.
const VERSION: &str = "4.32.5";

/// Runs it against a daemon that has a network namespace of its own.
pub fn run(length: Length) -> Result<Outcome> {
    if !sh::is_root() {
        return Ok(Outcome::Skipped(format!("it needs root: {}", sh::sudo("oracle"))));
    }
    if !sh::has("python3") || !sh::has("unshare") {
        return Ok(Outcome::Skipped("python3 with venv, or unshare, is not installed".into()));
    }
    let program = match install() {
        Ok(program) => program,
        Err(why) => return Ok(Outcome::Skipped(format!("Schemathesis {VERSION} of PyPI: {why:#}"))),
    };
    let daemon = Daemon::start(&build::with_tests()?)?;
    let url = format!("http://{}", forward(daemon.socket())?);
    let budget: &[&str] = match length {
        Length::Short => &["--seed", "5", "--phases", "examples,coverage,fuzzing", "--max-examples", "15"],
        Length::Long => &["--max-examples", "400"],
    };
    let mut schemathesis = Command::new(&program);
    schemathesis.args(["run", &format!("{url}/v1/openapi.json"), "--url", &url]).args(budget);
    // A stream that does not end by itself has tests of its own.
    schemathesis.args(["--exclude-path", "/v1/observe", "--request-timeout", "30", "--continue-on-failure"]);
    schemathesis.args(["--exclude-checks", EXCLUDED, "--no-color", "--warnings", "off"]);
    sh::run(schemathesis.current_dir(daemon.folder.as_path()))?;
    Ok(Outcome::Passed)
}

/// What JSON Schema cannot say here: that an interface is there, a policy file right, a prefix no longer than its family.
const EXCLUDED: &str = "positive_data_acceptance";

fn install() -> Result<PathBuf> {
    let folder = sh::target_dir().join("oracle/schemathesis");
    let program = folder.join("bin/schemathesis");
    let installed =
        || sh::read(Command::new(&program).arg("--version")).is_ok_and(|text| text.contains(VERSION));
    if !installed() {
        sh::step(&format!("Schemathesis {VERSION} from PyPI, asks the API by its OpenAPI document"), || {
            sh::run(sh::command("python3").args(["-m", "venv"]).arg(&folder))?;
            let package = format!("schemathesis=={VERSION}");
            sh::run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", &package]))
        })?;
    }
    Ok(program)
}

/// A daemon without interfaces. Its pins and folders go when it is dropped.
struct Daemon {
    child: Child,
    binary: PathBuf,
    name: String,
    folder: PathBuf,
}

impl Daemon {
    fn start(binaries: &Path) -> Result<Self> {
        let name = format!("tgst{}", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let binary = binaries.join("tidegate");
        let mut command = Command::new("unshare");
        command.args(["--net", "--"]).arg(&binary).args(options(&name, &folder)).arg("run");
        let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start tidegate")?;
        let stdout = child.stdout.take().context("no stdout")?;
        let daemon = Self { child, binary, name, folder };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("tidegate said nothing")?;
        if !line.starts_with("ready ") {
            bail!("tidegate did not start");
        }
        Ok(daemon)
    }

    fn socket(&self) -> PathBuf {
        self.folder.join(format!("{}.sock", self.name))
    }
}

fn options(name: &str, folder: &Path) -> [String; 6] {
    let folder = folder.to_string_lossy();
    ["--name", name, "--run-dir", &folder, "--state-dir", &folder].map(str::to_owned)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut detach = Command::new(&self.binary);
        let _ = detach.args(options(&self.name, &self.folder)).args(["detach", "--all"]).output();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A port of this host behind which is the socket, for as long as this process runs: Schemathesis knows no Unix sockets.
fn forward(socket: PathBuf) -> Result<std::net::SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot listen")?;
    let address = listener.local_addr().context("cannot listen")?;
    std::thread::spawn(move || {
        for outer in listener.incoming().flatten() {
            let Ok(inner) = UnixStream::connect(&socket) else { continue };
            let Ok((outer_again, inner_again)) = outer.try_clone().and_then(|o| Ok((o, inner.try_clone()?)))
            else {
                continue;
            };
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut &outer, &mut &inner);
                let _ = inner.shutdown(std::net::Shutdown::Write);
            });
            std::thread::spawn(move || answer(&inner_again, &outer_again));
        }
    });
    Ok(address)
}

fn answer(mut inner: &UnixStream, mut outer: &TcpStream) {
    let _ = std::io::copy(&mut inner, &mut outer);
    let _ = outer.shutdown(std::net::Shutdown::Both);
}
