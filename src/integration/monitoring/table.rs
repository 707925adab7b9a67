//! The snapshot as text.

use super::MemorySnapshot;
use crate::{
    advanced::budget::NodeSnapshot,
    core::types::{ByteSize, Visible, human},
};
use core::{cmp::Reverse, fmt};
use std::{
    collections::BTreeMap,
    format,
    string::{String, ToString},
    vec::Vec,
};

const HEADER: [&str; COLUMNS] =
    ["budget", "used", "peak", "limit", "guarantee", "reclaimable", "reclaimed", "refused"];
const COLUMNS: usize = 8;

/// The largest number of children of a node that have a row. The rest share one, unless all are asked for with `#`.
const CHILDREN: usize = 20;

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
        let most = if f.alternate() { usize::MAX } else { CHILDREN };
        rows.push(row(&self.root, name_at(0, &self.root.name)));
        collect(&self.root.children, 1, most, &mut rows);
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
    beside_at(1, name, bytes)
}

fn beside_at(depth: usize, name: &str, bytes: String) -> [String; COLUMNS] {
    let mut row = [(); COLUMNS].map(|()| "-".to_string());
    row[0] = name_at(depth, name);
    row[1] = bytes;
    row
}

/// Adds the rows of siblings and of the nodes below them: the largest first, and at most `most` of each level.
fn collect(
    siblings: &[NodeSnapshot],
    depth: usize,
    most: usize,
    rows: &mut Vec<[String; COLUMNS]>,
) {
    let mut counts = BTreeMap::<&str, usize>::new();
    for node in siblings {
        *counts.entry(&node.name).or_default() += 1;
    }
    let mut ordered: Vec<_> = siblings.iter().collect();
    // Stable: nodes of the same size are in the order in which they were made.
    ordered.sort_by_key(|node| Reverse(node.usage.used));
    // A row for one node alone would save nothing.
    let shown = if ordered.len() <= most.saturating_add(1) { ordered.len() } else { most };
    let (shown, others) = ordered.split_at(shown);
    for node in shown {
        let mut name = name_at(depth, &node.name);
        if counts[node.name.as_str()] > 1 {
            name += &format!(" ({})", node.id);
        }
        rows.push(row(node, name));
        collect(&node.children, depth + 1, most, rows);
    }
    if !others.is_empty() {
        let used = others.iter().fold(0, |sum: usize, node| sum.saturating_add(node.usage.used));
        let name = format!("{} others", others.len());
        rows.push(beside_at(depth, &name, human(used).to_string()));
    }
}

fn row(node: &NodeSnapshot, name: String) -> [String; COLUMNS] {
    let reclaimable =
        node.managers.iter().fold(0, |sum: usize, manager| sum.saturating_add(manager.reclaimable));
    [
        name,
        human(node.usage.used).to_string(),
        human(node.usage.peak).to_string(),
        size_or_dash(node.usage.capacity),
        bytes_or_dash(node.guarantee),
        bytes_or_dash(reclaimable),
        node.usage.reclaimed.try_into().map_or_else(|_| "-".to_string(), bytes_or_dash),
        node.usage.refused.to_string(),
    ]
}

/// Returns a name as a cell: indented, on one line, and cut to [`NAME_MAX`] characters.
fn name_at(depth: usize, name: &str) -> String {
    let mut cell = " ".repeat(2 * depth);
    let name = Visible(name).to_string();
    match name.char_indices().nth(NAME_MAX) {
        None => cell += &name,
        Some(_) => {
            cell.extend(name.chars().take(NAME_MAX - 1));
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
