//! Tables.

use crate::{
    growth::{self, Kind, Line, Unit},
    harness::Target,
};

pub struct Row {
    pub name: &'static str,
    /// Nanoseconds per operation.
    pub least: f64,
    pub median: f64,
    pub instructions: Option<f64>,
}

fn ours(name: &str) -> bool {
    name.starts_with("nebula")
}

/// Whether the subject was written by hand to show the machine's limit. It is not a peer.
fn floor(name: &str) -> bool {
    name.starts_with("floor")
}

fn peer(name: &str) -> bool {
    !ours(name) && !floor(name)
}

/// Returns the row with the least `figure` among the rows that `wanted` accepts.
fn best(
    rows: &[Row],
    wanted: fn(&str) -> bool,
    figure: fn(&Row) -> Option<f64>,
) -> Option<(&str, f64)> {
    rows.iter()
        .filter(|row| wanted(row.name))
        .filter_map(|row| Some((row.name, figure(row)?)))
        .min_by(|a, b| a.1.total_cmp(&b.1))
}

/// Prints a line of a table, in either form.
pub fn line(cells: &[String], widths: &[usize], markdown: bool) {
    let mut text = String::new();
    for (at, (cell, width)) in cells.iter().zip(widths).enumerate() {
        match (markdown, at) {
            (true, _) => text += &format!("| {cell} "),
            (false, 0) => text += &format!("{cell:<width$}"),
            (false, _) => text += &format!(" {cell:>width$}"),
        }
    }
    println!("{text}{}", if markdown { "|" } else { "" });
}

pub fn head(cells: &[&str], widths: &[usize], markdown: bool) {
    let cells: Vec<_> = cells.iter().map(|&cell| cell.to_owned()).collect();
    line(&cells, widths, markdown);
    if markdown {
        println!("|---{}|", "|---:".repeat(cells.len() - 1));
    }
}

pub fn optional(figure: Option<f64>, digits: usize) -> String {
    figure.map_or("-".to_owned(), |figure| format!("{figure:.digits$}"))
}

/// Returns a subject's name as the table shows it. Our name is in bold.
pub fn title(name: &str, markdown: bool) -> String {
    match (ours(name), markdown) {
        (true, true) => format!("**{name}**"),
        (true, false) => format!("> {name}"),
        (false, true) => name.to_owned(),
        (false, false) => format!("  {name}"),
    }
}

/// Returns a target in words, and whether it is met; `None` if a figure is missing.
fn judge(target: Target, rows: &[Row]) -> (String, Option<bool>) {
    let our = best(rows, ours, |row| Some(row.least)).map(|best| best.1);
    match target {
        Target::Most(most) => (format!("<= {}", time(most)), our.map(|our| our <= most)),
        Target::Instructions(most, count) => {
            let counted = best(rows, ours, |row| row.instructions).map(|best| best.1);
            let is_met = our.map(|our| our <= most && counted.is_none_or(|our| our <= count));
            (format!("<= {} [{count:.0}]", time(most)), is_met)
        }
        Target::Floor(times, floor) => {
            let floors = rows.iter().find(|row| row.name == floor).map(|row| row.least);
            let is_met = our.zip(floors).map(|(our, floor)| our <= times * floor);
            (format!("<= {times} x {floor}"), is_met)
        }
    }
}

/// Says in a word whether a target is met.
const fn verdict(is_met: Option<bool>) -> &'static str {
    match is_met {
        Some(true) => "met",
        Some(false) => "missed",
        None => "-",
    }
}

/// Prints a time in nanoseconds with its unit, in three digits.
fn time(nanos: f64) -> String {
    scaled(nanos, 1e3, &["ns", "us", "ms", "s"])
}

fn scaled(mut figure: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while figure >= step && unit + 1 < units.len() {
        figure /= step;
        unit += 1;
    }
    let digits = match figure {
        ..10.0 if figure.fract() != 0.0 => 2,
        ..100.0 if figure.fract() != 0.0 => 1,
        _ => 0,
    };
    format!("{figure:.digits$} {}", units[unit])
}

fn figure(unit: Unit, figure: f64) -> String {
    match unit {
        Unit::Time => time(figure),
        Unit::Load => format!("{figure:.1} ms/s"),
        Unit::Bytes => format!("{figure:.0} B"),
    }
}

/// Returns the lowest figure of a peer at a size.
fn best_peer(lines: &[Line], size: usize) -> Option<f64> {
    let peers = lines.iter().filter(|line| peer(line.name));
    peers.filter_map(|line| line.figures.get(&size).copied()).min_by(f64::total_cmp)
}

/// Returns the target of a line in words, and whether it is met; `None` if a figure is missing.
fn judge_growth(kind: &Kind, line: &Line, lines: &[Line]) -> (String, Option<bool>) {
    let at = |size: usize| line.figures.get(&size).copied();
    match line.target {
        None => ("-".to_owned(), None),
        Some(growth::Target::Most(most, size)) => {
            let is_met = at(size).map(|figure| figure <= most);
            (format!("<= {} at {size}", figure(kind.unit, most)), is_met)
        }
        Some(growth::Target::Instructions(most, size, count)) => {
            let is_few = line.instructions.is_none_or(|instructions| instructions <= count);
            let is_met = at(size).map(|figure| figure <= most && is_few);
            (format!("<= {} [{count:.0}] at {size}", figure(kind.unit, most)), is_met)
        }
        Some(growth::Target::Growth(times, size)) => {
            let first = kind.sizes.first().and_then(|&first| at(first));
            let is_met = at(size).zip(first).map(|(figure, first)| figure <= times * first);
            (format!("<= {times} x that of {} at {size}", kind.sizes[0]), is_met)
        }
        Some(growth::Target::Peer(times, sizes)) => {
            let is_met =
                sizes.iter().map(|&size| Some(at(size)? <= times * best_peer(lines, size)?));
            let is_met = is_met.collect::<Option<Vec<_>>>();
            let names: Vec<_> = sizes.iter().map(ToString::to_string).collect();
            let text = format!("<= {times} x the peer at {}", names.join(", "));
            (text, is_met.map(|all| all.iter().all(|is_met| *is_met)))
        }
    }
}

