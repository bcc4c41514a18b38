//! What every bench says at its end: a table for people, JSON for plots.

use crate::machine::Machine;
use crate::plot;
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;

/// What a ratio, or a figure without another beside it, has to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Bound {
    /// Whether a value is so.
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    fn show(self) -> String {
        match self {
            Self::AtMost(most) => format!("<= {most:.2}"),
            Self::AtLeast(least) => format!(">= {least:.2}"),
        }
    }
}

/// What the rounds measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// A quarter of the values are less.
    pub lower: f64,
    /// A quarter of them are greater.
    pub upper: f64,
}

impl Spread {
    /// Of the rounds' values.
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        Self {
            median: at(sorted.len() / 2),
            min: at(0),
            max: at(sorted.len().saturating_sub(1)),
            lower: at(sorted.len() / 4),
            upper: at(sorted.len() * 3 / 4),
        }
    }
}

/// One side of a comparison: its name, and a value a round.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Whose values they are.
    pub name: String,
    /// One a round.
    pub values: Vec<f64>,
}

/// A case: what was measured beside what, and what the ratio has to be.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub case: String,
    /// Of the two figures.
    pub unit: &'static str,
    /// Who is measured.
    pub subject: String,
    /// What it took.
    pub measured: Spread,
    /// Beside whom.
    pub reference: String,
    /// What that took.
    pub reference_measured: Spread,
    /// Of the rounds' ratios: a round runs both in turn, so what slows the machine slows both.
    pub ratio: Spread,
    /// What the project wants.
    pub wanted: Option<Bound>,
    /// What `--check` fails on: room for a noisy machine, and for what is not reached yet.
    pub enforced: Option<Bound>,
    /// Whether the median of the ratios is as wanted.
    pub ok: bool,
}

impl Row {
    /// Sums up the rounds.
    pub fn new(
        case: impl Into<String>,
        unit: &'static str,
        subject: &Series,
        reference: &Series,
        (wanted, enforced): (Option<Bound>, Option<Bound>),
    ) -> Self {
        let pairs = subject.values.iter().zip(&reference.values);
        let ratios: Vec<f64> = pairs.map(|(mine, theirs)| mine / theirs).collect();
        let ratio = Spread::of(&ratios);
        Self {
            case: case.into(),
            unit,
            subject: subject.name.clone(),
            measured: Spread::of(&subject.values),
            reference: reference.name.clone(),
            reference_measured: Spread::of(&reference.values),
            ratio,
            wanted,
            enforced,
            ok: wanted.is_none_or(|bound| bound.holds(ratio.median)),
        }
    }
}

/// A measured line of a plot: cost by size.
#[derive(Clone, Debug, Serialize)]
pub struct Curve {
    /// What the line is.
    pub name: String,
    /// What grows.
    pub size_of: &'static str,
    /// What is measured.
    pub unit: &'static str,
    /// Size and median.
    pub points: Vec<(f64, f64)>,
}

/// A figure without another beside it.
#[derive(Clone, Debug, Serialize)]
pub struct Fact {
    /// What it is of.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
    /// What the project wants.
    pub wanted: Option<Bound>,
    /// What `--check` fails on: room for a noisy machine.
    pub enforced: Option<Bound>,
}

impl Fact {
    /// One of which nothing is wanted.
    pub fn of(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, wanted: None, enforced: None }
    }

    /// One that is to be no more than this; times are of the machine, which has room for half of it.
    pub fn at_most(self, most: f64) -> Self {
        Self { wanted: Some(Bound::AtMost(most)), enforced: Some(Bound::AtMost(most * 1.5)), ..self }
    }

    fn verdict(&self) -> &'static str {
        match self.wanted {
            None => "",
            Some(bound) if bound.holds(self.value) => "ok",
            Some(_) => "missed",
        }
    }
}

/// What one run measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What it measures.
    pub title: &'static str,
    /// The command that repeats it.
    pub command: &'static str,
    /// Where and when.
    pub machine: Machine,
    /// Rounds of each case.
    pub rounds: u32,
    /// The comparisons.
    pub rows: Vec<Row>,
    /// The lines of the plots, if it has some.
    pub curves: Vec<Curve>,
    /// Figures that stand alone.
    pub facts: Vec<Fact>,
}

