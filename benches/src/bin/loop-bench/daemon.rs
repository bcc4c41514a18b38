//! The daemon of the run, and what it has counted.

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const METRICS: &str = "127.0.0.1:9900";

/// A daemon, which ends with this.
pub struct Daemon {
    child: Child,
    folder: PathBuf,
}

/// What became of events.
pub struct Counts {
    /// By what lost them.
    pub lost: Vec<(String, f64)>,
    /// That were not compared.
    pub shed: f64,
    /// Departures that something was done about.
    pub contained: f64,
}

impl Daemon {
    /// Starts one that judges on both interfaces. State is kept beside the program: on a disk, as on a gateway.
    pub fn start(program: &Path, policy: &str) -> Result<Self> {
        let folder = program.parent().context("a folder")?.join(format!("loop-bench.{}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let file = folder.join("policy.yaml");
        std::fs::write(&file, policy)?;
        let mut command = Command::new(program);
        command
            .args(["--name", &format!("bench{}", std::process::id()), "--run-dir"])
            .arg(folder.join("run"));
        command
            .arg("--state-dir")
            .arg(folder.join("state"))
            .args(["run", "-i", "tgw0", "-i", "tgw1", "-p"])
            .arg(file);
        command.args(["--event-limit", "0", "--containments-per-hour", "100000", "--metrics", METRICS]);
        command.env("TIDEGATE_LOG", "error").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
        let daemon = Self { child, folder };
        if !line.starts_with("ready ") {
            bail!("the daemon did not start");
        }
        Ok(daemon)
    }

    /// What it has counted.
    pub fn counts(&self) -> Result<Counts> {
        let mut stream = TcpStream::connect(METRICS).context("the metrics")?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: gw\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let of = |name: &str| -> Vec<(String, f64)> {
            let lines = text.lines().filter_map(|line| line.strip_prefix(name));
            let parsed = lines.filter_map(|rest| {
                let (labels, value) = rest.rsplit_once(' ')?;
                Some((labels.trim_matches(['{', '}']).to_owned(), value.parse().ok()?))
            });
            parsed.collect()
        };
        let sum = |name| of(name).iter().map(|(_, value)| value).sum();
        let contained = of("tidegate_containments_total{").iter().map(|(_, value)| value).sum();
        Ok(Counts {
            lost: of("tidegate_lost_events_total"),
            shed: sum("tidegate_governance_shed_total"),
            contained,
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Pins are in a file system of the run's own, and gone with it.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
