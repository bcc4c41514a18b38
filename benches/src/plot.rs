//! Plots of a report, as SVG text: ratios on one axis with what is wanted of them, and curves of cost against size.
//! Both axes are logarithmic: what is twice as much is as far apart everywhere.

use crate::report::{Bound, Curve, Report, Row, figure};
use std::fmt::Write;

const WIDTH: f64 = 860.0;
const STYLE: &str = "<style>text{font:13px sans-serif;fill:#222}.small{font-size:11px;fill:#666}.title{font-size:15px;\
                     font-weight:bold}.grid{stroke:#ddd}.one{stroke:#666}.wanted{stroke:#06c;stroke-width:3}</style>";
const COLOURS: [&str; 4] = ["#06c", "#c40", "#083", "#808"];

/// Names for files and their contents.
pub fn all(report: &Report) -> Vec<(String, String)> {
    let mut plots = Vec::new();
    let compared: Vec<&Row> = report.rows.iter().filter(|row| row.wanted.is_some()).collect();
    if !compared.is_empty() {
        plots.push((String::new(), ratios(report, &compared)));
    }
    let mut kinds: Vec<&str> = report.curves.iter().map(|curve| curve.size_of).collect();
    kinds.dedup();
    for kind in kinds {
        let curves: Vec<&Curve> = report.curves.iter().filter(|curve| curve.size_of == kind).collect();
        plots.push((format!("-{kind}"), against_size(report, kind, &curves)));
    }
    plots
}

/// A logarithmic axis from `least` to `most`, laid on pixels.
struct Axis {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// Wide enough for all values, from one power of ten's 1, 2 or 5 to another's.
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let positive = values.filter(|value| value.is_finite() && *value > 0.0);
        let (least, most) = positive.fold((f64::MAX, 0.0), |(a, b), v| (f64::min(a, v), f64::max(b, v)));
        let ticks: Vec<f64> = ticks().collect();
        let below = ticks.iter().rev().find(|tick| **tick <= least).copied().unwrap_or(0.01);
        let above = ticks.iter().find(|tick| **tick >= most && **tick > below).copied().unwrap_or(1e8);
        Self { least: below, most: above, from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value / self.least).ln() / (self.most / self.least).ln();
        self.from + share * (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let wide = self.most / self.least > 1e3;
        let (least, most) = (self.least * 0.999, self.most * 1.001);
        let decade = |tick: f64| (tick.log10() - tick.log10().round()).abs() < 1e-9;
        ticks().filter(move |tick| *tick >= least && *tick <= most && (!wide || decade(*tick)))
    }
}

fn ticks() -> impl Iterator<Item = f64> {
    (-3..9).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)))
}

fn open(height: f64, report: &Report, title: &str) -> String {
    let machine = &report.machine;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\">\n\
         {STYLE}\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text class=\"title\" x=\"12\" y=\"22\">{}</text>\n<text class=\"small\" x=\"12\" y=\"40\">{}</text>\n\
         <text class=\"small\" x=\"12\" y=\"55\">{}</text>\n",
        escape(title),
        escape(&format!("{}, medians of {} rounds", report.command, report.rounds)),
        escape(&machine.to_string()),
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A row a case: a dot for the median of the ratios, a line for their quarters, a mark for what is wanted.
fn ratios(report: &Report, rows: &[&Row]) -> String {
    const ROW: f64 = 26.0;
    let (left, top) = (360.0, 90.0);
    let bottom = top + ROW * rows.len() as f64;
    let mut svg = open(bottom + 30.0, report, report.title);
    let bound = |row: &Row| match row.wanted {
        Some(Bound::AtMost(value) | Bound::AtLeast(value)) => value,
        None => 1.0,
    };
    let values = rows.iter().flat_map(|row| [row.ratio.lower, row.ratio.upper, bound(row), 1.0]);
    let axis = Axis::over(values, left, WIDTH - 120.0);
    for tick in axis.ticks() {
        let (x, class) = (axis.at(tick), if tick == 1.0 { "one" } else { "grid" });
        let _ = writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>\
             <text class=\"small\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick}</text>",
            bottom + 16.0
        );
    }
    let y = top - 10.0;
    let _ = writeln!(
        svg,
        "<text class=\"small\" x=\"{left}\" y=\"{y}\">ratio: dot the median, line the middle half of the rounds, \
         blue what is wanted</text>"
    );
    for (index, row) in rows.iter().enumerate() {
        let y = top + ROW * (index as f64 + 0.5);
        let colour = if row.ok { "#083" } else { "#c20" };
        let (x, wanted) = (axis.at(row.ratio.median), axis.at(bound(row)));
        let _ = writeln!(
            svg,
            "<text x=\"12\" y=\"{:.1}\">{}</text>\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <line class=\"wanted\" x1=\"{wanted:.1}\" x2=\"{wanted:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            y + 4.0,
            escape(&row.case),
            axis.at(row.ratio.lower),
            axis.at(row.ratio.upper),
            y - 9.0,
            y + 9.0,
            WIDTH - 104.0,
            y + 4.0,
            format_args!("{:.2}{}", row.ratio.median, if row.ok { "" } else { " missed" }),
        );
    }
    svg + "</svg>\n"
}