/// Prints a case with a column for each size. `growth` is the ratio of the largest size to the smallest. `to
/// peer` is the ratio to the best peer at the largest size that both have.
pub fn growth(kind: &Kind, lines: &[Line], markdown: bool) {
    let about = format!("{}: {}; a column for each number of {}", kind.name, kind.about, kind.of);
    println!("\n{}{about}{}", if markdown { "### " } else { "" }, if markdown { "\n" } else { "" });
    let is_wanted = |size: &&usize| lines.iter().any(|line| line.figures.contains_key(size));
    let sizes: Vec<usize> = kind.sizes.iter().filter(is_wanted).copied().collect();
    let mut widths = vec![36];
    widths.extend(sizes.iter().map(|_| 9));
    widths.extend([8, 8, 8, 34, 7]);
    let names: Vec<_> = sizes.iter().map(ToString::to_string).collect();
    let mut words = vec!["subject"];
    words.extend(names.iter().map(String::as_str));
    words.extend(["growth", "to peer", "instr", "target", "is"]);
    head(&words, &widths, markdown);
    for row in lines {
        let mut cells = vec![title(row.name, markdown)];
        let cell = |size| row.figures.get(size).map_or("-".to_owned(), |&at| figure(kind.unit, at));
        cells.extend(sizes.iter().map(cell));
        let (first, last) = (row.figures.first_key_value(), row.figures.last_key_value());
        let growth = first.zip(last).map(|(first, last)| last.1 / first.1);
        let both = sizes.iter().rev().find_map(|size| {
            let figures = row.figures.get(size).zip(best_peer(lines, *size));
            figures.map(|(figure, peer)| figure / peer)
        });
        let ratio = |ratio: Option<f64>| {
            let ratio = ratio.filter(|ratio| ratio.is_finite());
            ratio.map_or("-".to_owned(), |ratio| scaled(ratio, 1e3, &["x", "kx", "Mx"]))
        };
        let (target, is_met) = judge_growth(kind, row, lines);
        cells.extend([ratio(growth), ratio(both), optional(row.instructions, 0), target]);
        cells.push(verdict(is_met).to_owned());
        line(&cells, &widths, markdown);
    }
}

pub fn case(name: &str, about: &str, rows: &[Row], target: Option<Target>, markdown: bool) {
    const WIDTHS: [usize; 5] = [36, 9, 9, 7, 8];
    if markdown {
        println!("\n### {name}: {about}\n");
    } else {
        println!("\n{name}: {about}");
    }
    head(&["subject", "min ns", "median", "ratio", "instr"], &WIDTHS, markdown);
    let least = best(rows, peer, |row| Some(row.least)).map(|best| best.1);
    let mut sorted: Vec<_> = rows.iter().collect();
    sorted.sort_by(|a, b| a.least.total_cmp(&b.least));
    for row in sorted {
        let cells = [
            title(row.name, markdown),
            format!("{:.2}", row.least),
            format!("{:.2}", row.median),
            optional(least.map(|least| row.least / least), 2),
            optional(row.instructions, 1),
        ];
        line(&cells, &WIDTHS, markdown);
    }
    if let Some((text, is_met)) = target.map(|target| judge(target, rows)) {
        println!("{}target: {text}: {}", if markdown { "\n" } else { "  " }, verdict(is_met));
    }
}

/// Prints our subject against the best peer, a line for each case.
pub fn summary(cases: &[(&str, Vec<Row>, Option<Target>)], markdown: bool) {
    const WIDTHS: [usize; 11] = [9, 24, 9, 26, 9, 7, 9, 9, 9, 24, 7];
    let words = [
        "case",
        "ours",
        "min ns",
        "best peer",
        "min ns",
        "ratio",
        "instr",
        "peer's",
        "floor's",
        "target",
        "is",
    ];
    println!(
        "\n{}\n",
        if markdown { "### Ours against the best peer" } else { "ours against the best peer" }
    );
    head(&words, &WIDTHS, markdown);
    for (name, rows, target) in cases {
        let (target, is_met) = target.map_or(("-".to_owned(), None), |target| judge(target, rows));
        let least = |wanted| best(rows, wanted, |row| Some(row.least));
        let count = |wanted| best(rows, wanted, |row| row.instructions).map(|best| best.1);
        let (our, their) = (least(ours), least(peer));
        let ratio = our.zip(their).map(|(our, their)| our.1 / their.1);
        let name_of = |best: Option<(&str, f64)>| best.map_or("-", |best| best.0).to_owned();
        let cells = [
            (*name).to_owned(),
            name_of(our),
            optional(our.map(|our| our.1), 2),
            name_of(their),
            optional(their.map(|their| their.1), 2),
            optional(ratio, 2),
            optional(count(ours), 1),
            optional(count(peer), 1),
            optional(count(floor), 1),
            target,
            verdict(is_met).to_owned(),
        ];
        line(&cells, &WIDTHS, markdown);
    }
}
