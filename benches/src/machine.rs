//! On what, and when, something was measured.

use serde::Serialize;
use std::fmt;

/// The machine and the time.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Release of the kernel.
    pub kernel: String,
    /// Model of the CPU.
    pub cpu: String,
    /// How many of them.
    pub cpus: usize,
    /// Load average of the minute before: what else ran.
    pub load: f64,
    /// The time in UTC.
    pub date: String,
}

impl Machine {
    /// This one, now.
    pub fn here() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = read("/proc/loadavg");
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: model.map_or(std::env::consts::ARCH, |(_, name)| name).to_owned(),
            cpus: info.lines().filter(|line| line.starts_with("processor")).count(),
            load: load.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN),
            date: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, cpu, cpus, load, date } = self;
        write!(f, "{date}, {cpu}, {cpus} CPUs, Linux {kernel}, load {load} when it began")
    }
}
