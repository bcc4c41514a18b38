//! What the user sees: JSON, an object a line, or a table.

use super::connection_record::ConnectionRecord;
use super::packet_record::PacketRecord;
use std::io::{self, Write};

pub use crate::view::Format;

/// Writes one frame.
pub fn packet(out: &mut impl Write, format: Format, record: &PacketRecord) -> io::Result<()> {
    match format {
        Format::Json => json_line(out, record),
        Format::Table => writeln!(out, "{}", record.line()),
    }
}

/// Writes all connections.
pub fn connections(out: &mut impl Write, format: Format, records: &[ConnectionRecord]) -> io::Result<()> {
    match format {
        Format::Json => records.iter().try_for_each(|record| json_line(out, record)),
        Format::Table => table(out, records),
    }
}

fn json_line(out: &mut impl Write, record: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, record)?;
    out.write_all(b"\n")
}

fn table(out: &mut impl Write, records: &[ConnectionRecord]) -> io::Result<()> {
    let headings = ConnectionRecord::HEADINGS.map(String::from);
    let rows: Vec<_> = std::iter::once(headings).chain(records.iter().map(ConnectionRecord::cells)).collect();
    let widths: Vec<usize> = (0..ConnectionRecord::HEADINGS.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    for row in &rows {
        let line: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", line.join("  ").trim_end())?;
    }
    Ok(())
}