fn against_size(report: &Report, kind: &str, curves: &[&Curve]) -> String {
    let (left, right, top, bottom) = (70.0, WIDTH - 240.0, 75.0, 400.0);
    let unit = curves.first().map_or("", |curve| curve.unit);
    let mut svg = open(bottom + 50.0, report, &format!("Cost of a packet ({unit}) by {kind}"));
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let across = Axis::over(points().map(|point| point.0), left, right);
    let up = Axis::over(points().map(|point| point.1), bottom, top);
    for tick in across.ticks() {
        let x = across.at(tick);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>\
             <text class=\"small\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 16.0,
            round(tick)
        );
    }
    for tick in up.ticks() {
        let y = up.at(tick);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"small\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 8.0,
            y + 4.0,
            round(tick)
        );
    }
    let _ = writeln!(svg, "<text x=\"{left}\" y=\"{:.1}\">{kind}</text>", bottom + 38.0);
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let places: Vec<(f64, f64)> = curve.points.iter().map(|(x, y)| (across.at(*x), up.at(*y))).collect();
        let line: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            line.join(" ")
        );
        for (x, y) in &places {
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
        }
    }
    svg += &names(curves, &up, right + 12.0, unit);
    svg + "</svg>\n"
}

/// The curves' names, beside where they end, a line apart at least.
fn names(curves: &[&Curve], up: &Axis, x: f64, unit: &str) -> String {
    let mut svg = String::new();
    let end = |curve: &Curve| curve.points.last().map_or(f64::NAN, |point| point.1);
    let mut order: Vec<_> = curves.iter().zip(COLOURS.iter().cycle()).collect();
    order.sort_by(|(a, _), (b, _)| end(b).total_cmp(&end(a)));
    let mut free = 0.0;
    for (curve, colour) in order {
        let y = f64::max(up.at(end(curve)) + 4.0, free);
        free = y + 14.0;
        let label = escape(&format!("{}: {} {unit}", curve.name, figure(end(curve))));
        let _ = writeln!(
            svg,
            "<text class=\"small\" x=\"{x:.1}\" y=\"{y:.1}\" style=\"fill:{colour}\">{label}</text>"
        );
    }
    svg
}

/// A tick's number without zeros behind the point.
fn round(tick: f64) -> String {
    match tick {
        tick if tick >= 1e6 => format!("{} M", tick / 1e6),
        tick if tick >= 1e4 => format!("{} k", tick / 1e3),
        tick => format!("{tick}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Series;

    #[test]
    fn an_axis_is_as_long_as_its_values_need() {
        let axis = Axis::over([0.3, 7.0].into_iter(), 0.0, 100.0);
        assert_eq!((axis.least, axis.most), (0.2, 10.0));
        assert!((axis.at(0.2)).abs() < 1e-9 && (axis.at(10.0) - 100.0).abs() < 1e-9);
        assert_eq!(axis.ticks().collect::<Vec<_>>(), [0.2, 0.5, 1.0, 2.0, 5.0, 10.0]);
    }

    #[test]
    fn a_report_has_one_plot_of_ratios_and_one_for_each_thing_that_grows() {
        let mut report = Report::new("a < b", "cargo xtask bench", 1);
        let series = Series { name: "x".into(), values: vec![2.0] };
        report.rows.push(Row::new("case", "ns", &series, &series, (Some(Bound::AtMost(0.5)), None)));
        let points = vec![(1.0, 10.0), (1_000.0, 12.0)];
        report.curves.push(Curve { name: "path".into(), size_of: "rules", unit: "ns", points });
        let plots = all(&report);
        assert_eq!(plots.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["", "-rules"]);
        assert!(plots[0].1.contains("a &lt; b") && plots[0].1.contains("1.00 missed"));
        assert!(plots[1].1.contains("path: 12.0 ns"));
    }
}
