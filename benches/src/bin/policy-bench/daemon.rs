//! A daemon of the run: its folders, its commands, its memory.

use anyhow::{Context, Result, bail};
use loader::Maps;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tidegate_benches::report::{Fact, Report, Spread};

/// What a command took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// From its start to its end.
    whole: Duration,
    /// Of that, the processor's time, the daemon's with it: what others do on the machine changes it little.
    cpu: Duration,
}

/// A daemon that judges nothing yet, and ends with this.
pub struct Daemon {
    child: Child,
    program: PathBuf,
    folder: PathBuf,
}

impl Daemon {
    /// Starts one. State is kept beside the program: on a disk, as on a gateway.
    pub fn start(program: &Path) -> Result<Self> {
        let beside = program.parent().context("a folder")?;
        let folder = beside.join(format!("policy-bench.{}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let mut command = command(program, &folder);
        let mut child = command
            .arg("run")
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("its output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let daemon = Self { child, program: program.to_owned(), folder };
        if !line.starts_with("ready ") {
            bail!("the daemon did not start");
        }
        Ok(daemon)
    }

    /// A file of the run.
    pub fn file(&self, name: &str, text: &str) -> Result<String> {
        let path = self.folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path.display().to_string())
    }

    /// Runs a command to its end.
    pub fn run(&self, words: &[&str]) -> Result<Took> {
        let (begin, before) = (Instant::now(), self.cpu()?);
        let output = command(&self.program, &self.folder).args(words).output().context("running tidegate")?;
        let took = Took { whole: begin.elapsed(), cpu: self.cpu()?.saturating_sub(before) };
        if !output.status.success() {
            bail!("tidegate {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(took)
    }

    /// Processor time of the daemon, and of the commands that have ended.
    fn cpu(&self) -> Result<Duration> {
        let path = format!("/proc/{}/stat", self.child.id());
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        // Behind the name in parentheses, utime and stime are the 12th and 13th field, in ticks.
        let fields = text.rsplit_once(')').context("no name")?.1.split_whitespace().skip(11).take(2);
        let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
        let second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("no ticks")?;
        let own = Duration::from_secs_f64(ticks as f64 / second as f64);
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let of = |time: TimeVal| Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap_or(0));
        Ok(own + of(usage.user_time()) + of(usage.system_time()))
    }

    /// The socket of its API.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("run").join(format!("{}.sock", name()))
    }

    /// The maps by which packets are judged.
    pub fn maps(&self) -> Result<Maps> {
        let pins = Path::new(tidegate_benches::inside::BPFFS).join("tidegate").join(name());
        Maps::open(&pins).context("opening the maps")
    }

    /// Resident memory in MB, and the most that it ever was.
    fn memory(&self) -> Result<[f64; 2]> {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let of = |field: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(field))?;
            line.trim().strip_suffix(" kB")?.parse::<f64>().ok().map(|kib| kib * 1024.0 / 1e6)
        };
        let both = [of("VmRSS:"), of("VmHWM:")];
        Ok([both[0].context("no VmRSS")?, both[1].context("no VmHWM")?])
    }

    /// States what the daemon holds.
    pub fn state_memory(&self, report: &mut Report, with: &str) -> Result<()> {
        let [now, most] = self.memory()?;
        fact(report, Fact::of(format!("the daemon's resident memory, {with}"), now, "MB"));
        fact(report, Fact::of(format!("the most that it was, {with}"), most, "MB"));
        Ok(())
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

fn name() -> String {
    format!("bench{}", std::process::id())
}

fn command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--name", &name(), "--run-dir"])
        .arg(folder.join("run"))
        .arg("--state-dir")
        .arg(folder.join("state"));
    command.stdin(Stdio::null());
    command
}

/// Adds a figure.
pub fn fact(report: &mut Report, fact: Fact) {
    eprintln!("    {}: {} {}", fact.name, tidegate_benches::report::figure(fact.value), fact.unit);
    report.facts.push(fact);
}

/// Adds medians in seconds, and the 99th percentile or the longest. The median is to be no more than `most`.
pub fn times(report: &mut Report, name: &str, times: &[Took], most: Option<f64>) {
    let whole = times.iter().map(|took| took.whole.as_secs_f64()).collect();
    spread(report, (name, "s"), whole, Wanted { median: most, ..Wanted::default() });
    let cpu: Vec<f64> = times.iter().map(|took| took.cpu.as_secs_f64()).collect();
    let name = format!("{name}, processor time of daemon and command, median");
    fact(report, Fact::of(name, Spread::of(&cpu).median, "s"));
}

/// What figures are to be at most.
#[derive(Clone, Copy, Default)]
pub struct Wanted {
    pub median: Option<f64>,
    pub p99: Option<f64>,
}

/// Adds a median, and the 99th percentile or the longest.
pub fn spread(report: &mut Report, (name, unit): (&str, &'static str), mut values: Vec<f64>, wanted: Wanted) {
    let bounded = |fact: Fact, most: Option<f64>| match most {
        Some(most) => fact.at_most(most),
        None => fact,
    };
    let median = Fact::of(format!("{name}, median of {}", values.len()), Spread::of(&values).median, unit);
    fact(report, bounded(median, wanted.median));
    values.sort_by(f64::total_cmp);
    let at = (values.len() * 99).div_ceil(100).saturating_sub(1);
    let what = if values.len() < 100 { "longest" } else { "p99" };
    let last = Fact::of(format!("{name}, {what}"), values.get(at).copied().unwrap_or(f64::NAN), unit);
    fact(report, bounded(last, wanted.p99));
}
