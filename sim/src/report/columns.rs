//! Rows of cells in columns that fit their widest cell, and the terminal.

use super::style::{Style, cut};

/// The width that reports are made for.
pub const WIDTH: usize = 110;
const INDENT: usize = 2;
const GAP: usize = 2;

/// How a cell looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// As it is.
    Plain,
    /// As it should be.
    Good,
    /// Stopped or failed, as it was meant to be.
    Stopped,
    /// Matters less.
    Dim,
}

/// A text and how it looks.
#[derive(Clone, Debug)]
pub struct Cell(pub String, pub Look);

impl Cell {
    /// Plain.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into(), Look::Plain)
    }

    fn paint(&self, text: &str, style: &Style) -> String {
        match self.1 {
            Look::Plain => text.to_string(),
            Look::Good => style.good(text),
            Look::Stopped => style.warn(text),
            Look::Dim => style.dim(text),
        }
    }
}

/// A table. A title that begins with `>` is that of a column of numbers.
pub fn columns(titles: &[&str], rows: &[Vec<Cell>], style: &Style) -> String {
    let right: Vec<bool> = titles.iter().map(|t| t.starts_with('>')).collect();
    let titles: Vec<Cell> =
        titles.iter().map(|t| Cell(t.trim_start_matches('>').to_string(), Look::Dim)).collect();
    let mut widths: Vec<usize> = titles.iter().map(|t| t.0.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.0.chars().count());
        }
    }
    fit(&mut widths, &right);
    let mut out = String::new();
    for row in std::iter::once(&titles).chain(rows) {
        let mut line = " ".repeat(INDENT);
        let mut blanks = 0;
        for ((cell, &width), &right) in row.iter().zip(&widths).zip(&right) {
            let text = cut(&cell.0, width);
            let padding = width - text.chars().count();
            let before = if right { padding } else { 0 };
            // Blanks are written before the next text only, so that no line ends in them.
            if !text.is_empty() {
                line += &" ".repeat(blanks + before);
                line += &cell.paint(&text, style);
                blanks = padding - before + GAP;
            } else {
                blanks += width + GAP;
            }
        }
        out += &line;
        out.push('\n');
    }
    out
}

/// Takes from the widest text columns what the terminal has not.
fn fit(widths: &mut [usize], right: &[bool]) {
    let room = WIDTH - INDENT - GAP * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() > room {
        let widest = widths.iter_mut().zip(right).filter(|(_, right)| !**right).map(|(w, _)| w).max();
        match widest {
            Some(width) if *width > 8 => *width -= 1,
            _ => break,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_in_text() {
        let rows = vec![
            vec![Cell::new("orders"), Cell::new("7"), Cell::new("x")],
            vec![Cell::new("payments"), Cell::new("1234"), Cell::new("")],
        ];
        let table = columns(&["FROM", ">N", ""], &rows, &Style::plain());
        assert_eq!(table, "  FROM         N\n  orders       7  x\n  payments  1234\n");
    }

    #[test]
    fn what_is_too_wide_is_cut() {
        let rows = vec![vec![Cell::new("a".repeat(200)), Cell::new("12")]];
        let table = columns(&["LONG", ">N"], &rows, &Style::plain());
        assert!(table.lines().all(|l| l.chars().count() <= WIDTH), "{table}");
        assert!(table.contains("…  12"), "{table}");
    }
}
