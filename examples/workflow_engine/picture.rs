//! Memory over time as one self-contained HTML file: charts by tenant and by component, a table of the reclaimed
//! memory, and the report.

use crate::{
    chart::{Chart, Escaped, Layer, level_colour},
    engine::COMPONENTS,
    report::{UNUSED, size},
    timeline::{LAYERS, OTHERS, SHARED, Sample, TENANTS, Timeline, tenants},
};
use nebula_memory::{PressureLevel, budget::NodeSnapshot};
use std::fmt;

/// The most points of a chart: more of them than pixels would not be visible.
const POINTS: usize = 480;

/// The most rows of the table.
const ROWS: usize = 12;

/// The colours of the layers, from the bottom. Colour-blind readers can tell them apart (Okabe and Ito, 2008).
const COMPONENT_COLOURS: [&str; LAYERS] =
    ["#999999", "#cc79a7", "#e69f00", "#56b4e9", "#009e73", "#e0e0e0"];
const TENANT_COLOURS: [&str; TENANTS] = ["#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#f0e442"];
const OTHERS_COLOUR: &str = "#b0b0b0";
const SHARED_COLOUR: &str = "#7a7a7a";

const STYLE: &str = "\
:root{color-scheme:light dark;--back:#fff;--text:#1a1a1a;--grid:#ccc;--limit:#a83800}\n\
@media(prefers-color-scheme:dark){:root{--back:#16191d;--text:#e8e8e8;--grid:#444b54;--limit:#ff9d66}}\n\
@media print{:root{--back:#fff;--text:#000;--grid:#ccc;--limit:#a83800}\
pre{white-space:pre-wrap}figure,table{break-inside:avoid}}\n\
body{font:16px/1.4 sans-serif;max-width:64rem;margin:1rem auto;padding:0 1rem;\
background:var(--back);color:var(--text)}\n\
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:1rem}\n\
figure{margin:0}figcaption{font-weight:bold}\n\
svg{width:100%;height:auto;display:block;font:12px sans-serif}\
svg text{fill:var(--text)}svg .grid{stroke:var(--grid)}\
svg line.limit{stroke:var(--limit);stroke-width:2}svg text.limit{fill:var(--limit);\
stroke:var(--back);stroke-width:3;paint-order:stroke}\
svg .resident{fill:none;stroke:var(--text);stroke-width:1.5}\n\
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;list-style:none;padding:0;margin:.3rem 0;\
font-size:.85rem}.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.4em;\
border:1px solid var(--grid);-webkit-print-color-adjust:exact;print-color-adjust:exact}\
.legend li{overflow-wrap:anywhere}\n\
table{border-collapse:collapse;margin:1rem 0}caption{font-weight:bold;text-align:left}\
th,td{text-align:left;padding:.1rem 1rem .1rem 0;border-bottom:1px solid var(--grid);\
overflow-wrap:anywhere}td:last-child,th:last-child{text-align:right;padding-right:0}\n\
pre{overflow-x:auto;font-size:.85rem}";

/// The data of a picture.
pub(crate) struct Picture<'t> {
    pub(crate) timeline: &'t Timeline,
    /// `None` if there was no ledger.
    pub(crate) limit: Option<u64>,
    /// The report, shown below the charts.
    pub(crate) text: String,
}

impl fmt::Display for Picture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>Memory over time</title>\n<style>{STYLE}</style>\n<main>\n\
             <h1>Memory over time</h1>\n<div class=\"charts\">\n",
        )?;
        let samples = thin(&self.timeline.samples);
        let description = self.description(&samples);
        if self.limit.is_some() {
            self.figure(f, ("tenants", "By tenant"), &description, &samples, self.tenants())?;
            self.figure(f, ("components", "By component"), &description, &samples, components())?;
        } else {
            self.figure(f, ("process", "The process"), &description, &samples, Vec::new())?;
        }
        f.write_str("</div>\n")?;
        if self.limit.is_some() {
            self.sentences(f)?;
            self.reclaimed(f)?;
        }
        write!(f, "<h2>Report</h2>\n<pre>{}</pre>\n</main>\n</html>\n", Escaped(&self.text))
    }
}

