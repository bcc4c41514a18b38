//! The table and the JSON.

use crate::rounds::Times;
use serde::Serialize;
use std::fmt::Write;

/// What was measured.
#[derive(Serialize)]
pub struct Report {
    kernel: String,
    cpu: String,
    rounds: u32,
    repeat: u32,
    cases: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    case: &'static str,
    tidegate_ns: Spread,
    xdp_filter_ns: Spread,
    /// Of the medians.
    ratio: f64,
    bound: Option<f64>,
}

#[derive(Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        Self { median: at(sorted.len() / 2), min: at(0), max: at(sorted.len().saturating_sub(1)) }
    }
}

impl Report {
    /// Sums up the rounds.
    pub fn new(times: &[Times<'_>], rounds: u32, repeat: u32) -> Self {
        let cases = times.iter().map(Row::new).collect();
        Self { kernel: kernel(), cpu: cpu(), rounds, repeat, cases }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "Kernel test-run, nanoseconds a packet, median of {} rounds (min to max)\n{}, Linux {}\n\n",
            self.rounds, self.cpu, self.kernel
        );
        let _ = writeln!(
            text,
            "{:<32} {:>20} {:>20} {:>7} {:>6}",
            "case", "tidegate", "xdp-filter, all", "ratio", "bound"
        );
        for row in &self.cases {
            let bound = row.bound.map_or_else(|| "-".into(), |bound| format!("{bound:.2}"));
            let _ = writeln!(
                text,
                "{:<32} {:>20} {:>20} {:>7.2} {:>6}",
                row.case,
                row.tidegate_ns.show(),
                row.xdp_filter_ns.show(),
                row.ratio,
                bound
            );
        }
        text
    }

    /// The cases whose ratio is above its bound.
    pub fn above_bound(&self) -> Vec<&'static str> {
        self.cases
            .iter()
            .filter(|row| row.bound.is_some_and(|bound| row.ratio > bound))
            .map(|row| row.case)
            .collect()
    }
}

impl Row {
    fn new(times: &Times<'_>) -> Self {
        let (ours, theirs) = (Spread::of(&times.tidegate_ns), Spread::of(&times.filter_ns));
        let ratio = ours.median / theirs.median;
        Self {
            case: times.case.name,
            tidegate_ns: ours,
            xdp_filter_ns: theirs,
            ratio,
            bound: times.case.bound,
        }
    }
}

impl Spread {
    fn show(&self) -> String {
        format!("{:.0} ({:.0} to {:.0})", self.median, self.min, self.max)
    }
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "?".into(), |text| text.trim().to_owned())
}

fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::{Case, Frames};

    #[test]
    fn the_ratio_is_of_medians_and_held_against_its_bound() {
        let case = Case { name: "x", bound: Some(0.6), frames: Frames::New };
        let times =
            Times { case: &case, tidegate_ns: vec![70.0, 50.0, 900.0], filter_ns: vec![100.0, 99.0, 101.0] };
        let report = Report::new(&[times], 3, 1);
        assert!((report.cases[0].ratio - 0.7).abs() < 1e-9);
        assert_eq!(report.above_bound(), ["x"]);
        assert!(report.table().contains("70 (50 to 900)"), "{}", report.table());
    }
}