impl Report {
    /// Without results yet.
    pub fn new(title: &'static str, command: &'static str, rounds: u32) -> Self {
        Self {
            title,
            command,
            machine: Machine::here(),
            rounds,
            rows: Vec::new(),
            curves: Vec::new(),
            facts: Vec::new(),
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{}\n{}\nmedians of {} rounds; a ratio is the median of the rounds' ratios (least to greatest)\n\n",
            self.title, self.machine, self.rounds
        );
        let width = self.rows.iter().map(|row| row.case.len()).max().unwrap_or(0);
        for row in &self.rows {
            let (mine, theirs) = (row.measured.median, row.reference_measured.median);
            let figures = format!(
                "{} {} {}, {} {}",
                row.subject,
                figure(mine),
                row.unit,
                row.reference,
                figure(theirs)
            );
            let spread = format!("{:.2} ({:.2} to {:.2})", row.ratio.median, row.ratio.min, row.ratio.max);
            let wanted = row.wanted.map_or_else(|| "-".into(), Bound::show);
            let verdict = match row.wanted {
                None => "",
                Some(_) if row.ok => "ok",
                Some(_) => "MISSED",
            };
            let _ = writeln!(
                text,
                "{:<width$}  measured {spread:<22} wanted {wanted:<8} {verdict:<6}  {figures}",
                row.case
            );
        }
        for curve in &self.curves {
            let points =
                curve.points.iter().map(|(size, value)| format!("{}: {}", figure(*size), figure(*value)));
            let points = points.collect::<Vec<_>>().join(", ");
            let _ = writeln!(text, "{} by {}, {}: {points}", curve.name, curve.size_of, curve.unit);
        }
        for fact in &self.facts {
            let wanted = fact.wanted.map(|bound| {
                format!("  wanted {} {}  {}", bound.show(), fact.unit, fact.verdict().to_uppercase())
            });
            let wanted = wanted.unwrap_or_default();
            let _ = writeln!(text, "{}: {} {}{wanted}", fact.name, figure(fact.value), fact.unit);
        }
        text
    }

    /// For docs/benchmarks.md.
    pub fn markdown(&self) -> String {
        let mut text =
            format!("`{}`, {}, medians of {} rounds.\n\n", self.command, self.machine, self.rounds);
        if !self.rows.is_empty() {
            text += "| Case | Measured | Beside it | Ratio (middle half) | Wanted | Enforced | |\n\
                     | --- | --- | --- | --- | --- | --- | --- |\n";
        }
        let show = |bound: Option<Bound>| bound.map_or_else(|| "-".into(), Bound::show);
        for row in &self.rows {
            let verdict = match (row.wanted, row.ok) {
                (None, _) => "",
                (_, true) => "ok",
                (_, false) => "missed",
            };
            let _ = writeln!(
                text,
                "| {} | {}: {} {} | {}: {} {} | {:.2} ({:.2} to {:.2}) | {} | {} | {verdict} |",
                row.case,
                row.subject,
                figure(row.measured.median),
                row.unit,
                row.reference,
                figure(row.reference_measured.median),
                row.unit,
                row.ratio.median,
                row.ratio.lower,
                row.ratio.upper,
                show(row.wanted),
                show(row.enforced),
            );
        }
        if !self.facts.is_empty() && !self.rows.is_empty() {
            text += "\n";
        }
        let bounded = self.facts.iter().any(|fact| fact.wanted.is_some());
        if !self.facts.is_empty() {
            let (more, line) =
                if bounded { (" Wanted | Enforced | |", " --- | --- | --- |") } else { ("", "") };
            let _ = writeln!(text, "| Figure | |{more}\n| --- | --- |{line}");
        }
        for fact in &self.facts {
            let _ = write!(text, "| {} | {} {} |", fact.name, figure(fact.value), fact.unit);
            if bounded {
                let _ =
                    write!(text, " {} | {} | {} |", show(fact.wanted), show(fact.enforced), fact.verdict());
            }
            text.push('\n');
        }
        text
    }

