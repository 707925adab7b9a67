//! The snapshot as text.

use super::MemorySnapshot;
use crate::{
    advanced::budget::NodeSnapshot,
    core::types::{ByteSize, human},
};
use core::fmt;
use std::{
    string::{String, ToString},
    vec::Vec,
};

const HEADER: [&str; COLUMNS] =
    ["budget", "used", "peak", "limit", "guarantee", "reclaimable", "given back", "refused"];
const COLUMNS: usize = 8;

/// The largest number of characters of a name that are shown. Padding to more than 65 535 characters would panic.
const NAME_MAX: usize = 64;

impl fmt::Display for MemorySnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pressure {}", self.level)?;
        if let Some(cause) = self.cause {
            write!(f, " ({cause})")?;
        }
        if let Some(process) = &self.process {
            let (now, peak) = (size(process.resident), size(process.peak_resident));
            write!(f, ", resident {now} (peak {peak})")?;
        }
        if let Some(limit) = self.cgroup.as_ref().and_then(|group| group.limit) {
            write!(f, ", control group limit {}", size(limit))?;
        }
        if let Some(limit) = &self.effective {
            write!(f, ", limit in force {}", size_or_dash(limit.limit))?;
            write!(f, " of {}", size_or_dash(limit.configured))?;
            let held = if limit.at_guarantees { " (guarantees)" } else { "" };
            let refused = if limit.refused { " (refused another)" } else { "" };
            write!(f, "{held}{refused}")?;
            if limit.shortfall > 0 {
                write!(f, " ({} short)", human(limit.shortfall))?;
            }
            if limit.uncertain {
                write!(f, " (uncertain)")?;
            }
        }
        if let Some(full) = self.stall.map(|stall| stall.full_avg10).filter(|&full| full > 0) {
            write!(f, ", stalled {}.{:02} %", full / 100, full % 100)?;
        }
        if let Some(kills) = self.events.map(|events| events.oom_kill).filter(|&kills| kills > 0) {
            write!(f, ", {kills} killed")?;
        }
        writeln!(f)?;
        for (source, error) in &self.unknown {
            writeln!(f, "{source} unknown: {error}")?;
        }
        let mut rows = Vec::new();
        collect(&self.root, 0, &mut rows);
        rows.extend(self.overhead.map(|bytes| beside("overhead", size(bytes).to_string())));
        if self.guaranteed_unused > 0 {
            let bytes = human(self.guaranteed_unused).to_string();
            rows.push(beside("guaranteed, not used", bytes));
        }
        write_table(f, HEADER, &rows)?;
        if self.sources.is_empty() {
            return Ok(());
        }
        let rows = self.sources.iter().map(|source| {
            [
                source.source.to_string(),
                size(source.headroom).to_string(),
                size(source.limit).to_string(),
                source.level.to_string(),
            ]
        });
        write_table(f, ["source", "headroom", "limit", "level"], &rows.collect::<Vec<_>>())
    }
}

fn size_or_dash(bytes: Option<usize>) -> String {
    bytes.map_or_else(|| "-".to_string(), |bytes| human(bytes).to_string())
}

fn size(bytes: u64) -> bytesize::Display {
    ByteSize::b(bytes).display().iec()
}

/// Returns a row with one figure, for something that is not a node.
fn beside(name: &str, bytes: String) -> [String; COLUMNS] {
    let mut row = [(); COLUMNS].map(|()| "-".to_string());
    row[0] = name_at(1, name);
    row[1] = bytes;
    row
}

fn collect(node: &NodeSnapshot, depth: usize, rows: &mut Vec<[String; COLUMNS]>) {
    let reclaimable =
        node.managers.iter().fold(0, |sum: usize, manager| sum.saturating_add(manager.reclaimable));
    rows.push([
        name_at(depth, &node.name),
        human(node.usage.used).to_string(),
        human(node.usage.peak).to_string(),
        size_or_dash(node.usage.capacity),
        bytes_or_dash(node.guarantee),
        bytes_or_dash(reclaimable),
        node.usage.reclaimed.try_into().map_or_else(|_| "-".to_string(), bytes_or_dash),
        node.usage.refused.to_string(),
    ]);
    for child in &node.children {
        collect(child, depth + 1, rows);
    }
}

/// Returns a name as a cell: indented, on one line, and cut to [`NAME_MAX`] characters.
fn name_at(depth: usize, name: &str) -> String {
    let mut cell = " ".repeat(2 * depth);
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    match name.char_indices().nth(NAME_MAX) {
        None => cell.extend(name.chars().map(visible)),
        Some(_) => {
            cell.extend(name.chars().take(NAME_MAX - 1).map(visible));
            cell.push('…');
        }
    }
    cell
}

fn bytes_or_dash(bytes: usize) -> String {
    if bytes == 0 { "-".to_string() } else { human(bytes).to_string() }
}

/// Writes the header and the rows. Aligns the first column to the left and the others to the right.
fn write_table<const N: usize>(
    f: &mut fmt::Formatter<'_>,
    header: [&str; N],
    rows: &[[String; N]],
) -> fmt::Result {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].len()]).max().unwrap_or(0)
    };
    let widths: [usize; N] = core::array::from_fn(width);
    let line = |f: &mut fmt::Formatter<'_>, cells: [&str; N]| {
        for (column, (cell, width)) in cells.into_iter().zip(widths).enumerate() {
            match column {
                0 => write!(f, "{cell:<width$}")?,
                _ => write!(f, "  {cell:>width$}")?,
            }
        }
        writeln!(f)
    };
    line(f, header)?;
    rows.iter().try_for_each(|row| line(f, row.each_ref().map(String::as_str)))
}
