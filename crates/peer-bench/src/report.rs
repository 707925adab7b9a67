//! Tables.

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

/// Written by hand to show what the machine allows; not a peer.
fn floor(name: &str) -> bool {
    name.starts_with("floor")
}

fn peer(name: &str) -> bool {
    !ours(name) && !floor(name)
}

/// The row that is least by `figure` among those that `wanted` lets through.
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

/// A line of a table, in either form.
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

/// `what`, the way a table names it: ours stands out.
pub fn title(name: &str, markdown: bool) -> String {
    match (ours(name), markdown) {
        (true, true) => format!("**{name}**"),
        (true, false) => format!("> {name}"),
        (false, true) => name.to_owned(),
        (false, false) => format!("  {name}"),
    }
}

pub fn case(name: &str, about: &str, rows: &[Row], markdown: bool) {
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
}

/// Ours against the best peer, a line for each case.
pub fn summary(cases: &[(&str, Vec<Row>)], markdown: bool) {
    const WIDTHS: [usize; 9] = [9, 24, 9, 26, 9, 7, 9, 9, 9];
    let words =
        ["case", "ours", "min ns", "best peer", "min ns", "ratio", "instr", "peer's", "floor's"];
    println!(
        "\n{}\n",
        if markdown { "### Ours against the best peer" } else { "ours against the best peer" }
    );
    head(&words, &WIDTHS, markdown);
    for (name, rows) in cases {
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
        ];
        line(&cells, &WIDTHS, markdown);
    }
}