    /// Prints the table, writes the JSON where it is asked for, table and plots beside it, and says whether everything that is enforced holds.
    pub fn finish(&self, json: Option<&Path>, check: bool) -> Result<bool> {
        print!("{}", self.table());
        if let Some(path) = json {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
            }
            let text = serde_json::to_string_pretty(self).context("writing JSON")?;
            std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
            println!("{}", path.display());
            let table = path.with_extension("md");
            std::fs::write(&table, self.markdown())
                .with_context(|| format!("writing {}", table.display()))?;
            println!("{}", table.display());
            for (name, svg) in plot::all(self) {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                let plot = path.with_file_name(format!("{stem}{name}.svg"));
                std::fs::write(&plot, svg).with_context(|| format!("writing {}", plot.display()))?;
                println!("{}", plot.display());
            }
        }
        let broken = self.broken();
        for (case, bound) in &broken {
            println!("not within what is enforced ({}): {case}", bound.show());
        }
        Ok(broken.is_empty() || !check)
    }

    fn broken(&self) -> Vec<(&str, Bound)> {
        let rows = self.rows.iter().map(|row| (row.case.as_str(), row.ratio.median, row.enforced));
        let facts = self.facts.iter().map(|fact| (fact.name.as_str(), fact.value, fact.enforced));
        let enforced = rows.chain(facts).filter_map(|(what, value, bound)| Some((what, value, bound?)));
        enforced
            .filter(|(_, value, bound)| !bound.holds(*value))
            .map(|(what, _, bound)| (what, bound))
            .collect()
    }
}

/// Three digits or so, whatever the size.
pub fn figure(value: f64) -> String {
    match value {
        v if !v.is_finite() => "-".into(),
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v if v < 100_000.0 => format!("{v:.0}"),
        v if v < 1e6 => format!("{:.0} k", v / 1e3),
        v if v < 100e6 => format!("{:.2} M", v / 1e6),
        v => format!("{:.0} M", v / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, values: &[f64]) -> Series {
        Series { name: name.into(), values: values.to_vec() }
    }

    #[test]
    fn a_ratio_is_taken_in_its_round_and_held_against_both_bounds() {
        // The second round ran on a machine twice as slow: the ratio does not see it.
        let (mine, theirs) = (series("a", &[70.0, 140.0, 72.0]), series("b", &[100.0, 200.0, 100.0]));
        let bounds = (Some(Bound::AtMost(0.6)), Some(Bound::AtMost(0.8)));
        let row = Row::new("x", "ns", &mine, &theirs, bounds);
        assert!((row.ratio.median - 0.7).abs() < 1e-9);
        assert!(!row.ok);
        let mut report = Report::new("t", "c", 3);
        report.rows.push(row.clone());
        assert!(report.broken().is_empty());
        report.rows.push(Row { enforced: Some(Bound::AtLeast(0.9)), ..row });
        assert_eq!(report.broken(), [("x", Bound::AtLeast(0.9))]);
        assert!(report.table().contains("0.70 (0.70 to 0.72)"), "{}", report.table());
        assert!(report.table().contains("MISSED"));
        let line = "| x | a: 72.0 ns | b: 100 ns | 0.70 (0.70 to 0.72) | <= 0.60 | >= 0.90 | missed |";
        assert!(report.markdown().contains(line), "{}", report.markdown());
    }

    #[test]
    fn a_figure_by_itself_is_held_against_both_bounds() {
        let mut report = Report::new("t", "c", 3);
        report.facts = vec![
            Fact::of("held", 4.0, "ms").at_most(5.0),
            Fact::of("missed", 6.0, "ms").at_most(5.0),
            Fact::of("broken", 8.0, "ms").at_most(5.0),
            Fact::of("free", 9.0, "MB"),
        ];
        assert_eq!(report.broken(), [("broken", Bound::AtMost(7.5))]);
        let table = report.table();
        for line in [
            "held: 4.00 ms  wanted <= 5.00 ms  OK",
            "missed: 6.00 ms  wanted <= 5.00 ms  MISSED",
            "free: 9.00 MB",
        ] {
            assert!(table.lines().any(|said| said == line), "{table}");
        }
        let page = report.markdown();
        for line in [
            "| Figure | | Wanted | Enforced | |",
            "| held | 4.00 ms | <= 5.00 | <= 7.50 | ok |",
            "| broken | 8.00 ms | <= 5.00 | <= 7.50 | missed |",
            "| free | 9.00 MB | - | - |  |",
        ] {
            assert!(page.lines().any(|said| said == line), "{page}");
        }
    }
}