impl Picture<'_> {
    /// Returns the layers by tenant: what belongs to none, the largest tenants, and the others.
    fn tenants(&self) -> Vec<Layer<'_>> {
        let largest = &self.timeline.largest;
        let part = |name, colour, part: usize| Layer {
            name,
            colour,
            bytes: Box::new(move |sample: &Sample| sample.by_tenant[part]),
        };
        let mut layers = vec![part("shared", SHARED_COLOUR, SHARED)];
        let ones = largest.places().into_iter().zip(TENANT_COLOURS);
        layers.extend(ones.map(|(place, colour)| part(&largest.names[place], colour, place)));
        if self.timeline.samples.iter().any(|sample| sample.by_tenant[OTHERS] > 0) {
            layers.push(part("other tenants", OTHERS_COLOUR, OTHERS));
        }
        layers
    }

    fn figure(
        &self,
        f: &mut fmt::Formatter<'_>,
        (id, title): (&str, &str),
        description: &str,
        samples: &[Sample],
        layers: Vec<Layer<'_>>,
    ) -> fmt::Result {
        let marks: Vec<_> = layers.iter().map(|layer| (layer.name, layer.colour)).collect();
        let limit = self.limit;
        let chart = Chart { id, title, description, samples, layers, limit };
        write!(f, "<figure>\n<figcaption>{title}</figcaption>\n{chart}")?;
        legend(f, "", marks.into_iter().chain([("resident", "var(--text)")]))?;
        if limit.is_some() {
            let levels = PressureLevel::ALL.iter();
            let levels = levels.map(|&level| (level.as_str(), level_colour(level)));
            legend(f, "pressure:", levels)?;
        }
        f.write_str("</figure>\n")
    }

    /// Returns the description of the charts for readers who do not see them.
    fn description(&self, samples: &[Sample]) -> String {
        let most = |bytes: fn(&Sample) -> u64| size(samples.iter().map(bytes).max().unwrap_or(0));
        let resident = most(|sample| sample.resident);
        let Some(limit) = self.limit else {
            return format!("At most {resident} were resident.");
        };
        let (peak, limit) = (most(Sample::total), size(limit));
        let mut text =
            format!("At most {peak} of {limit} were on the ledger, and {resident} resident.");
        let largest = &self.timeline.largest;
        if let Some(&place) = largest.places().first() {
            let (name, peak) = (&largest.names[place], size(largest.peaks[place] as u64));
            text += &format!(" The largest tenant, {name}, had at most {peak}.");
        }
        text.extend(self.timeline.pressure().map(|line| format!(" Pressure was {line}.")));
        text
    }

    fn sentences(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "<p>The height of a stack is the ledger's total. Its parts are read one after the other: \
             where memory moved meanwhile, the upper ones are cut to fit.</p>\n",
        )?;
        let Some(last) = self.timeline.samples.last().filter(|last| last.resident > 0) else {
            return Ok(());
        };
        let (resident, total) = (size(last.resident), size(last.total()));
        let above = size(last.resident.saturating_sub(last.total()));
        writeln!(
            f,
            "<p>At the end {resident} were resident, and {total} were on the ledger. The {above} \
             between them are code, stacks, free memory that the heap keeps, and what nobody \
             reserved.</p>",
        )
    }

    /// Writes a table of the reclaimed bytes of each component of a tenant.
    fn reclaimed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(last) = &self.timeline.last else { return Ok(()) };
        let mut rows = reclaimed(&last.root);
        if rows.is_empty() {
            return f.write_str("<p>Nothing was reclaimed.</p>\n");
        }
        let rest = rows.split_off(rows.len().min(ROWS));
        f.write_str(
            "<table>\n<caption>Reclaimed, from whom</caption>\n<tr><th scope=\"col\">tenant\
             <th scope=\"col\">component<th scope=\"col\">bytes\n",
        )?;
        for (tenant, component, bytes) in rows {
            let (tenant, component) = (Escaped(tenant), Escaped(component));
            let bytes = size(bytes);
            writeln!(f, "<tr><th scope=\"row\">{tenant}<td>{component}<td>{bytes}")?;
        }
        if !rest.is_empty() {
            let bytes = size(rest.iter().map(|(.., bytes)| bytes).sum());
            writeln!(f, "<tr><th scope=\"row\">others<td>{} more<td>{bytes}", rest.len())?;
        }
        f.write_str("</table>\n")
    }
}

fn components() -> Vec<Layer<'static>> {
    let names = COMPONENTS.into_iter().chain([UNUSED]).zip(COMPONENT_COLOURS).enumerate();
    let layer = |(part, (name, colour)): (usize, (&'static str, &'static str))| Layer {
        name,
        colour,
        bytes: Box::new(move |sample: &Sample| sample.used[part]),
    };
    names.map(layer).collect()
}

/// Returns the tenants and components that memory was reclaimed from, the most bytes first.
fn reclaimed(root: &NodeSnapshot) -> Vec<(&str, &str, u64)> {
    let shared = root.children.iter().filter(|node| node.name != "tenants");
    let shared = shared.map(|node| ("shared", node));
    let tenants = tenants(root);
    let owned =
        tenants.flat_map(|tenant| tenant.children.iter().map(|node| (tenant.name.as_str(), node)));
    let rows =
        shared.chain(owned).map(|(owner, node)| (owner, node.name.as_str(), node.usage.reclaimed));
    let mut rows: Vec<_> = rows.filter(|(.., bytes)| *bytes > 0).collect();
    rows.sort_by_key(|(.., bytes)| std::cmp::Reverse(*bytes));
    rows
}

fn legend<'t>(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    marks: impl Iterator<Item = (&'t str, &'t str)>,
) -> fmt::Result {
    f.write_str("<ul class=\"legend\">")?;
    if !title.is_empty() {
        write!(f, "<li>{title}</li>")?;
    }
    for (name, colour) in marks {
        let name = Escaped(name);
        write!(f, "<li><i style=\"background:{colour}\"></i>{name}</li>")?;
    }
    f.write_str("</ul>\n")
}

/// Returns at most [`POINTS`] samples. Each is the worst of the samples that it replaces.
fn thin(samples: &[Sample]) -> Vec<Sample> {
    let each = samples.len().div_ceil(POINTS).max(1);
    samples.chunks(each).filter_map(|few| few.iter().copied().reduce(Sample::worst)).collect()
}

#[cfg(test)]
mod tests {
    use super::{LAYERS, Picture, SHARED, Sample, Timeline, thin};
    use crate::timeline::Largest;
    use nebula_memory::{PressureLevel, integration::monitoring::PressureCause};
    use std::time::Duration;

    #[test]
    fn thinning_keeps_the_peak() {
        let mut samples = vec![Sample::default(); 10_000];
        samples[7777].resident = 9;
        let thinned = thin(&samples);
        assert!(thinned.len() <= 480);
        assert_eq!(thinned.iter().map(|sample| sample.resident).max(), Some(9));
    }

    #[test]
    fn a_picture_shows_the_records_and_escapes_names() {
        let html = picture(Some(8 << 20), 100);
        assert_eq!(html.matches("<polygon").count(), LAYERS + 3, "shared and two tenants");
        assert_eq!(html.matches("stroke-dasharray").count(), 2);
        assert!(html.contains(">limit 8.0 MiB<") && html.contains(">pressure:<"), "{html}");
        assert!(html.contains("The largest tenant, &lt;b&gt;, had at most 3.0 MiB."), "{html}");
        let pressure = "Pressure was critical for 0.05 s, most often: 3 requests wait.</desc>";
        assert_eq!(html.matches(pressure).count(), 2, "{html}");
        assert!(html.contains("&lt;b&gt;") && !html.contains("<b>"));
        assert!(!html.contains("NaN") && !html.contains("inf"));
    }

    /// Browsers leave out backgrounds in print, and the swatches of the legends are backgrounds.
    #[test]
    fn a_printed_legend_keeps_its_colours() {
        let html = picture(Some(8 << 20), 100);
        let rule = html.split_once(".legend i{").unwrap().1.split_once('}').unwrap().0;
        assert!(rule.contains(";print-color-adjust:exact"), "{rule}");
        assert!(rule.contains(";-webkit-print-color-adjust:exact"), "{rule}");
    }

    #[test]
    fn without_a_ledger_only_resident_memory_is_drawn() {
        let html = picture(None, 100);
        assert_eq!(html.matches("<polyline").count(), 1);
        let body = html.split_once("</style>").unwrap().1;
        assert!(["<polygon", "pressure", "limit", "lists"].iter().all(|it| !body.contains(it)));
    }

    #[test]
    fn no_two_ticks_of_time_look_the_same() {
        for milliseconds in [0, 1, 30, 999, 1000, 90_000] {
            let html = picture(None, milliseconds);
            let mut ticks: Vec<_> = html.lines().filter(|line| line.contains("time")).collect();
            ticks.retain(|tick| tick.starts_with("<text"));
            ticks.iter_mut().for_each(|tick| *tick = tick.rsplit_once("\">").unwrap().1);
            ticks.dedup();
            assert_eq!(ticks.len(), 4, "{ticks:?}");
        }
    }

    /// Draws three samples, of which the last is at `milliseconds`. From the second on, requests wait.
    fn picture(limit: Option<u64>, milliseconds: u64) -> String {
        let samples = [0, milliseconds / 2, milliseconds].map(|at| Sample {
            at: Duration::from_millis(at),
            used: [1 << 20; LAYERS],
            by_tenant: {
                let mut parts = [0; SHARED + 1];
                (parts[0], parts[1], parts[SHARED]) = (1 << 20, 3 << 20, 2 << 20);
                parts
            },
            resident: 9 << 20,
            level: if at == 0 { PressureLevel::Normal } else { PressureLevel::Critical },
            cause: (at > 0).then_some(PressureCause::Waiting(3)),
        });
        let peaks = [0; LAYERS];
        let mut largest = Largest::default();
        (largest.names[0], largest.peaks[0]) = ("small".into(), 1 << 20);
        (largest.names[1], largest.peaks[1]) = ("<b>".into(), 3 << 20);
        let timeline = Timeline { samples: samples.to_vec(), peaks, largest, last: None };
        Picture { timeline: &timeline, limit, text: "<b>".into() }.to_string()
    }
}
